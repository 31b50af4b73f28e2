"""Models by name: timm's and torchvision's, built with random weights where nothing is downloaded."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

import libraries
from absence import hide
from fusioncam_core import EXPLAINERS, GradCAM, load_model
from fusioncam_core.arrays.words import resize
from fusioncam_core.cli import main
from fusioncam_core.data.preprocessing import Preprocessing

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.filterwarnings("ignore::fusioncam_core.FusionCamWarning")  # of weights that nobody trained


@pytest.fixture(scope="module")
def timm() -> Any:
    pytest.importorskip("huggingface_hub")
    libraries.torchvision()
    return pytest.importorskip("timm")


@pytest.fixture
def untrained(timm: Any, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Whoever asks timm for pretrained weights gets random ones; holds what was asked."""
    asked: list[dict[str, Any]] = []
    create = timm.create_model

    def create_model(name: str, **keywords: Any) -> Any:
        asked.append({"name": name, **keywords})
        return build(create, name, **{**keywords, "pretrained": False})

    monkeypatch.setattr(timm, "create_model", create_model)
    return asked


def build(create: Any, name: str, **keywords: Any) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return create(name, **keywords).eval()


MODELS = {
    "vit_tiny_patch16_224": ({"img_size": 64, "depth": 3}, "blocks.2.norm1"),
    "vit_small_patch14_reg4_dinov2": ({"img_size": 56, "depth": 3, "num_classes": 5}, "blocks.2.norm1"),
    "vit_wee_patch16_reg1_gap_256": ({"img_size": 64, "depth": 3}, "norm"),
    "vit_medium_patch16_reg4_gap_256": ({"img_size": 64, "depth": 3}, "norm"),
    "swin_tiny_patch4_window7_224": ({"img_size": 64, "depths": (1, 1), "num_heads": (3, 6)}, "norm"),
    "vit_base_patch16_siglip_224": ({"img_size": 64, "depth": 1, "embed_dim": 96, "num_classes": 5}, "norm"),
    "pit_ti_224": ({"img_size": 64}, "transformers.2.blocks.3.norm1"),
    "cait_xxs24_224": ({"img_size": 64, "depth": 1}, "blocks_token_only.1.norm1"),
    "convnext_atto": ({}, "norm_pre"),
    "resnet10t": ({}, "layer4"),
}


@pytest.mark.parametrize("name", list(MODELS))
def test_default_layer(timm: Any, name: str) -> None:
    keywords, layer = MODELS[name]
    side = keywords.get("img_size", 64)
    images = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(1))
    explanation = GradCAM(build(timm.create_model, name, **keywords))(images, [[0, 1, 2, 3, 4]] * 2)
    assert explanation.layer == layer
    assert explanation.maps.shape == (2, 5, side, side)
    assert explanation.maps.max() == 1


PATCHED = {
    "vit_tiny_patch16_224": ({"img_size": 64, "depth": 2}, "pos_drop", 4),  # a class token first
    "vit_small_patch14_reg4_dinov2": ({"img_size": 56, "depth": 2, "num_classes": 5}, "norm_pre", 4),  # and 4 registers
    "vit_medium_patch16_reg4_gap_256": ({"img_size": 64, "depth": 2}, "norm_pre", 4),  # 4 registers alone
    "swin_tiny_patch4_window7_224": ({"img_size": 64, "depths": (1, 1), "num_heads": (3, 6)}, "patch_embed", 16),
}
"""By name: keywords, a layer that returns rows of tokens (or, of Swin, channels last), and how many patches a side."""


@pytest.mark.parametrize("name", list(PATCHED))
@pytest.mark.parametrize("patch", [(0, 0), (1, 2), (3, 1)])
def test_a_patch_lights_up_where_it_is(timm: Any, name: str, patch: tuple[int, int]) -> None:
    """Without position embeddings and biases all patches are zero besides the one that is not black."""
    keywords, layer, side = PATCHED[name]
    model = build(timm.create_model, name, **keywords)
    for path, parameter in model.named_parameters():
        if path == "pos_embed" or (path.startswith("patch_embed") and path.endswith("bias")):
            torch.nn.init.zeros_(parameter)
    size = keywords["img_size"]
    image, stride = torch.zeros(1, 3, size, size), size // side
    rows, columns = (slice(stride * index, stride * (index + 1)) for index in patch)
    image[:, :, rows, columns] = torch.rand(3, stride, stride, generator=torch.Generator().manual_seed(2))
    explanation = EXPLAINERS["hires-cam"](model, layer)(image, [[0, 1, 2, 3, 4]]).numpy()
    expected = np.zeros((side, side))
    expected[patch] = 1
    expected = resize(expected, (size, size))
    shown = [each for each in explanation.maps[0] if each.max() > 0]
    assert shown  # the patch speaks for some of the classes, and against the others
    for each in shown:
        np.testing.assert_allclose(each, expected / expected.max(), atol=1e-5)


