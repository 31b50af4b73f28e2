from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fusioncam_core import array_namespace
from fusioncam_core.metrics import area, ranks, removal_counts, removal_masks
from libraries import Library, assert_close, framework

MAPS = np.array([[[0.2, 0.9, 0.5], [0.9, -0.0, 0.0]], [[1, 1, 1], [1, 1, 1]]], dtype=np.float32)
RANKS = np.array([[[3, 0, 2], [1, 4, 5]], [[0, 1, 2], [3, 4, 5]]])
"""The first of two equal pixels is taken first, and -0 equals 0."""


def assert_ranks(actual: Any, expected: Any, like: Any) -> None:
    assert array_namespace(actual) is array_namespace(like)
    np.testing.assert_array_equal(np.asarray(actual), expected)


class TestRemovalCounts:
    @pytest.mark.parametrize(
        ("positions", "steps", "counts"),
        [
            (8, 4, [0, 2, 4, 6, 8]),
            (10, 4, [0, 3, 6, 9, 10]),
            (9, 4, [0, 3, 6, 9]),  # ceil(9 / 4) is 3, which leaves no fourth step
            (3, 20, [0, 1, 2, 3]),
            (1, 1, [0, 1]),
            (7, 1, [0, 7]),
        ],
    )
    def test_by_hand(self, positions: int, steps: int, counts: list[int]) -> None:
        actual = removal_counts(positions, steps)
        assert actual.dtype == np.int64
        np.testing.assert_array_equal(actual, counts)

    @pytest.mark.parametrize("wrong", [0, 2.5, True])
    def test_no_whole_number(self, wrong: Any) -> None:
        with pytest.raises(ValueError, match="positions is a whole number of at least 1"):
            removal_counts(wrong, 3)
        with pytest.raises(ValueError, match="steps is a whole number of at least 1"):
            removal_counts(3, wrong)


class TestRanks:
    def test_by_hand(self, library: Library) -> None:
        maps = library.asarray(MAPS)
        assert_ranks(library.compile(ranks)(maps), RANKS, maps)

    def test_ties_stay_in_reading_order(self, library: Library) -> None:
        values = np.random.default_rng(0).integers(-5, 5, (3, 40, 50)).astype(np.float32)
        flat = values.reshape(3, -1)
        expected = np.empty_like(flat, dtype=int)
        for row, places in zip(flat, expected, strict=True):
            places[sorted(range(2000), key=lambda index, row=row: (-row[index], index))] = np.arange(2000)
        maps = library.asarray(values)
        assert_ranks(library.compile(ranks)(maps), expected.reshape(values.shape), maps)

    def test_nan_is_least_and_infinities_are_ordered(self, library: Library) -> None:
        maps = library.asarray(np.array([[np.nan, -np.inf, 3, np.inf, np.nan]], dtype=np.float32))
        assert_ranks(library.compile(ranks)(maps), [[2, 3, 1, 0, 4]], maps)

    def test_other_numbers_of_axes(self, eager: Library) -> None:
        maps = eager.asarray(MAPS)
        assert_ranks(ranks(maps, spatial_ndim=1), [[[2, 0, 1], [0, 1, 2]], [[0, 1, 2], [0, 1, 2]]], maps)
        assert_ranks(ranks(maps, spatial_ndim=3), [[[9, 6, 8], [7, 10, 11]], [[0, 1, 2], [3, 4, 5]]], maps)

    def test_wrong(self) -> None:
        with pytest.raises(TypeError, match="maps must be of a floating-point dtype"):
            ranks(np.zeros((2, 2), dtype=int))
        with pytest.raises(ValueError, match="fewer axes than the 2 of space"):
            ranks(np.zeros(2))


