from __future__ import annotations

import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fusioncam_core import array_namespace, blur, normalise, percentile, resize, softmax
from fusioncam_core.arrays.kept import MATRICES, Kept
from fusioncam_core.arrays.namespaces import to_numpy
from fusioncam_core.arrays.words import _blur_weights, _linear_weights, product
from libraries import Library, assert_close, framework

MAPS = np.random.default_rng(0).normal(size=(2, 3, 5, 7)).astype(np.float32)


Halves = Callable[[np.ndarray], Any]
"""Makes an array in half precision."""


@pytest.fixture(params=["numpy", "torch.float16", "torch.bfloat16", "tensorflow.float16", "tensorflow.bfloat16", "jax"])
def halves(request: pytest.FixtureRequest) -> Halves:
    library, _, dtype = request.param.partition(".")
    if library == "numpy":
        return lambda values: values.astype(np.float16)
    if library == "torch":
        torch = framework("torch")
        return lambda values: torch.from_numpy(values).to(getattr(torch, dtype))
    if library == "tensorflow":
        tensorflow = framework("tensorflow")
        return lambda values: tensorflow.cast(values, dtype)
    jax = framework("jax")
    return lambda values: jax.numpy.asarray(values, dtype="bfloat16")


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

    @pytest.mark.parametrize("largest", [3e38, 1e38, 2e-38])
    def test_a_range_beyond_the_largest_number(self, library: Library, largest: float) -> None:
        maps = library.asarray(np.array([[[-largest, 0, largest]], [[1, 2, 5]]], dtype=np.float32))
        assert_close(library.compile(normalise)(maps), [[[0, 0.5, 1]], [[0, 0.25, 1]]], maps)

    def test_half_precision_is_worked_on_in_float32(self, halves: Halves) -> None:
        maps = halves(np.array([[[-40000, 0, 40000]]]))
        found = normalise(maps)
        assert found.dtype == maps.dtype
        np.testing.assert_array_equal(to_numpy(found), [[[0, 0.5, 1]]])

    @pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
    def test_what_is_not_finite(self, eager: Library, wrong: float) -> None:
        with pytest.raises(ValueError, match="NaN or infinity in the maps"):
            normalise(eager.asarray(np.array([[0, wrong, 1]], dtype=np.float32)))

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
    def test_stays_in_range_between_the_smallest_numbers_and_large_ones(self) -> None:
        smallest = np.finfo(np.float32).smallest_subnormal
        maps = np.asarray([[[smallest, 2 * smallest], [2.0, smallest]]], dtype=np.float32)
        resized = resize(maps, (5, 3))
        assert resized.min() >= smallest
        assert resized.max() <= 2

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

    def test_nothing_leaves_the_range_of_the_map(self, library: Library) -> None:
        largest = float(np.finfo(np.float32).max)
        maps = library.asarray(np.array([[largest, -largest, largest]], dtype=np.float32))
        expected = np.array([[1, 0.2, -0.6, 0.2, 1]]) * largest  # centres at -.2, .4, 1, 1.6 and 2.2
        expected[0, 2] = -largest
        actual = library.compile(lambda values: resize(values, (5,)))(maps)
        assert_close(actual, expected, maps, atol=0, rtol=1e-6)

    @pytest.mark.parametrize("size", [(), (0, 3), (-1,), (2.9, 2.9), (3.0, 3.0), (True, 2), "33", 4])
    def test_impossible_size(self, size: Any) -> None:
        with pytest.raises(ValueError, match="one positive length"):
            resize(MAPS, size)


class TestKeptMatrices:
    """Those of resizes and blurs are kept for the next call, within a number of bytes."""

    @pytest.fixture(autouse=True)
    def kept(self, monkeypatch: pytest.MonkeyPatch) -> Kept:
        kept = Kept(MATRICES.limit)
        monkeypatch.setattr(MATRICES, "_arrays", kept._arrays)
        return kept

    def test_many_large_sizes(self) -> None:
        maps = np.zeros((1, 1), dtype=np.float32)
        for side in range(1500, 2300, 100):
            resize(resize(maps, (side, side)), (side // 2, side))
            blur(np.zeros((1, side), dtype=np.float32), 3.0, spatial_ndim=1)
            assert 0 < MATRICES.nbytes <= 32 << 20

    def test_the_same_matrix_is_made_once(self) -> None:
        assert _linear_weights(7, 224) is _linear_weights(7, 224)
        assert MATRICES.nbytes == 8 * 7 * 224
        assert not _linear_weights(7, 224).flags.writeable

    def test_what_was_asked_for_longest_ago_goes_first(self) -> None:
        kept = Kept(limit=24)
        made: list[str] = []

        def ask(name: str) -> None:
            kept.of(name, lambda: [made.append(name), np.zeros(1)][1])

        for name in "abcadb":
            ask(name)
        assert made == ["a", "b", "c", "d", "b"], "d took the place of b"
        assert kept.nbytes == 24

    def test_what_is_larger_than_all_is_not_kept(self) -> None:
        kept = Kept(limit=24)
        assert kept.of("large", lambda: np.zeros(4)).shape == (4,)
        assert kept.nbytes == 0


class TestSoftmax:
    def test_by_hand(self, library: Library) -> None:
        values = library.asarray(np.array([[0, np.log(3)], [5, 5]], dtype=np.float32))
        assert_close(library.compile(softmax)(values), [[0.25, 0.75], [0.5, 0.5]], values)

    def test_does_not_overflow(self, library: Library) -> None:
        values = library.asarray(np.array([1e4, 1e4 - np.log(3), -1e4], dtype=np.float32))
        assert_close(library.compile(softmax)(values), [0.75, 0.25, 0], values, atol=1e-3)

    def test_the_ends_of_the_range(self, library: Library) -> None:
        values = library.asarray(np.array([3e38, -3e38, -np.inf], dtype=np.float32))
        assert_close(library.compile(softmax)(values), [1, 0, 0], values, atol=0)

    @pytest.mark.parametrize("axis", [2, -3])
    def test_no_such_axis(self, axis: int) -> None:
        with pytest.raises(ValueError, match=rf"got axis {axis} of shape \(2, 3\)"):
            softmax(np.zeros((2, 3)), axis=axis)

    def test_an_empty_axis(self) -> None:
        with pytest.raises(ValueError, match=r"got axis -1 of shape \(2, 0\)"):
            softmax(np.zeros((2, 0)))

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


def test_what_blas_computes_beside_a_product_is_no_warning() -> None:
    """Of finite arrays: NumPy tells of flags that BLAS has set, also in lanes that it never returns."""

    def flagged(one: Any, other: Any) -> Any:
        np.subtract(np.inf, np.inf)  # sets the flag
        return np.asarray(one) @ np.asarray(other)

    xp = SimpleNamespace(matmul=flagged)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(product(np.ones((2, 3)), np.ones((3, 1)), xp=xp), [[3], [3]])
