from __future__ import annotations

import numpy as np
import pytest

from fusioncam_core import array_namespace, blur, normalise, percentile, resize, softmax
from fusioncam_core.arrays.words import _blur_weights, _linear_weights
from libraries import Library, assert_close

MAPS = np.random.default_rng(0).normal(size=(2, 3, 5, 7)).astype(np.float32)


class TestNormalise:
    def test_each_map_reaches_0_and_1(self, library: Library) -> None:
        maps = library.asarray(MAPS)
        low = MAPS.min(axis=(2, 3), keepdims=True)
        high = MAPS.max(axis=(2, 3), keepdims=True)
        assert_close(library.compile(normalise)(maps), (MAPS - low) / (high - low), maps)

    @pytest.mark.parametrize("value", [0.0, 3.7, -1e20, 1e-38])
    def test_constant_map_becomes_zeros(self, library: Library, value: float) -> None:
        maps = library.asarray(np.full((2, 4, 4), value, dtype=np.float32))
        assert_close(library.compile(normalise)(maps), np.zeros((2, 4, 4)), maps)

    def test_constant_map_next_to_another_one(self, library: Library) -> None:
        maps = library.asarray(np.array([[[5, 5]], [[1, 3]]], dtype=np.float32))
        assert_close(library.compile(normalise)(maps), [[[0, 0]], [[0, 1]]], maps)

    def test_rounding_of_a_resized_constant_is_no_pattern(self, library: Library) -> None:
        maps = library.asarray(np.full((1, 7, 7), 0.1, dtype=np.float32))
        function = library.compile(lambda values: normalise(resize(values, (224, 160))))
        assert_close(function(maps), np.zeros((1, 224, 160)), maps, atol=0)

    def test_small_range_on_a_large_offset_is_kept(self, library: Library) -> None:
        maps = library.asarray(np.array([[[1000.0, 1000.25, 1000.5]]], dtype=np.float32))
        assert_close(library.compile(normalise)(maps), [[[0, 0.5, 1]]], maps)

    def test_tiny_values_are_scaled_up(self, library: Library) -> None:
        maps = library.asarray(np.array([[[0, 1e-30, 2e-30]]], dtype=np.float32))
        assert_close(library.compile(normalise)(maps), [[[0, 0.5, 1]]], maps)

    def test_one_dimensional_and_volumes(self, eager: Library) -> None:
        maps = eager.asarray(np.array([[1, 2, 3], [2, 0, 1]], dtype=np.float32))
        assert_close(normalise(maps, spatial_ndim=1), [[0, 0.5, 1], [1, 0, 0.5]], maps)
        volume = eager.asarray(np.arange(8, dtype=np.float32).reshape(2, 2, 2))
        assert_close(normalise(volume, spatial_ndim=3), np.arange(8).reshape(2, 2, 2) / 7, volume)

    def test_double_precision_stays(self, eager: Library) -> None:
        if eager.name.startswith("jax"):
            pytest.skip("JAX has no float64 unless it is switched on for the process")
        maps = eager.asarray(np.array([[0.0, 0.1, 0.3]]))
        assert_close(normalise(maps), [[0, 1 / 3, 1]], maps, atol=1e-15)


class TestPercentile:
    @pytest.mark.parametrize("percentage", [0, 10, 33.3, 50, 99.9, 100])
    def test_linear_interpolation(self, library: Library, percentage: float) -> None:
        maps = library.asarray(MAPS)
        actual = library.compile(lambda values: percentile(values, percentage))(maps)
        assert_close(actual, np.percentile(MAPS, percentage, axis=(2, 3)), maps)

    def test_by_hand(self, eager: Library) -> None:
        maps = eager.asarray(np.array([[[4, 0], [2, 10]]], dtype=np.float32))
        assert_close(percentile(maps, 50), [3], maps)
        assert_close(percentile(maps, 90), [8.2], maps)  # 2.7 of 3 steps: 4 + 0.7 * 6

    def test_of_one_pixel(self, eager: Library) -> None:
        maps = eager.asarray(np.array([[[4]]], dtype=np.float32))
        assert_close(percentile(maps, 10), [4], maps)

    @pytest.mark.parametrize("percentage", [-0.1, 100.1, float("nan")])
    def test_outside_0_to_100(self, percentage: float) -> None:
        with pytest.raises(ValueError, match="between 0 and 100"):
            percentile(MAPS, percentage)


