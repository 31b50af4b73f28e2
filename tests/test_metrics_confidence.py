from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fusioncam_core.metrics import drop, gain, increase
from libraries import Library, assert_close, framework

PLAIN = [0.8, 0.8, 0.5, 0.25]
MASKED = [0.2, 0.8, 0.75, 1.0]
METRICS = [drop, increase, gain]


def floats(library: Library, *rows: Any) -> list[Any]:
    return [library.asarray(np.array(row, dtype=np.float32)) for row in rows]


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        (drop, [0.75, 0, 0, 0]),  # 0.6 of 0.8
        (increase, [0, 0, 1, 1]),
        (gain, [0, 0, 0.5, 1]),  # 0.25 of 0.5, and all of what lacks
    ],
)
def test_by_hand(library: Library, metric: Callable[..., Any], expected: list[float]) -> None:
    plain, masked = floats(library, PLAIN, MASKED)
    assert_close(library.compile(metric)(plain, masked), expected, plain)


@pytest.mark.parametrize(
    ("metric", "expected"),
    [(drop, [np.nan, 0.5, 0.5]), (increase, [1, 0, 0]), (gain, [0.5, np.nan, 0])],
)
def test_where_there_is_nothing_to_lose_or_gain(library: Library, metric: Any, expected: list[float]) -> None:
    plain, masked = floats(library, [0, 1, 0.5], [0.5, 0.5, 0.25])
    assert_close(library.compile(metric)(plain, masked), expected, plain)


@pytest.mark.parametrize(("metric", "sound"), [(drop, 0.75), (increase, 0), (gain, 0)])
def test_nan_stays_with_its_map(library: Library, metric: Any, sound: float) -> None:
    plain, masked = floats(library, [np.nan, 0.8, 0.8], [0.2, np.nan, 0.2])
    assert_close(library.compile(metric)(plain, masked), [np.nan, np.nan, sound], plain)


def test_several_maps_of_an_image(eager: Library) -> None:
    plain, masked = floats(eager, [0.8, 0.5], [[0.2, 0.5], [0.4, 0.25]])
    assert_close(drop(plain, masked), [[0.75, 0], [0.5, 0.5]], plain)


def test_rounding_above_1_is_no_error(eager: Library) -> None:
    plain, masked = floats(eager, [1 + 1e-7], [0.5])
    assert_close(gain(plain, masked), [np.nan], plain)
    assert_close(drop(plain, masked), [0.5], plain)


def test_double_precision_stays() -> None:
    plain = np.array([0.3])
    assert_close(drop(plain, np.array([0.1])), [2 / 3], plain, atol=1e-15)


@pytest.mark.parametrize("metric", METRICS)
class TestWrong:
    @pytest.mark.parametrize("value", [80.0, -0.1, np.inf])
    def test_no_probability(self, eager: Library, metric: Any, value: float) -> None:
        plain, masked = floats(eager, [0.5, 0.5], [0.1, value])
        with pytest.raises(ValueError, match=r"The masked probability lies in \[0, 1\].*not percent.*not logits"):
            metric(plain, masked)
        with pytest.raises(ValueError, match="The plain probability"):
            metric(masked, plain)

    def test_shapes(self, metric: Any) -> None:
        with pytest.raises(ValueError, match=r"plain \(2,\) and masked \(3,\): they must be equal, or broadcast"):
            metric(np.zeros(2), np.zeros(3))

    def test_dtype(self, metric: Any) -> None:
        with pytest.raises(TypeError, match="The masked probability must be of a floating-point dtype"):
            metric(np.zeros(2), np.zeros(2, dtype=int))


def test_equals_torch_cam() -> None:
    torch, metrics = framework("torch"), framework("torchcam.metrics")
    from torchcam_extractor import GivenMaps

    generator = torch.Generator().manual_seed(0)
    images = torch.rand((16, 2, 4, 4), generator=generator) - 0.5
    maps = torch.rand((16, 4, 4), generator=generator)

    def score(batch: Any) -> Any:
        return torch.sigmoid(batch.sum(dim=(1, 2, 3)))

    theirs = metrics.ClassificationMetric(GivenMaps(maps, score))
    theirs.update(images, class_idx=0)
    plain, masked = score(images), score(images * maps[:, None])
    summary = theirs.summary()
    assert float(drop(plain, masked).mean()) == pytest.approx(summary["avg_drop"], abs=1e-6)
    assert float(increase(plain, masked).mean()) == pytest.approx(summary["conf_increase"], abs=1e-6)
