"""The methods beside Grad-CAM that live on activations and gradients: their functions, and their explainers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fusioncam_core.arrays.namespaces import array_namespace
from fusioncam_core.arrays.words import _ratio
from fusioncam_core.explainers.gradient import (
    EigenCAM,
    EigenGradCAM,
    GradCAM,
    GradCAMPlusPlus,
    HiResCAM,
    LayerCAM,
    SmoothGradCAMPlusPlus,
    XGradCAM,
    _standard_noise,
)
from fusioncam_core.methods.eigen import eigen_cam, eigengrad_cam
from fusioncam_core.methods.gradient import grad_cam, grad_cam_plus_plus, hires_cam, layer_cam, xgrad_cam
from fusioncam_core.methods.smooth import smooth_grad_cam_plus_plus
from libraries import Library, assert_close

SIZE = (48, 48)


def one_copy(activations: Any, gradients: Any, **options: Any) -> Any:
    return smooth_grad_cam_plus_plus(activations, [gradients], **options)


def two_copies(activations: Any, gradients: Any, **options: Any) -> Any:
    return smooth_grad_cam_plus_plus(activations, [gradients, gradients * 0.5], **options)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "grad-cam++": grad_cam_plus_plus,
    "xgrad-cam": xgrad_cam,
    "layer-cam": layer_cam,
    "hires-cam": hires_cam,
    "eigengrad-cam": eigengrad_cam,
    "smooth-grad-cam++": two_copies,
}
"""Those of activations and gradients; Eigen-CAM, of activations alone, has tests of its own."""

every_function = pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)


def array(library: Library, values: Any) -> Any:
    return library.asarray(np.array(values, dtype=np.float32))


# The papers' equations as they are printed, for one image and one target, in float64 and without a thought for speed.


def looped_grad_cam_plus_plus(a: np.ndarray, g: np.ndarray) -> np.ndarray:
    weights = np.zeros(len(a))
    for k in range(len(a)):
        for i in np.ndindex(a.shape[1:]):
            if g[k][i] != 0:
                alpha = g[k][i] ** 2 / (2 * g[k][i] ** 2 + a[k].sum() * g[k][i] ** 3)
                weights[k] += alpha * max(g[k][i], 0)
    return positive(sum(weight * channel for weight, channel in zip(weights, a, strict=True)))


def looped_smooth_grad_cam_plus_plus(a: np.ndarray, g: np.ndarray) -> np.ndarray:
    d1, d2, d3 = (np.mean([g**power, (g / 2) ** power], axis=0) for power in (1, 2, 3))
    weights = np.zeros(len(a))
    for k in range(len(a)):
        for i in np.ndindex(a.shape[1:]):
            if d2[k][i] != 0:
                weights[k] += d2[k][i] / (2 * d2[k][i] + a[k].sum() * d3[k][i]) * max(d1[k][i], 0)
    return positive(sum(weight * channel for weight, channel in zip(weights, a, strict=True)))


def looped_xgrad_cam(a: np.ndarray, g: np.ndarray) -> np.ndarray:
    combined = np.zeros(a.shape[1:])
    for channel, gradient in zip(a, g, strict=True):
        weight = sum(channel[i] / channel.sum() * gradient[i] for i in np.ndindex(channel.shape))
        combined += weight * channel
    return positive(combined)


def looped_layer_cam(a: np.ndarray, g: np.ndarray) -> np.ndarray:
    combined = np.zeros(a.shape[1:])
    for k, *i in np.ndindex(a.shape):
        combined[tuple(i)] += max(g[(k, *i)], 0) * a[(k, *i)]
    return positive(combined)


def looped_hires_cam(a: np.ndarray, g: np.ndarray) -> np.ndarray:
    combined = np.zeros(a.shape[1:])
    for k, *i in np.ndindex(a.shape):
        combined[tuple(i)] += g[(k, *i)] * a[(k, *i)]
    return positive(combined)


def looped_eigengrad_cam(a: np.ndarray, g: np.ndarray) -> np.ndarray:
    projection = principal(a * g)
    return positive(projection if (projection * (a * g).sum(axis=0)).sum() > 0 else -projection)


def looped_eigen_cam(a: np.ndarray) -> np.ndarray:
    return scaled(np.abs(principal(a)))  # of activations that are not negative all entries have one sign


def principal(features: np.ndarray) -> np.ndarray:
    """The projection on the first principal direction by power iteration, up to its sign."""
    rows = features.reshape(len(features), -1).T
    direction = np.linspace(1, 2, len(features))
    for _ in range(5000):
        direction = rows.T @ (rows @ direction)
        direction /= np.linalg.norm(direction)
    return (rows @ direction).reshape(features.shape[1:])


def positive(combined: np.ndarray) -> np.ndarray:
    return scaled(np.maximum(combined, 0))


def scaled(combined: np.ndarray) -> np.ndarray:
    extent = combined.max() - combined.min()
    return (combined - combined.min()) / extent if extent else np.zeros_like(combined)


LOOPED: dict[str, Callable[..., np.ndarray]] = {
    "grad-cam++": looped_grad_cam_plus_plus,
    "xgrad-cam": looped_xgrad_cam,
    "layer-cam": looped_layer_cam,
    "hires-cam": looped_hires_cam,
    "eigengrad-cam": looped_eigengrad_cam,
    "smooth-grad-cam++": looped_smooth_grad_cam_plus_plus,
}


class TestAgainstThePapers:
    """Values of every function, compiled where the library compiles, against the printed equations."""

    @pytest.mark.parametrize("name", FUNCTIONS)
    def test_two_dimensions(self, library: Library, name: str) -> None:
        self.check(library, name, (3, 4))

    @pytest.mark.parametrize("space", [(7,), (2, 3, 4)], ids=["1-D", "3-D"])
    @pytest.mark.parametrize("name", FUNCTIONS)
    def test_other_dimensions(self, name: str, space: tuple[int, ...]) -> None:
        self.check(Library("numpy", np.asarray), name, space)

    def check(self, library: Library, name: str, space: tuple[int, ...]) -> None:
        generator = np.random.default_rng(4)
        activations = generator.random((2, 5, *space), dtype=np.float32)
        gradients = generator.standard_normal((2, 3, 5, *space), dtype=np.float32) + np.float32(0.2)
        gradients[0, 0, 1] = 0
        maps = library.compile(FUNCTIONS[name])(library.asarray(activations), library.asarray(gradients))
        expected = [
            [LOOPED[name](image.astype(float), target.astype(float)) for target in targets]
            for image, targets in zip(activations, gradients, strict=True)
        ]
        assert np.ptp(expected, axis=tuple(range(2, 2 + len(space)))).min() == 1
        assert_close(maps, expected, library.asarray(activations), atol=2e-6)

    def test_eigen_cam(self, library: Library) -> None:
        activations = np.random.default_rng(4).random((2, 5, 3, 4), dtype=np.float32)
        maps = library.compile(eigen_cam)(library.asarray(activations))
        expected = [looped_eigen_cam(image.astype(float)) for image in activations]
        assert_close(maps, expected, library.asarray(activations), atol=2e-6)


class TestGolden:
    def test_grad_cam_plus_plus(self, library: Library, shapes: dict[str, Any]) -> None:
        activations, gradients = library.asarray(shapes["activations"]), library.asarray(shapes["gradients"])
        function = library.compile(lambda a, g: grad_cam_plus_plus(a, g, size=SIZE))
        assert_close(function(activations, gradients), shapes["grad_cam_pp"], activations, atol=1e-5)

    def test_smooth_grad_cam_plus_plus_of_equal_copies(self, library: Library, shapes: dict[str, Any]) -> None:
        activations, gradients = library.asarray(shapes["activations"]), library.asarray(shapes["gradients"])
        function = library.compile(lambda a, g: smooth_grad_cam_plus_plus(a, [g, g, g], size=SIZE))
        assert_close(function(activations, gradients), shapes["grad_cam_pp"], activations, atol=1e-5)

    def test_xgrad_cam_without_its_division(self, eager: Library, shapes: dict[str, Any]) -> None:
        # The golden weights lack the division by the sum of the activations: gradients that many times as large
        # bring it about.
        sums = shapes["activations"].sum(axis=(2, 3), keepdims=True)
        activations = eager.asarray(shapes["activations"])
        gradients = eager.asarray(shapes["gradients"] * sums)
        assert_close(xgrad_cam(activations, gradients, size=SIZE), shapes["x_grad_cam"], activations, atol=1e-5)


class TestByHand:
    def test_grad_cam_plus_plus(self, library: Library) -> None:
        activations = array(library, [[[[1, 0], [0, 0]], [[0, 2], [0, 4]]]])
        gradients = array(library, [[[[2, 0], [0, -1]], [[1, 0], [0, 0]]]])
        # The activations sum to 1 and 6: weights 2 / (2 + 2) = 1/2 and 1 / (2 + 6) = 1/8, the sum [[4, 2], [0, 4]] / 8.
        maps = library.compile(grad_cam_plus_plus)(activations, gradients)
        assert_close(maps, [[[1, 0.5], [0, 1]]], activations)

    def test_smooth_grad_cam_plus_plus(self, library: Library) -> None:
        activations = array(library, [[[2, 0, 0], [0, 1, 3]]])
        copies = array(library, [[[[1, 0, 0], [0, 1, 2]]], [[[3, 0, 0], [0, -1, 0]]]])
        # First channel: D1, D2, D3 are 2, 5, 14, and 5 / (10 + 2 * 14) * 2 = 5/19. Second: nothing where D1 is 0, and
        # from 1, 2, 4 at the end 2 / (4 + 4 * 4) = 1/10. The sum is [10/19, 1/10, 3/10].
        expected = [[1, 0, 38 / 81]]
        function = library.compile(smooth_grad_cam_plus_plus)
        assert_close(function(activations, copies), expected, activations)
        assert_close(function(activations, [copies[0, ...], copies[1, ...]]), expected, activations)

    def test_xgrad_cam(self, library: Library) -> None:
        activations = array(library, [[[[1, 0], [0, 0]], [[0, 2], [0, 4]]]])
        gradients = array(library, [[[[2, 9], [9, 9]], [[9, 1], [9, 4]]]])
        # Weights 2 / 1 and (2 + 16) / 6 = 3: the sum is [[2, 6], [0, 12]].
        maps = library.compile(xgrad_cam)(activations, gradients)
        assert_close(maps, [[[1 / 6, 0.5], [0, 1]]], activations)

    def test_layer_cam_and_hires_cam(self, library: Library) -> None:
        activations = array(library, [[[1, 2, 3, 4], [1, 1, 2, 0]]])
        gradients = array(library, [[[1, -1, 1, 0], [-0.5, 3, 0.5, 2]]])
        # Products [1, -2, 3, 0] and [-1/2, 3, 1, 0]; LayerCAM leaves the negative ones out.
        assert_close(library.compile(layer_cam)(activations, gradients), [[0.25, 0.75, 1, 0]], activations)
        assert_close(library.compile(hires_cam)(activations, gradients), [[0.125, 0.25, 1, 0]], activations)

    def test_hires_cam_cuts_what_speaks_against(self, eager: Library) -> None:
        activations = array(eager, [[[1, 2, 3, 4]]])
        gradients = array(eager, [[[-1, 1, -1, 1]]])
        assert_close(hires_cam(activations, gradients), [[0, 0.5, 0, 1]], activations)

    @pytest.mark.parametrize("sign", [1, -1])
    def test_eigen_cam_of_one_pattern(self, library: Library, sign: int) -> None:
        # Both channels are multiples of one pattern, so v_1 is (3, 4) / 5 and the projection five times the pattern.
        activations = array(library, [[[0, 3 * sign, 6 * sign, 12 * sign], [0, 4 * sign, 8 * sign, 16 * sign]]])
        assert_close(library.compile(eigen_cam)(activations), [[0, 0.25, 0.5, 1]], activations)

    def test_eigen_cam_takes_the_stronger_of_two_patterns(self, library: Library) -> None:
        # No position has both: the squared singular values are 18 and 5, and the direction is the first channel's.
        activations = array(library, [[[3, 3, 0, 0], [0, 0, 1, 2]]])
        assert_close(library.compile(eigen_cam)(activations), [[1, 1, 0, 0]], activations)

    @pytest.mark.parametrize(
        ("factors", "pattern", "expected"), [([3, 4], [0, 1, 2, 4], [0, 0.25, 0.5, 1]), ([1, 2, 3, 4], [0, 2], [0, 1])]
    )
    def test_eigen_cam_of_half_precision(self, eager: Library, factors: Any, pattern: Any, expected: Any) -> None:
        if eager.name == "strict":
            pytest.skip("the standard has no half precision")
        activations = eager.asarray(np.multiply.outer(factors, pattern)[None].astype(np.float16))
        assert_close(eigen_cam(activations), [expected], activations, atol=2e-3)

    def test_eigengrad_cam(self, library: Library) -> None:
        activations = array(library, [[[3, 3, 0, 0], [0, 0, 1, 2]]])
        gradients = array(library, [[[1, 0.5, 7, 7], [7, 7, 2, 2]]])
        # Products [3, 3/2, 0, 0] and [0, 0, 2, 4], of squared lengths 11.25 and 20.
        assert_close(library.compile(eigengrad_cam)(activations, gradients), [[0, 0, 0.5, 1]], activations)

    def test_eigengrad_cam_keeps_what_speaks_against_out(self, eager: Library) -> None:
        activations = array(eager, [[[3, 3, 0, 0], [0, 0, 1, 2]]])
        gradients = array(eager, [[[-1, -1, -1, -1], [1, 1, 1, 1]]])
        assert_close(eigengrad_cam(activations, gradients), [[0, 0, 0, 0]], activations)

    def test_eigengrad_cam_takes_no_means_off(self, eager: Library) -> None:
        """With each channel's mean off, a target that nothing speaks for would get a map, as in pytorch-grad-cam."""
        activations = array(eager, [[[1, 2, 3, 4]]])
        gradients = array(eager, [[[-1, -1, -1, -1]]])
        assert_close(eigengrad_cam(activations, gradients), [[0, 0, 0, 0]], activations)
        centred = np.array([-1.0, -2, -3, -4]) + 2.5  # of which 1.5 and 0.5 are positive
        assert (np.maximum(centred, 0) > 0).tolist() == [True, True, False, False]
        everywhere = array(eager, [[[1, 1, 1, 3], [1, 1, 1, 3]]])
        # Of products that are large everywhere the largest keep their proportion to the others: 1 to 3.
        assert_close(eigengrad_cam(everywhere, everywhere * 0 + 1), [[0, 0, 0, 1]], everywhere)

    def test_eigengrad_cam_equals_the_formula(self, eager: Library, shapes: dict[str, Any]) -> None:
        activations, gradients = eager.asarray(shapes["activations"]), eager.asarray(shapes["gradients"])
        expected = []
        for a, g in zip(shapes["activations"], shapes["gradients"], strict=True):
            rows = (a * g).reshape(len(a), -1).T.astype(np.float64)
            projection = rows @ np.linalg.svd(rows, full_matrices=False)[2][0]
            projection *= np.sign(projection @ rows.sum(axis=1))
            expected.append(scaled(np.maximum(projection, 0)).reshape(a.shape[1:]))
        assert_close(eigengrad_cam(activations, gradients), expected, activations, atol=1e-4)


