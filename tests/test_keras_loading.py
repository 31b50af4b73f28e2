"""`keras:PATH`: model files, without running code from them."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from absence import hide
from fusioncam_core import (
    Explanation,
    FusionCAM,
    FusionCamWarning,
    LoadedModel,
    MissingExtra,
    Preprocessing,
    load_model,
)
from fusioncam_core.arrays.namespaces import to_numpy
from fusioncam_core.cli import main
from fusioncam_core.cli.preprocess import preprocess_parts, preprocessing_of
from libraries import framework

keras = framework("keras")
from keras import layers  # noqa: E402

import keras_models as models  # noqa: E402 - needs Keras
from fusioncam_keras import held  # noqa: E402

pytestmark = [
    # TensorFlow's variables have no `copy` argument yet that NumPy 2 asks for.
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    # Keras advises against .h5 files.
    pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file"),
]


def saved(model: Any, file: Path) -> str:
    model.save(file)
    return f"keras:{file}"


def classifier(*first: Any, units: int = 3, activation: str | None = None, size: tuple[Any, ...] = (8, 9, 3)) -> Any:
    convolution = layers.Conv2D(2, 3, data_format="channels_last" if size[-1] == 3 else "channels_first")
    pool = layers.GlobalMaxPooling2D(data_format=convolution.data_format)
    return keras.Sequential([keras.Input(size), *first, convolution, pool, layers.Dense(units, activation)])


@pytest.mark.filterwarnings("ignore::fusioncam_core.FusionCamWarning")
@pytest.mark.parametrize("ending", [".keras", ".h5"])
def test_loaded_model_gives_the_same_map(
    tmp_path: Path, shapes: dict[str, Any], shapes_weights: Any, ending: str
) -> None:
    model = models.load_shapes(models.nested(activation="softmax"), shapes_weights)
    loaded = load_model(saved(model, tmp_path / f"shapes{ending}"))
    assert (loaded.name, loaded.task, loaded.output_kind, loaded.layer) == ("shapes", "multiclass", "logits", None)
    images = np.ascontiguousarray(np.moveaxis(shapes["images"][:2], 1, -1))
    explanation = FusionCAM(loaded.model, contributions="signed")(images, shapes["target"][:2])
    np.testing.assert_allclose(to_numpy(explanation.parts["region"]), shapes["region_map"][:2], atol=1e-5)


class TestPreprocessing:
    def test_model_that_scales_gets_0_to_255(self, tmp_path: Path) -> None:
        model = classifier(layers.Rescaling(1 / 255))
        preprocessing = load_model(saved(model, tmp_path / "model.keras")).preprocessing
        assert (preprocessing.size, preprocessing.channels) == ((8, 9), "last")
        assert (preprocessing.mean, preprocessing.std) == (0, 1)

    def test_other_models_get_0_to_1_and_a_warning(self, tmp_path: Path) -> None:
        spec = saved(classifier(), tmp_path / "model.keras")
        with pytest.warns(FusionCamWarning, match=r"has no Rescaling or Normalization layer.*scaled to \[0, 1\]"):
            preprocessing = load_model(spec).preprocessing
        assert (preprocessing.mean, preprocessing.std) == (0, 255)

    def test_channels_first(self, tmp_path: Path) -> None:
        models.need_channels_first()
        model = classifier(layers.Rescaling(2.0), size=(3, 8, 9))
        preprocessing = load_model(saved(model, tmp_path / "model.keras")).preprocessing
        assert (preprocessing.size, preprocessing.channels) == ((8, 9), "first")

    def test_size_that_is_left_open(self, tmp_path: Path) -> None:
        model = classifier(layers.Rescaling(2.0), size=(None, None, 3))
        assert load_model(saved(model, tmp_path / "model.keras")).preprocessing.size == (224, 224)

    @pytest.mark.parametrize(("axis", "channels"), [(-1, "last"), (0, "first")])
    def test_grey_pictures(self, tmp_path: Path, axis: int, channels: str) -> None:
        if channels == "first":
            models.need_channels_first()
        shape = (8, 9, 1) if channels == "last" else (1, 8, 9)
        convolution = layers.Conv2D(2, 3, data_format=f"channels_{channels}")
        pool = layers.GlobalMaxPooling2D(data_format=convolution.data_format)
        stages = [keras.Input(shape), layers.Rescaling(1 / 255), convolution, pool, layers.Dense(1, "sigmoid")]
        loaded = load_model(saved(keras.Sequential(stages), tmp_path / "film.keras"))
        assert (loaded.preprocessing.size, loaded.preprocessing.channels) == ((8, 9), channels)
        assert (loaded.preprocessing.colours, loaded.task) == ("grey", "binary")

    def test_what_takes_no_photographs_has_none(self, tmp_path: Path) -> None:
        model = keras.Sequential([keras.Input((9, 2)), layers.Conv1D(2, 3), layers.Flatten(), layers.Dense(2)])
        assert load_model(saved(model, tmp_path / "model.keras")).preprocessing is None


@pytest.mark.parametrize(
    ("units", "activation", "task"),
    [(3, "softmax", "multiclass"), (3, None, "multiclass"), (3, "sigmoid", "multilabel"), (1, "sigmoid", "binary")],
)
def test_task_follows_from_the_ending(tmp_path: Path, units: int, activation: str | None, task: str) -> None:
    model = classifier(layers.Rescaling(1.0), units=units, activation=activation)
    assert load_model(saved(model, tmp_path / "model.keras")).task == task


class TestRefusals:
    @pytest.mark.parametrize("ending", [".keras", ".h5"])
    def test_code_in_the_file_does_not_run(self, tmp_path: Path, ending: str) -> None:
        spec = saved(classifier(layers.Lambda(lambda images: images / 255)), tmp_path / f"model{ending}")
        with pytest.raises(ValueError, match=r"holds Python code \(a Lambda layer\), which is not run"):
            load_model(spec)

    def test_class_that_is_not_known(self, tmp_path: Path) -> None:
        class Unknown(layers.Layer):
            def call(self, images: Any) -> Any:
                return images

        spec = saved(classifier(Unknown()), tmp_path / "model.keras")
        with pytest.raises(ValueError, match="Could not locate class 'Unknown'") as caught:
            load_model(spec)
        assert len(str(caught.value)) < 500

    @pytest.mark.parametrize(
        ("name", "problem"),
        [
            ("none.keras", "there is no such file"),
            ("model.pb", r"the file of a whole model ends in \.keras or \.h5"),
            ("model.weights.h5", r"not \.weights\.h5"),
            ("text.keras", "is no file that Keras has saved"),
            ("text.h5", "file signature not found"),
        ],
    )
    def test_files_that_hold_no_model(self, tmp_path: Path, name: str, problem: str) -> None:
        for text in ("text.keras", "text.h5"):
            (tmp_path / text).write_text("no model")
        with pytest.raises(ValueError, match=problem):
            load_model(f"keras:{tmp_path / name}")

    def test_weights_alone(self, tmp_path: Path) -> None:
        classifier().save_weights(tmp_path / "model.weights.h5")
        (tmp_path / "model.weights.h5").rename(tmp_path / "model.h5")
        with pytest.raises(ValueError, match="No model config found"):
            load_model(f"keras:{tmp_path / 'model.h5'}")


class TestPreprocessInput:
    """`(model, preprocess_input)`: the function of an application, which takes arrays."""

    PHOTOGRAPH = Image.new("RGB", (31, 27), (255, 0, 51))
    CAFFE = (51 - 103.939, 0 - 116.779, 255 - 123.68)  # blue before red, less ImageNet's mean

    def test_values(self) -> None:
        for application, expected in (
            (keras.applications.resnet50, self.CAFFE),
            (keras.applications.mobilenet_v2, (1.0, -1.0, 51 / 127.5 - 1)),
            (keras.applications.efficientnet, (255.0, 0.0, 51.0)),
        ):
            loaded = load_model((classifier(), application.preprocess_input))
            array = loaded.preprocessing(self.PHOTOGRAPH)
            assert (array.shape, array.dtype) == ((8, 9, 3), np.float32)
            np.testing.assert_allclose(array[4, 4], expected, rtol=0, atol=1e-4)

    def test_channels_first(self) -> None:
        model = SimpleNamespace(inputs=[SimpleNamespace(shape=(None, 3, 8, 9))])
        loaded = held.complete(LoadedModel(model, keras.applications.resnet50.preprocess_input))
        assert loaded is not None
        array = loaded.preprocessing(self.PHOTOGRAPH)
        assert array.shape == (3, 8, 9)
        np.testing.assert_allclose(array[:, 4, 4], self.CAFFE, rtol=0, atol=1e-4)

    def test_what_it_looks_at_is_known(self) -> None:
        loaded = load_model((classifier(), keras.applications.resnet50.preprocess_input))
        assert isinstance(loaded.preprocessing, Preprocessing)
        assert loaded.preprocessing.box(self.PHOTOGRAPH) == (0, 0, 30, 27)  # 31 x 27 cropped to 9 : 8
        assert "resnet" in repr(loaded.preprocessing)
        left = Image.new("RGB", (31, 27))
        left.paste((255, 255, 255), (0, 0, 10, 27))
        array = loaded.preprocessing(left)[..., 0] + 103.939
        np.testing.assert_allclose(array[4, [0, 1, 4, 8]], [255, 255, 0, 0], atol=8)  # of a bicubic filter

    def test_what_it_does_is_written_down(self) -> None:
        for application, mean, std, colours in (
            (keras.applications.resnet, (123.68, 116.779, 103.939), (1.0,) * 3, "bgr"),
            (keras.applications.vgg16, (123.68, 116.779, 103.939), (1.0,) * 3, "bgr"),
            (keras.applications.mobilenet_v2, (127.5,) * 3, (127.5,) * 3, "rgb"),
            (keras.applications.efficientnet, (0.0,) * 3, (1.0,) * 3, "rgb"),
            (keras.applications.densenet, (123.675, 116.28, 103.53), (58.395, 57.12, 57.375), "rgb"),
        ):
            found = load_model((classifier(), application.preprocess_input)).preprocessing
            np.testing.assert_allclose(found.mean, mean, atol=1e-3)
            np.testing.assert_allclose(found.std, std, atol=1e-3)
            assert found.colours == colours

    def test_the_preset_of_the_command_line(self) -> None:
        """--preprocess caffe is what keras.applications.resnet.preprocess_input does."""
        made = preprocessing_of(preprocess_parts("caffe,size=7x9,crop=none,interpolation=nearest"), None, -1)
        pixels = np.random.default_rng(0).integers(0, 256, (7, 9, 3), dtype=np.uint8)
        for application in (keras.applications.resnet, keras.applications.vgg19):
            expected = application.preprocess_input(pixels[np.newaxis].astype(np.float32), data_format="channels_last")
            np.testing.assert_allclose(made(Image.fromarray(pixels)), expected[0], rtol=0, atol=1e-4)

    def test_another_size_of_it(self) -> None:
        loaded = load_model((classifier(), keras.applications.resnet50.preprocess_input))
        made = preprocessing_of(preprocess_parts("size=5x6"), loaded.preprocessing, None)
        array = made(self.PHOTOGRAPH)
        assert array.shape == (5, 6, 3)
        np.testing.assert_allclose(array[2, 3], self.CAFFE, rtol=0, atol=1e-3)

    @pytest.mark.filterwarnings("ignore::fusioncam_core.FusionCamWarning")  # of weights that nobody trained
    def test_another_size_on_the_command_line(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """The function no longer makes the arrays, which is said; what it does to the values stays."""
        module: Any = ModuleType("held_keras")
        module.load = lambda: (classifier(size=(None, None, 3)), keras.applications.resnet50.preprocess_input)
        monkeypatch.setitem(sys.modules, "held_keras", module)
        self.PHOTOGRAPH.save(tmp_path / "red.png")
        arguments = [str(tmp_path / "red.png"), "--out", str(tmp_path / "out"), "--method", "hires-cam", "--maps-only"]
        assert main(["explain", *arguments, "--model", "python:held_keras:load", "--preprocess", "size=6x7"]) == 0
        assert (
            "--preprocess takes the place of the preprocessing that 'python:held_keras:load'" in capsys.readouterr().err
        )
        found = Explanation.load(tmp_path / "out" / "red.npz")
        assert found.images.shape == (1, 6, 7, 3)
        np.testing.assert_allclose(found.images[0, 3, 3], self.CAFFE, rtol=0, atol=1e-3)

    def test_size_that_is_left_open(self) -> None:
        loaded = load_model((classifier(size=(None, None, 3)), keras.applications.resnet50.preprocess_input))
        assert loaded.preprocessing.size == (224, 224)

    def test_a_model_of_anything_else(self) -> None:
        model = keras.Sequential([keras.Input((8,)), layers.Dense(2)])
        with pytest.raises(ValueError, match=r"channels beside preprocess_input, got .* input_shape is \(None, 8\)"):
            load_model((model, keras.applications.resnet50.preprocess_input))

    def test_somebody_s_own(self) -> None:
        def preprocess_input(photograph: Any) -> Any:
            return np.asarray(photograph)

        assert load_model((classifier(), preprocess_input)).preprocessing is preprocess_input

    @pytest.mark.filterwarnings("ignore::fusioncam_core.FusionCamWarning")  # of weights that nobody trained
    def test_on_the_command_line(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        module: Any = ModuleType("held_keras")
        module.load = lambda: (classifier(), keras.applications.resnet50.preprocess_input)
        monkeypatch.setitem(sys.modules, "held_keras", module)
        self.PHOTOGRAPH.save(tmp_path / "red.png")
        arguments = [str(tmp_path / "red.png"), "--out", str(tmp_path / "out"), "--method", "hires-cam"]
        assert main(["explain", *arguments, "--model", "python:held_keras:load"]) == 0
        found = Explanation.load(tmp_path / "out" / "red.npz")
        np.testing.assert_allclose(found.images[0, 4, 4], self.CAFFE, rtol=0, atol=1e-4)


class TestMissing:
    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        (tmp_path / "model.h5").write_bytes(b"")
        return tmp_path / "model.h5"

    def test_keras(self, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        hide("keras", monkeypatch)
        with pytest.raises(MissingExtra, match=r'needs keras: pip install "fusioncam\[keras\]"'):
            load_model(f"keras:{file}")

    def test_the_framework_that_keras_is_set_to(self, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import fusioncam_keras.loading as loading

        def require(*_: str) -> None:
            raise ModuleNotFoundError("No module named 'tensorflow'", name="tensorflow")

        monkeypatch.setattr(loading, "require", require)
        monkeypatch.setattr(loading.importlib.util, "find_spec", lambda name: name == "torch" or None)
        with pytest.raises(ValueError, match=r"run on tensorflow, which is not .* to one that is, torch\."):
            load_model(f"keras:{file}")
        monkeypatch.setattr(loading.importlib.util, "find_spec", lambda name: None)
        with pytest.raises(ValueError, match=r'not installed: pip install "fusioncam\[tensorflow\]"'):
            load_model(f"keras:{file}")


@pytest.mark.filterwarnings("ignore::fusioncam_core.FusionCamWarning")  # of weights that nobody trained
def test_a_folder_of_grey_films_in_one_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file, a folder and names: pictures, a table and a report, of the probabilities that the model gives."""
    keras.utils.set_random_seed(0)
    convolution, pool = layers.Conv2D(4, 3, activation="relu"), layers.GlobalAveragePooling2D()
    model = keras.Sequential([keras.Input((16, 20, 1)), convolution, pool, layers.Dense(1, "sigmoid")])
    monkeypatch.chdir(tmp_path)
    spec = saved(model, Path("film.keras"))
    films = np.random.default_rng(0).integers(0, 256, (2, 16, 20), dtype=np.uint8)
    Path("films").mkdir()
    for number, film in enumerate(films):
        Image.fromarray(film).save(f"films/{number}.png")
    Path("names.txt").write_text("healthy\nnodule\n")
    names = ["--class-names", "names.txt", "--targets", "nodule"]
    values = ["--preprocess", "minus-one-to-one"]
    assert main(["explain", "films", "--model", spec, *names, *values, "--report", "report.html"]) == 0
    with open("fusioncam-out/index.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    inputs = films[..., None].astype(np.float32) / 127.5 - 1
    expected = to_numpy(model(inputs))[:, 0]
    assert [row["name"] for row in rows] == ["nodule", "nodule"]
    np.testing.assert_allclose([float(row["probability"]) for row in rows], expected, atol=1e-4)
    assert Path("report.html").stat().st_size > 1000
