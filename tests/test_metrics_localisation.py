from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from fusioncam_core.metrics import (
    box_masks,
    cell_masks,
    energy_in_mask,
    grid_share,
    iou,
    iou_curve,
    mosaic,
    pointing_game,
    roc_auc,
    union_masks,
)
from libraries import Library, assert_close

GENERATOR = np.random.default_rng(0)
MAPS = GENERATOR.random((2, 3, 6, 8)).astype(np.float32)
MASKS = GENERATOR.random((2, 3, 6, 8)) < 0.4
METRICS = [pointing_game, energy_in_mask, iou, roc_auc]


def auc_of_all_pairs(scores: np.ndarray, mask: np.ndarray) -> float:
    pairs = itertools.product(scores[mask].tolist(), scores[~mask].tolist())
    return float(np.mean([(first > second) + (first == second) / 2 for first, second in pairs]))


class TestPointingGame:
    def test_by_hand(self, library: Library) -> None:
        maps = library.asarray(np.array([[[0, 1], [3, 2]], [[0, 5], [1, 5]], [[7, 7], [7, 7]]], dtype=np.float32))
        masks = library.asarray(np.array([[[0, 0], [1, 0]], [[0, 0], [1, 1]], [[1, 0], [0, 0]]]))
        # The second map's first maximum is its upper one, the constant map's the first corner.
        assert_close(library.compile(pointing_game)(maps, masks), [1, 0, 1], maps, atol=0)

    @pytest.mark.parametrize(
        ("tolerance", "hits"),
        [(0, [0, 0, 0]), (1, [1, 0, 0]), (1.42, [1, 1, 0]), (2.8, [1, 1, 0]), (2.83, [1, 1, 1]), (15, [1, 1, 1])],
    )
    def test_tolerance_is_euclidean(self, library: Library, tolerance: float, hits: list[int]) -> None:
        values = np.zeros((5, 7), dtype=np.float32)
        values[2, 3] = 1
        ground_truth = np.zeros((3, 5, 7), dtype=bool)
        ground_truth[0, 1, 3] = ground_truth[1, 3, 4] = ground_truth[2, 0, 5] = True
        maps = library.asarray(np.stack([values] * 3))
        function = library.compile(lambda maps, masks: pointing_game(maps, masks, tolerance=tolerance))
        assert_close(function(maps, library.asarray(ground_truth)), hits, maps, atol=0)

    def test_along_a_row_and_in_a_volume(self, eager: Library) -> None:
        values = np.zeros((3, 4, 5), dtype=np.float32)
        values[1, 2, 3] = 1
        ground_truth = np.zeros((3, 4, 5))
        ground_truth[0, 1, 1] = 1  # a distance of the root of 1 + 1 + 4
        maps = eager.asarray(values)
        for tolerance, hit in [(2.4, 0), (2.45, 1)]:
            assert_close(pointing_game(maps, ground_truth, tolerance=tolerance, spatial_ndim=3), hit, maps, atol=0)
        rows = eager.asarray(values[1])
        # Rows of zeros point at their first pixel; the masks hold the first of the first row, the second of the second.
        hits = pointing_game(rows, np.eye(4, 5), tolerance=1, spatial_ndim=1)
        assert_close(hits, [1, 1, 1, 0], rows, atol=0)

    @pytest.mark.parametrize("tolerance", [-1, np.nan, np.inf])
    def test_wrong_tolerance(self, tolerance: float) -> None:
        with pytest.raises(ValueError, match="tolerance is a number of pixels"):
            pointing_game(MAPS, MASKS, tolerance=tolerance)


class TestEnergyInMask:
    def test_by_hand(self, library: Library) -> None:
        maps = library.asarray(np.array([[[1, 2], [3, 4]], [[-5, 1], [3, 0]]], dtype=np.float32))
        masks = library.asarray(np.array([[[0, 1], [0, 1]], [[1, 1], [0, 0]]]))
        assert_close(library.compile(energy_in_mask)(maps, masks), [0.6, 0.25], maps)

    def test_positive_nowhere(self, eager: Library) -> None:
        maps = eager.asarray(np.array([[[0, 0]], [[-1, -2]], [[1, 3]]], dtype=np.float32))
        masks = np.array([[1, 0]])
        assert_close(energy_in_mask(maps, masks), [np.nan, np.nan, 0.25], maps)