class TestShapes:
    @every_function
    def test_several_targets_equal_one_each(self, shapes: dict[str, Any], function: Callable[..., Any]) -> None:
        activations, gradients = shapes["activations"], shapes["gradients"]
        other = np.roll(gradients, 3, axis=1)
        maps = function(activations, np.stack([gradients, other], axis=1), size=SIZE)
        assert maps.shape == (8, 2, *SIZE)
        np.testing.assert_allclose(maps[:, 0], function(activations, gradients, size=SIZE), atol=1e-6)
        np.testing.assert_allclose(maps[:, 1], function(activations, other, size=SIZE), atol=1e-6)

    @every_function
    def test_channels_last(self, eager: Library, shapes: dict[str, Any], function: Callable[..., Any]) -> None:
        activations, gradients = shapes["activations"][:2], shapes["gradients"][:2]
        expected = function(activations, gradients, size=(20, 30))
        last = [eager.asarray(np.moveaxis(each, 1, -1)) for each in (activations, gradients)]
        assert_close(function(*last, size=(20, 30), channel_axis=-1), expected, last[0], atol=1e-5)

    def test_eigen_cam_channels_last(self, eager: Library, shapes: dict[str, Any]) -> None:
        activations = shapes["activations"][:2]
        last = eager.asarray(np.moveaxis(activations, 1, -1))
        maps = eigen_cam(last, size=(20, 30), channel_axis=-1)
        assert_close(maps, eigen_cam(activations, size=(20, 30)), last, atol=1e-5)

    def test_copies_as_a_list_or_an_array(self, shapes: dict[str, Any]) -> None:
        copies = [shapes["gradients"], np.roll(shapes["gradients"], 1, axis=1)]
        maps = smooth_grad_cam_plus_plus(shapes["activations"], copies)
        np.testing.assert_array_equal(smooth_grad_cam_plus_plus(shapes["activations"], np.stack(copies)), maps)