def test_images_of_another_size(timm: Any) -> None:
    model = build(timm.create_model, "vit_tiny_patch16_224", img_size=64, depth=1)
    with pytest.raises(
        ValueError, match=r"VisionTransformer cannot run on inputs of shape \(1, 3, 32, 32\).*Input height"
    ):
        GradCAM(model)(torch.zeros(1, 3, 32, 32))


class TestLoadingFromTimm:
    def test_model_and_what_belongs_to_it(self, untrained: list[dict[str, Any]]) -> None:
        loaded = load_model("timm:resnet10t.c3_in1k")
        assert untrained == [{"name": "resnet10t.c3_in1k", "pretrained": True}]
        assert type(loaded.model).__name__ == "ResNet"
        assert not loaded.model.training
        assert loaded.name == "resnet10t.c3_in1k"
        assert (loaded.task, loaded.output_kind, loaded.layer) == ("multiclass", "logits", None)
        # 176 pixels of a shorter side resized to floor(176 / 0.875) = 201
        preprocessing = loaded.preprocessing
        assert isinstance(preprocessing, Preprocessing)
        assert (preprocessing.size, preprocessing.crop_fraction) == ((176, 176), 176 / 201)
        assert preprocessing.interpolation == "bicubic"
        np.testing.assert_allclose(preprocessing.mean, [123.675, 116.28, 103.53])
        np.testing.assert_allclose(preprocessing.std, [58.395, 57.12, 57.375])
        assert len(loaded.class_names) == 1000
        assert loaded.class_names[281] == "tabby, tabby cat"

    def test_squashed_images(self, untrained: list[dict[str, Any]]) -> None:
        loaded = load_model("timm:vit_tiny_patch16_224.augreg_in21k")
        assert loaded.preprocessing.crop_fraction == pytest.approx(224 / 248)  # floor(224 / 0.9)
        np.testing.assert_allclose(loaded.preprocessing.mean, [127.5] * 3)
        assert len(loaded.class_names) == 21843
        assert load_model("timm:tinynet_e").preprocessing.interpolation == "bicubic"

    def test_what_preprocessing_lacks_is_left_to_timm(
        self, timm: Any, untrained: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        given = {}

        def create_transform(**config: Any) -> Any:
            given.update(config)
            return lambda image: torch.full((3, 2, 2), float(image.mode == "RGB"))

        def config(mode: str, share: float) -> dict[str, Any]:
            common = {"input_size": (3, 224, 224), "mean": (0.5,) * 3, "std": (0.5,) * 3, "interpolation": "bilinear"}
            return {**common, "crop_mode": mode, "crop_pct": share}

        monkeypatch.setattr(timm.data, "create_transform", create_transform)
        for mode, share in (("border", 1.0), ("squash", 0.9)):
            monkeypatch.setattr(
                timm.data, "resolve_model_data_config", lambda _, mode=mode, share=share: config(mode, share)
            )
            preprocessing = load_model("timm:resnet10t").preprocessing
            assert given["crop_mode"] == mode
            np.testing.assert_array_equal(preprocessing(Image.new("L", (4, 4))), np.ones((3, 2, 2)))
        monkeypatch.setattr(timm.data, "resolve_model_data_config", lambda _: config("squash", 1.0))
        assert load_model("timm:resnet10t").preprocessing.crop_fraction is None

    def test_class_names_that_came_with_the_weights(
        self, timm: Any, untrained: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        create = timm.create_model

        def create_model(name: str, **keywords: Any) -> Any:
            model = create("resnet10t", num_classes=2)
            model.pretrained_cfg["label_names"] = ["cat", "dog"]
            return model

        monkeypatch.setattr(timm, "create_model", create_model)
        assert load_model("timm:hf-hub:somebody/pets").class_names == ["cat", "dog"]

    def test_unknown_name(self, timm: Any) -> None:
        with pytest.raises(ValueError, match=r"timm has no model 'resnet10'\. Nearest names: 'resnet10t', ") as caught:
            load_model("timm:resnet10")
        assert len(str(caught.value).splitlines()) == 1

    def test_unknown_weights(self, timm: Any) -> None:
        with pytest.raises(
            ValueError, match=r"'timm:resnet18.nope' cannot be had with pretrained weights: Invalid pre"
        ):
            load_model("timm:resnet18.nope")

    def test_no_network(self, timm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        def create_model(name: str, **keywords: Any) -> Any:
            raise OSError("We could not connect.\nTry again.")

        monkeypatch.setattr(timm, "create_model", create_model)
        with pytest.raises(ValueError, match=r"^'timm:resnet10t' cannot be had .* weights: We could not connect\.$"):
            load_model("timm:resnet10t")

    def test_not_installed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        hide("timm", monkeypatch)
        with pytest.raises(ValueError, match=r"'timm:resnet18' needs timm, which is not installed: pip install timm$"):
            load_model("timm:resnet18")

    def test_command_line(
        self, untrained: list[dict[str, Any]], tmp_path: Any, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["layers", "--model", "timm:resnet10t"]) == 0
        assert "* layer4" in capsys.readouterr().out
        Image.new("RGB", (80, 60), (200, 10, 10)).save(tmp_path / "red.png")
        files = [str(tmp_path / "red.png"), "--out", str(tmp_path / "out")]
        assert main(["explain", *files, "--model", "timm:resnet10t", "--method", "grad-cam", "--targets", "281"]) == 0
        assert "tabby" in capsys.readouterr().out
        assert np.load(tmp_path / "out" / "red.npz")["maps"].shape[-2:] == (176, 176)
        assert main(["layers", "--model", "timm:resnet1"]) == 2
        assert capsys.readouterr().err.startswith("fusioncam: error: timm has no model 'resnet1'. Nearest names: ")


class TestLoadingFromTorchvision:
    @pytest.fixture(autouse=True)
    def torchvision(self, monkeypatch: pytest.MonkeyPatch) -> Any:
        """torchvision, whose pretrained weights are random ones; those of SqueezeNet 1.0 cannot be had."""
        torchvision = libraries.torchvision()

        def download(url: str, **_: Any) -> Any:
            if "squeezenet1_0" in url:
                raise OSError("<urlopen error>")
            return build(
                torchvision.models.get_model, url.rpartition("/")[2].partition("-")[0], weights=None
            ).state_dict()

        monkeypatch.setattr(importlib.import_module("torchvision.models._api"), "load_state_dict_from_url", download)
        return torchvision

    def test_model_and_what_belongs_to_it(self) -> None:
        loaded = load_model("torchvision:squeezenet1_1")
        assert type(loaded.model).__name__ == "SqueezeNet"
        assert not loaded.model.training
        mean, std = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # (0.485, ...) and (0.229, ...) times 255
        preprocessing = loaded.preprocessing
        assert isinstance(preprocessing, Preprocessing)
        assert (preprocessing.size, preprocessing.crop_fraction) == ((224, 224), 224 / 256)
        assert preprocessing.interpolation == "bilinear"
        np.testing.assert_allclose(preprocessing.mean, mean)
        np.testing.assert_allclose(preprocessing.std, std)
        assert len(loaded.class_names) == 1000
        assert loaded.class_names[281] == "tabby"
        photograph = Image.new("RGB", (64, 48), (255, 0, 51))
        expected = [(255 - mean[0]) / std[0], -mean[1] / std[1], (51 - mean[2]) / std[2]]
        np.testing.assert_allclose(preprocessing(photograph)[:, 0, 0], expected, atol=1e-6)

    def test_unknown_name(self) -> None:
        with pytest.raises(ValueError, match=r"^torchvision has no model 'squeezenet1'\. Nearest names: '"):
            load_model("torchvision:squeezenet1")

    def test_no_network(self) -> None:
        with pytest.raises(
            ValueError, match="'torchvision:squeezenet1_0' cannot be had with pretrained weights: <urlopen err"
        ):
            load_model("torchvision:squeezenet1_0")

    def test_that_does_not_import(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(name: str) -> Any:
            raise RuntimeError("operator torchvision::nms does not exist")

        monkeypatch.setattr(importlib, "import_module", broken)
        with pytest.raises(ValueError, match="torchvision does not import: operator torchvision::nms does not exist"):
            load_model("torchvision:squeezenet1_1")


@pytest.mark.parametrize("name", ["resnet10t", "vit_tiny_patch16_224"])
def test_gradient_checkpointing(timm: Any, name: str) -> None:
    model = build(timm.create_model, name, **{**MODELS[name][0], "num_classes": 4})
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    before = GradCAM(model)(images, 1)
    model.set_grad_checkpointing(True)
    for training in (False, True):
        explanation = GradCAM(model.train(training))(images, 1)
        assert explanation.layer.startswith(before.layer), "of a stage whose blocks run one by one the last block"
        torch.testing.assert_close(explanation.maps, before.maps, atol=1e-5, rtol=0)
