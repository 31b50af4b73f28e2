from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fusioncam_core import array_namespace, resize
from fusioncam_core.metrics import impute, removal_masks
from fusioncam_core.metrics.imputation import _flow
from libraries import LIBRARIES, Library, assert_close

SIZE = (24, 19)
"""Of the images that all libraries impute: a new size costs some of them seconds of compilation."""


@functools.cache
def plain_imputer(library: str) -> Callable[[Any, Any], Any]:
    """`impute` without noise, compiled once for a library of this name."""
    return LIBRARIES[library]().compile(lambda images, masks: impute(images, masks, noise=0))


def exact(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The direct sparse solution for one image (C, h, w) and its mask (h, w), pixel by pixel as the paper has it."""
    sparse = pytest.importorskip("scipy.sparse")
    linalg = pytest.importorskip("scipy.sparse.linalg")
    height, width = mask.shape
    removed = np.argwhere(mask == 0)
    number = {tuple(place): index for index, place in enumerate(removed.tolist())}
    entries, known = [], np.zeros((len(removed), len(image)))
    for (y, x), index in number.items():
        for down, right in itertools.product((-1, 0, 1), repeat=2):
            there = y + down, x + right
            if (down, right) == (0, 0) or not (0 <= there[0] < height and 0 <= there[1] < width):
                continue
            weight = 1 / 12 if down and right else 1 / 6
            entries.append((index, index, weight))
            if there in number:
                entries.append((index, number[there], -weight))
            else:
                known[index] += weight * image[:, there[0], there[1]]
    rows, columns, weights = np.array(entries).T
    system = sparse.coo_matrix((weights, (rows.astype(int), columns.astype(int))))
    imputed = image.astype(np.float64)
    solution = linalg.spsolve(system.tocsc(), known).reshape(len(removed), len(image))
    imputed[:, removed[:, 0], removed[:, 1]] = solution.T
    return imputed


def photographs(size: tuple[int, int]) -> np.ndarray:
    """Two images (2, 3, *size) in [0, 1] with smooth parts, noise and an outline; the second one is darker."""
    generator = np.random.default_rng(0)
    images = resize(generator.random((2, 3, 6, 6)), size) + 0.1 * generator.random((2, 3, *size))
    images[..., size[0] // 3 :, size[1] // 2 :] += 0.5
    return ((images / images.max()) * np.array([1, 0.3])[:, None, None, None]).astype(np.float32)


def kept(kind: str, share: float, size: tuple[int, int]) -> np.ndarray:
    """Masks (2, *size): a share is removed at random, where smooth maps are high, or around the middle."""
    generator = np.random.default_rng(1)
    y, x = np.indices(size)
    maps = {
        "random": lambda: generator.random((2, *size)),
        "smooth": lambda: resize(generator.random((2, 5, 5)), size),
        "blob": lambda: np.stack([-((y - size[0] * part) ** 2) - (x - size[1] * 0.6) ** 2 for part in (0.4, 0.5)]),
        "corner": lambda: np.stack([y + 2.0 * x, -x - 1.5 * y]),
    }[kind]()
    return removal_masks(maps.astype(np.float32), int(share * size[0] * size[1]))


def assert_near(actual: Any, images: np.ndarray, masks: np.ndarray, share: float = 1e-3) -> None:
    """Every image is within a share of its range of the exact solution."""
    for imputed, image, mask in zip(np.asarray(actual), images, masks, strict=True):
        extent = float(image.max() - image.min())
        np.testing.assert_allclose(imputed, exact(image, mask), atol=share * extent, rtol=0)


class TestByHand:
    def test_one_removed_pixel(self, eager: Library) -> None:
        self.check_one_removed_pixel(eager)

    @pytest.mark.slow  # a size of its own to compile
    def test_one_removed_pixel_compiled(self, library: Library) -> None:
        self.check_one_removed_pixel(library)

    def check_one_removed_pixel(self, library: Library) -> None:
        values = np.array([[[[1, 2, 3], [4, 99, 6], [7, 8, 9.5]]]], dtype=np.float32)
        masks = np.array([[[1, 1, 1], [1, 0, 1], [1, 1, 1]]], dtype=np.float32)
        images = library.asarray(values)
        # A sixth of 2, 4, 6 and 8, and a twelfth of 1, 3, 7 and 9.5.
        expected = values.copy()
        expected[0, 0, 1, 1] = 20 / 6 + 20.5 / 12
        assert_close(plain_imputer(library.name)(images, library.asarray(masks)), expected, images, atol=1e-5)

    def test_weights_that_are_left_at_the_edge_sum_to_one(self, eager: Library) -> None:
        values = np.array([[[[99, 3, 0], [6, 12, 0], [0, 0, 0]], [[0, 1, 5], [1, 1, 7], [2, 4, 99]]]], dtype=np.float32)
        masks = np.ones((1, 3, 3), dtype=np.float32)
        masks[0, 0, 0] = masks[0, 1, 2] = 0
        images = eager.asarray(values)
        expected = values.copy()
        expected[0, :, 0, 0] = [(2 * 3 + 2 * 6 + 12) / 5, 1]
        expected[0, :, 1, 2] = [(2 * 12 + 3) / 8, (2 * 1 + 2 * 5 + 2 * 99 + 1 + 4) / 8]
        assert_close(impute(images, eager.asarray(masks), noise=0), expected, images, atol=1e-2)

    def test_a_removed_neighbour_counts_with_its_imputed_value(self, eager: Library) -> None:
        values = np.array([[[[0, 99, 99, 12], [0, 99, 99, 12]]]], dtype=np.float32)
        masks = np.array([[[1, 0, 0, 1], [1, 0, 0, 1]]], dtype=np.float32)
        images = eager.asarray(values)
        # By symmetry both rows are alike: a = (0 + b) / 2 and b = (a + 12) / 2.
        expected = [[[[0, 4, 8, 12], [0, 4, 8, 12]]]]
        assert_close(impute(images, eager.asarray(masks), noise=0), expected, images, atol=1.2e-2)

    def test_flow(self, eager: Library) -> None:
        values = eager.asarray(np.array([[[[0, 0, 0], [0, 12, 0], [0, 0, 24]]]], dtype=np.float32))
        # The middle gives each neighbour a sixth or a twelfth of itself, and gets 2 back; the corner gives to three.
        expected = [[[[1, 2, 1], [2, 2 - 12, 2 + 4], [1, 2 + 4, 1 - 10]]]]
        assert_close(_flow(values, xp=array_namespace(values)), expected, values, atol=1e-5)


class TestExactSolution:
    @pytest.mark.parametrize("kind", ["random", "smooth", "blob", "corner"])
    @pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
    def test_within_a_thousandth_of_the_range(self, kind: str, share: float) -> None:
        images, masks = photographs((61, 80)), kept(kind, share, (61, 80))
        assert_near(impute(images, masks, noise=0), images, masks)

    @pytest.mark.parametrize("kind", ["random", "smooth"])
    def test_everywhere(self, library: Library, kind: str) -> None:
        values, kept_pixels = photographs(SIZE), kept(kind, 0.9, SIZE)
        images = library.asarray(values)
        actual = plain_imputer(library.name)(images, library.asarray(kept_pixels))
        assert_near(actual, values, kept_pixels)

    @pytest.mark.parametrize("size", [(2, 2), (2, 9), (3, 2), (33, 4), (17, 64)])
    def test_any_size(self, size: tuple[int, int]) -> None:
        images, masks = photographs(size), kept("random", 0.7, size)
        assert_near(impute(images, masks, noise=0), images, masks)

    def test_wide_holes_of_a_large_image(self) -> None:
        images, masks = photographs((224, 224)), kept("corner", 0.99, (224, 224))
        assert_near(impute(images, masks, noise=0), images, masks)

    @pytest.mark.parametrize(("scale", "offset"), [(1e-20, 0), (255, 0), (1, 1000), (1e20, 0)])
    def test_unit_and_offset_do_not_matter(self, scale: float, offset: float) -> None:
        images = (photographs((40, 40)) * scale + offset).astype(np.float32)
        masks = kept("smooth", 0.9, (40, 40))
        assert_near(impute(images, masks, noise=0), images, masks)

    def test_known_pixels_stay_as_they_are(self, eager: Library) -> None:
        values, masks = photographs(SIZE), kept("random", 0.5, SIZE)
        actual = np.asarray(impute(eager.asarray(values), eager.asarray(masks)))
        inside = np.broadcast_to(masks[:, None] > 0, values.shape)
        np.testing.assert_array_equal(actual[inside], values[inside])
        assert (actual[~inside] != values[~inside]).all()

    def test_nothing_removed(self, eager: Library) -> None:
        images = eager.asarray(photographs(SIZE))
        assert_close(impute(images, np.ones((2, *SIZE))), photographs(SIZE), images, atol=0)

    def test_one_known_pixel_spreads(self, eager: Library) -> None:
        values, masks = photographs(SIZE), np.zeros((2, *SIZE), dtype=np.float32)
        masks[:, 4, 6] = 1
        images = eager.asarray(values)
        expected = np.broadcast_to(values[:, :, 4:5, 6:7], values.shape)
        assert_close(impute(images, masks, noise=0), expected, images, atol=1e-5)

    def test_everything_removed_becomes_the_mean(self, library: Library) -> None:
        values, masks = photographs(SIZE), np.stack([np.zeros(SIZE, dtype=np.float32), kept("random", 0.5, SIZE)[1]])
        images = library.asarray(values)
        actual = plain_imputer(library.name)(images, library.asarray(masks))
        expected = np.broadcast_to(values[0].mean(axis=(1, 2), keepdims=True), values[0].shape)
        np.testing.assert_allclose(np.asarray(actual)[0], expected, atol=1e-5)
        assert_near(np.asarray(actual)[1:], values[1:], masks[1:])


class TestNoise:
    def test_standard_normal_times_the_noise(self, eager: Library) -> None:
        values, masks = photographs(SIZE), kept("random", 0.9, SIZE)
        images = eager.asarray(values)
        plain = np.asarray(impute(images, masks, noise=0))
        noise = 0.3 * np.random.default_rng(7).standard_normal((3, *SIZE), dtype=np.float32)
        expected = np.where(masks[:, None] > 0, plain, plain + noise)
        assert_close(impute(images, masks, noise=0.3, seed=7), expected, images, atol=1e-5)

    def test_an_image_does_not_change_with_its_batch(self, eager: Library) -> None:
        values, masks = photographs(SIZE), kept("smooth", 0.8, SIZE)
        other = np.stack([np.full_like(values[0], 9), values[1]])
        one, another = (np.asarray(impute(eager.asarray(each), masks)) for each in (values, other))
        np.testing.assert_allclose(one[1], another[1], atol=3e-4)

    def test_seeds_differ(self) -> None:
        images, masks = photographs(SIZE), kept("random", 0.9, SIZE)
        assert np.abs(impute(images, masks, seed=1) - impute(images, masks, seed=2)).max() > 0.01


class TestChannelsAndDtypes:
    def test_channels_last(self, eager: Library) -> None:
        values, masks = photographs(SIZE), kept("smooth", 0.8, SIZE)
        last = eager.asarray(np.moveaxis(values, 1, -1))
        expected = np.moveaxis(impute(values, masks), 1, -1)
        assert_close(impute(last, eager.asarray(masks), channel_axis=-1), expected, last, atol=1e-4)

    def test_masks_of_any_kind(self, eager: Library) -> None:
        values, masks = photographs(SIZE), kept("random", 0.5, SIZE)
        images, expected = eager.asarray(values), impute(values, masks)
        for each in (masks > 0, masks.astype(np.uint8), eager.asarray(masks > 0), eager.asarray(masks)):
            assert_close(impute(images, each), expected, images, atol=1e-4)

    @pytest.mark.parametrize("dtype", [np.float16, np.float64])
    def test_the_dtype_stays(self, dtype: Any) -> None:
        values, masks = photographs(SIZE), kept("smooth", 0.9, SIZE)
        images = values.astype(dtype)
        actual = impute(images, masks, noise=0)
        assert actual.dtype == dtype
        assert_near(actual.astype(np.float64), values, masks, 2e-3 if dtype is np.float16 else 1e-3)


class TestNotFinite:
    def test_nan_stays_with_its_image(self, library: Library) -> None:
        values, masks = photographs(SIZE), kept("smooth", 0.8, SIZE)
        broken = values.copy()
        broken[0, 1][masks[0] > 0] = np.nan
        images = library.asarray(broken)
        actual = plain_imputer(library.name)(images, library.asarray(masks))
        assert np.isnan(np.asarray(actual)[0]).all()
        assert_near(np.asarray(actual)[1:], values[1:], masks[1:])

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_removed_pixels_are_not_looked_at(self, library: Library, value: float) -> None:
        values, masks = photographs(SIZE), kept("smooth", 0.8, SIZE)
        broken = np.where(masks[:, None] > 0, values, np.float32(value))
        images = library.asarray(broken)
        actual = plain_imputer(library.name)(images, library.asarray(masks))
        assert_near(actual, values, masks)


class TestWrong:
    IMAGES = np.zeros((2, 3, 4, 5))
    MASKS = np.ones((2, 4, 5))

    def test_images(self) -> None:
        with pytest.raises(TypeError, match="images must be of a floating-point dtype"):
            impute(self.IMAGES.astype(int), self.MASKS)
        with pytest.raises(ValueError, match=r"images have shape \(3, 4, 5\): a batch with channels and two axes"):
            impute(self.IMAGES[0], self.MASKS)
        with pytest.raises(ValueError, match="each of two pixels at least"):
            impute(self.IMAGES[..., :1], self.MASKS[..., :1])
        with pytest.raises(ValueError, match="channel_axis is 1 or -1"):
            impute(self.IMAGES, self.MASKS, channel_axis=3)

    def test_masks(self) -> None:
        with pytest.raises(ValueError, match=r"masks have shape \(2, 5, 4\)"):
            impute(self.IMAGES, np.ones((2, 5, 4)))
        with pytest.raises(ValueError, match=r"masks \(3, 4, 5\)"):
            impute(self.IMAGES, np.ones((3, 4, 5)))
        with pytest.raises(ValueError, match="masks hold 0 and 1, or booleans"):
            impute(self.IMAGES, self.MASKS / 2)

    def test_numbers(self) -> None:
        with pytest.raises(ValueError, match="noise is a standard deviation"):
            impute(self.IMAGES, self.MASKS, noise=-0.1)
        with pytest.raises(ValueError, match="seed is a whole number of at least 0"):
            impute(self.IMAGES, self.MASKS, seed=-1)
