"""Objects from maps: boxes and masks at a threshold, with connected components."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fusioncam_core import Box, Explanation, MissingExtra, object_boxes, object_masks
from fusioncam_core.metrics import box_masks
from libraries import Library

pytest.importorskip("scipy.ndimage")

from absence import hide

# Two objects, of seven and of three pixels; the last pixel of the first touches the others at a corner.
MAP = np.array(
    [
        [0.0, 0.2, 0.4, 0.0, 0.0, 0.0],
        [0.0, 0.6, 1.0, 0.0, 0.0, 0.0],
        [0.0, 0.4, 0.6, 0.0, 0.0, 0.0],
        [0.0, 0.0, 0.0, 0.3, 0.0, 0.0],
        [0.0, 0.0, 0.0, 0.0, 0.0, 0.9],
        [0.0, 0.0, 0.0, 0.0, 0.8, 0.7],
    ],
    dtype=np.float32,
)


def spans(boxes: list[Box]) -> list[tuple[int, ...]]:
    return [(*box.xyxy, box.area) for box in boxes]


class TestBoxes:
    @pytest.mark.parametrize(
        ("threshold", "expected"),
        [
            (0.2, [(1, 0, 4, 4, 7), (4, 4, 6, 6, 3)]),
            (0.4, [(1, 0, 3, 3, 5), (4, 4, 6, 6, 3)]),
            (0.7, [(4, 4, 6, 6, 3), (2, 1, 3, 2, 1)]),
            (1, [(2, 1, 3, 2, 1)]),
            (0, [(1, 0, 4, 4, 7), (4, 4, 6, 6, 3)]),
        ],
    )
    def test_by_hand(self, eager: Library, threshold: float, expected: list[Any]) -> None:
        assert spans(object_boxes(eager.asarray(MAP), threshold)) == expected

    def test_score_is_the_mean_over_the_object(self) -> None:
        first, second = object_boxes(MAP, 0.4)
        assert first.score == pytest.approx((0.4 + 0.6 + 1 + 0.4 + 0.6) / 5)
        assert second.score == pytest.approx((0.9 + 0.8 + 0.7) / 3)
        assert MAP[first.slices].shape == (3, 2)

    def test_largest_and_minimum_area(self) -> None:
        assert spans(object_boxes(MAP, 0.4, components="largest")) == [(1, 0, 3, 3, 5)]
        assert spans(object_boxes(MAP, 0.4, minimum_area=4)) == [(1, 0, 3, 3, 5)]
        assert object_boxes(MAP, 0.4, minimum_area=6) == []
        assert object_boxes(MAP, 0.4, components="largest", minimum_area=6) == []

    def test_of_two_of_one_size_the_first_comes_first(self) -> None:
        maps = np.zeros((3, 5), dtype=np.float32)
        maps[2, 0] = maps[0, 4] = 1
        assert spans(object_boxes(maps, 0.5)) == [(4, 0, 5, 1, 1), (0, 2, 1, 3, 1)]

    def test_batches_of_several_targets(self) -> None:
        maps = np.stack([MAP, np.zeros_like(MAP), MAP[::-1]])[:, None].repeat(2, axis=1)
        found = object_boxes(maps, 0.4)
        assert [[len(each) for each in rows] for rows in found] == [[2, 2], [0, 0], [2, 2]]
        assert found[2][1][0].xyxy == (1, 3, 3, 6)

    def test_volumes_and_signals(self) -> None:
        volume = np.zeros((4, 5, 6), dtype=np.float32)
        volume[1:3, 2:5, 3] = 2
        (box,) = object_boxes(volume, 0.5, spatial_ndim=3)
        assert (box.lower, box.upper, box.area, box.score) == ((1, 2, 3), (3, 5, 4), 6, 2)
        assert (box.x0, box.x1, box.y0, box.y1) == (3, 4, 2, 5)
        assert repr(box) == "<Box x 3 to 4, y 2 to 5, z 1 to 3: 6 pixels, score 2>"
        with pytest.raises(ValueError, match="is a box in an image: got one along 3 axes"):
            _ = box.xyxy
        (row,) = object_boxes(volume[1, 2], 0.5, spatial_ndim=1)
        assert (row.x0, row.x1) == (3, 4)
        with pytest.raises(ValueError, match="has no rows"):
            _ = row.y1

    def test_a_map_that_says_nothing_about_where(self) -> None:
        for value in (0.0, 0.7, -3.0, 1e30):
            for threshold in (0, 0.2, 1, "otsu"):
                assert object_boxes(np.full((4, 5), value, dtype=np.float32), threshold) == []
        assert object_boxes(np.array([[-1.0, -2.0]]), 0) == []
        rounded = np.full((4, 5), 0.7, dtype=np.float32)
        rounded[1, 1] = np.nextafter(np.float32(0.7), np.float32(1))
        assert object_boxes(rounded, 0.2) == [], "constant up to rounding"

    def test_maps_that_are_not_in_zero_to_one(self) -> None:
        """Signed maps: what is negative speaks against the class; the unit does not matter."""
        signed = np.where(MAP == 0, np.float32(-50), 8 * MAP)
        for options in ({"threshold": 0.4}, {"threshold": "otsu"}, {"threshold": "percentile", "percentile": 85}):
            expected = object_boxes(MAP, **options)
            found = object_boxes(signed, **options)
            assert spans(found) == spans(expected)
            np.testing.assert_allclose([each.score for each in found], [8 * each.score for each in expected])

    @pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
    def test_a_value_reaches_its_own_share(self, dtype: Any) -> None:
        values = np.arange(11).astype(dtype) / dtype(10)
        for number in range(1, 11):
            (box,) = object_boxes(values, number / 10, spatial_ndim=1)
            assert (box.x0, box.x1) == (number, 11)


class TestThresholds:
    def test_otsu_by_hand(self) -> None:
        values = np.array([[0, 1, 1, 2, 9, 10]], dtype=np.float32)
        assert spans(object_boxes(values, "otsu")) == [(4, 0, 6, 1, 2)]

    @pytest.mark.parametrize("seed", range(5))
    def test_otsu_splits_as_every_split_tried(self, seed: int) -> None:
        values = np.random.default_rng(seed).gamma(1.0, size=(9, 11))
        values[values < 0.3] = 0
        within = {}
        for value in np.unique(values)[1:]:
            sides = values[values < value], values[values >= value]
            within[value] = sum(side.size * side.var() for side in sides)
        best = min(within, key=lambda value: within[value])
        np.testing.assert_array_equal(object_masks(values, "otsu"), values >= best)

    def test_otsu_agrees_with_scikit_image(self) -> None:
        filters = pytest.importorskip("skimage.filters")
        rows, columns = np.mgrid[:64, :64]
        values = np.exp(-((rows - 20) ** 2 + (columns - 40) ** 2) / 200) + 0.1 * np.sin(rows) ** 2
        ours = object_masks(values, "otsu")
        assert (ours != (values > filters.threshold_otsu(values, nbins=4096))).mean() < 0.002

    def test_percentiles(self) -> None:
        values = np.arange(1, 101, dtype=np.float32).reshape(10, 10)
        for percentile, count in ((0, 100), (90, 10), (100, 1)):
            assert object_masks(values, "percentile", percentile=percentile).sum() == count
        values[:5] = 0
        assert object_masks(values, "percentile", percentile=20).sum() == 50, "no more than are positive"


class TestMasks:
    def test_they_are_of_the_boxes_objects(self, eager: Library) -> None:
        maps = np.stack([MAP, MAP.T, np.zeros_like(MAP)])
        masks = object_masks(eager.asarray(maps), 0.4)
        assert masks.dtype == bool
        np.testing.assert_array_equal(masks, maps >= 0.4)
        largest = object_masks(maps, 0.4, components="largest")
        assert largest.sum(axis=(1, 2)).tolist() == [5, 5, 0]
        (box,) = object_boxes(MAP, 0.4, components="largest")
        np.testing.assert_array_equal(largest[0], (MAP >= 0.4) & box_masks(np.array(box.xyxy), (6, 6)))

    def test_minimum_area(self) -> None:
        assert object_masks(MAP, 0.4, minimum_area=4).sum() == 5


class TestExplanations:
    def explanation(self, maps: np.ndarray, targets: np.ndarray) -> Explanation:
        numbers = np.zeros(targets.shape)
        return Explanation(
            "given", "", "Model", maps, targets, numbers, numbers, np.zeros((len(maps), 2)), maps[:, None], 1, 1
        )

    def test_one_target(self) -> None:
        found = self.explanation(np.stack([MAP, 0 * MAP]), np.zeros(2, dtype=int))
        assert [spans(each) for each in found.boxes(0.4)] == [[(1, 0, 3, 3, 5), (4, 4, 6, 6, 3)], []]
        assert [spans(each) for each in found.boxes()] == [[(1, 0, 4, 4, 7), (4, 4, 6, 6, 3)], []]
        np.testing.assert_array_equal(found.masks(0.4), found.maps >= 0.4)
        options: dict[str, Any] = {"percentile": 85, "components": "largest", "minimum_area": 2}
        np.testing.assert_array_equal(
            found.masks("percentile", **options), object_masks(found.maps, "percentile", **options)
        )
        assert found.boxes("percentile", **options) == object_boxes(found.maps, "percentile", **options)

    def test_several_targets_and_volumes(self) -> None:
        several = self.explanation(np.stack([[MAP, MAP.T, 0 * MAP]]), np.zeros((1, 3), dtype=int))
        assert [len(each) for each in several.boxes(0.4)[0]] == [2, 2, 0]
        volume = self.explanation(np.stack([[MAP, MAP, 0 * MAP]]), np.zeros(1, dtype=int))
        (boxes,) = volume.boxes(0.4)
        assert [(box.lower, box.upper) for box in boxes] == [((0, 0, 1), (2, 3, 3)), ((0, 4, 4), (2, 6, 6))]
        assert volume.masks(0.4).shape == (1, 3, 6, 6)


class TestBadInput:
    @pytest.mark.parametrize(
        ("options", "kind", "message"),
        [
            ({"threshold": 1.5}, ValueError, r"a share of the map's largest value, in \[0, 1\]: got 1.5"),
            ({"threshold": -0.1}, ValueError, "a share of the map's largest value"),
            ({"threshold": float("nan")}, ValueError, "a share of the map's largest value"),
            ({"threshold": "triangle"}, ValueError, "a share, 'otsu' or 'percentile': got 'triangle'"),
            ({"threshold": None}, TypeError, "got NoneType"),
            ({"threshold": True}, TypeError, "got bool"),
            (
                {"threshold": "percentile"},
                ValueError,
                "belong together: got threshold='percentile' and percentile=None",
            ),
            ({"percentile": 90}, ValueError, "belong together: got threshold=0.2 and percentile=90"),
            ({"threshold": "percentile", "percentile": 101}, ValueError, "lies between 0 and 100: got 101"),
            ({"components": "first"}, ValueError, "components is 'all' or 'largest': got 'first'"),
            ({"minimum_area": 0}, ValueError, "minimum_area is a whole number of at least 1: got 0"),
            ({"minimum_area": 0.1}, ValueError, "minimum_area is a whole number"),
            ({"spatial_ndim": 3}, ValueError, "fewer axes than the 3 of space"),
        ],
    )
    @pytest.mark.parametrize("function", [object_boxes, object_masks])
    def test_options(self, function: Any, options: dict[str, Any], kind: type[Exception], message: str) -> None:
        with pytest.raises(kind, match=message):
            function(MAP, **options)

    def test_maps(self) -> None:
        with pytest.raises(TypeError, match="maps must be of a floating-point dtype"):
            object_boxes(MAP > 0)
        for value in (np.nan, np.inf, -np.inf):
            maps = np.stack([MAP, MAP])
            maps[1, 0, 0] = value
            with pytest.raises(ValueError, match=r"NaN or infinity in the map at \(1,\)"):
                object_masks(maps)
            with pytest.raises(ValueError, match="NaN or infinity in the map at hand"):
                object_boxes(maps[1])

    def test_without_scipy(self, monkeypatch: pytest.MonkeyPatch) -> None:
        hide("scipy", monkeypatch)
        with pytest.raises(
            MissingExtra, match=r'Finding objects in maps needs scipy: pip install "fusioncam\[objects\]"'
        ):
            object_boxes(MAP)
