"""Boxes and pixels of maps against those of the objects, over many images."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from fusioncam_core.metrics import box_iou, box_masks, max_box_acc, max_box_acc_v2, pixel_average_precision
from fusioncam_core.results.objects import object_boxes
from libraries import Library

pytest.importorskip("scipy.ndimage")


def blob(box: tuple[int, int, int, int], value: float = 1.0, size: tuple[int, int] = (20, 20)) -> np.ndarray:
    """A map that is the value in a box."""
    return (value * box_masks(np.array(box), size)).astype(np.float32)


class TestBoxIoU:
    def test_by_hand(self) -> None:
        boxes = [[0, 0, 2, 2], [1, 1, 3, 3], [5, 5, 5, 5]]
        others = [[0, 0, 2, 2], [0, 0, 4, 4], [1, 0, 3, 2], [5, 5, 5, 5]]
        expected = [[1, 1 / 4, 1 / 3, 0], [1 / 7, 1 / 4, 1 / 3, 0], [0, 0, 0, 0]]
        np.testing.assert_allclose(box_iou(boxes, others), expected)

    def test_equals_that_of_masks(self) -> None:
        corners = np.random.default_rng(0).integers(0, 9, (12, 2, 2))
        boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1) + 1], axis=1)
        masks = box_masks(boxes, (10, 10))
        expected = [[(one & other).sum() / (one | other).sum() for other in masks] for one in masks]
        np.testing.assert_allclose(box_iou(boxes, boxes), expected)

    def test_wrong(self) -> None:
        with pytest.raises(ValueError, match=r"boxes have shape \(4,\), and \(n, 4\) was expected"):
            box_iou([0, 0, 1, 1], [[0, 0, 1, 1]])
        with pytest.raises(ValueError, match="not a width and height"):
            box_iou([[5, 5, 2, 2]], [[0, 0, 1, 1]])
        with pytest.raises(TypeError, match="boxes must be of real numbers"):
            box_iou([["a", "b", "c", "d"]], [[0, 0, 1, 1]])


class TestMaxBoxAcc:
    def test_by_hand(self, eager: Library) -> None:
        """A square of 1 in a larger one of .4: the IoU with the object is 1 at one threshold, and .25 at another."""
        maps = np.stack(
            [
                np.maximum(blob((4, 4, 8, 8)), blob((2, 2, 10, 10), 0.4)),  # found from a threshold of .45 on
                np.maximum(blob((4, 4, 8, 8)), blob((2, 2, 10, 10), 0.4)),  # found up to .4
                blob((12, 12, 16, 16)),  # nowhere near
            ]
        )
        boxes = [[4, 4, 8, 8], [2, 2, 10, 10], [0, 0, 4, 4]]
        found = max_box_acc(eager.asarray(maps), np.array(boxes), steps=20)
        low = found.thresholds <= 0.4
        assert low.sum() == 9
        np.testing.assert_allclose(found.overlaps[0], np.where(low, 0.25, 1))
        np.testing.assert_allclose(found.overlaps[1], np.where(low, 1, 0.25))
        np.testing.assert_allclose(found.overlaps[2], 0)
        np.testing.assert_allclose(found.curves, [np.full(20, 1 / 3)])
        assert found.value == pytest.approx(1 / 3)
        assert found.best.tolist() == [0]
        assert repr(found) == "<MaxBoxAcc 0.3333 of 3 images, IoU from 0.5>"

    def test_largest_object_or_the_best_of_all(self) -> None:
        maps = np.maximum(blob((0, 0, 4, 4)), blob((8, 8, 16, 16)))[None]
        assert max_box_acc(maps, [[(0, 0, 4, 4)]], steps=4).value == 0
        assert max_box_acc(maps, [[(0, 0, 4, 4)]], components="all", steps=4).value == 1
        assert max_box_acc(maps, [[(0, 0, 4, 4), (8, 8, 16, 15)]], steps=4).overlaps[0].tolist() == [7 / 8] * 4

    def test_version_two_is_the_mean_over_three_ious(self) -> None:
        """Boxes of half, .4 and .8 of the object's size: found by (.3, .5), by .3, and by all three."""
        maps = np.stack([blob((0, 0, width, 10)) for width in (5, 4, 8)])
        found = max_box_acc_v2(maps, np.tile([0, 0, 10, 10], (3, 1)), steps=5)
        assert found.ious == (0.3, 0.5, 0.7)
        np.testing.assert_allclose(found.curves.max(axis=1), [1, 2 / 3, 1 / 3])
        assert found.value == pytest.approx((1 + 2 / 3 + 1 / 3) / 3)

    def test_the_threshold_of_each_iou_is_its_own(self) -> None:
        maps = np.stack([np.maximum(blob((0, 0, 3, 10)), blob((0, 0, 10, 10), 0.3))] * 2)
        found = max_box_acc(maps, [[0, 0, 3, 10], [0, 0, 10, 10]], ious=(0.3, 0.7), steps=10)
        np.testing.assert_allclose(found.curves, [[1.0] * 10, [0.5] * 10])
        found = max_box_acc(maps[:1], [[0, 0, 3, 10]], ious=(0.3, 0.7), steps=10)
        np.testing.assert_allclose(found.best, [0, 0.4])

    def test_boxes_of_the_authors_examples(self) -> None:
        """Their test of a map with one peak, whose upper ends they cut off at the map's border; their threshold itself
        does not count."""
        values = np.array(
            [[0.0, 0.0, 0.0, 0.0, 0.0], [0.0, 0.4, 0.4, 0.4, 0.6], [0.0, 0.4, 1.0, 0.8, 0.6], [0.0, 0.4, 0.4, 0.4, 0.6]]
        )
        expected = [[1, 1, 4, 3], [1, 1, 4, 3], [2, 1, 4, 3], [2, 2, 4, 3], [2, 2, 3, 3]]
        for threshold, theirs in zip((0.0, 0.21, 0.41, 0.61, 0.81), expected, strict=True):
            (ours,) = object_boxes(values, threshold, components="largest")
            x0, y0, x1, y1 = ours.xyxy
            assert [x0, y0, min(x1, 4), min(y1, 3)] == theirs

    def test_a_map_without_an_object_finds_none(self) -> None:
        found = max_box_acc(np.zeros((2, 6, 6), dtype=np.float32), [[0, 0, 3, 3]] * 2, steps=3)
        assert found.value == 0

    def test_boxes_that_fill_up_a_batch(self) -> None:
        boxes = np.array([[[0, 0, 0, 0], [4, 4, 8, 8]], [[4, 4, 8, 8], [0, 0, 4, 4]]])
        assert max_box_acc(np.stack([blob((4, 4, 8, 8))] * 2), boxes, steps=3).value == 1

    @pytest.mark.parametrize(
        ("boxes", "options", "kind", "message"),
        [
            ([[0, 0, 1, 1]], {}, ValueError, "Boxes belong to the maps in their order: got 1 for 2 maps"),
            (np.zeros((2, 4)), {}, ValueError, "Image 0 has no box of an object"),
            ([[0, 0, 1, 1], []], {}, ValueError, r"boxes have shape \(1, 0\)"),
            (3, {}, TypeError, r"boxes are one \(n, 4\) for each image: got int"),
            (np.ones((2, 3)), {}, ValueError, r"boxes have shape \(1, 3\)"),
            (None, {"ious": ()}, ValueError, "ious are one or more shares"),
            (None, {"ious": (0.5, 1.2)}, ValueError, "above 0 and at most 1"),
            (None, {"components": "some"}, ValueError, "components is 'all' or 'largest'"),
            (None, {"steps": 0}, ValueError, "steps is a whole number"),
        ],
    )
    def test_wrong(self, boxes: Any, options: dict[str, Any], kind: type[Exception], message: str) -> None:
        maps = np.stack([blob((4, 4, 8, 8))] * 2)
        with pytest.raises(kind, match=message):
            max_box_acc(maps, np.tile([4, 4, 8, 8], (2, 1)) if boxes is None else boxes, **options)

    def test_wrong_maps(self) -> None:
        with pytest.raises(ValueError, match=r"maps have shape \(6, 6\): \(N, height, width\)"):
            max_box_acc(np.zeros((6, 6)), [[0, 0, 1, 1]])
        with pytest.raises(ValueError, match="NaN or infinity in the map"):
            max_box_acc(np.full((1, 6, 6), np.nan), [[0, 0, 1, 1]])
        with pytest.raises(TypeError, match="maps must be of a floating-point dtype"):
            max_box_acc(np.zeros((1, 6, 6), dtype=int), [[0, 0, 1, 1]])