class TestDegenerate:
    """What has no direction or no size gives zeros, and never NaN."""

    @every_function
    def test_zeros(self, eager: Library, function: Callable[..., Any]) -> None:
        values = array(eager, np.random.default_rng(0).random((2, 3, 4, 5)))
        for activations, gradients in ((values, values * 0), (values * 0, values)):
            assert_close(function(activations, gradients, size=(8, 10)), np.zeros((2, 8, 10)), values)

    @every_function
    def test_constant_activations_and_gradients(self, eager: Library, function: Callable[..., Any]) -> None:
        generator = np.random.default_rng(0)
        constant = [np.broadcast_to(generator.random((2, 64, 1, 1)), (2, 64, 7, 9)) for _ in range(2)]
        activations, gradients = (array(eager, each) for each in constant)
        assert_close(function(activations, gradients, size=(50, 40)), np.zeros((2, 50, 40)), activations)

    @every_function
    def test_one_position(self, eager: Library, function: Callable[..., Any]) -> None:
        activations = array(eager, np.ones((1, 4, 1, 1)))
        assert_close(function(activations, activations, size=(3, 3)), np.zeros((1, 3, 3)), activations)

    @pytest.mark.parametrize("shape", [(2, 64, 7, 9), (2, 3, 1, 1)])
    def test_eigen_cam_of_constant_activations(self, eager: Library, shape: tuple[int, ...]) -> None:
        values = np.random.default_rng(0).standard_normal((*shape[:2], 1, 1))
        activations = array(eager, np.broadcast_to(values, shape))
        assert_close(eigen_cam(activations, size=(50, 40)), np.zeros((2, 50, 40)), activations)
        assert_close(eigen_cam(activations * 0, size=(50, 40)), np.zeros((2, 50, 40)), activations)

    def test_xgrad_cam_of_a_channel_that_sums_to_zero(self, library: Library) -> None:
        activations = array(library, [[[0.3, 0.6, -0.9], [1, 3, 2]]])
        gradients = array(library, [[[5, -2, 3], [1, 1, 1]]])
        # In float32 the first channel sums to 6e-8; only the second one, with weight 1, is seen.
        assert_close(library.compile(xgrad_cam)(activations, gradients), [[0, 1, 0.5]], activations)

    @pytest.mark.parametrize("function", [grad_cam_plus_plus, one_copy])
    def test_grad_cam_plus_plus_with_a_zero_denominator(self, library: Library, function: Callable[..., Any]) -> None:
        activations = array(library, [[[-1, -1, 0], [0, 1, 2]]])
        gradients = array(library, [[[1, 1, 1], [1, 1, 1]]])
        # The first channel's sum is -2, and 2 - 2 * 1 = 0.
        assert_close(library.compile(function)(activations, gradients), [[0, 0.5, 1]], activations)

    @pytest.mark.parametrize("name", [name for name in FUNCTIONS if name not in ("grad-cam++", "smooth-grad-cam++")])
    def test_tiny_gradients_give_the_same_map(self, library: Library, name: str) -> None:
        activations, gradients = self.random_pair()
        maps = library.compile(FUNCTIONS[name])(library.asarray(activations), library.asarray(gradients * 1e-20))
        assert_close(maps, FUNCTIONS[name](activations, gradients), library.asarray(activations), atol=1e-5)

    @pytest.mark.parametrize("function", [grad_cam_plus_plus, one_copy])
    def test_grad_cam_plus_plus_of_tiny_gradients(self, library: Library, function: Callable[..., Any]) -> None:
        # g^2 and g^3 are no float32 numbers any more; alpha tends to 1/2, and what is left is the mean of relu(g).
        activations, gradients = self.random_pair()
        maps = library.compile(function)(library.asarray(activations), library.asarray(gradients * 1e-20))
        expected = grad_cam(activations, np.maximum(gradients, 0))
        assert_close(maps, expected, library.asarray(activations), atol=1e-5)

    def random_pair(self) -> tuple[np.ndarray, np.ndarray]:
        generator = np.random.default_rng(1)
        return generator.random((2, 5, 3, 4), np.float32), generator.standard_normal((2, 5, 3, 4), np.float32)


