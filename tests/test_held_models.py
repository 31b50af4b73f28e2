"""Models as people hold them: pipelines and image processors of transformers, models of timm."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

import libraries
from fusioncam_core import (
    FusionCAM,
    GradCAM,
    InvalidTypeError,
    InvalidValueError,
    LoadedModel,
    Preprocessing,
    load_model,
)
from fusioncam_core.cli import main
from fusioncam_core.data.processors import ProcessorPreprocessing

torch = pytest.importorskip("torch")
libraries.torchvision()
transformers = pytest.importorskip("transformers")

from test_transformers import TRANSFORMER  # noqa: E402 - PyTorch's

pytestmark = pytest.mark.filterwarnings("ignore::fusioncam_core.FusionCamWarning")  # of weights that nobody trained

NAMES = ["cat", "dog", "owl"]


def network(**configuration: Any) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = transformers.ViTConfig(**{**TRANSFORMER, "num_labels": len(NAMES), **configuration})
        return transformers.ViTForImageClassification(made).eval()


def named(**configuration: Any) -> Any:
    return network(id2label=dict(enumerate(NAMES)), label2id={}, **configuration)


def squashing(**settings: Any) -> Any:
    return transformers.ViTImageProcessor(size={"height": 32, "width": 32}, **settings)


def pipeline(model: Any, **settings: Any) -> Any:
    return transformers.pipeline(
        "image-classification", model=model, image_processor=squashing(), device="cpu", **settings
    )


def photograph(width: int, height: int) -> Image.Image:
    generator = np.random.Generator(np.random.PCG64(width))
    coarse = Image.fromarray(generator.integers(0, 256, (7, 9, 3), dtype=np.uint8))
    return coarse.resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture
def spec(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], str]:
    """Makes a spec of the command line for whatever a function may return."""

    def made(held: Any) -> str:
        module = ModuleType("held_models")
        module.load = lambda: held  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "held_models", module)
        return "python:held_models:load"

    return made


class TestPipeline:
    def test_is_explained_as_its_model(self) -> None:
        pipe, images = pipeline(named()), torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
        torch.testing.assert_close(FusionCAM(pipe)(images, 1).maps, FusionCAM(pipe.model)(images, 1).maps)
        assert GradCAM(pipe)(images).layer == GradCAM(pipe.model)(images).layer

    def test_probabilities_are_the_pipeline_s(self) -> None:
        pipe, photo = pipeline(named()), photograph(61, 43)
        loaded = load_model(pipe)
        assert loaded.model is pipe.model
        assert (loaded.class_names, loaded.task) == (NAMES, "multiclass")
        explanation = GradCAM(loaded.model)(loaded.preprocessing(photo)[np.newaxis], [[0, 1, 2]])
        expected = {each["label"]: each["score"] for each in pipe(photo, top_k=3)}
        found = dict(zip(NAMES, explanation.numpy().probabilities[0].tolist(), strict=True))
        assert found == pytest.approx(expected, abs=1e-6)

    @pytest.mark.parametrize(
        ("configuration", "settings", "task"),
        [
            ({}, {}, "multiclass"),
            ({"problem_type": "multi_label_classification"}, {}, "multilabel"),
            ({}, {"function_to_apply": "sigmoid"}, "multilabel"),
            ({"problem_type": "multi_label_classification"}, {"function_to_apply": "softmax"}, "multiclass"),
            ({"num_labels": 1}, {}, "binary"),
        ],
        ids=["softmax", "several labels", "sigmoid asked for", "softmax asked for", "one label"],
    )
    def test_the_task_is_the_pipeline_s(
        self, configuration: dict[str, Any], settings: dict[str, Any], task: str
    ) -> None:
        pipe, photo = pipeline(network(**configuration), **settings), photograph(40, 40)
        loaded = load_model(pipe)
        assert loaded.task == task
        cam = GradCAM(loaded.model, task=loaded.task)
        classes = [1] if task == "binary" else [0, 1, 2]
        explanation = cam(loaded.preprocessing(photo)[np.newaxis], [classes]).numpy()
        scores = sorted(each["score"] for each in pipe(photo, top_k=3))
        np.testing.assert_allclose(np.sort(explanation.probabilities[0]), scores, atol=1e-6)
        if task != "multiclass":
            with pytest.raises(
                InvalidTypeError, match=rf"takes the sigmoid .* give the \.model of it, and task='{task}'"
            ):
                GradCAM(pipe)

    def test_on_the_command_line(
        self, spec: Callable[[Any], str], tmp_path: Any, capsys: pytest.CaptureFixture[str]
    ) -> None:
        photograph(61, 43).save(tmp_path / "animal.png")
        arguments = [str(tmp_path / "animal.png"), "--out", str(tmp_path / "out"), "--targets", "2"]
        assert main(["explain", *arguments, "--model", spec(pipeline(named())), "--method", "grad-cam"]) == 0
        assert "owl" in capsys.readouterr().out
        assert np.load(tmp_path / "out" / "animal.npz")["maps"].shape[-2:] == (32, 32)

    def test_of_another_framework(self) -> None:
        pipe = pipeline(named())
        pipe.model = SomethingElse(pipe.model)
        with pytest.raises(InvalidTypeError, match="a pipeline with a model of PyTorch, got one with a SomethingElse"):
            load_model(pipe)

    def test_with_what_the_user_says(self) -> None:
        assert load_model(LoadedModel(pipeline(named()), task="multilabel")).task == "multilabel"
        own = Preprocessing((32, 32))
        loaded = load_model(LoadedModel(pipeline(named()), own, ["Katze", "Hund", "Eule"], name="pets"))
        assert loaded.preprocessing is own
        assert (loaded.class_names, loaded.name) == (["Katze", "Hund", "Eule"], "pets")


class SomethingElse:
    def __init__(self, model: Any) -> None:
        self.config = model.config


PROCESSORS: dict[str, tuple[Callable[[], Any], tuple[float | None, int] | None]] = {
    "squashed": (squashing, (None, 32)),
    "squashed by Pillow": (lambda: transformers.ViTImageProcessorPil(size={"height": 32, "width": 32}), (None, 32)),
    "squashed, in 0..255": (lambda: squashing(do_rescale=False, do_normalize=False), (None, 32)),
    "a window": (
        lambda: transformers.CLIPImageProcessor(size={"shortest_edge": 40}, crop_size={"height": 32, "width": 32}),
        (0.8, 32),
    ),
    "a share": (lambda: transformers.ConvNextImageProcessor(size={"shortest_edge": 32}, crop_pct=0.875), (0.875, 32)),
    "of the library's sizes": (lambda: transformers.CLIPImageProcessor(), (1.0, 224)),
    # A window in a squashed photograph; blue before red.
    "squashed and cropped": (lambda: transformers.DeiTImageProcessor(), None),
    "blue first": (lambda: transformers.MobileViTImageProcessor(), None),
}


@pytest.mark.parametrize("name", PROCESSORS)
class TestImageProcessor:
    def test_its_own_pixels(self, name: str) -> None:
        processor = PROCESSORS[name][0]()
        preprocessing = load_model((named(), processor)).preprocessing
        for width, height in ((61, 43), (43, 61), (333, 501), (32, 32), (7, 5)):
            photo = photograph(width, height)
            expected = processor(images=photo, return_tensors="np")["pixel_values"][0]
            np.testing.assert_allclose(preprocessing(photo), expected, rtol=0, atol=1e-6)

    def test_where_they_come_from(self, name: str) -> None:
        make, expected = PROCESSORS[name]
        preprocessing = load_model((named(), make())).preprocessing
        if expected is None:
            assert not isinstance(preprocessing, Preprocessing)
            return
        assert isinstance(preprocessing, ProcessorPreprocessing)
        assert (preprocessing.crop_fraction, preprocessing.size[0]) == expected
        photo = photograph(301, 201)
        width, height = photo.size
        left, top, right, bottom = preprocessing.box(photo)
        whole = np.zeros((height, width, 3), np.uint8)
        whole[top:bottom, left:right] = 255
        inside = preprocessing(Image.fromarray(whole))
        outside = preprocessing(Image.fromarray(255 - whole))
        edge = 2  # pixels at which the frame lies between those of the photograph
        white, black = (preprocessing(Image.new("RGB", photo.size, colour)) for colour in ("white", "black"))
        for found, all_ in ((inside, white), (outside, black)):
            middle = (slice(None), slice(edge, -edge), slice(edge, -edge))
            np.testing.assert_allclose(found[middle], all_[middle], atol=1e-3 * float(np.abs(white - black).max()))


class TestModelsAndProcessors:
    def test_names_are_those_of_the_model(self) -> None:
        assert load_model((named(), squashing())).class_names == NAMES
        assert load_model(named()).class_names == NAMES
        assert load_model(named()).preprocessing is None
        assert load_model(network()).class_names is None  # LABEL_0, LABEL_1, LABEL_2

    def test_on_the_command_line(
        self, spec: Callable[[Any], str], tmp_path: Any, capsys: pytest.CaptureFixture[str]
    ) -> None:
        photograph(61, 43).save(tmp_path / "animal.png")
        held = spec((named(), transformers.DeiTImageProcessor(size={"height": 40, "width": 40}, crop_size=32)))
        arguments = [str(tmp_path / "animal.png"), "--out", str(tmp_path / "out"), "--method", "grad-cam"]
        assert main(["explain", *arguments, "--model", held, "--targets", "2"]) == 0
        assert "owl" in capsys.readouterr().out

    def test_a_processor_that_does_not_run(self) -> None:
        processor = squashing()
        processor.image_mean = (0.5, 0.5)
        with pytest.raises(InvalidValueError, match="the model's own image processor: RuntimeError: The size"):
            load_model((named(), processor))

    def test_a_processor_of_several_arrays(self) -> None:
        class Masked(transformers.ViTImageProcessor):
            def __call__(self, images: Any, **keywords: Any) -> Any:
                made = super().__call__(images, **keywords)
                return {**made, "pixel_mask": made["pixel_values"] > 0}

        with pytest.raises(
            InvalidValueError, match=r"expected pixel_values alone, .* got pixel_mask, pixel_values from"
        ):
            load_model((named(), Masked(size={"height": 32, "width": 32})))

    def test_photographs_are_checked(self) -> None:
        preprocessing = load_model((named(), squashing())).preprocessing
        with pytest.raises(TypeError, match=r"Expected a Pillow image, got a list\."):
            preprocessing([1, 2])

    def test_it_is_written_down(self, tmp_path: Path) -> None:
        loaded, photo = load_model((named(), squashing())), photograph(61, 43)
        photo.save(tmp_path / "animal.png")
        cam = GradCAM(loaded.model)
        (explanation,) = cam.explain_many(tmp_path, preprocessing=loaded.preprocessing, progress=False)
        written = explanation.provenance.preprocessing
        assert written["kind"] == "fusioncam_core.data.processors.ProcessorPreprocessing"
        assert (written["size"], written["crop_fraction"]) == ([32, 32], None)
        assert written["processor"].startswith("ViTImageProcessor {")
        torch.testing.assert_close(explanation.maps, cam(loaded.preprocessing(photo)[np.newaxis]).maps)


@pytest.fixture(scope="module")
def model() -> Any:
    """Of timm."""
    timm = pytest.importorskip("timm")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return timm.create_model("resnet10t", num_classes=3).eval()


class TestTimm:
    def test_its_own_configuration(self, model: Any) -> None:
        loaded = load_model(model)
        assert loaded.model is model
        assert loaded.class_names is None  # whose classes these are is not known
        assert loaded.preprocessing.size == (176, 176)
        assert loaded.preprocessing.crop_fraction == pytest.approx(0.875, abs=0.005)
        np.testing.assert_allclose(loaded.preprocessing.mean, (123.675, 116.28, 103.53))
        photo = Image.new("RGB", (200, 190), (255, 0, 51))
        expected = (np.array([255, 0, 51]) - [123.675, 116.28, 103.53]) / [58.395, 57.12, 57.375]
        np.testing.assert_allclose(loaded.preprocessing(photo)[:, 0, 0], expected, atol=1e-5)

    def test_a_configuration_beside_it(self, model: Any) -> None:
        import timm

        config = timm.data.resolve_model_data_config(model)
        loaded = load_model((model, {**config, "input_size": (3, 64, 64), "crop_pct": 1.0, "mean": (0.5, 0.5, 0.5)}))
        assert (loaded.preprocessing.size, loaded.preprocessing.crop_fraction) == ((64, 64), 1.0)
        np.testing.assert_allclose(loaded.preprocessing.mean, 127.5)

    def test_what_the_user_gives_stays(self, model: Any) -> None:
        transform = torch.nn.Identity()
        assert load_model((model, transform)).preprocessing is transform

    def test_names_that_came_with_the_weights(self, model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(model.pretrained_cfg, "label_names", NAMES)
        assert load_model(model).class_names == NAMES
        monkeypatch.setitem(model.pretrained_cfg, "label_names", [*NAMES, "emu"])  # of another head
        assert load_model(model).class_names is None

    def test_on_the_command_line(self, model: Any, spec: Callable[[Any], str], tmp_path: Any) -> None:
        photograph(61, 43).save(tmp_path / "animal.png")
        arguments = [str(tmp_path / "animal.png"), "--out", str(tmp_path / "out"), "--method", "grad-cam"]
        assert main(["explain", *arguments, "--model", spec(model)]) == 0
        assert np.load(tmp_path / "out" / "animal.npz")["maps"].shape[-2:] == (176, 176)


def test_a_pair_in_place_of_a_model() -> None:
    with pytest.raises(
        InvalidTypeError, match=r"(?s)type builtins\.tuple.*\nThe first of these two can be read: give that"
    ):
        FusionCAM((named(), squashing()))
    with pytest.raises(InvalidTypeError) as caught:
        FusionCAM((squashing(), named()))
    assert "The first of" not in str(caught.value)


def test_what_is_no_model() -> None:
    with pytest.raises(InvalidValueError, match=r"^load_model was given None; expected a model"):
        load_model(None)
    with pytest.raises(InvalidValueError, match=r"^load_model was given 3 things; expected"):
        load_model((1, 2, 3))
    with pytest.raises(InvalidTypeError, match=r"such as 'keras:some/model\.keras', got a path alone"):
        load_model(Path("some/model.keras"))
    plain = torch.nn.Identity()
    assert load_model(plain) == LoadedModel(plain)