class TestRemovalMasks:
    def test_one_count(self, library: Library) -> None:
        maps = library.asarray(MAPS)
        masks = library.compile(lambda values: removal_masks(values, 3))(maps)
        assert_close(masks, [[[1, 0, 0], [0, 1, 1]], [[0, 0, 0], [1, 1, 1]]], maps, atol=0)

    def test_several_counts(self, library: Library) -> None:
        maps = library.asarray(MAPS)
        masks = library.compile(lambda values: removal_masks(values, removal_counts(6, 2)))(maps)
        expected = [np.ones((2, 2, 3)), RANKS >= 3, np.zeros((2, 2, 3))]
        assert_close(masks, np.stack(expected), maps, atol=0)
        assert_close(removal_masks(maps, [3]), (RANKS >= 3)[None], maps, atol=0)

    def test_nan_stays_with_its_map(self, library: Library) -> None:
        broken = MAPS.copy()
        broken[0, 1, 2] = np.nan
        maps = library.asarray(broken)
        masks = library.compile(lambda values: removal_masks(values, [0, 3]))(maps)
        expected = np.stack([np.ones((2, 2, 3)), RANKS >= 3])
        expected[:, 0] = np.nan
        assert_close(masks, expected, maps, atol=0)

    @pytest.mark.parametrize("counts", [-1, 7, 1.5, True, [1, 7], [0.5], [[1]], []])
    def test_wrong_counts(self, counts: Any) -> None:
        with pytest.raises(ValueError, match="removed pixels, or several, from 0 to 6"):
            removal_masks(MAPS, counts)


class TestArea:
    def test_by_hand(self, library: Library) -> None:
        fractions, values = np.array([0, 0.5, 0.75, 1]), np.array([[1, 0.5, 0.5, 0], [0, 1, 1, 1]], dtype=np.float32)
        curves = library.asarray(values)
        # 0.375 + 0.125 + 0.0625 | 0.25 + 0.25 + 0.25
        assert_close(library.compile(lambda rows: area(fractions, rows))(curves), [0.5625, 0.75], curves)
        assert_close(area(fractions.tolist(), curves), [0.5625, 0.75], curves)
        assert_close(
            library.compile(area)(library.asarray(fractions.astype(np.float32)), curves), [0.5625, 0.75], curves
        )

    def test_fractions_of_each_row(self, library: Library) -> None:
        fractions = library.asarray(np.array([[0, 0.5, 1], [0, 0.1, 0.2]], dtype=np.float32))
        curves = library.asarray(np.array([[1, 0, 0], [1, 0, 1]], dtype=np.float32))
        assert_close(library.compile(area)(fractions, curves), [0.25, 0.1], curves)

    def test_nan_stays_with_its_curve(self, library: Library) -> None:
        values = np.array([[1, np.nan, 0], [1, 0, 0], [np.inf, 0, -np.inf]], dtype=np.float32)
        curves = library.asarray(values)
        function = library.compile(lambda rows: area([0, 0.5, 1], rows))
        assert_close(function(curves), [np.nan, 0.25, np.nan], curves)

    def test_wrong(self) -> None:
        with pytest.raises(ValueError, match="at least two points a curve"):
            area([0], np.zeros((3, 1)))
        with pytest.raises(ValueError, match=r"values have shape \(2, 3\) and fractions \(2,\)"):
            area([0, 1], np.zeros((2, 3)))
        with pytest.raises(ValueError, match="must not decrease"):
            area([1, 0.5, 0], np.zeros((2, 3)))
        with pytest.raises(TypeError, match="values must be of a floating-point dtype"):
            area([0, 1], np.zeros((3, 2), dtype=int))


@pytest.mark.parametrize("steps", [1, 3, 4, 7, 100])
def test_curves_of_torch_cam(steps: int) -> None:
    torch, metrics = framework("torch"), framework("torchcam.metrics")
    from torchcam_extractor import GivenMaps

    generator = np.random.default_rng(steps)
    images = torch.from_numpy(generator.random((3, 2, 5, 6), dtype=np.float32))
    # Few different values, so that the order of equal pixels counts.
    maps = torch.from_numpy(generator.integers(0, 4, (3, 5, 6)).astype(np.float32))
    weights = torch.from_numpy(generator.random((2, 5, 6), dtype=np.float32))

    def score(batch: Any) -> Any:
        return torch.sigmoid((batch * weights).sum(dim=(1, 2, 3)) - 7)

    theirs = metrics.DeletionInsertionMetric(GivenMaps(maps, score), steps=steps)
    theirs.update(images, class_idx=0)
    counts = removal_counts(30, steps)
    masks = removal_masks(maps, counts)
    deletion, insertion = (
        area(counts / 30, torch.stack([score(images * mask[:, None]) for mask in chosen], dim=-1))
        for chosen in (masks, 1 - masks)
    )
    summary = theirs.summary()
    assert float(deletion.mean()) == pytest.approx(summary["deletion_auc"], abs=1e-6)
    assert float(insertion.mean()) == pytest.approx(summary["insertion_auc"], abs=1e-6)