class TestIoU:
    def test_by_hand(self, library: Library) -> None:
        maps = library.asarray(np.array([[[0.5, 0.75], [0.25, 1]], [[0, 0.25], [0, 0]]], dtype=np.float32))
        masks = library.asarray(np.array([[[0, 1], [1, 1]], [[0, 1], [0, 0]]]))
        # Two of four pixels; and none above the threshold.
        assert_close(library.compile(iou)(maps, masks), [0.5, 0], maps)
        assert_close(library.compile(lambda *pair: iou(*pair, threshold=0.25))(maps, masks), [0.75, 1], maps)
        assert_close(library.compile(lambda *pair: iou(*pair, threshold=0.51))(maps, masks), [2 / 3, 0], maps)

    def test_wrong_threshold(self) -> None:
        with pytest.raises(ValueError, match="threshold is a number"):
            iou(MAPS, MASKS, threshold=np.nan)


class TestIoUCurve:
    def test_by_hand(self, library: Library) -> None:
        maps = library.asarray(np.array([[[0.5, 0.75], [0.25, 1]], [[0, 0.25], [0, 0]]], dtype=np.float32))
        masks = library.asarray(np.array([[[0, 1], [1, 1]], [[0, 1], [0, 0]]]))
        function = library.compile(lambda *pair: iou_curve(*pair, thresholds=[0, 0.25, 0.5, 0.51, 2]))
        assert_close(function(maps, masks), [[0.75, 0.75, 0.5, 2 / 3, 0], [0.25, 1, 0, 0, 0]], maps)

    def test_each_point_is_the_iou(self, eager: Library) -> None:
        maps = eager.asarray(MAPS)
        curve = iou_curve(maps, MASKS)
        assert curve.shape == (2, 3, 101)
        assert_close(curve[..., 37], iou(MAPS, MASKS, threshold=0.37), maps)

    @pytest.mark.parametrize("thresholds", [[], [np.nan], [0.5, np.inf]])
    def test_wrong_thresholds(self, thresholds: list[float]) -> None:
        with pytest.raises(ValueError, match="thresholds are one or more numbers"):
            iou_curve(MAPS, MASKS, thresholds=thresholds)

    def test_undefined_for_that_map_alone(self) -> None:
        values, ground_truth = MAPS.copy(), MASKS.copy()
        values[0, 0, 3, 3], ground_truth[1, 2] = np.nan, False
        undefined = np.isnan(iou_curve(values, ground_truth))
        assert undefined.all(axis=2).tolist() == [[True, False, False], [False, False, True]]
        assert undefined.sum() == 2 * 101


class TestRocAuc:
    def test_by_hand(self, library: Library) -> None:
        maps = library.asarray(np.array([[[1, 2, 3, 4]], [[1, 2, 3, 4]], [[5, 5, 5, 5]], [[1, 2, 2, 3]]], np.float32))
        masks = library.asarray(np.array([[[0, 0, 1, 1]], [[1, 0, 1, 0]], [[1, 0, 0, 0]], [[0, 1, 0, 1]]]))
        # All pairs; one of four; all equal; three and a half of four.
        assert_close(library.compile(roc_auc)(maps, masks), [1, 0.25, 0.5, 0.875], maps)

    @pytest.mark.parametrize("levels", [2, 5, 1000])
    def test_equals_all_pairs(self, library: Library, levels: int) -> None:
        values = np.round(MAPS * levels).astype(np.float32) - levels // 2
        expected = [
            auc_of_all_pairs(scores, mask)
            for scores, mask in zip(values.reshape(6, -1), MASKS.reshape(6, -1), strict=True)
        ]
        maps, masks = library.asarray(values), library.asarray(MASKS)
        assert_close(library.compile(roc_auc)(maps, masks), np.reshape(expected, (2, 3)), maps)

    def test_equal_zeros_of_both_signs(self, library: Library) -> None:
        maps = library.asarray(np.array([[0.0, -0.0, 0.0, -0.0]], dtype=np.float32))
        assert_close(library.compile(roc_auc)(maps, library.asarray(np.array([[1, 0, 0, 1]]))), 0.5, maps)

    @pytest.mark.parametrize("inside", [1, 30000, 50175])
    def test_large_maps_are_exact(self, inside: int) -> None:
        scores = np.random.default_rng(1).random((224, 224))
        mask = np.zeros(224 * 224, dtype=bool)
        mask[np.random.default_rng(2).permutation(224 * 224)[:inside]] = True
        places = np.argsort(np.argsort(scores.ravel()))[mask] + 1
        expected = (places.sum() - inside * (inside + 1) / 2) / (inside * (mask.size - inside))
        actual = roc_auc(scores.astype(np.float32), mask.reshape(224, 224))
        np.testing.assert_allclose(actual, expected, atol=1e-6)

    def test_full_mask(self, eager: Library) -> None:
        maps = eager.asarray(MAPS[0, :2])
        masks = np.stack([np.ones((6, 8)), MASKS[0, 1]])
        assert_close(roc_auc(maps, masks), [np.nan, auc_of_all_pairs(MAPS[0, 1], MASKS[0, 1])], maps)