class TestWrongInput:
    @every_function
    @pytest.mark.parametrize("stage", ["activations", "gradients"])
    def test_not_finite(self, function: Callable[..., Any], stage: str) -> None:
        arrays = {name: np.ones((1, 2, 3, 3), dtype=np.float32) for name in ("activations", "gradients")}
        arrays[stage][0, 1, 2, 0] = np.nan
        with pytest.raises(ValueError, match=f"NaN or infinity in the {stage}"):
            function(*arrays.values())

    @every_function
    def test_shapes_and_dtypes(self, function: Callable[..., Any]) -> None:
        ones = np.ones((1, 2, 3, 3))
        with pytest.raises(ValueError, match=r"gradients have shape \(1, 2, 3, 4\)"):
            function(ones, np.ones((1, 2, 3, 4)))
        with pytest.raises(ValueError, match="one length for each axis of space"):
            function(ones, ones, size=(4,))
        with pytest.raises(ValueError, match="channel_axis is 1 or -1"):
            function(ones, ones, channel_axis=2)
        with pytest.raises(TypeError, match="activations must be of a floating-point dtype"):
            function(ones.astype(int), ones)

    def test_eigen_cam(self) -> None:
        with pytest.raises(TypeError, match="activations must be of a floating-point dtype"):
            eigen_cam(np.ones((1, 2, 3, 3), int))
        with pytest.raises(ValueError, match="NaN or infinity in the activations"):
            eigen_cam(np.full((1, 2, 3, 3), np.inf))
        with pytest.raises(ValueError, match="at least one axis of space"):
            eigen_cam(np.ones((1, 2)))

    def test_no_copies(self) -> None:
        with pytest.raises(ValueError, match="0 of the shapes"):
            smooth_grad_cam_plus_plus(np.ones((1, 2, 3)), [])

    def test_copies_of_different_shapes(self) -> None:
        with pytest.raises(ValueError, match=r"got 2 of the shapes \[\(1, 1, 2, 3\), \(1, 2, 3\)\]"):
            smooth_grad_cam_plus_plus(np.ones((1, 2, 3)), [np.ones((1, 2, 3)), np.ones((1, 1, 2, 3))])


