"""Signed, raw and layer-size maps of models: the numbers of captum and torch-cam, what is refused, what is drawn."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fusioncam_core import (
    RISE,
    AblationCAM,
    EigenCAM,
    EigenGradCAM,
    EmptyMapWarning,
    Explainer,
    Explanation,
    FusionCAM,
    GradCAM,
    GradCAMPlusPlus,
    GroupCAM,
    HiResCAM,
    LayerCAM,
    ScoreCAM,
    SmoothGradCAMPlusPlus,
    UnionCAM,
    XGradCAM,
    evaluate,
    normalise,
    resize,
)
from fusioncam_core.explainers import Batch, Result
from fusioncam_core.metrics import grid_pointing_game, randomisation_check
from fusioncam_core.results.scaling import is_signed, scaled
from libraries import framework

torch = framework("torch")
nn = torch.nn

RAW: dict[str, Any] = {"relu": False, "normalised": False, "size": "layer"}


class OneConvolution(nn.Module):
    """The network of captum's tests: sums over 3 x 3 pixels less 50 and less 75, and a head of ones and minus ones."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Identity()
        self.conv1 = nn.Conv2d(1, 2, 3)
        self.relu1 = nn.ReLU()
        self.fc1 = nn.Linear(8, 4)
        self.relu2 = nn.ReLU()
        head = torch.cat([torch.ones(4, 5), -torch.ones(4, 3)], dim=1)
        self.conv1.load_state_dict({"weight": torch.ones(2, 1, 3, 3), "bias": torch.tensor([-50.0, -75.0])})
        self.fc1.load_state_dict({"weight": head, "bias": torch.zeros(4)})

    def forward(self, images: Any, more: Any = None) -> Any:
        values = self.image(images if more is None else images + more)
        return self.relu2(self.fc1(self.relu1(self.conv1(values)).flatten(1)))


COUNTED = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)


class TestTheNumbersOfCaptum:
    """What `tests/attr/layer/test_grad_cam.py` of captum expects of its LayerGradCam."""

    @pytest.mark.parametrize(
        ("layer", "expected"), [("conv1", [[11.25, 13.5], [20.25, 22.5]]), ("relu1", [[0, 4], [28, 32.5]])]
    )
    def test_of_a_layer(self, layer: str, expected: Any) -> None:
        maps = GradCAM(OneConvolution(), layer, **RAW)(COUNTED, 0).numpy().maps
        np.testing.assert_allclose(maps[0], expected, atol=1e-6)

    def test_of_a_model_without_gradients_of_its_weights(self) -> None:
        model = OneConvolution().requires_grad_(False)
        maps = GradCAM(model, "conv1", **RAW)(COUNTED, 0).numpy().maps
        np.testing.assert_allclose(maps[0], [[11.25, 13.5], [20.25, 22.5]], atol=1e-6)

    def test_of_two_inputs(self) -> None:
        cam = GradCAM(OneConvolution(), "conv1", masked_input=0, **RAW)
        maps = cam((COUNTED, np.ones_like(COUNTED)), 0).numpy().maps
        np.testing.assert_allclose(maps[0], [[14.5, 19], [32.5, 37]], atol=1e-6)

    @pytest.mark.parametrize("relu", [False, True])
    def test_of_a_layer_input(self, relu: bool) -> None:
        image = COUNTED.copy()
        image[0, 0, 1, 1] = -4
        maps = GradCAM(OneConvolution(), "image", **{**RAW, "relu": relu})(image, 0).numpy().maps
        expected = 0.5625 * image[0, 0]
        np.testing.assert_allclose(maps[0], np.maximum(expected, 0) if relu else expected, atol=1e-6)