@pytest.mark.parametrize("metric", METRICS)
class TestAll:
    def test_masks_of_any_kind(self, eager: Library, metric: Any) -> None:
        maps, expected = eager.asarray(MAPS), metric(MAPS, MASKS)
        for masks in (eager.asarray(MASKS), eager.asarray(MASKS.astype(np.float32)), MASKS, MASKS.astype(np.uint8)):
            assert_close(metric(maps, masks), expected, maps)

    def test_one_mask_for_several_maps_and_the_reverse(self, eager: Library, metric: Any) -> None:
        maps = eager.asarray(MAPS)
        expected = np.stack([metric(MAPS[:, index], MASKS[:, 0]) for index in range(3)], axis=1)
        assert_close(metric(maps, eager.asarray(MASKS[:, :1])), expected, maps)
        expected = np.stack([metric(MAPS[0, 0], MASKS[0, index]) for index in range(3)])
        assert_close(metric(eager.asarray(MAPS[0, 0]), eager.asarray(MASKS[0])), expected, maps)

    def test_undefined_for_that_map_alone(self, library: Library, metric: Any) -> None:
        values, ground_truth = MAPS.copy(), MASKS.copy()
        values[0, 0, 3, 3], values[0, 1, 5, 0], ground_truth[1, 2] = np.nan, -np.inf, False
        expected = metric(MAPS, MASKS)
        expected[0, 0] = expected[0, 1] = expected[1, 2] = np.nan
        maps, masks = library.asarray(values), library.asarray(ground_truth)
        assert_close(library.compile(metric)(maps, masks), expected, maps)

    def test_half_precision(self, metric: Any) -> None:
        maps = np.full((400, 400), 0.75, dtype=np.float16)
        mask = np.zeros((400, 400), dtype=bool)
        mask[:200] = True
        expected = {pointing_game: 1, energy_in_mask: 0.5, iou: 0.5, roc_auc: 0.5}[metric]
        assert_close(metric(maps, mask), expected, maps)

    def test_wrong(self, metric: Any) -> None:
        with pytest.raises(TypeError, match="maps must be of a floating-point dtype"):
            metric(MASKS, MASKS)
        with pytest.raises(ValueError, match="Resize the maps to the masks' size"):
            metric(MAPS, MASKS[..., 1:])
        with pytest.raises(ValueError, match=r"maps \(2, 3, 6, 8\) and masks \(2, 6, 8\)"):
            metric(MAPS, MASKS[:, 0])
        with pytest.raises(ValueError, match="masks hold 0 and 1, or booleans"):
            metric(MAPS, 255 * MASKS.astype(np.uint8))
        with pytest.raises(ValueError, match="masks hold 0 and 1, or booleans"):
            metric(MAPS, np.where(MASKS, 1, np.nan))
        torch = pytest.importorskip("torch")
        with pytest.raises(TypeError, match=r"got numpy.* together"):
            metric(MAPS, torch.from_numpy(MASKS))


class TestBoxMasks:
    def test_by_hand(self, library: Library) -> None:
        boxes = library.asarray(np.array([[1, 0, 3, 2], [0, 0, 0, 0], [-2, 1, 1, 9]]))
        expected = np.zeros((3, 3, 4), dtype=bool)
        expected[0, :2, 1:3] = True
        expected[2, 1:, 0] = True
        masks = library.compile(lambda boxes: box_masks(boxes, (3, 4)))(boxes)
        assert_close(masks, expected, library.asarray(expected))

    def test_a_pixel_is_where_its_centre_is(self, eager: Library) -> None:
        boxes = eager.asarray(np.array([0.5, 0.6, 2.5, 2.6], dtype=np.float32))
        expected = np.zeros((3, 4), dtype=bool)
        expected[1:3, 0:2] = True
        assert_close(box_masks(boxes, (3, 4)), expected, eager.asarray(expected))

    def test_wrong(self) -> None:
        with pytest.raises(ValueError, match=r"boxes have shape \(2, 3\), and \(..., 4\) was expected"):
            box_masks(np.zeros((2, 3)), (3, 3))
        with pytest.raises(ValueError, match="not a width and height"):
            box_masks(np.array([5, 5, 2, 2]), (9, 9))
        with pytest.raises(ValueError, match="not a width and height"):
            box_masks(np.array([0, 0, np.nan, 2]), (9, 9))
        with pytest.raises(TypeError, match="boxes must be of real numbers: got bool"):
            box_masks(np.ones(4, dtype=bool), (9, 9))
        with pytest.raises(ValueError, match="height is a whole number"):
            box_masks(np.ones(4), (0, 9))
        with pytest.raises(ValueError, match=r"size is \(height, width\)"):
            box_masks(np.ones(4), (9,))