EXPLAINERS = {
    each.name: each
    for each in (
        GradCAM,
        GradCAMPlusPlus,
        XGradCAM,
        LayerCAM,
        HiResCAM,
        EigenCAM,
        EigenGradCAM,
        SmoothGradCAMPlusPlus,
    )
}
EARLY = "features.4"
"""A layer whose gradients differ from position to position and from image to image (32 maps of 24 x 24)."""


@pytest.fixture
def model(shapes_weights: dict[str, Any]) -> Any:
    pytest.importorskip("torch")
    from torch_models import Shapes

    return Shapes(shapes_weights).eval()


class TestExplainers:
    def test_grad_cam_plus_plus_is_golden(self, model: Any, shapes: dict[str, Any]) -> None:
        explanation = GradCAMPlusPlus(model)(shapes["images"], shapes["target"]).numpy()
        np.testing.assert_allclose(explanation.maps, shapes["grad_cam_pp"], atol=1e-5)

    @pytest.mark.parametrize("explainer", [HiResCAM, XGradCAM])
    def test_before_a_mean_and_a_linear_layer_these_are_grad_cam(
        self, model: Any, shapes: dict[str, Any], explainer: Any
    ) -> None:
        explanation = explainer(model)(shapes["images"], shapes["target"]).numpy()
        np.testing.assert_allclose(explanation.maps, shapes["grad_cam"], atol=1e-5)

    def test_eigen_cam_needs_no_gradients(self, model: Any, shapes: dict[str, Any]) -> None:
        import torch

        class Cut(torch.nn.Module):
            def forward(self, values: Any) -> Any:
                return values.detach()

        expected = EigenCAM(model)(shapes["images"]).numpy()
        model.between = Cut()
        explanation = EigenCAM(model)(shapes["images"], [[0, 4]] * 8).numpy()
        np.testing.assert_array_equal(explanation.maps[:, 0], explanation.maps[:, 1])
        np.testing.assert_allclose(explanation.maps[:, 0], expected.maps, atol=1e-6)
        with pytest.raises(ValueError, match="cuts the gradient"):
            EigenGradCAM(model)(shapes["images"])

    @pytest.mark.parametrize("name", [name for name in EXPLAINERS if name != "smooth-grad-cam++"])
    def test_one_evaluation_an_image(self, model: Any, shapes: dict[str, Any], name: str) -> None:
        assert EXPLAINERS[name](model)(shapes["images"][:6], shapes["target"][:6]).evaluations == 6


