"""An evaluation on Ray: the values of one machine, in the same folder, also if a worker is killed on the way."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ray = pytest.importorskip("ray")
torch = pytest.importorskip("torch")

from fusioncam_core import Preprocessing, evaluate  # noqa: E402
from fusioncam_core.metrics import AverageDrop, Complexity, Deletion, IoU  # noqa: E402
from fusioncam_core.scale.evaluation import evaluate_on_ray  # noqa: E402

METHODS = ("grad-cam", "score-cam")
METRICS = (AverageDrop(), Complexity(), Deletion(steps=4))
OPTIONS: dict[str, Any] = {"layer": "0", "batch_size": 4, "progress": False}


def network() -> Any:
    torch.manual_seed(3)
    features = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(4, 6, 3))
    pooled = (torch.nn.Sigmoid(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    return torch.nn.Sequential(features, *pooled, torch.nn.Linear(6, 7)).eval()


def images(count: int) -> np.ndarray:
    return np.random.default_rng(0).random((count, 3, 16, 16), dtype=np.float32)


def broken(count: int) -> np.ndarray:
    """The fifth and the last one hold no numbers."""
    found = images(count)
    found[[4, -1], 0, 0, 0] = np.nan
    return found


class Fatal:
    """Makes the network, and kills its process with the first image that it sees, once for a file."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __call__(self) -> Any:
        made, mark = network(), self.mark

        def kill(*_: Any) -> None:
            try:
                os.close(os.open(mark, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                return
            os.kill(os.getpid(), signal.SIGKILL)

        made[2].register_forward_hook(kill)
        return made


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """One for all tests: its processes take seconds to start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # the workers import this file
        ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        yield
        ray.shutdown()


def on_ray(source: Any, targets: Any = None, **options: Any) -> Any:
    chosen = {**OPTIONS, "piece": 4, **options}
    return evaluate_on_ray(network, source, METHODS, METRICS, targets, **chosen)


def here(source: Any, targets: Any = None, **options: Any) -> Any:
    return evaluate(network(), source, METHODS, METRICS, targets, **{**OPTIONS, **options})


def require_equal(found: Any, expected: Any) -> None:
    assert found.images == expected.images
    assert found.problems == expected.problems
    assert found.methods == expected.methods
    assert (found.model, found.reference, found.titles) == (expected.model, expected.reference, expected.titles)
    np.testing.assert_array_equal(found.targets, expected.targets)
    np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-6)
    np.testing.assert_allclose(found.values, expected.values, atol=1e-6)
    np.testing.assert_allclose(found.curves["deletion"], expected.curves["deletion"], atol=2e-6)


def lines(folder: Path) -> int:
    return (folder / "values.jsonl").read_bytes().count(b"\n")


def test_an_array_with_images_of_no_numbers() -> None:
    found, expected = on_ray(broken(14)), here(broken(14))
    assert [each.image for each in expected.problems] == ["4", "4", "13", "13"]
    require_equal(found, expected)


def test_begun_here_it_goes_on_there_and_back(tmp_path: Path) -> None:
    whole = here(images(12))
    first = here(images(6), out=tmp_path)
    kept = lines(tmp_path)
    found = on_ray(images(12), out=tmp_path, workers=1)
    require_equal(found, whole)
    np.testing.assert_array_equal(found.values[:, :, :6], first.values)
    added = lines(tmp_path) - kept
    assert added == 6 * (1 + len(METHODS) * len(METRICS)), "the probability and the values of the six others"
    after = here(images(12), out=tmp_path)
    assert lines(tmp_path) == kept + added, "nothing is left to do here"
    np.testing.assert_array_equal(after.values, found.values)


def test_a_worker_is_killed(tmp_path: Path) -> None:
    mark = tmp_path / "killed"
    found = evaluate_on_ray(
        Fatal(mark), images(12), METHODS, METRICS, piece=4, out=tmp_path / "out", model_name="fatal", **OPTIONS
    )
    assert mark.exists()
    require_equal(found, here(images(12)))
    assert lines(tmp_path / "out") == 1 + 12 * (1 + len(METHODS) * len(METRICS))


def test_photographs_with_masks(tmp_path: Path) -> None:
    """They are read on the workers, keep their names, and one of them is none."""
    image = pytest.importorskip("PIL.Image")
    for number in range(6):
        pixels = np.random.default_rng(number).integers(0, 255, (16, 16, 3), dtype=np.uint8)
        for kind in ("photographs", "masks"):
            path = tmp_path / kind / "abc"[number % 3] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            image.fromarray(pixels).save(path)
    (tmp_path / "photographs" / "a" / "3.png").write_bytes(b"nothing")
    options: dict[str, Any] = {
        **OPTIONS,
        "masks": tmp_path / "masks",
        "preprocessing": Preprocessing(size=(16, 16)),
    }
    expected = evaluate(network(), tmp_path / "photographs", METHODS, [IoU()], 1, **options)
    found = evaluate_on_ray(network, tmp_path / "photographs", METHODS, [IoU()], 1, piece=2, workers=1, **options)
    assert expected.images == ("a/0", "b/1", "b/4", "c/2", "c/5")
    assert [each.image for each in expected.problems] == ["a/3"]
    assert (found.images, found.problems) == (expected.images, expected.problems)
    np.testing.assert_allclose(found.values, expected.values, atol=1e-6)


def test_what_is_wrong_is_said_as_on_one_machine() -> None:
    with pytest.raises(ValueError, match="got 'no-cam'"):
        evaluate_on_ray(network, images(4), ["no-cam"], METRICS, workers=1, **OPTIONS)
    with pytest.raises(TypeError, match="evaluate_on_ray has no argument 'worker'; did you mean 'workers'"):
        on_ray(images(4), worker=3)