class TestPixelAveragePrecision:
    def test_by_hand(self, eager: Library) -> None:
        # In falling order: hit, miss, hit, miss: precision 1 at a recall of 1/2, and 2/3 at 1.
        maps = eager.asarray(np.array([[[0.9, 0.8]], [[0.7, 0.1]]], dtype=np.float32))
        masks = np.array([[[1, 0]], [[1, 0]]])
        assert pixel_average_precision(maps, masks) == pytest.approx((1 + 2 / 3) / 2)

    def test_equal_values_pass_together(self) -> None:
        assert pixel_average_precision(np.full((1, 2, 2), 0.5), np.array([[[1, 0], [0, 0]]])) == 0.25
        assert pixel_average_precision(np.array([[[1.0, 0.0]]]), np.array([[[1, 0]]])) == 1

    def test_every_threshold_tried(self) -> None:
        generator = np.random.default_rng(3)
        maps, masks = np.round(generator.random((3, 5, 7)), 1), generator.random((3, 5, 7)) < 0.3
        points = [(maps >= level) for level in np.unique(maps)[::-1]]
        recalls = [0.0, *((point & masks).sum() / masks.sum() for point in points)]
        precisions = [(point & masks).sum() / point.sum() for point in points]
        expected = sum(
            (upper - lower) * precision
            for (lower, upper), precision in zip(itertools.pairwise(recalls), precisions, strict=True)
        )
        assert pixel_average_precision(maps, masks) == pytest.approx(expected)

    def test_wrong(self) -> None:
        with pytest.raises(ValueError, match="No mask has a pixel"):
            pixel_average_precision(np.zeros((1, 2, 2)), np.zeros((1, 2, 2)))
        with pytest.raises(ValueError, match="A map holds NaN"):
            pixel_average_precision(np.full((1, 2, 2), np.nan), np.ones((1, 2, 2)))
        with pytest.raises(ValueError, match="masks hold 0 and 1"):
            pixel_average_precision(np.zeros((1, 2, 2)), np.full((1, 2, 2), 7))