class TestUnionMasks:
    def test_by_hand(self, library: Library) -> None:
        boxes = library.asarray(np.array([[[0, 0, 1, 1], [1, 1, 2, 2]], [[0, 0, 2, 1], [0, 0, 0, 0]]]))
        expected = np.array([[[True, False], [False, True]], [[True, True], [False, False]]])
        function = library.compile(lambda boxes: union_masks(box_masks(boxes, (2, 2))))
        assert_close(function(boxes), expected, library.asarray(expected))

    def test_of_numbers(self, eager: Library) -> None:
        masks = eager.asarray(np.array([[0, 1, 0], [0, 0, 2]], dtype=np.int32))
        expected = np.array([False, True, True])
        assert_close(union_masks(masks, spatial_ndim=1), expected, eager.asarray(expected))

    def test_wrong(self) -> None:
        with pytest.raises(ValueError, match=r"\(..., n, \*spatial\), with 2 axes of space"):
            union_masks(MASKS[0, 0])


class TestMosaic:
    IMAGES = np.arange(12 * 3 * 2 * 5, dtype=np.float32).reshape(12, 3, 2, 5)

    def test_cells_in_reading_order(self, library: Library) -> None:
        images = library.asarray(self.IMAGES)
        whole = [
            np.concatenate([np.concatenate(list(self.IMAGES[first : first + 3]), axis=-1) for first in rows], axis=-2)
            for rows in ((0, 3), (6, 9))
        ]
        function = library.compile(lambda images: mosaic(images, 2, 3))
        assert_close(function(images), np.stack(whole), images, atol=0)

    def test_channels_last(self, eager: Library) -> None:
        images = eager.asarray(np.moveaxis(self.IMAGES, 1, -1))
        expected = np.moveaxis(mosaic(self.IMAGES, 3, 2), 1, -1)
        assert_close(mosaic(images, 3, 2, channel_axis=-1), expected, images, atol=0)

    def test_wrong(self) -> None:
        with pytest.raises(ValueError, match="12 images for each mosaic of 3 x 4"):
            mosaic(self.IMAGES[:8], 3, 4)
        with pytest.raises(ValueError, match="a batch with channels and two axes of space"):
            mosaic(self.IMAGES[0], 1, 3)
        with pytest.raises(ValueError, match="rows is a whole number"):
            mosaic(self.IMAGES, 0, 4)
        with pytest.raises(ValueError, match="channel_axis is 1 or -1"):
            mosaic(self.IMAGES, 3, 4, channel_axis=2)


class TestGridShare:
    def test_cells(self) -> None:
        cells = cell_masks(2, 3, (4, 9))
        assert cells.shape == (6, 4, 9)
        assert cells.dtype == bool
        np.testing.assert_array_equal(cells.sum(axis=0), np.ones((4, 9)))
        for index, (row, column) in enumerate(itertools.product(range(2), range(3))):
            assert cells[index, 2 * row : 2 * row + 2, 3 * column : 3 * column + 3].all()

    def test_by_hand(self, library: Library) -> None:
        # The classes of a 2 x 2 mosaic of single pixels, and their maps for one of two mosaics.
        values = np.array([[[1, 2], [3, 4]], [[1, 0], [0, 0]], [[-9, 1], [3, 0]], [[0, -1], [0, 0]]], dtype=np.float32)
        maps = library.asarray(np.stack([values, np.ones((4, 2, 2), dtype=np.float32)]))
        cells = cell_masks(2, 2, (2, 2))
        shares = library.compile(lambda maps: grid_share(maps, cells))(maps)
        assert_close(shares, [[0.1, 0, 0.75, np.nan], [0.25] * 4], maps)

    def test_wrong(self) -> None:
        with pytest.raises(ValueError, match="2 x 3 equal cells was expected, and its size is 4 x 10"):
            cell_masks(2, 3, (4, 10))
        with pytest.raises(ValueError, match="columns is a whole number"):
            cell_masks(2, 0, (4, 10))