def small(seed: int = 2) -> Any:
    """A network none of whose maps of IMAGES is empty."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 8, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * 6 * 8, 4),
    )
    return model.eval()


IMAGES = np.random.default_rng(3).random((2, 3, 12, 16), dtype=np.float32)
TARGETS = [1, 2]
LAYER = "3"


class TestOtherLibraries:
    @pytest.mark.parametrize("relu", [False, True])
    def test_captum(self, relu: bool) -> None:
        attribution, model = framework("captum.attr"), small()
        peer = attribution.LayerGradCam(model, model[3]).attribute(
            torch.from_numpy(IMAGES), target=TARGETS, relu_attributions=relu
        )
        own = GradCAM(model, LAYER, **{**RAW, "relu": relu})(IMAGES, TARGETS).maps
        np.testing.assert_allclose(own.numpy(), peer.detach().numpy()[:, 0], atol=1e-6)
        large = GradCAM(model, LAYER, **{**RAW, "relu": relu, "size": "input"})(IMAGES, TARGETS).maps
        peer = attribution.LayerAttribution.interpolate(peer, (12, 16), "bilinear")
        np.testing.assert_allclose(large.numpy(), peer.detach().numpy()[:, 0], atol=1e-6)

    @pytest.mark.parametrize(("method", "name"), [(GradCAM, "GradCAM"), (XGradCAM, "XGradCAM"), (LayerCAM, "LayerCAM")])
    def test_gradient_methods_of_torch_cam(self, method: type[Explainer], name: str) -> None:
        methods, model = framework("torchcam.methods"), small()
        with getattr(methods, name)(model, LAYER) as extractor:
            scores = model(torch.from_numpy(IMAGES))
            (peer,) = extractor(TARGETS, scores, normalized=False)
        own = method(model, LAYER, normalised=False, size="layer")(IMAGES, TARGETS).maps
        np.testing.assert_allclose(own.numpy(), peer.detach().numpy(), atol=1e-6)

    def test_score_cam_of_torch_cam(self) -> None:
        # At a layer of the input's size: elsewhere torch-cam normalises masks before the resize, the paper after it.
        methods, model = framework("torchcam.methods"), small()
        with methods.ScoreCAM(model, "0", input_shape=(3, 12, 16)) as extractor:
            scores = model(torch.from_numpy(IMAGES))
            (peer,) = extractor(TARGETS, scores, normalized=False)
        own = ScoreCAM(model, "0", normalised=False, size="layer")(IMAGES, TARGETS).maps
        np.testing.assert_allclose(own.numpy(), peer.detach().numpy(), atol=1e-6)


METHODS: dict[str, Callable[..., Explainer]] = {
    "grad-cam": GradCAM,
    "grad-cam++": GradCAMPlusPlus,
    "xgrad-cam": XGradCAM,
    "layer-cam": LayerCAM,
    "hires-cam": HiResCAM,
    "eigengrad-cam": EigenGradCAM,
    "eigen-cam": EigenCAM,
    "smooth-grad-cam++": lambda model, layer, **options: SmoothGradCAMPlusPlus(model, layer, samples=2, **options),
    "score-cam": ScoreCAM,
    "group-cam": GroupCAM,
    "ablation-cam": AblationCAM,
    "rise": lambda model, layer, **options: RISE(model, masks=40, **options),
}

every_method = pytest.mark.parametrize("make", METHODS.values(), ids=METHODS)


class TestEveryMethod:
    @every_method
    def test_forms_agree(self, make: Callable[..., Explainer]) -> None:
        """The usual map is the raw one normalised, and the raw range undoes it; for K targets as for one."""
        asked = [[0, 1], [2, 3]]
        usual = make(small(), LAYER)(IMAGES, asked).numpy()
        raw = make(small(), LAYER, normalised=False)(IMAGES, asked).numpy()
        np.testing.assert_allclose(normalise(raw.maps), usual.maps, atol=1e-4)
        low, high = usual.raw_range[..., 0, None, None], usual.raw_range[..., 1, None, None]
        np.testing.assert_allclose(usual.maps * (high - low) + low, raw.maps, atol=1e-6, rtol=1e-5)
        assert usual.raw_range.shape == (2, 2, 2)
        assert raw.raw_range is None
        assert (usual.form, raw.form) == ("normalised", "raw")
        one = make(small(), LAYER)(IMAGES, [0, 2]).numpy()
        np.testing.assert_allclose(one.raw_range, usual.raw_range[:, 0], rtol=1e-5, atol=1e-7)

    @every_method
    def test_signed(self, make: Callable[..., Explainer]) -> None:
        raw = make(small(), LAYER, relu=False, normalised=False)(IMAGES, TARGETS).numpy()
        signed = make(small(), LAYER, relu=False)(IMAGES, TARGETS).numpy()
        largest = np.abs(raw.maps).max(axis=(1, 2), keepdims=True)
        np.testing.assert_allclose(signed.maps, raw.maps / largest, atol=1e-5)
        ends = np.abs(signed.raw_range).max(axis=-1)
        np.testing.assert_allclose(ends, largest[:, 0, 0], rtol=1e-5)
        assert signed.form == "signed"

    @every_method
    def test_a_size(self, make: Callable[..., Explainer]) -> None:
        raw = make(small(), LAYER, normalised=False, relu=False, size=(6, 8))(IMAGES, TARGETS).numpy()
        assert raw.maps.shape == (2, 6, 8)
        if make is METHODS["rise"]:
            at_input = make(small(), LAYER, normalised=False, relu=False)(IMAGES, TARGETS).numpy()
            np.testing.assert_allclose(raw.maps, resize(at_input.maps, (6, 8)), atol=1e-6)
        else:
            of_layer = make(small(), LAYER, normalised=False, relu=False, size="layer")(IMAGES, TARGETS).numpy()
            np.testing.assert_array_equal(of_layer.maps, raw.maps)

    def test_what_is_cut_is_what_was_negative(self) -> None:
        raw = ScoreCAM(small(), LAYER, **RAW)(IMAGES, TARGETS).numpy().maps
        assert raw.min() < 0 < raw.max()
        cut = ScoreCAM(small(), LAYER, **{**RAW, "relu": True})(IMAGES, TARGETS).numpy().maps
        np.testing.assert_array_equal(cut, np.maximum(raw, 0))

    def test_a_budget_goes_as_far_whatever_the_form(self) -> None:
        model = small()
        usual = ScoreCAM(model, LAYER, budget=5)(IMAGES, TARGETS).numpy()
        raw = ScoreCAM(model, LAYER, budget=5, **RAW)(IMAGES, TARGETS).numpy()
        np.testing.assert_array_equal(usual.masks_run, raw.masks_run)
        np.testing.assert_array_equal(usual.uncertainty, raw.uncertainty)


class TestSeveralLayers:
    def test_signed_maps_are_combined_about_zero(self) -> None:
        model = small()
        both = GradCAM(model, ["0", "3"], relu=False)(IMAGES, TARGETS).numpy()
        mean = (both.parts["0"] + both.parts["3"]) / 2
        np.testing.assert_allclose(both.maps, mean / np.abs(mean).max(axis=(1, 2), keepdims=True), atol=1e-6)
        assert both.raw_range is None

    def test_raw_maps_are_combined_as_they_are(self) -> None:
        model = small()
        both = GradCAM(model, ["3", "4"], combine="max", **RAW)(IMAGES, TARGETS).numpy()
        np.testing.assert_array_equal(both.maps, np.maximum(both.parts["3"], both.parts["4"]))
        assert both.maps.shape == (2, 6, 8)

    def test_layers_of_other_sizes(self) -> None:
        with pytest.raises(ValueError, match=r"layers of one size.*\(12, 16\) of '0', \(6, 8\) of '3'"):
            GradCAM(small(), ["0", "3"], size="layer")(IMAGES, TARGETS)

    def test_a_product_of_signs(self) -> None:
        with pytest.raises(ValueError, match="combine='mean' or 'max', got 'product'"):
            GradCAM(small(), ["0", "3"], relu=False, combine="product")


class TestEnsembles:
    def test_the_gradient_part_shows_its_signed_map(self) -> None:
        model = small()
        plain = FusionCAM(model, LAYER)(IMAGES, TARGETS).numpy()
        signed = GradCAM(model, LAYER, relu=False)(IMAGES, TARGETS).numpy()
        raw = GradCAM(model, LAYER, relu=False, normalised=False)(IMAGES, TARGETS).numpy()
        for cam, expected in (
            (FusionCAM(model, LAYER, gradient_options={"relu": False}), signed),
            (FusionCAM(model, LAYER, gradient=GradCAM(model, LAYER, relu=False)), signed),
            (FusionCAM(model, LAYER, gradient_options={"relu": False, "normalised": False}), raw),
        ):
            found = cam(IMAGES, TARGETS).numpy()
            np.testing.assert_allclose(found.parts["signed"], expected.maps, atol=1e-6)
            np.testing.assert_allclose(found.maps, plain.maps, atol=1e-6)
            np.testing.assert_allclose(found.parts["gradient"], plain.parts["gradient"], atol=1e-6)
            assert found.form == "normalised"
        assert "signed" not in plain.parts

    def test_raw_range_of_fusion_cam(self) -> None:
        found = FusionCAM(small(), LAYER)(IMAGES, TARGETS).numpy()
        weights = found.weights
        a = weights["fusion_weight_union"][:, None, None] * found.parts["union"]
        b = weights["fusion_weight_region"][:, None, None] * found.parts["region"]
        s = found.parts["similarity"]
        fused = s * np.maximum(a, b) + (1 - s) * (a + b) / 2
        np.testing.assert_allclose(found.raw_range, np.stack([fused.min((1, 2)), fused.max((1, 2))], -1), atol=1e-6)
        for variant in ("united", "calibrated"):
            assert FusionCAM(small(), LAYER, variant=variant)(IMAGES, TARGETS).raw_range is None

    @pytest.mark.parametrize("contributions", ["clipped", "signed"])
    def test_raw_range_of_union_cam(self, contributions: Any) -> None:
        found = UnionCAM(small(1), LAYER, contributions=contributions)(IMAGES, [[0, 1], [2, 3]]).numpy()
        weights, parts = found.weights, found.parts
        share = {name: weights[f"weight_{name}"][..., None, None] for name in ("denoised", "region")}
        united = share["denoised"] * parts["denoised"] + share["region"] * parts["region"]
        better = weights["probability_union"] > weights["probability_region"]
        before = np.where(better[..., None, None], united, parts["region"])
        if contributions == "signed":
            gain = np.where(better, weights["contribution_union"], weights["contribution_region"])
            before = gain[..., None, None] * np.where(better[..., None, None], parts["union"], parts["region"])
        expected = np.stack([before.min(axis=(2, 3)), before.max(axis=(2, 3))], axis=-1)
        np.testing.assert_allclose(found.raw_range, expected, atol=1e-6)

    @pytest.mark.parametrize("method", [FusionCAM, UnionCAM])
    def test_a_size(self, method: type[Explainer]) -> None:
        large = method(small(), LAYER)(IMAGES, TARGETS).numpy()
        found = method(small(), LAYER, size=(6, 9))(IMAGES, TARGETS).numpy()  # type: ignore[call-arg]
        np.testing.assert_allclose(found.maps, resize(large.maps, (6, 9)), atol=1e-6)
        for name, part in large.parts.items():
            np.testing.assert_allclose(found.parts[name], resize(part, (6, 9)), atol=1e-6)

    @pytest.mark.parametrize("method", [FusionCAM, UnionCAM])
    @pytest.mark.parametrize("options", [{"relu": False}, {"normalised": False}])
    def test_no_other_form(self, method: Any, options: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match=r"with which it masks the image.*gradient_options=\{'relu': False\}"):
            method(small(), LAYER, **options)

    @pytest.mark.parametrize("method", [FusionCAM, UnionCAM])
    def test_no_size_of_the_layer(self, method: Any) -> None:
        with pytest.raises(ValueError, match=r"fuses its maps at the input's size.*expected size='input'"):
            method(small(), LAYER, size="layer")

    @pytest.mark.parametrize(
        "parts",
        [
            lambda model: {"region": ScoreCAM(model, LAYER, relu=False)},
            lambda model: {"region": ScoreCAM(model, LAYER, size="layer")},
            lambda model: {"gradient": GradCAM(model, LAYER, relu=False, size=(6, 8))},
            lambda model: {"gradient": GradCAM(model, LAYER, normalised=False)},
            lambda model: {"gradient": GradCAM(model, ["0", LAYER], relu=False)},
            lambda model: {"gradient_options": {"normalised": False}},
        ],
    )
    def test_parts_that_are_no_stage(self, parts: Callable[[Any], dict[str, Any]]) -> None:
        model = small()
        with pytest.raises(ValueError, match=r"is a stage of Fusion-CAM, in \[0, 1\] and of the input's size"):
            FusionCAM(model, LAYER, **parts(model))

    def test_a_form_for_the_region_method(self) -> None:
        with pytest.raises(TypeError, match="relu is said to the fusion-cam itself"):
            FusionCAM(small(), LAYER, region_options={"relu": False})


class TestWhatIsRefused:
    @pytest.mark.parametrize("option", ["relu", "normalised"])
    def test_no_flag(self, option: Any) -> None:
        with pytest.raises(TypeError, match=f"{option} is True or False: got 1"):
            GradCAM(small(), LAYER, **{option: 1})

    @pytest.mark.parametrize(
        ("size", "message"),
        [
            ("large", "size is 'input', 'layer', or one length for each axis of space.*got 'large'"),
            (7, "size is 'input', 'layer', or one length for each axis of space.*got 7"),
            ((7, 0), r"one positive length for each spatial axis.*got \(7, 0\)"),
            ((7.5, 7), "one positive length for each spatial axis"),
            ((), "one positive length for each spatial axis"),
        ],
    )
    def test_no_size(self, size: Any, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            GradCAM(small(), LAYER, size=size)

    def test_a_size_of_other_axes(self) -> None:
        with pytest.raises(ValueError, match=r"of which there are 2, got \(7,\)"):
            GradCAM(small(), LAYER, size=(7,))(IMAGES, TARGETS)

    def test_no_layer(self) -> None:
        with pytest.raises(ValueError, match="RISE looks at no layer: expected size='input'"):
            RISE(small(), size="layer")

    @pytest.mark.parametrize("options", [{"relu": False}, {"normalised": False}, {"size": "layer"}, {"size": (6, 8)}])
    def test_metrics_and_evaluation(self, options: dict[str, Any]) -> None:
        model = small()
        cam = GradCAM(model, LAYER, **options)
        with pytest.raises(
            ValueError, match=r"Methods are compared by maps in \[0, 1\] at the input's size: got those of"
        ):
            evaluate(model, IMAGES, [cam], ["deletion"])
        with pytest.raises(ValueError, match="Methods are compared by maps"):
            evaluate(model, IMAGES, {"mine": ("grad-cam", options)}, ["deletion"])
        with pytest.raises(ValueError, match="The grid pointing game measures maps"):
            grid_pointing_game(cam, IMAGES, TARGETS, rows=1, columns=2)

    def test_the_sanity_check_ranks_maps_of_any_form(self) -> None:
        usual = randomisation_check(HiResCAM(small(), LAYER, relu=False), IMAGES, TARGETS, stages=2)
        raw = randomisation_check(HiResCAM(small(), LAYER, relu=False, normalised=False), IMAGES, TARGETS, stages=2)
        np.testing.assert_allclose(usual.similarities, raw.similarities, atol=1e-6)


class Own(GradCAM):
    """A user's method on top of one of ours."""

    title = "Own"

    def explain(self, batch: Batch) -> Result:
        return Result(super().explain(batch).maps ** 2)


