"""Signed, raw and layer-size maps of the functions of arrays, by hand, in every library."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fusioncam_core as core
from fusioncam_core import normalise
from fusioncam_core.arrays.namespaces import array_namespace, constant_like
from fusioncam_core.arrays.words import _normalised_about_zero
from fusioncam_core.methods.form import Combined, Form, finished
from libraries import Library, assert_close

A = np.array([[[[4, 0], [2, 6]], [[1, 3], [5, 1]]]], dtype=np.float32)
"""(1, 2, 2, 2) activations."""

G = np.array([[[[1, 3], [2, 2]], [[-2, -1], [-4, 3]]]], dtype=np.float32)
"""Their gradients: of means 2 and -1."""

GRAD_CAM = np.array([[7, -3], [-1, 11]], dtype=np.float32)
"""2 A_0 - A_1."""

HIRES = np.array([[2, -3], [-16, 15]], dtype=np.float32)
"""A_0 g_0 + A_1 g_1."""

LAYER = np.array([[4, 0], [4, 15]], dtype=np.float32)
"""A_0 g_0, and 3 of the only positive gradient of the second channel: its last."""

XGRAD = 20 / 12 * A[0, 0] - 22 / 10 * A[0, 1]
"""The channels sum to 12 and 10, activations times gradients to 20 and -22."""


def array(library: Library, values: Any) -> Any:
    return library.asarray(np.array(values, dtype=np.float32))


GRADIENT: dict[str, tuple[Callable[..., Any], np.ndarray]] = {
    "grad-cam": (core.grad_cam, GRAD_CAM),
    "hires-cam": (core.hires_cam, HIRES),
    "layer-cam": (core.layer_cam, LAYER),
    "xgrad-cam": (core.xgrad_cam, XGRAD),
    "ablation-cam": (
        lambda a, g, **options: core.ablation_cam(a, g[:, 0, 0, 0] * 0 + 5, g[:, :, 0, 0] * 0 + _shifted(g), **options),
        GRAD_CAM,
    ),
}


def _shifted(gradients: Any) -> Any:
    """5 - 2 and 5 + 1: without its channel the score of 5 falls by 2, or rises by 1."""
    xp = array_namespace(gradients)
    return constant_like(np.array([[3.0, 6.0]]), gradients, xp)


every_method = pytest.mark.parametrize(("function", "summed"), GRADIENT.values(), ids=GRADIENT)


class TestGradientFamily:
    @every_method
    def test_raw_and_signed(self, library: Library, function: Callable[..., Any], summed: np.ndarray) -> None:
        a, g = array(library, A), array(library, G)
        raw = library.compile(lambda a, g: function(a, g, relu=False, normalised=False))
        assert_close(raw(a, g), summed[None], a, atol=1e-5)

    @every_method
    def test_raw(self, eager: Library, function: Callable[..., Any], summed: np.ndarray) -> None:
        a, g = array(eager, A), array(eager, G)
        assert_close(function(a, g, normalised=False), np.maximum(summed, 0)[None], a, atol=1e-5)

    @every_method
    def test_signed(self, eager: Library, function: Callable[..., Any], summed: np.ndarray) -> None:
        a, g = array(eager, A), array(eager, G)
        assert_close(function(a, g, relu=False), summed[None] / np.abs(summed).max(), a)

    @every_method
    def test_resized_as_they_are(self, eager: Library, function: Callable[..., Any], summed: np.ndarray) -> None:
        a, g = array(eager, A), array(eager, G)
        large = np.asarray(core.resize(summed[None], (5, 3)))
        assert_close(function(a, g, relu=False, normalised=False, size=(5, 3)), large, a, atol=1e-5)

    @pytest.mark.parametrize("function", [core.grad_cam_plus_plus, core.eigengrad_cam, core.hires_cam, core.grad_cam])
    def test_units_of_the_method_whatever_the_size_of_numbers(
        self, eager: Library, function: Callable[..., Any]
    ) -> None:
        """Activations and gradients out of the range of safe products are worked on in other units, and given back."""
        small, large = array(eager, A), array(eager, G)
        usual = np.asarray(function(small, large, relu=False, normalised=False))
        # Gradients this much smaller make Grad-CAM++'s denominators 2; as much smaller again, weights as much smaller.
        for factor in (1e-8, 1e-20) if function is core.grad_cam_plus_plus else (1e-20, 1e20):
            raw = np.asarray(function(small, large * factor, relu=False, normalised=False))
            first = factor / 1e-8 if function is core.grad_cam_plus_plus else factor
            usual = raw if factor == 1e-8 else usual
            np.testing.assert_allclose(raw, usual * first, rtol=1e-4)

    def test_smooth_grad_cam_plus_plus_of_one_copy_is_grad_cam_plus_plus(self, eager: Library) -> None:
        a, g = array(eager, A), array(eager, G)
        options: Any = {"relu": False, "normalised": False}
        expected = np.asarray(core.grad_cam_plus_plus(a, g, **options))
        assert_close(core.smooth_grad_cam_plus_plus(a, [g], **options), expected, a, atol=1e-5)
        assert_close(core.smooth_grad_cam_plus_plus(a, [g, g, g], **options), expected, a, atol=1e-5)

    def test_grad_cam_plus_plus_by_hand(self) -> None:
        # relu(g) / (2 + sum(A) g): channel 0 sums to 12, channel 1 to 10.
        first = sum(g / (2 + 12 * g) for g in (1, 3, 2, 2))
        second = 3 / (2 + 10 * 3)
        raw = core.grad_cam_plus_plus(A, G, relu=False, normalised=False)
        np.testing.assert_allclose(raw[0], first * A[0, 0] + second * A[0, 1], rtol=1e-6)

    def test_several_targets_keep_their_own_scale(self) -> None:
        both = np.stack([G, 3 * G], axis=1)
        maps = core.grad_cam(A, both, relu=False, normalised=False)
        np.testing.assert_allclose(maps[0], [GRAD_CAM, 3 * GRAD_CAM], rtol=1e-6)


class TestEigenCAM:
    def test_raw_is_the_projection(self, eager: Library) -> None:
        activations = np.array([[[[3, -1], [0, 2]], [[4, 0], [0, 0]]]], dtype=np.float32)
        rows = activations[0].reshape(2, -1).T.astype(np.float64)
        projection = (rows @ np.linalg.svd(rows)[2][0]).reshape(2, 2)
        projection *= np.sign(projection.sum())
        a = array(eager, activations)
        assert_close(core.eigen_cam(a, normalised=False), projection[None], a, atol=1e-5)
        assert_close(core.eigen_cam(a, relu=False), projection[None] / np.abs(projection).max(), a)
        assert_close(core.eigen_cam(a), np.asarray(normalise(projection[None])), a)
        assert projection.min() < 0, "the method has no relu, so its raw map has a sign either way"


def scorer(library: Library) -> Callable[..., Any]:
    """The logits of masks (n, 2, 2): 3 times the first pixel less the last one."""

    def score(masks: Any, images: Any) -> Any:
        return masks[:, 0, 0] * 3 - masks[:, 1, 1]

    return score


class TestScoreCAM:
    def shares(self) -> np.ndarray:
        masks = (A[0] - A[0].min(axis=(1, 2), keepdims=True)) / np.ptp(A[0], axis=(1, 2), keepdims=True)
        logits = 3 * masks[:, 0, 0] - masks[:, 1, 1]
        return np.exp(logits) / np.exp(logits).sum()

    def test_raw_signed_and_of_another_size(self, eager: Library) -> None:
        shifted = A - 2
        summed = np.tensordot(self.shares(), shifted[0], axes=1)
        assert summed.min() < 0 < summed.max()
        a = array(eager, shifted)
        assert_close(core.score_cam(a, scorer(eager), normalised=False), np.maximum(summed, 0)[None], a, atol=1e-5)
        raw = core.score_cam(a, scorer(eager), relu=False, normalised=False)
        assert_close(raw, summed[None], a, atol=1e-5)
        assert_close(core.score_cam(a, scorer(eager), relu=False), summed[None] / np.abs(summed).max(), a, atol=1e-5)
        wide = core.score_cam(a, scorer(eager), relu=False, normalised=False, map_size=(3, 5))
        assert_close(wide, np.asarray(core.resize(summed[None], (3, 5))), a, atol=1e-5)

    def test_the_masks_keep_their_size(self) -> None:
        asked: list[tuple[int, ...]] = []

        def score(masks: Any, images: Any) -> Any:
            asked.append(masks.shape[1:])
            return masks.sum(axis=(1, 2))

        maps = core.score_cam(A, score, size=(6, 8), map_size=(2, 2))
        assert maps.shape == (1, 2, 2)
        assert set(asked) == {(6, 8)}

    def test_units_of_large_activations(self) -> None:
        raw = core.score_cam(A * np.float32(1e20), scorer(Library("numpy", np.asarray)), normalised=False)
        np.testing.assert_allclose(raw[0], np.tensordot(self.shares(), A[0], axes=1) * 1e20, rtol=1e-5)

    def test_by_probability_it_sums_masks(self) -> None:
        def score(masks: Any, images: Any) -> Any:
            return masks[:, 0, 0] / 2

        masks = (A[0] - A[0].min(axis=(1, 2), keepdims=True)) / np.ptp(A[0], axis=(1, 2), keepdims=True)
        raw = core.score_cam(A * np.float32(1e20), score, channel_weights="probability", normalised=False)
        np.testing.assert_allclose(raw[0], np.tensordot(masks[:, 0, 0] / 2, masks, axes=1), rtol=1e-5)

    def test_ss_cam_and_is_cam(self) -> None:
        shifted = A - 2
        for function in (core.ss_cam, core.is_cam):
            options: Any = {"relu": False, "normalised": False, "map_size": (3, 3)}
            raw = function(shifted, scorer(Library("numpy", np.asarray)), **options)
            assert raw.shape == (1, 3, 3)
            usual = function(shifted, scorer(Library("numpy", np.asarray)), map_size=(3, 3))
            np.testing.assert_allclose(normalise(np.maximum(raw, 0)), usual, atol=1e-5)
            layer = function(shifted, scorer(Library("numpy", np.asarray)), relu=False, normalised=False)
            share = (layer[0, 0, 0] - shifted[0, 1, 0, 0]) / (shifted[0, 0, 0, 0] - shifted[0, 1, 0, 0])
            assert 0 <= share <= 1
            np.testing.assert_allclose(layer[0], share * shifted[0, 0] + (1 - share) * shifted[0, 1], atol=1e-5)


class TestGroupCAM:
    def test_a_group_takes_away_without_the_relu(self, eager: Library) -> None:
        # Two groups of one channel: their maps are relu(2 A_0) and relu(A_1), of gradients' means 2 and 1.
        a, g = array(eager, A), array(eager, np.abs(G) * 0 + np.array([2, 1]).reshape(1, 2, 1, 1))
        increases = [0.5, -0.25]

        def score(masks: Any, images: Any) -> Any:
            return constant_like(np.array(increases[: int(masks.shape[0])]), masks, array_namespace(masks))

        masks = (A[0] - A[0].min(axis=(1, 2), keepdims=True)) / np.ptp(A[0], axis=(1, 2), keepdims=True)
        options: Any = {"percentile": 0, "normalised": False}
        assert_close(core.group_cam(a, g, score, **options), 0.5 * masks[:1], a)
        signed = core.group_cam(a, g, score, relu=False, **options)
        assert_close(signed, (0.5 * masks[0] - 0.25 * masks[1])[None], a)
        large = np.asarray(core.resize(masks, (6, 6)))
        large = (large - large.min(axis=(1, 2), keepdims=True)) / np.ptp(large, axis=(1, 2), keepdims=True)
        wide = core.group_cam(a, g, score, relu=False, map_size=(6, 6), **options)
        assert_close(wide, (0.5 * large[0] - 0.25 * large[1])[None], a)


class TestRISE:
    def test_raw_is_the_mean_probability_where_a_place_is_seen(self, eager: Library) -> None:
        images = array(eager, np.zeros((1, 1, 6, 6)))

        def always(masks: Any, owners: Any) -> Any:
            return masks[:, 0, 0] * 0 + 0.75

        raw = np.asarray(core.rise(images, always, masks=600, cells=3, normalised=False))
        assert raw.mean() == pytest.approx(0.75, abs=0.02)
        signed = np.asarray(core.rise(images, always, masks=600, cells=3, relu=False))
        np.testing.assert_allclose(signed, raw / raw.max(), rtol=1e-5)
        wide = np.asarray(core.rise(images, always, masks=600, cells=3, normalised=False, map_size=(3, 4)))
        np.testing.assert_allclose(wide, core.resize(raw, (3, 4)), rtol=1e-5)


class TestScaling:
    def test_about_zero(self, eager: Library) -> None:
        values = array(eager, [[[-4, 0], [2, 1]], [[0, 0], [0, 0]], [[3, 3], [3, 3]], [[1e-42, 0], [0, 0]]])
        maps, low, high = _normalised_about_zero(values, 2, xp=array_namespace(values))
        expected = [[[-1, 0], [0.5, 0.25]], [[0, 0], [0, 0]], [[1, 1], [1, 1]], [[0, 0], [0, 0]]]
        assert_close(maps, expected, values)
        np.testing.assert_allclose(np.asarray(low)[:3, 0, 0], [-4, 0, 3])
        np.testing.assert_allclose(np.asarray(high)[:3, 0, 0], [2, 0, 3])

    def test_the_raw_range_undoes_the_normalisation(self, eager: Library) -> None:
        values = array(eager, np.stack([GRAD_CAM, HIRES])[None])
        xp = array_namespace(values)
        found = finished(Combined(values, (3.0,), cut="none"), (4, 4), Form(), ranges=True, xp=xp)
        ends = np.asarray(found.raw_range)
        raw = np.asarray(finished(Combined(values, (3.0,), cut="none"), (4, 4), Form(normalised=False), xp=xp).maps)
        low, high = ends[..., 0, None, None], ends[..., 1, None, None]
        np.testing.assert_allclose(np.asarray(found.maps) * (high - low) + low, raw, rtol=1e-5, atol=1e-4)
        np.testing.assert_allclose(ends, 3 * np.array([[[-3, 11], [-16, 15]]]), rtol=1e-5)
        signed = finished(Combined(values, (3.0,), cut="none"), (4, 4), Form(relu=False), xp=xp)
        largest = np.maximum(-ends[..., 0], ends[..., 1])[..., None, None]
        np.testing.assert_allclose(np.asarray(signed.maps) * largest, raw, rtol=1e-5, atol=1e-4)


FORMED = [
    name
    for name in core.__all__
    if inspect.isfunction(getattr(core, name)) and "normalised" in inspect.signature(getattr(core, name)).parameters
]
"""The functions that make maps."""


class TestWrongOptions:
    def test_every_function_of_a_method_has_them(self) -> None:
        assert {"grad_cam", "score_cam", "group_cam", "rise", "eigen_cam", "ablation_cam", "is_cam"} <= set(FORMED)
        assert all("relu" in inspect.signature(getattr(core, name)).parameters for name in FORMED)

    @pytest.mark.parametrize("option", ["relu", "normalised"])
    @pytest.mark.parametrize("name", FORMED)
    def test_no_flag(self, name: str, option: str) -> None:
        function = getattr(core, name)
        arguments: dict[str, Any] = {"activations": A, "gradients": [G] if "smooth" in name else G, "images": A}
        arguments |= {"scorer": scorer(Library("numpy", np.asarray)), "scores": np.ones(1), "ablated": np.ones((1, 2))}
        taken = {key: value for key, value in arguments.items() if key in inspect.signature(function).parameters}
        with pytest.raises(TypeError, match=f"{option} is True or False: got 'no'"):
            function(**taken, **{option: "no"})

    @pytest.mark.parametrize("name", ["score_cam", "ss_cam", "is_cam", "rise"])
    def test_a_size_of_other_axes(self, name: str) -> None:
        function = getattr(core, name)
        with pytest.raises(ValueError, match=r"one length for each axis of space, of which there are 2, got \(3,\)"):
            function(A, scorer(Library("numpy", np.asarray)), map_size=(3,))

    def test_a_size_of_other_axes_of_group_cam(self) -> None:
        with pytest.raises(ValueError, match=r"of which there are 2, got \(3, 3, 3\)"):
            core.group_cam(A, G, scorer(Library("numpy", np.asarray)), map_size=(3, 3, 3))

    @pytest.mark.filterwarnings("ignore:overflow")
    def test_raw_values_beyond_the_dtype(self) -> None:
        with pytest.raises(ValueError, match="NaN or infinity in the raw map"):
            core.hires_cam(A * np.float32(1e30), G * np.float32(1e30), normalised=False)
        assert core.hires_cam(A * np.float32(1e30), G * np.float32(1e30)).max() == 1