class TestResize:
    def test_doubling_by_hand(self, eager: Library) -> None:
        maps = eager.asarray(np.array([[0, 4]], dtype=np.float32))
        # Centres of the new pixels lie at -1/4, 1/4, 3/4 and 5/4 of the old ones; the ends are clamped.
        assert_close(resize(maps, (4,)), [[0, 1, 3, 4]], maps)

    def test_halving_does_not_antialias(self, eager: Library) -> None:
        maps = eager.asarray(np.array([[0, 4, 8, 100, 0, 6]], dtype=np.float32))
        # Centres 1/2, 5/2 and 9/2: the mean of two neighbours each.
        assert_close(resize(maps, (3,)), [[2, 54, 3]], maps)

    @pytest.mark.parametrize("size", [(12, 30), (5, 7), (5, 20), (3, 4), (1, 1), (13, 1)])
    def test_equals_the_bilinear_of_pytorch(self, library: Library, size: tuple[int, int]) -> None:
        torch = pytest.importorskip("torch")
        expected = torch.nn.functional.interpolate(torch.from_numpy(MAPS), size, mode="bilinear", align_corners=False)
        maps = library.asarray(MAPS)
        assert_close(library.compile(lambda values: resize(values, size))(maps), expected.numpy(), maps)

    def test_equals_the_trilinear_of_pytorch(self, eager: Library) -> None:
        torch = pytest.importorskip("torch")
        expected = torch.nn.functional.interpolate(
            torch.from_numpy(MAPS[None]), (6, 5, 11), mode="trilinear", align_corners=False
        )[0]
        maps = eager.asarray(MAPS)
        assert_close(resize(maps, (6, 5, 11)), expected.numpy(), maps)

    def test_one_pixel_spreads(self, eager: Library) -> None:
        maps = eager.asarray(np.array([[[3]]], dtype=np.float32))
        assert_close(resize(maps, (2, 3)), np.full((1, 2, 3), 3), maps)

    def test_weights_sum_to_one(self) -> None:
        for old, new in [(7, 224), (12, 48), (9, 4), (1, 5)]:
            np.testing.assert_allclose(_linear_weights(old, new).sum(axis=1), 1, atol=1e-12)

    @pytest.mark.parametrize("size", [(), (0, 3), (-1,)])
    def test_impossible_size(self, size: tuple[int, ...]) -> None:
        with pytest.raises(ValueError, match="one positive length"):
            resize(MAPS, size)


class TestSoftmax:
    def test_by_hand(self, library: Library) -> None:
        values = library.asarray(np.array([[0, np.log(3)], [5, 5]], dtype=np.float32))
        assert_close(library.compile(softmax)(values), [[0.25, 0.75], [0.5, 0.5]], values)

    def test_does_not_overflow(self, library: Library) -> None:
        values = library.asarray(np.array([1e4, 1e4 - np.log(3), -1e4], dtype=np.float32))
        assert_close(library.compile(softmax)(values), [0.75, 0.25, 0], values, atol=1e-3)

    def test_along_another_axis(self, eager: Library) -> None:
        values = eager.asarray(MAPS)
        exponentials = np.exp(MAPS)
        expected = exponentials / exponentials.sum(axis=1, keepdims=True)
        assert_close(softmax(values, axis=1), expected, values)


class TestBlur:
    def test_equals_the_mirrored_gaussian_of_scipy(self, library: Library) -> None:
        ndimage = pytest.importorskip("scipy.ndimage")
        expected = ndimage.gaussian_filter(MAPS, (0, 0, 1.5, 1.5), mode="mirror", radius=5)
        maps = library.asarray(MAPS)
        assert_close(library.compile(lambda values: blur(values, 1.5))(maps), expected, maps)

    def test_keeps_a_constant_and_wider_than_the_image(self, eager: Library) -> None:
        maps = eager.asarray(np.full((1, 3, 1), 2, dtype=np.float32))
        assert_close(blur(maps, 10), np.full((1, 3, 1), 2), maps)

    def test_by_hand(self) -> None:
        side = np.exp(-0.5)
        expected = np.array([[1, 2 * side, 0], [side, 1, side], [0, 2 * side, 1]]) / (1 + 2 * side)
        np.testing.assert_allclose(_blur_weights(3, 1.0, 1), expected, atol=1e-12)

    def test_sigma_is_positive(self) -> None:
        with pytest.raises(ValueError, match="sigma"):
            blur(MAPS, 0)


class TestArrayNamespace:
    def test_no_array(self) -> None:
        with pytest.raises(TypeError, match=r"got a builtins\.list"):
            array_namespace([1, 2])

    def test_libraries_do_not_mix(self) -> None:
        torch = pytest.importorskip("torch")
        with pytest.raises(TypeError, match=r"got numpy\.ndarray and torch\.Tensor together"):
            array_namespace(np.zeros(2), torch.zeros(2))

    def test_integers_are_refused(self) -> None:
        with pytest.raises(TypeError, match="floating-point dtype: got int64"):
            normalise(np.zeros((2, 2), dtype=np.int64))

    def test_too_few_axes(self) -> None:
        with pytest.raises(ValueError, match="fewer axes than the 2 of space"):
            normalise(np.zeros(3))

    def test_no_pixel(self) -> None:
        with pytest.raises(ValueError, match="without a single pixel"):
            normalise(np.zeros((3, 0)))