class TestSmoothing:
    def test_constant_gradients_are_not_smoothed(self, model: Any, shapes: dict[str, Any]) -> None:
        # Behind the last layer are a mean and a linear layer: the gradients of all copies are the same.
        explanation = SmoothGradCAMPlusPlus(model, samples=3)(shapes["images"], shapes["target"]).numpy()
        np.testing.assert_allclose(explanation.maps, shapes["grad_cam_pp"], atol=1e-5)

    def test_the_explainer_is_the_function_of_noisy_copies(self, model: Any, shapes: dict[str, Any]) -> None:
        image, target = shapes["images"][2] * 3 - 1, int(shapes["target"][2])
        generator = np.random.Generator(np.random.PCG64(7))
        deviation = 0.2 * (image.max() - image.min())
        copies = [image + deviation * generator.standard_normal(image.shape).astype(np.float32) for _ in range(3)]
        clean, _ = captured(model, image, target)
        expected = smooth_grad_cam_plus_plus(clean, [captured(model, each, target)[1] for each in copies], size=SIZE)
        cam = SmoothGradCAMPlusPlus(model, EARLY, samples=3, std=0.2, seed=7)
        np.testing.assert_allclose(cam(image, target).numpy().maps, expected, atol=1e-5)

    def test_a_seed_repeats_exactly(self, model: Any, shapes: dict[str, Any]) -> None:
        images, target = shapes["images"][:2], shapes["target"][:2]
        cam = SmoothGradCAMPlusPlus(model, EARLY, samples=2)
        first = cam(images, target).numpy().maps
        np.testing.assert_array_equal(cam(images, target).numpy().maps, first)
        np.testing.assert_array_equal(
            SmoothGradCAMPlusPlus(model, EARLY, samples=2, seed=0)(images, target).numpy().maps, first
        )
        other = SmoothGradCAMPlusPlus(model, EARLY, samples=2, seed=1)(images, target).numpy().maps
        assert np.abs(other - first).max() > 1e-3

    def test_the_default_number_of_copies_is_near_the_limit(self, model: Any, shapes: dict[str, Any]) -> None:
        def maps(**options: Any) -> np.ndarray:
            cam = SmoothGradCAMPlusPlus(model, EARLY, **options)
            return cam(shapes["images"][:4], shapes["target"][:4]).numpy().maps

        limit = maps(samples=200, seed=99)
        assert np.abs(maps() - limit).max() < 0.05
        assert np.abs(maps(samples=1) - limit).max() > 0.2

    def test_the_noise_is_the_same_in_both_layouts(self) -> None:
        first, last = (list(_standard_noise(shape, axis, 2, 5)) for shape, axis in (((3, 4, 6), 1), ((4, 6, 3), -1)))
        np.testing.assert_array_equal(np.moveaxis(last, -1, 2), first)
        assert np.shape(first) == (2, 1, 3, 4, 6)
        assert not np.array_equal(first[0], first[1])

    def test_evaluations_are_counted_and_batches_are_bounded(self, model: Any, shapes: dict[str, Any]) -> None:
        sizes = []
        SmoothGradCAMPlusPlus(model, EARLY).layers(shapes["images"])  # what is measured of the layer is kept
        model.register_forward_hook(lambda m, inputs, outputs: sizes.append(len(inputs[0])))
        explanation = SmoothGradCAMPlusPlus(model, EARLY, samples=4, batch_size=3)(shapes["images"], [[0, 1]] * 8)
        assert explanation.evaluations == sum(sizes) == 8 * (1 + 4)
        assert max(sizes) == 3

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"samples": 0}, "samples is a whole number of at least 1"),
            ({"std": 0}, "std is a positive share of the image's range: got 0"),
            ({"std": float("nan")}, "std is a positive share"),
            ({"seed": -1}, "seed is a whole number of at least 0: got -1"),
        ],
    )
    def test_options_out_of_range(self, model: Any, options: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            SmoothGradCAMPlusPlus(model, **options)


def captured(model: Any, image: np.ndarray, target: int) -> tuple[np.ndarray, np.ndarray]:
    """The early layer's activations and the target's gradients, by plain PyTorch."""
    import torch

    activations = model.features[:5](torch.from_numpy(image[None])).detach().requires_grad_()
    logits = model.fc(model.features[5:](activations).mean(dim=(2, 3)))
    (gradients,) = torch.autograd.grad(logits[0, target], activations)
    return activations.detach().numpy(), gradients.numpy()


def test_a_denominator_that_almost_vanishes() -> None:
    """A quotient beyond the largest number is none, as that of a denominator of zero."""
    numerators = np.asarray([1.0, -1.0, 3.0, 0.0, 1.0], dtype=np.float32)
    denominators = np.asarray([1e-39, 1e-30, 2.0, 1e-39, 0.0], dtype=np.float32)
    with np.errstate(over="raise", divide="raise", invalid="raise"):
        quotients = _ratio(numerators, denominators, xp=array_namespace(numerators))
    np.testing.assert_array_equal(quotients, [0, 0, 1.5, 0, 0])
