from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fusioncam_core.metrics import adcc, coherency, complexity
from libraries import Library, assert_close

MAPS = np.random.default_rng(0).random((2, 3, 5, 7)).astype(np.float32)
AGAIN = (MAPS + np.random.default_rng(1).random((2, 3, 5, 7)) - 0.5).astype(np.float32)


class TestCoherency:
    def test_by_hand(self, library: Library) -> None:
        maps = library.asarray(np.array([[[0, 1, 2, 3]], [[0, 1, 2, 3]], [[0, 0, 1, 1]]], dtype=np.float32))
        again = library.asarray(np.array([[[1, 3, 5, 7]], [[6, 4, 2, 0]], [[0, 1, 0, 1]]], dtype=np.float32))
        # Correlations of 1, -1 and 0.
        assert_close(library.compile(coherency)(maps, again), [1, 0, 0.5], maps)

    def test_equals_numpy(self, library: Library) -> None:
        pairs = zip(MAPS.reshape(6, -1), AGAIN.reshape(6, -1), strict=True)
        expected = [(1 + np.corrcoef(first, second)[0, 1]) / 2 for first, second in pairs]
        maps, again = library.asarray(MAPS), library.asarray(AGAIN)
        assert_close(library.compile(coherency)(maps, again), np.reshape(expected, (2, 3)), maps)

    @pytest.mark.parametrize(("scale", "offset"), [(1e-25, 0), (1e25, 0), (1, 100)])
    def test_unit_and_offset_do_not_matter(self, library: Library, scale: float, offset: float) -> None:
        maps, again = library.asarray(MAPS), library.asarray((AGAIN * scale + offset).astype(np.float32))
        expected = np.asarray(coherency(MAPS, AGAIN))
        assert_close(library.compile(coherency)(maps, again), expected, maps, atol=1e-5)

    def test_undefined_for_that_map_alone(self, library: Library) -> None:
        first, second = np.repeat(MAPS[:1, 0], 5, axis=0), np.repeat(AGAIN[:1, 0], 5, axis=0)
        first[0], second[1] = 0.3, 0
        first[2, 1, 1], second[3, 0, 6] = np.nan, np.inf
        expected = [np.nan] * 4 + [float(coherency(MAPS[0, 0], AGAIN[0, 0]))]
        maps, again = library.asarray(first), library.asarray(second)
        assert_close(library.compile(coherency)(maps, again), expected, maps)

    def test_never_leaves_0_to_1(self) -> None:
        maps = np.random.default_rng(0).random((1000, 3, 3)).astype(np.float32)
        same, opposite = coherency(maps, maps), coherency(maps, -maps)
        assert same.max() <= 1
        assert opposite.min() >= 0
        np.testing.assert_allclose(same, 1, atol=1e-6)
        np.testing.assert_allclose(opposite, 0, atol=1e-6)

    def test_other_numbers_of_axes(self, eager: Library) -> None:
        maps, again = eager.asarray(MAPS), eager.asarray(AGAIN)
        expected = [(1 + np.corrcoef(MAPS[i].ravel(), AGAIN[i].ravel())[0, 1]) / 2 for i in range(2)]
        assert_close(coherency(maps, again, spatial_ndim=3), expected, maps)

    def test_half_precision(self) -> None:
        maps = (100 * MAPS).astype(np.float16)
        assert_close(coherency(maps, maps), np.ones((2, 3)), maps, atol=1e-3)

    def test_wrong(self) -> None:
        with pytest.raises(ValueError, match=r"The maps of the masked images have shape \(2, 4\), and \(2, 3\)"):
            coherency(np.zeros((2, 3)), np.zeros((2, 4)))
        with pytest.raises(TypeError, match="again must be of a floating-point dtype"):
            coherency(np.zeros((2, 3)), np.zeros((2, 3), dtype=int))


class TestComplexity:
    def test_by_hand(self, library: Library) -> None:
        maps = library.asarray(np.array([[[0, 1], [0.5, 0.5]], [[-1, 0], [0, 0]], [[0, 0], [0, 0]]], dtype=np.float32))
        assert_close(library.compile(complexity)(maps), [0.5, 0.25, 0], maps)

    def test_undefined_for_that_map_alone(self, library: Library) -> None:
        maps = library.asarray(np.array([[[0, np.nan]], [[1, 0]], [[-np.inf, 1]]], dtype=np.float32))
        assert_close(library.compile(complexity)(maps), [np.nan, 0.5, np.nan], maps)

    def test_half_precision_does_not_overflow(self) -> None:
        maps = np.ones((400, 400), dtype=np.float16)
        assert_close(complexity(maps), 1, maps)

    def test_wrong(self) -> None:
        with pytest.raises(ValueError, match="fewer axes than the 2 of space"):
            complexity(np.zeros(3))


class TestADCC:
    @pytest.mark.parametrize(
        ("terms", "expected"),
        [
            ((1, 0, 0), 1),
            ((0.5, 0.5, 0.5), 0.5),
            ((0.5, 0.75, 0.75), 0.3),  # 3 / (2 + 4 + 4)
            ((0, 0.5, 0.5), 0),
            ((0.5, 1, 0.5), 0),
            ((0.5, 0.5, 1), 0),
            ((0, 1, 1), 0),
            ((np.nan, 0.5, 0.5), np.nan),
            ((0.5, np.nan, 1), np.nan),
            ((0, 0.5, np.nan), np.nan),
            ((1e-39, 0.5, 0.5), 0),  # its reciprocal passes float32
        ],
    )
    def test_by_hand(self, library: Library, terms: tuple[float, ...], expected: float) -> None:
        arrays = [library.asarray(np.array([term, 0.5], dtype=np.float32)) for term in terms]
        assert_close(library.compile(adcc)(*arrays), [expected, 0.5], arrays[0])

    def test_rounding_past_0_and_1_is_0(self, eager: Library) -> None:
        arrays = [eager.asarray(np.array([term], dtype=np.float32)) for term in (-1e-7, 1 + 1e-7, 0.5)]
        assert_close(adcc(*arrays), [0], arrays[0], atol=0)

    def test_wrong(self) -> None:
        half: Any = np.full(2, 0.5)
        with pytest.raises(ValueError, match=r"The coherency lies in \[0, 1\]"):
            adcc(-half, half, half)
        with pytest.raises(ValueError, match=r"The complexity lies in \[0, 1\]: got values from 50.0 to 50.0"):
            adcc(half, 100 * half, half)
        with pytest.raises(ValueError, match=r"coherency \(2,\) and complexity \(2,\) and drop \(3,\)"):
            adcc(half, half, np.full(3, 0.5))
        with pytest.raises(TypeError, match="The drop must be of a floating-point dtype"):
            adcc(half, half, np.ones(2, dtype=int))
