"""Fusion-CAM of any pair of methods, and Union-CAM: as functions of arrays, and end to end on PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fusioncam_core import GradCAM, contribution_weights, fusion_cam, normalise
from fusioncam_core.explainers.ensembles import FusionCAM, UnionCAM
from fusioncam_core.explainers.gradient import LayerCAM, SmoothGradCAMPlusPlus
from fusioncam_core.explainers.region import AblationCAM, GroupCAM, ScoreCAM
from fusioncam_core.explainers.region_sampled import RISE, SSCAM
from fusioncam_core.explainers.registry import EXPLAINERS, capabilities, methods
from fusioncam_core.methods.union import denoised_cam, union_cam
from libraries import Library, assert_close

torch = pytest.importorskip("torch")

SIZE = (48, 48)
POSITIVE = [0, 1, 4]
"""The golden cases in which every contribution is positive."""

OWN = [name for name, each in EXPLAINERS.items() if each.__module__.startswith("fusioncam_core.")]
"""Other tests define methods, too."""

GRADIENT_METHODS = [name for name in OWN if EXPLAINERS[name].family == "gradient"]
REGION_METHODS = [name for name in OWN if EXPLAINERS[name].family == "region"]

CHEAP = {"smooth-grad-cam++": {"samples": 2}, "ss-cam": {"samples": 1}, "is-cam": {"steps": 2}, "rise": {"masks": 20}}
"""Options that make a method cheap enough for a test."""


@pytest.fixture
def model(shapes_weights: dict[str, Any]) -> Any:
    from torch_models import Shapes

    return Shapes(shapes_weights).eval()


@pytest.fixture
def probability(model: Any, shapes: dict[str, Any], library: Library) -> Any:
    """The golden targets' probabilities of the golden images under masks (8, 48, 48).

    One image at a time, as for the vectors: contributions of 0.03 and -0.24 (case 2) leave 1e-6 of rounding thirty
    times as large, and a convolution of eight images rounds otherwise than one of one.
    """

    def ask(masks: Any) -> Any:
        masked = torch.from_numpy(shapes["images"] * np.asarray(masks)[:, None])
        with torch.no_grad():
            probabilities = torch.cat([model(each[None]).softmax(dim=1) for each in masked])
        return library.asarray(probabilities.numpy()[np.arange(8), shapes["target"]])

    return ask


class TestDenoisedCAM:
    def test_by_hand(self, library: Library) -> None:
        activations = library.asarray(np.array([[[1, 2, 3, 4], [8, 0, 8, 0], [5, 5, 0, 0]]], dtype=np.float32))
        gradients = library.asarray(np.array([[[1, 2, 3, 6], [-1, -1, 4, 2], [-1, -2, -3, -4]]], dtype=np.float32))
        # Medians 2.5, 0.5 and -2.5: (0, 0, 3, 6) / 9 and (0, 0, 4, 2) / 6 are left, and nothing positive.
        combined = np.array([0, 0, 1 / 3 * 3 + 2 / 3 * 8, 2 / 3 * 4])
        maps = denoised_cam(activations, gradients, 50)
        assert_close(maps, [combined / combined.max()], activations)

    def test_the_same_gradient_everywhere_is_no_noise(self, library: Library) -> None:
        activations = library.asarray(np.arange(10, dtype=np.float32).reshape(1, 1, 10))
        almost = np.full((1, 1, 10), 0.1, dtype=np.float32)
        almost[0, 0, 9] = np.nextafter(np.float32(0.1), np.float32(0))
        expected = np.arange(10)[None] / 9
        assert_close(denoised_cam(activations, library.asarray(almost)), expected, activations)

    def test_several_targets_and_size(self, library: Library, shapes: dict[str, Any]) -> None:
        activations = library.asarray(shapes["activations"])
        gradients = np.stack([shapes["gradients"], shapes["gradients"][:, ::-1]], axis=1)
        maps = denoised_cam(activations, library.asarray(gradients), size=SIZE)
        for column in range(2):
            alone = denoised_cam(activations, library.asarray(gradients[:, column]), size=SIZE)
            assert_close(maps[:, column, ...], np.asarray(alone), activations)

    def test_only_negative_gradients_give_zeros(self, library: Library) -> None:
        activations = library.asarray(np.array([[[1, 2, 3]]], dtype=np.float32))
        assert_close(denoised_cam(activations, -activations), [[0, 0, 0]], activations)

    def test_percentile_outside(self) -> None:
        with pytest.raises(ValueError, match="between 0 and 100"):
            denoised_cam(np.ones((1, 1, 2)), np.ones((1, 1, 2)), -1)


class TestUnionCAM:
    def test_golden(self, library: Library, shapes: dict[str, Any], probability: Any) -> None:
        activations, gradients = library.asarray(shapes["activations"]), library.asarray(shapes["gradients"])
        denoised = denoised_cam(activations, gradients, size=SIZE)
        union = union_cam(denoised, library.asarray(shapes["region_map"]), probability, contributions="signed")
        assert_close(union.maps, shapes["union_cam"], activations, atol=1e-5)

    def test_golden_of_the_later_package(self, library: Library, shapes: dict[str, Any], probability: Any) -> None:
        activations, gradients = library.asarray(shapes["activations"]), library.asarray(shapes["gradients"])
        denoised = denoised_cam(activations, gradients, size=SIZE)
        region = library.asarray(shapes["xplaincam_score_cam"])
        union = union_cam(denoised, region, probability, contributions="unnormalised")
        assert_close(union.maps, shapes["xplaincam_union_cam"], activations, atol=1e-5)

    DENOISED = np.array([[[0, 0, 1]]], dtype=np.float32)
    REGION = np.array([[[1, 0.5, 0]]], dtype=np.float32)

    def by_hand(self, library: Library, contributions: str, *, denoised: float, region: float, union: float) -> Any:
        asked: list[np.ndarray] = []

        def answer(masks: Any) -> Any:
            asked.append(np.asarray(masks))
            values = {0: 0.2, 1: 0.2 + denoised, 2: 0.2 + region, 3: 0.2 + union}
            return library.asarray(np.array([values[len(asked) - 1]], dtype=np.float32))

        found = union_cam(
            library.asarray(self.DENOISED), library.asarray(self.REGION), answer, contributions=contributions
        )
        assert len(asked) == 4
        np.testing.assert_array_equal(asked[0], np.zeros((1, 1, 3)))
        return found

    def test_union_by_hand(self, library: Library) -> None:
        like = library.asarray(self.REGION)
        found = self.by_hand(library, "clipped", denoised=0.1, region=0.3, union=0.4)
        # 1/4 (0, 0, 1) + 3/4 (1, 0.5, 0) = (0.75, 0.375, 0.25), from 0.25 to 0.75.
        assert_close(found.maps, [[[1, 0.25, 0]]], like)
        assert_close(found.weights["weight_denoised"], [0.25], like)
        assert_close(found.weights["contribution_union"], [0.4], like)

    def test_region_where_it_contributes_as_much(self, library: Library) -> None:
        found = self.by_hand(library, "clipped", denoised=0.1, region=0.3, union=0.3)
        assert_close(found.maps, self.REGION, library.asarray(self.REGION))
        assert_close(found.parts["union"], [[[1, 0.25, 0]]], library.asarray(self.REGION))

    @pytest.mark.parametrize(
        ("contributions", "expected"),
        [
            # Clipped: 0 and 0.3. Otherwise -0.1 (0, 0, 1) + 0.3 (1, 0.5, 0) = (0.3, 0.15, -0.1).
            ("clipped", [1, 0.5, 0]),
            ("unnormalised", [1, 0.625, 0]),
            ("signed", [1, 0.625, 0]),
        ],
    )
    def test_a_negative_contribution(self, library: Library, contributions: str, expected: list[float]) -> None:
        found = self.by_hand(library, contributions, denoised=-0.1, region=0.3, union=0.4)
        assert_close(found.maps, [[expected]], library.asarray(self.REGION))

    def test_signed_inverts_the_map_of_a_negative_contribution(self, library: Library) -> None:
        signed = self.by_hand(library, "signed", denoised=-0.1, region=-0.15, union=-0.2)
        assert_close(signed.maps, [[[0, 0.5, 1]]], library.asarray(self.REGION))
        plain = self.by_hand(library, "unnormalised", denoised=-0.1, region=-0.15, union=-0.2)
        assert_close(plain.maps, self.REGION, library.asarray(self.REGION))

    def test_maps_of_different_shapes(self) -> None:
        with pytest.raises(ValueError, match=r"denoised map has shape \(1, 2, 2\) and the region map \(1, 2, 3\)"):
            union_cam(np.zeros((1, 2, 2)), np.zeros((1, 2, 3)), lambda masks: masks)

    def test_unknown_mode(self) -> None:
        with pytest.raises(ValueError, match=r"'clipped'.* 'signed'.* 'absolute'"):
            union_cam(np.zeros((1, 2, 2)), np.zeros((1, 2, 2)), lambda masks: masks, contributions="absolute")


class TestUnionCAMEndToEnd:
    def test_golden(self, model: Any, shapes: dict[str, Any]) -> None:
        explanation = UnionCAM(model, contributions="signed")(shapes["images"], shapes["target"])
        np.testing.assert_allclose(explanation.maps.numpy(), shapes["union_cam"], atol=1e-4)
        assert set(explanation.parts) == {"denoised", "region", "union"}

    def test_golden_of_the_later_package(self, model: Any, shapes: dict[str, Any]) -> None:
        region = ScoreCAM(model, channel_weights="probability")
        explanation = UnionCAM(model, region=region, contributions="unnormalised")(shapes["images"], shapes["target"])
        np.testing.assert_allclose(explanation.maps.numpy(), shapes["xplaincam_union_cam"], atol=1e-4)

    def test_clipped_agrees_where_contributions_are_positive(self, model: Any, shapes: dict[str, Any]) -> None:
        images, target = shapes["images"][POSITIVE], shapes["target"][POSITIVE]
        maps = UnionCAM(model)(images, target).maps.numpy()
        np.testing.assert_allclose(maps, shapes["union_cam"][POSITIVE], atol=1e-4)

    def test_evaluations(self, model: Any, shapes: dict[str, Any]) -> None:
        sizes: list[int] = []
        model.register_forward_hook(lambda module, inputs, outputs: sizes.append(len(inputs[0])))
        region = ScoreCAM(model, "features", batch_size=8)(shapes["images"], shapes["target"]).evaluations
        sizes.clear()
        explanation = UnionCAM(model, "features", batch_size=8)(shapes["images"], shapes["target"])
        # The black image is shared: denoised, region and union map of 8 images come on top.
        assert explanation.evaluations == region + 3 * 8 == sum(sizes)

    @pytest.mark.parametrize("batch_size", [1, 7, 64])
    def test_batch_size_does_not_matter(self, model: Any, shapes: dict[str, Any], batch_size: int) -> None:
        expected = UnionCAM(model, batch_size=8)(shapes["images"], shapes["target"]).maps.numpy()
        actual = UnionCAM(model, batch_size=batch_size)(shapes["images"], shapes["target"]).maps.numpy()
        np.testing.assert_allclose(actual, expected, atol=1e-5)

    def test_several_targets_equal_one_call_each(self, model: Any, shapes: dict[str, Any]) -> None:
        together = UnionCAM(model)(shapes["images"][:2], [[0, 3], [1, 2]])
        assert together.parts["union"].shape == (2, 2, *SIZE)
        for column, targets in enumerate(([0, 1], [3, 2])):
            alone = UnionCAM(model)(shapes["images"][:2], targets)
            np.testing.assert_allclose(together.maps.numpy()[:, column], alone.maps.numpy(), atol=1e-5)


class TestContributionsOfTheLaterPackage:
    def test_weights_stay_as_they_are(self, library: Library) -> None:
        first, second = (library.asarray(np.array([value], dtype=np.float32)) for value in (0.3, -0.7))
        weights = contribution_weights(first, second, contributions="unnormalised")
        assert_close(weights[0], [0.3], first)
        assert_close(weights[1], [-0.7], first)

    def test_golden(self, library: Library, shapes: dict[str, Any], probability: Any) -> None:
        gradient = library.asarray(shapes["grad_cam"])
        region = library.asarray(shapes["xplaincam_score_cam"])
        fusion = fusion_cam(gradient, region, probability, contributions="unnormalised")
        assert_close(fusion.maps, shapes["xplaincam_fusion_cam"], gradient, atol=1e-5)

    def test_golden_end_to_end(self, model: Any, shapes: dict[str, Any]) -> None:
        region = ScoreCAM(model, channel_weights="probability")
        cam = FusionCAM(model, region=region, contributions="unnormalised")
        maps = cam(shapes["images"], shapes["target"]).maps.numpy()
        np.testing.assert_allclose(maps, shapes["xplaincam_fusion_cam"], atol=1e-4)


class TestUnitedVariant:
    def test_it_is_the_union(self, library: Library, shapes: dict[str, Any], probability: Any) -> None:
        gradient, region = (library.asarray(shapes[name]) for name in ("grad_cam", "region_map"))
        fusion = fusion_cam(gradient, region, probability, variant="united")
        assert_close(fusion.maps, fusion_cam(gradient, region, probability).parts["union"], gradient, atol=1e-6)

    def test_of_a_model_it_is_the_calibrated_ones_without_the_root(self, model: Any, shapes: dict[str, Any]) -> None:
        united, calibrated = (
            FusionCAM(model, variant=variant)(shapes["images"], shapes["target"]).numpy()
            for variant in ("united", "calibrated")
        )
        np.testing.assert_array_equal(united.maps, calibrated.parts["union"])
        np.testing.assert_allclose(united.maps, calibrated.maps**2, atol=1e-6)
        assert united.evaluations == calibrated.evaluations


class TestCalibratedVariant:
    def test_it_is_the_root_of_the_union(self, library: Library, shapes: dict[str, Any], probability: Any) -> None:
        gradient, region = (library.asarray(shapes[name]) for name in ("grad_cam", "region_map"))
        fusion = fusion_cam(gradient, region, probability, variant="calibrated")
        published = fusion_cam(gradient, region, probability)
        assert_close(fusion.maps, np.sqrt(np.asarray(published.parts["union"])), gradient, atol=1e-6)
        assert set(fusion.parts) == {"gradient", "denoised", "region", "union"}
        assert set(fusion.weights) == {
            name for name in published.weights if "union" not in name and not name.startswith("fusion")
        }

    def test_regression_is_its_region_map(self, model: Any, shapes: dict[str, Any]) -> None:
        explanation = FusionCAM(model, variant="calibrated")(shapes["images"], shapes["target"]).numpy()
        expected = ScoreCAM(model, channel_weights="regression")(shapes["images"], shapes["target"]).numpy()
        np.testing.assert_allclose(explanation.parts["region"], expected.maps, atol=1e-6)
        assert explanation.evaluations == expected.evaluations + 2 * 8

    def test_a_region_method_that_is_given_stays(self, model: Any, shapes: dict[str, Any]) -> None:
        explanation = FusionCAM(model, variant="calibrated", region=ScoreCAM(model))(shapes["images"], shapes["target"])
        np.testing.assert_allclose(explanation.parts["region"].numpy(), shapes["region_map"], atol=1e-4)

    def test_unknown_variant(self, model: Any) -> None:
        with pytest.raises(ValueError, match=r"'published'.* 'calibrated'.* 'better'"):
            FusionCAM(model, variant="better")
        with pytest.raises(ValueError, match=r"'published'.* 'calibrated'.* 'better'"):
            fusion_cam(np.zeros((1, 2, 2)), np.zeros((1, 2, 2)), lambda masks: masks, variant="better")


class TestPairs:
    @pytest.mark.parametrize("region", [*REGION_METHODS])
    @pytest.mark.parametrize("gradient", ["grad-cam", "layer-cam", "eigen-cam"])
    def test_parts_are_the_methods_maps(self, model: Any, shapes: dict[str, Any], gradient: str, region: str) -> None:
        images, target = shapes["images"][[0, 4]], shapes["target"][[0, 4]]
        parts = {name: EXPLAINERS[name](model, "features", **CHEAP.get(name, {})) for name in (gradient, region)}
        cam = FusionCAM(model, "features", gradient=parts[gradient], region=parts[region])
        explanation = cam(images, target).numpy()
        for part, name in (("gradient", gradient), ("region", region)):
            expected = parts[name](images, target).numpy().maps
            np.testing.assert_allclose(explanation.parts[part], expected, atol=1e-6, err_msg=part)
        assert set(explanation.parts) == {"gradient", "denoised", "region", "union", "similarity"}
        assert explanation.maps.shape == (2, *SIZE)
        assert explanation.maps.min() == 0
        assert explanation.maps.max() == 1

    @pytest.mark.parametrize("gradient", [name for name in GRADIENT_METHODS if name not in CHEAP])
    def test_a_name_equals_an_instance(self, model: Any, shapes: dict[str, Any], gradient: str) -> None:
        images, target = shapes["images"][[0, 4]], shapes["target"][[0, 4]]
        named = FusionCAM(model, gradient=gradient, region="group-cam")(images, target)
        given = FusionCAM(model, gradient=EXPLAINERS[gradient](model), region=GroupCAM(model))(images, target)
        np.testing.assert_allclose(named.maps.numpy(), given.maps.numpy(), atol=1e-5)
        assert given.evaluations == named.evaluations + 2 * 2, "each instance ran the plain images itself"

    def test_names_share_one_run(self, model: Any, shapes: dict[str, Any]) -> None:
        sizes: list[int] = []
        GradCAM(model, "features")(shapes["images"][:1], 0)  # what is measured of the layer is kept
        model.register_forward_hook(lambda module, inputs, outputs: sizes.append(len(inputs[0])))
        cam = FusionCAM(model, "features", gradient="layer-cam", region="group-cam", batch_size=8)
        explanation = cam(shapes["images"][POSITIVE], shapes["target"][POSITIVE])
        alone = GroupCAM(model, "features", batch_size=8)(shapes["images"][POSITIVE], shapes["target"][POSITIVE])
        # Group-CAM, and for Fusion-CAM the black image and three masks of three images.
        assert explanation.evaluations == alone.evaluations + 1 + 9
        assert sum(sizes) == explanation.evaluations + alone.evaluations

    def test_gradients_are_left_out_where_nothing_needs_them(self, model: Any, shapes: dict[str, Any]) -> None:
        cam = FusionCAM(model, gradient="eigen-cam", region="ablation-cam")
        assert not cam.needs_gradients
        for frozen in model.parameters():
            frozen.requires_grad_(False)
        assert cam(shapes["images"][:1], 0).maps.shape == (1, *SIZE)
        assert FusionCAM(model, gradient="eigen-cam", region="group-cam").needs_gradients
        assert FusionCAM(model).needs_gradients
        assert not FusionCAM(model, gradient=GradCAM(model)).needs_gradients, "the instance takes its own"

    def test_two_layers(self, model: Any, shapes: dict[str, Any]) -> None:
        images, target = shapes["images"][:3], shapes["target"][:3]
        gradient, region = LayerCAM(model, "features.4"), ScoreCAM(model, "features.7", batch_size=8)
        cam = FusionCAM(model, "features", gradient=gradient, region=region, batch_size=8)
        explanation = cam(images, target).numpy()
        maps = [part(images, target).numpy().maps for part in (gradient, region)]
        np.testing.assert_allclose(explanation.parts["gradient"], maps[0], atol=1e-6)
        np.testing.assert_allclose(explanation.parts["region"], maps[1], atol=1e-6)

        def probability(masks: Any) -> Any:
            with torch.no_grad():
                masked = model(torch.from_numpy(images * masks[:, None])).softmax(dim=1)
            return masked.numpy()[np.arange(3), target]

        np.testing.assert_allclose(explanation.maps, fusion_cam(*maps, probability).maps, atol=1e-5)
        expected = region(images, target).evaluations + gradient(images, target).evaluations + 3 + 1 + 9
        assert explanation.evaluations == expected

    def test_a_part_of_several_layers(self, model: Any, shapes: dict[str, Any]) -> None:
        gradient = GradCAM(model, ["features.7", "features"])
        explanation = FusionCAM(model, gradient=gradient)(shapes["images"][:2], 0).numpy()
        expected = gradient(shapes["images"][:2], 0).numpy().maps
        np.testing.assert_allclose(explanation.parts["gradient"], expected, atol=1e-6)

    def test_an_instance_keeps_its_own_baseline(self, model: Any, shapes: dict[str, Any]) -> None:
        images, target = shapes["images"][:2], shapes["target"][:2]
        region = ScoreCAM(model, baseline=0.5)
        explanation = FusionCAM(model, region=region)(images, target).numpy()
        np.testing.assert_allclose(explanation.parts["region"], region(images, target).numpy().maps, atol=1e-6)
        named = FusionCAM(model)(images, target).numpy()
        assert np.abs(explanation.parts["region"] - named.parts["region"]).max() > 0.01
        for black in (explanation, named):
            np.testing.assert_allclose(black.weights["probability_baseline"], shapes["baseline_probability"][:2], 1e-4)

    def test_a_region_method_without_a_layer(self, model: Any, shapes: dict[str, Any]) -> None:
        region = RISE(model, masks=30, batch_size=16)
        explanation = FusionCAM(model, region=region, batch_size=8)(shapes["images"][:2], 1)
        assert explanation.evaluations == 2 + (2 + 60) + 1 + 6
        assert explanation.layer == "features"

    def test_top_classes_are_chosen_once(self, model: Any, shapes: dict[str, Any]) -> None:
        explanation = FusionCAM(model, region=AblationCAM(model))(shapes["images"][:2], "top2").numpy()
        top = np.argsort(-shapes["logits"][:2], axis=1)[:, :2]
        np.testing.assert_array_equal(explanation.targets, top)
        expected = AblationCAM(model)(shapes["images"][:2], top).numpy().maps
        np.testing.assert_allclose(explanation.parts["region"], expected, atol=1e-6)

    def test_functions_of_the_outputs(self, model: Any, shapes: dict[str, Any]) -> None:
        def difference(outputs: Any) -> Any:
            return outputs[:, 0] - outputs[:, 1]

        explanation = FusionCAM(model, region=AblationCAM(model))(shapes["images"][:1], difference).numpy()
        expected = AblationCAM(model)(shapes["images"][:1], difference).numpy().maps
        np.testing.assert_allclose(explanation.parts["region"], expected, atol=1e-6)

    def test_five_targets_cost_their_own_masks_only(self, model: Any, shapes: dict[str, Any]) -> None:
        one = FusionCAM(model, region="ablation-cam")(shapes["images"], 0)
        five = FusionCAM(model, region="ablation-cam")(shapes["images"], [[0, 1, 2, 3, 4]] * 8)
        # Denoised, region and union map of every image and target are looked at for the contributions.
        assert five.evaluations - one.evaluations == 3 * 8 * 4


class TestOptionsOfParts:
    """What is said to an ensemble reaches the parts that it makes itself."""

    def maps(self, cam: Any, shapes: dict[str, Any]) -> Any:
        return cam(shapes["images"][:2], shapes["target"][:2]).numpy()

    def test_a_baseline_reaches_a_part_given_by_name(self, model: Any, shapes: dict[str, Any]) -> None:
        region = GroupCAM(model, "features", baseline=0.7, batch_size=8)
        named = self.maps(FusionCAM(model, "features", region="group-cam", baseline=0.7, batch_size=8), shapes)
        given = self.maps(FusionCAM(model, "features", region=region, baseline=0.7, batch_size=8), shapes)
        np.testing.assert_allclose(named.maps, given.maps, atol=1e-6)
        np.testing.assert_allclose(named.parts["region"], self.maps(region, shapes).maps, atol=1e-6)
        default = self.maps(FusionCAM(model, "features", region="group-cam", batch_size=8), shapes)
        assert np.abs(named.parts["region"] - default.parts["region"]).max() > 0.01
        assert np.abs(named.maps - default.maps).max() > 0.01

    def test_without_one_a_part_keeps_its_own(self, model: Any, shapes: dict[str, Any]) -> None:
        named = self.maps(FusionCAM(model, "features", region="group-cam", batch_size=8), shapes)
        expected = self.maps(GroupCAM(model, "features", batch_size=8), shapes)
        np.testing.assert_allclose(named.parts["region"], expected.maps, atol=1e-6)
        zero = self.maps(GroupCAM(model, "features", baseline="zero", batch_size=8), shapes)
        assert np.abs(zero.maps - expected.maps).max() > 0.01, "Group-CAM's own is a blurred image"

    @pytest.mark.parametrize("method", [FusionCAM, UnionCAM])
    def test_region_options(self, model: Any, shapes: dict[str, Any], method: Any) -> None:
        options: dict[str, Any] = {"samples": 2, "std": 0.5, "seed": 3}
        cam = method(model, "features", region="ss-cam", region_options=options, batch_size=8)
        found = self.maps(cam, shapes)
        expected = self.maps(SSCAM(model, "features", batch_size=8, **options), shapes)
        np.testing.assert_allclose(found.parts["region"], expected.maps, atol=1e-6)
        assert found.masks_run.tolist() == expected.masks_run.tolist()

    def test_gradient_options(self, model: Any, shapes: dict[str, Any]) -> None:
        options: dict[str, Any] = {"samples": 2, "std": 0.3}
        cam = FusionCAM(
            model,
            "features",
            gradient="smooth-grad-cam++",
            gradient_options=options,
            region="rise",
            region_options={"masks": 10},
            batch_size=8,
        )
        found = self.maps(cam, shapes)
        expected = self.maps(SmoothGradCAMPlusPlus(model, "features", batch_size=8, **options), shapes)
        np.testing.assert_allclose(found.parts["gradient"], expected.maps, atol=1e-6)
        random = self.maps(RISE(model, masks=10, batch_size=8), shapes)
        np.testing.assert_allclose(found.parts["region"], random.maps, atol=1e-6)
        # The pass itself and two noisy ones; ten masks; the black image; three maps an image for the contributions.
        assert found.evaluations == 2 + 2 * 2 + 2 * 10 + 1 + 2 * 3

    @pytest.mark.parametrize(
        "options", [{"baseline": 0.7}, {"task": "multilabel"}, {"batch_size": 3}, {"reshape": (4, 4)}]
    )
    def test_what_a_named_part_shares_is_said_to_the_ensemble(self, model: Any, options: dict[str, Any]) -> None:
        (name,) = options
        with pytest.raises(TypeError, match=name):
            FusionCAM(model, region="group-cam", region_options=options)
        with pytest.raises(TypeError, match=name):
            FusionCAM(model, gradient_options=options)

    def test_a_class_stands_for_its_name(self, model: Any, shapes: dict[str, Any]) -> None:
        cam = FusionCAM(
            model, "features", gradient=LayerCAM, region=GroupCAM, region_options={"groups": 4}, batch_size=8
        )
        assert type(cam.gradient) is LayerCAM
        assert type(cam.region) is GroupCAM
        named = FusionCAM(
            model, "features", gradient="layer-cam", region="group-cam", region_options={"groups": 4}, batch_size=8
        )
        np.testing.assert_array_equal(self.maps(cam, shapes).maps, self.maps(named, shapes).maps)
        with pytest.raises(ValueError, match=r"^gradient is one of 'grad-cam', .*: got 'score-cam'"):
            FusionCAM(model, gradient=ScoreCAM)

    def test_a_class_that_inherits_its_name_is_the_one_that_was_given(self, model: Any) -> None:
        class Mine(ScoreCAM):
            pass

        assert type(FusionCAM(model, region=Mine).region) is Mine

    def test_options_for_a_part_that_is_made_already(self, model: Any) -> None:
        with pytest.raises(TypeError, match="region_options came with a region explainer: give them to that one"):
            FusionCAM(model, region=ScoreCAM(model), region_options={"budget": 8})
        with pytest.raises(TypeError, match="gradient_options came with a gradient explainer: give them to that one"):
            FusionCAM(model, gradient=GradCAM(model), gradient_options={})

    def test_misspelt_ones(self, model: Any) -> None:
        with pytest.raises(TypeError, match="GroupCAM has no option 'group'; did you mean 'groups'"):
            FusionCAM(model, region="group-cam", region_options={"group": 8})
        with pytest.raises(TypeError, match="GradCAM has no option 'samples'"):
            FusionCAM(model, gradient_options={"samples": 8})
        with pytest.raises(ValueError, match="samples"):
            FusionCAM(model, region="ss-cam", region_options={"samples": 0})


class TestWrongParts:
    @pytest.mark.parametrize(
        ("keywords", "message"),
        [
            ({"gradient": "score-cam"}, r"gradient is one of 'grad-cam', .*: got 'score-cam'"),
            ({"region": "grad-cam"}, r"region is one of 'score-cam', 'group-cam', .*'rise'.*: got 'grad-cam'"),
            ({"region": "fusion-cam"}, "got 'fusion-cam'"),
            ({"region": "scorecam"}, r"got 'scorecam'\. Did you mean 'score-cam'\?"),
        ],
    )
    def test_names(self, model: Any, keywords: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            FusionCAM(model, **keywords)

    def test_an_instance_of_the_other_family(self, model: Any) -> None:
        with pytest.raises(ValueError, match=r"gradient is an explainer of 'grad-cam', .*: got one of 'score-cam'"):
            FusionCAM(model, gradient=ScoreCAM(model))
        with pytest.raises(ValueError, match="region is an explainer of"):
            UnionCAM(model, region=FusionCAM(model))

    @pytest.mark.parametrize("region", [None, 3, str, "".join])
    def test_neither_name_nor_instance(self, model: Any, region: Any) -> None:
        with pytest.raises(TypeError, match=r"^region is .*: got "):
            FusionCAM(model, region=region)

    def test_another_reading_of_the_outputs(self, model: Any) -> None:
        with pytest.raises(
            ValueError, match=r"The region method was made with .*'multilabel'.*and the fusion-cam with"
        ):
            FusionCAM(model, region=ScoreCAM(model, task="multilabel"))

    def test_another_framework(self, model: Any) -> None:
        from fusioncam_core.models.black_box import BlackBox

        with pytest.raises(ValueError, match="of another framework than Shapes"):
            FusionCAM(model, region=RISE(BlackBox(lambda images: images)))


class TestRegistry:
    def test_families(self) -> None:
        assert set(OWN) == {"fusion-cam", "union-cam"} | set(GRADIENT_METHODS) | set(REGION_METHODS)
        assert {"grad-cam", "layer-cam", "eigen-cam"} <= set(GRADIENT_METHODS)
        assert set(REGION_METHODS) == {"score-cam", "group-cam", "ablation-cam", "ss-cam", "is-cam", "rise"}
        assert {"fusion-cam", "union-cam"} <= set(methods("ensemble"))

    def test_ensembles_are_listed_first(self) -> None:
        assert [each.name for each in capabilities()][:2] == ["fusion-cam", "union-cam"]

    @pytest.mark.parametrize("name", OWN)
    def test_capabilities(self, name: str) -> None:
        method = EXPLAINERS[name]
        assert method.name == name
        assert method.title
        assert method.needs_masks == (name not in GRADIENT_METHODS)
        assert method.needs_layer == (name != "rise")


def test_union_of_a_map_with_itself_is_the_map(library: Library) -> None:
    maps = normalise(np.random.default_rng(0).random((2, 4, 5), dtype=np.float32))
    same = library.asarray(maps)
    found = union_cam(same, same, lambda masks: library.asarray(np.asarray(masks).mean(axis=(1, 2))))
    assert_close(found.maps, maps, same, atol=1e-6)
