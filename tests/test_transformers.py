"""Image classifiers of Hugging Face's transformers, from configurations and with random weights."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

import libraries
from fusioncam_core import EXPLAINERS, FusionCAM, FusionCamWarning, GradCAM, ScoreCAM, adapt_model
from fusioncam_core.arrays.words import resize

torch = pytest.importorskip("torch")
libraries.torchvision()
transformers = pytest.importorskip("transformers")

from torch_models import module_state  # noqa: E402 - PyTorch's

pytestmark = pytest.mark.filterwarnings("ignore::fusioncam_core.FusionCamWarning")  # of weights that nobody trained

SIZE = (32, 32)
TRANSFORMER = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "image_size": 32,
    "patch_size": 8,
}
CONFIGURATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "vit": ("ViT", TRANSFORMER),
    "dinov2": ("Dinov2WithRegisters", TRANSFORMER),
    "swin": ("Swin", {"embed_dim": 16, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4, "image_size": 32}),
    "convnext": ("ConvNext", {"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2}),
    "resnet": ("ResNet", {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}),
}

DEFAULTS = {
    "vit": "vit.layers.2.layernorm_before",  # the head reads the class token: what the last attention reads
    "dinov2": "dinov2_with_registers.layernorm",  # the head reads the mean of the patches too
    "swin": "swin.layernorm",
    "convnext": "convnext.encoder.stages.1",
    "resnet": "resnet.encoder.stages.1",
}


def build(name: str) -> Any:
    """The model with the same random weights every time."""
    kind, configuration = CONFIGURATIONS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = getattr(transformers, f"{kind}Config")(num_labels=5, **configuration)
        return getattr(transformers, f"{kind}ForImageClassification")(made).eval()


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    return {name: build(name) for name in CONFIGURATIONS}


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.Generator(np.random.PCG64(3)).normal(size=(2, 3, *SIZE)).astype(np.float32)


@pytest.mark.parametrize("name", list(CONFIGURATIONS))
class TestEveryModel:
    def test_default_layer(self, models: dict[str, Any], images: np.ndarray, name: str) -> None:
        cam = GradCAM(models[name])
        explanation = cam(images, [[0, 1, 2, 3, 4]] * 2)
        assert explanation.layer == DEFAULTS[name]
        assert explanation.maps.shape == (2, 5, *SIZE)
        assert explanation.maps.max() == 1
        assert [layer.name for layer in cam.layers(images) if layer.default] == [DEFAULTS[name]]

    def test_it_is_left_as_it_came(self, models: dict[str, Any], images: np.ndarray, name: str) -> None:
        model = models[name].train()
        before = module_state(model)
        FusionCAM(model)(images[:1])
        after = module_state(model)
        model.eval()
        assert before.keys() == after.keys()
        for key, value in before.items():
            np.testing.assert_equal(after[key], value, err_msg=key)

    def test_the_output_is_the_model_s(self, models: dict[str, Any], images: np.ndarray, name: str) -> None:
        with torch.no_grad():
            logits = models[name](torch.from_numpy(images)).logits
        explanation = FusionCAM(models[name])(images, [[0, 1], [3, 4]])
        torch.testing.assert_close(explanation.class_probabilities, logits.softmax(dim=1))
        torch.testing.assert_close(explanation.scores, logits.gather(1, torch.tensor([[0, 1], [3, 4]])))

    def test_pixel_values_by_name(self, models: dict[str, Any], images: np.ndarray, name: str) -> None:
        expected = GradCAM(models[name])(images, 2).maps
        maps = GradCAM(models[name], masked_input="pixel_values")({"pixel_values": images}, 2).maps
        torch.testing.assert_close(maps, expected)

    def test_functions_get_the_model_s_own_outputs(self, models: dict[str, Any], images: np.ndarray, name: str) -> None:
        kinds = set()

        def third(outputs: Any) -> Any:
            kinds.add(type(outputs))
            return outputs.logits[:, 2]

        for method in (GradCAM, ScoreCAM):
            maps = method(models[name])(images, third).maps
            torch.testing.assert_close(maps, method(models[name])(images, 2).maps, rtol=0, atol=1e-6)
        with torch.no_grad():
            assert kinds == {type(models[name](torch.from_numpy(images)))}


PATCHED = {
    "vit": ("vit.embeddings", 4),  # 1 class token and 16 patches
    "dinov2": ("dinov2_with_registers.embeddings", 4),  # 1 class token, 4 registers, 16 patches
    "swin": ("swin.embeddings", 8),  # 64 patches, in a tuple with their grid
}


@pytest.mark.parametrize("name", list(PATCHED))
@pytest.mark.parametrize("patch", [(0, 0), (1, 2), (3, 1)])
def test_a_patch_lights_up_where_it_is(images: np.ndarray, name: str, patch: tuple[int, int]) -> None:
    """Without position embeddings and biases all tokens are zero, besides those before the patches and the one seen."""
    layer, side = PATCHED[name]
    model = build(name)
    for path, parameter in model.named_parameters():
        if "embeddings" in path and ("position" in path or "bias" in path):
            torch.nn.init.zeros_(parameter)
    image = np.zeros((1, 3, *SIZE), dtype=np.float32)
    stride = SIZE[0] // side
    rows, columns = (slice(stride * index, stride * (index + 1)) for index in patch)
    image[:, :, rows, columns] = images[:1, :, rows, columns]
    explanation = EXPLAINERS["hires-cam"](model, layer)(image, [[0, 1, 2, 3, 4]]).numpy()
    expected = np.zeros((side, side))
    expected[patch] = 1
    expected = resize(expected, SIZE)
    shown = [each for each in explanation.maps[0] if each.max() > 0]
    assert shown  # the patch speaks for some of the classes, and against the others
    for each in shown:
        np.testing.assert_allclose(each, expected / expected.max(), atol=1e-5)


class TestLayersThatReturnSeveralThings:
    def test_an_object_of_outputs_is_tapped(self, models: dict[str, Any], images: np.ndarray) -> None:
        inputs = torch.from_numpy(images)
        names = ["swin.encoder", "swin.encoder.layers.1"]
        captured = adapt_model(models["swin"]).capture(inputs, names, None, None).layers
        whole, last = (captured[name].activations for name in names)
        assert whole.shape == (2, 16, 32)
        torch.testing.assert_close(whole, last)
        for method in ("grad-cam", "ablation-cam"):
            maps = [
                EXPLAINERS[method](models["convnext"], f"convnext.encoder{end}")(images, [[0, 1, 2, 3, 4]] * 2).maps
                for end in ("", ".stages.1")
            ]
            torch.testing.assert_close(*maps)
            assert maps[0].max() == 1

    def test_an_object_of_outputs_is_replaced(self, models: dict[str, Any], images: np.ndarray) -> None:
        adapter, layer = adapt_model(models["convnext"]), "convnext.encoder"
        inputs = torch.from_numpy(images)
        activations = adapter.capture(inputs, [layer], None, None).layers[layer].activations
        with torch.no_grad():
            plain = models["convnext"](inputs).logits
        torch.testing.assert_close(adapter.forward_with(inputs, layer, activations).logits, plain)
        model = models["convnext"]
        with torch.no_grad():
            of_nothing = model.classifier(model.convnext.layernorm(torch.zeros(2, 16)))
        torch.testing.assert_close(adapter.forward_with(inputs, layer, activations * 0).logits, of_nothing)

    def test_an_output_that_nothing_reads_is_no_default_and_an_error(
        self, models: dict[str, Any], images: np.ndarray
    ) -> None:
        listed = {layer.name: layer for layer in GradCAM(models["convnext"]).layers(images)}
        assert listed["convnext"].spatial
        assert not listed["convnext"].default
        with pytest.raises(
            ValueError, match="scores of ConvNextForImageClassification do not depend on the layer 'convnext'"
        ):
            GradCAM(models["convnext"], "convnext")(images)

    def test_windows_are_not_images(self, models: dict[str, Any], images: np.ndarray) -> None:
        listed = {layer.name: layer for layer in GradCAM(models["swin"]).layers(images)}
        assert listed["swin.encoder.layers.0.blocks.0.attention"].shape == (4, 16, 16)
        assert not listed["swin.encoder.layers.0.blocks.0.attention"].spatial
        assert not listed["swin.pooler"].spatial


def test_the_last_norm_of_a_class_token_has_no_gradient(models: dict[str, Any], images: np.ndarray) -> None:
    with pytest.warns(
        FusionCamWarning, match=r"The gradient of the score at layer 'vit.layernorm' .* is zero at every patch"
    ) as caught:
        assert GradCAM(models["vit"], "vit.layernorm")(images).maps.max() == 0
    told = str(caught[0].message)
    assert "The score reads other tokens of this layer, such as a class token" in told
    assert "softmax" not in told  # which is not the cause
    assert ScoreCAM(models["vit"], "vit.layernorm")(images, [[0, 1, 2, 3, 4]] * 2).maps.max() == 1


def test_images_of_another_size(models: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"\(?64\*64\)? doesn't match model"):
        GradCAM(models["vit"])(np.zeros((1, 3, 64, 64), dtype=np.float32))


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing(reentrant: bool) -> None:
    model, images = build("vit"), torch.rand(1, 3, *SIZE, generator=torch.Generator().manual_seed(1))
    before = GradCAM(model)(images, 1)
    with warnings.catch_warnings():  # of its newer name
        warnings.simplefilter("ignore", FutureWarning)
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
    torch.testing.assert_close(GradCAM(model.train())(images, 1).maps, before.maps, atol=1e-5, rtol=0)


def tiny_clip() -> Any:
    shared = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    text = {**shared, "vocab_size": 50, "max_position_embeddings": 12, "bos_token_id": 1, "eos_token_id": 2}
    vision = {**shared, "image_size": 32, "patch_size": 8}
    return transformers.CLIPModel(
        transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)
    ).eval()


def test_clip_without_its_text() -> None:
    images = torch.rand(1, 3, *SIZE)
    advice = r"Its forward takes input_ids, pixel_values, .*masked_input='pixel_values'\)\(\{'pixel_values': images"
    with pytest.raises(ValueError, match=rf"CLIPModel cannot run on inputs of shape \(1, 3, 32, 32\) .*{advice}"):
        GradCAM(tiny_clip())(images)
    with pytest.raises(ValueError, match=f"You have to specify input_ids. {advice}"):
        GradCAM(tiny_clip(), masked_input="pixel_values")({"pixel_values": images})
    inputs = {"pixel_values": images, "input_ids": torch.tensor([[1, 7, 2]])}
    cam = GradCAM(tiny_clip(), masked_input="pixel_values", output="logits_per_image")
    assert cam(inputs, lambda outputs: outputs.logits_per_image[:, 0]).maps.shape == (1, *SIZE)


def test_a_detector_and_a_segmentation_without_a_target() -> None:
    configuration = transformers.YolosConfig(**{**TRANSFORMER, "image_size": [32, 32]}, num_detection_tokens=5)
    small = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "decoder_hidden_size": 16}
    segformer = transformers.SegformerConfig(num_labels=3, num_attention_heads=[1, 1, 2, 2], **small)
    for model in (
        transformers.YolosForObjectDetection(configuration).eval(),
        transformers.SegformerForSemanticSegmentation(segformer).eval(),
    ):
        images = torch.rand(1, 3, *SIZE)
        for _ in range(2):  # the model hooks onto itself when it runs: once
            with pytest.raises(ValueError, match=r"SegmentationLogit\(.*DetectionScore\("):
                GradCAM(model)(images)
        assert any(layer.spatial for layer in GradCAM(model).layers(images))