class Heard(GradCAM):
    """A user's method that hears the options."""

    title = "Heard"
    takes_form = True

    def explain(self, batch: Batch) -> Result:
        return self.finish(batch, self.formula(batch.activations, 2 * batch.required_gradients, xp=batch.xp))


class TestMethodsOfUsers:
    @pytest.mark.parametrize("options", [{"relu": False}, {"normalised": False}, {"size": "layer"}])
    def test_who_does_not_finish_has_no_form(self, options: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match=r"Own gives its maps in \[0, 1\].*takes_form = True"):
            Own(small(), LAYER, **options)
        assert Own(small(), LAYER)(IMAGES, TARGETS).maps.shape == (2, 12, 16)

    def test_who_finishes_has_all(self) -> None:
        found = Heard(small(), LAYER, **RAW)(IMAGES, TARGETS).numpy()
        np.testing.assert_allclose(found.maps, 2 * GradCAM(small(), LAYER, **RAW)(IMAGES, TARGETS).numpy().maps)

    def test_a_signed_part_needs_what_it_was_made_of(self) -> None:
        class Squared(Own):
            takes_form = True

        model = small()
        with pytest.raises(ValueError, match="has no signed map beside its own"):
            FusionCAM(model, LAYER, gradient=Squared(model, LAYER, relu=False))(IMAGES, TARGETS)


class TestWarnings:
    def test_a_map_against_the_target_is_empty_unless_signed(self) -> None:
        model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 2))
        model.load_state_dict(
            {
                "0.weight": torch.ones(1, 1, 1, 1),
                "0.bias": torch.zeros(1),
                "3.weight": torch.tensor([[1.0], [-1.0]]),
                "3.bias": torch.zeros(2),
            }
        )
        image = COUNTED / 16
        with pytest.warns(EmptyMapWarning, match="zero everywhere"):
            GradCAM(model, "0")(image, 1)
        signed = GradCAM(model, "0", relu=False)(image, 1).numpy()
        np.testing.assert_allclose(signed.maps, -image[0] / image.max(), atol=1e-6)


class TestWhatIsDrawn:
    def test_signed_maps_by_their_largest_magnitude(self) -> None:
        signed = GradCAM(small(), LAYER, relu=False)(IMAGES, TARGETS).numpy()
        assert is_signed(signed, "maps")
        drawn = scaled(signed, "maps", 0, "each", signed=True)
        np.testing.assert_allclose(np.abs(drawn).max(), 1)
        np.testing.assert_allclose(drawn[0], signed.maps[0], atol=1e-6)
        nothing_against = replace(signed, maps=np.abs(signed.maps))
        assert is_signed(nothing_against, "maps"), "the colours say what form maps are of, not what is in them"
        assert not is_signed(replace(nothing_against, form="normalised"), "maps")

    def test_raw_maps_are_drawn_like_normalised_ones(self, tmp_path: Any) -> None:
        pillow = pytest.importorskip("PIL.Image")
        pytest.importorskip("matplotlib")
        model, pictures = small(), []
        for options in ({}, {"normalised": False}, {"normalised": False, "size": "input"}):
            explanation: Explanation = LayerCAM(model, LAYER, **options)(IMAGES[:1], [1])
            pictures.append(np.asarray(pillow.open(io.BytesIO(explanation._repr_png_())).convert("RGB"), dtype=float))
            explanation.save(tmp_path / f"{len(pictures)}")
        # A map of zeros somewhere is normalised by its maximum either way.
        assert LayerCAM(model, LAYER)(IMAGES[:1], [1]).raw_range[0, 0] == 0
        np.testing.assert_allclose(pictures[0], pictures[1], atol=1)


class TestExplanations:
    def test_raw_range_goes_with_its_image(self) -> None:
        found = GradCAM(small(), LAYER)(IMAGES, [[0, 1], [2, 3]])
        alone = [each.raw_range for each in found]
        assert [tuple(each.shape) for each in alone] == [(1, 2, 2)] * 2
        assert torch.equal(torch.cat(alone), found.raw_range)
        assert isinstance(found.numpy().raw_range, np.ndarray)
        assert found == found.numpy()
        many = list(GradCAM(small(), LAYER, **RAW).explain_many(IMAGES, 1))
        assert [each.form for each in many] == ["raw", "raw"]
        assert [tuple(each.maps.shape) for each in many] == [(1, 6, 8)] * 2
