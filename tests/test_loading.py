"""Models from a spec, photographs from files, preprocessing, and what is only needed sometimes."""

from __future__ import annotations

import io
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from absence import hide
from fusioncam_core import ScoreCAM
from fusioncam_core.data import progress as watching
from fusioncam_core.data.preprocessing import Preprocessing, read_photograph
from fusioncam_core.data.progress import progress_bar
from fusioncam_core.errors import MissingExtra, PluginWarning
from fusioncam_core.extras import require
from fusioncam_core.plugins.loaded_model import LoadedModel
from fusioncam_core.plugins.loading import load_model
from fusioncam_core.plugins.manager import plugin_manager
from fusioncam_core.plugins.python_models import hookimpl


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Writes a module `zoo_under_test` into the current directory; it is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "zoo_under_test", raising=False)

    def write(text: str) -> None:
        (tmp_path / "zoo_under_test.py").write_text(text, encoding="utf-8")

    yield write
    sys.modules.pop("zoo_under_test", None)


class TestPythonSpecs:
    def test_bare_model(self, module):
        module("def load():\n    return 'a model'\n")
        assert load_model("python:zoo_under_test:load") == LoadedModel("a model")

    def test_model_with_preprocessing(self, module):
        module("def load():\n    return 'a model', 'its preprocessing'\n")
        assert load_model("python:zoo_under_test:load") == LoadedModel("a model", "its preprocessing")

    def test_loaded_model_is_returned_as_it_is(self, module):
        module(
            "from fusioncam_core import LoadedModel\n"
            "loaded = LoadedModel('a model', class_names=('cat', 'dog'), layer='conv', task='multilabel')\n"
            "def load():\n    return loaded\n"
        )
        loaded = load_model("python:zoo_under_test:load")
        assert loaded is sys.modules["zoo_under_test"].loaded

    def test_current_directory_is_on_the_path_only_while_loading(self, module):
        module("import sys\ndef load():\n    return list(sys.path)\n")
        before = list(sys.path)
        assert load_model("python:zoo_under_test:load").model == [str(Path.cwd()), *before]
        assert sys.path == before

    def test_path_is_put_back_after_an_error(self, module):
        module("def load():\n    raise RuntimeError('no weights')\n")
        before = list(sys.path)
        with pytest.raises(ValueError, match=r"^'python:zoo_under_test:load': RuntimeError: no weights\.$") as caught:
            load_model("python:zoo_under_test:load")
        assert isinstance(caught.value.__cause__, RuntimeError)
        assert sys.path == before

    @pytest.mark.parametrize("spec", ["python:", "python:models", "python:models:", "python::load", "python:.m:f"])
    def test_incomplete_spec(self, spec):
        with pytest.raises(ValueError, match=r"is incomplete; write python:package\.module:function"):
            load_model(spec)

    def test_missing_module(self, module):
        with pytest.raises(ValueError, match=r"'python:zoo_under_test:load': there is no module 'zoo_under_test'"):
            load_model("python:zoo_under_test:load")

    def test_missing_package_around_the_module(self):
        with pytest.raises(ValueError, match="there is no module 'no_such_package' from"):
            load_model("python:no_such_package.zoo:load")

    def test_module_that_needs_a_missing_one(self, module):
        module("import no_such_package.deep\n")
        with pytest.raises(ValueError, match="zoo_under_test needs the module 'no_such_package', which is not"):
            load_model("python:zoo_under_test:load")

    def test_module_that_imports_a_missing_name(self, module):
        module("from os import no_such_name\n")
        with pytest.raises(ValueError, match="zoo_under_test does not import: cannot import name 'no_such_name'"):
            load_model("python:zoo_under_test:load")

    def test_module_with_a_syntax_error(self, module):
        module("x = 1\ndef load(:\n")
        with pytest.raises(ValueError, match=r"does not import: invalid syntax in line 2 of .*zoo_under_test\.py"):
            load_model("python:zoo_under_test:load")

    def test_missing_function_offers_the_nearest(self, module):
        module("def load_resnet():\n    return 1\n")
        with pytest.raises(ValueError, match=r"has no 'load_resmet'; did you mean load_resnet\?"):
            load_model("python:zoo_under_test:load_resmet")

    def test_model_instead_of_a_function(self, module):
        module("class Model:\n    def __call__(self, x):\n        return x\nmodel = Model()\n")
        with pytest.raises(ValueError, match="model is of type Model; name a function that returns the model"):
            load_model("python:zoo_under_test:model")

    def test_function_with_arguments(self, module):
        module("def load(weights):\n    return weights\n")
        with pytest.raises(ValueError, match="load must work without arguments: missing a required argument"):
            load_model("python:zoo_under_test:load")

    def test_function_that_needs_a_missing_package(self, module):
        module("def load():\n    raise ModuleNotFoundError('install the weights first')\n")
        with pytest.raises(ValueError, match=r"^'python:zoo_under_test:load': install the weights first$"):
            load_model("python:zoo_under_test:load")

    def test_function_that_returns_nothing(self, module):
        module("def load():\n    pass\n")
        with pytest.raises(ValueError, match=r"returned None; expected a model, \(model, preprocessing\)"):
            load_model("python:zoo_under_test:load")

    def test_function_that_returns_three_things(self, module):
        module("def load():\n    return 1, 2, 3\n")
        with pytest.raises(ValueError, match="returned 3 things"):
            load_model("python:zoo_under_test:load")


class TestOtherSpecs:
    def test_unknown_kind_says_what_specs_look_like(self):
        with pytest.raises(ValueError, match=r"No plugin can load 'resnet50'.*python:package\.module:function"):
            load_model("resnet50")

    def test_plugin_that_answers_with_something_else(self, monkeypatch):
        class Plugin:
            @hookimpl
            def fusioncam_load_model(self, spec):
                return "bare" if spec == "odd:spec" else None

        plugin, manager = Plugin(), plugin_manager()
        monkeypatch.setattr(manager, "problems", {})
        manager.register(plugin, name="odd")
        try:
            with (
                pytest.warns(PluginWarning, match="'odd' is left out: expected a LoadedModel, got builtins.str"),
                pytest.raises(
                    ValueError, match=r"load 'odd:spec'; left out: odd \(expected a LoadedModel, got builtins"
                ),
            ):
                load_model("odd:spec")
        finally:
            manager.unregister(plugin)


class TestPreprocessing:
    """On a photograph 6 pixels wide and 4 high whose red is the column, green the row and blue 200."""

    @pytest.fixture
    def photograph(self):
        pixels = np.full((4, 6, 3), 200, dtype=np.uint8)
        pixels[..., 0] = np.arange(6)
        pixels[..., 1] = np.arange(4)[:, None]
        return Image.fromarray(pixels)

    @pytest.mark.parametrize(
        ("size", "fraction", "columns", "rows"),
        [
            ((2, 2), 1.0, (1, 4), (0, 3)),  # 4 x 4: the shorter side
            ((2, 2), 0.5, (2, 3), (1, 2)),
            ((2, 3), 1.0, (0, 5), (0, 3)),  # the photograph's own proportions
            ((1, 2), 1.0, (0, 5), (0, 2)),  # 6 wide, 3 high: of the odd row left over, the lower one
            ((2, 1), 1.0, (2, 3), (0, 3)),
            ((2, 2), None, (0, 5), (0, 3)),
            ((2, 2), 0.01, (2, 2), (1, 1)),  # at least one pixel
        ],
    )
    def test_window(self, photograph, size, fraction, columns, rows):
        window = np.asarray(Preprocessing(size, fraction).window(photograph))
        assert (window[0, 0, 0], window[-1, -1, 0]) == columns
        assert (window[0, 0, 1], window[-1, -1, 1]) == rows

    def test_view_has_the_size_as_height_and_width(self, photograph):
        assert Preprocessing(size=(10, 20)).view(photograph).size == (20, 10)

    def test_view_without_crop_is_pillows_resize(self, photograph):
        view = Preprocessing((3, 5), crop_fraction=None, interpolation="lanczos").view(photograph)
        assert np.array_equal(view, photograph.resize((5, 3), Image.Resampling.LANCZOS))

    def test_values_channels_first(self, photograph):
        array = Preprocessing(size=(2, 2), crop_fraction=0.5)(photograph)  # (x - 127) / 128
        assert array.dtype == np.float32
        assert array.shape == (3, 2, 2)
        assert array[0].tolist() == [[-125 / 128, -124 / 128]] * 2
        assert array[1].tolist() == [[-126 / 128] * 2, [-125 / 128] * 2]
        assert array[2].tolist() == [[73 / 128] * 2] * 2

    def test_values_per_channel_channels_last(self, photograph):
        preprocessing = Preprocessing((2, 2), 0.5, mean=[0, 1, 100], std=[1, 2, 4], channels="last")
        assert preprocessing(photograph).tolist() == [[[2, 0, 25], [3, 0, 25]], [[2, 0.5, 25], [3, 0.5, 25]]]

    def test_grey_photograph_becomes_three_channels(self):
        array = Preprocessing(size=(1, 1), mean=0, std=1)(Image.new("L", (3, 3), 7))
        assert array.tolist() == [[[7.0]]] * 3

    @pytest.mark.parametrize("channels", ["first", "last"])
    def test_one_channel_of_brightness(self, channels):
        """Of red, by ITU-R 601: 299/1000 of 200 is 59.8, and Pillow's is a whole number."""
        preprocessing = Preprocessing((1, 1), mean=40, std=10, channels=channels, colours="grey")
        array = preprocessing(Image.new("RGB", (3, 3), (200, 0, 0)))
        assert array.item() == 2.0
        assert preprocessing(Image.new("L", (3, 3), 140)).item() == 10.0

    def test_where_the_one_channel_is(self):
        photograph = Image.fromarray(np.arange(6, dtype=np.uint8).reshape(2, 3))
        for channels, shape in (("first", (1, 2, 3)), ("last", (2, 3, 1))):
            array = Preprocessing((2, 3), mean=0, std=1, channels=channels, colours="grey")(photograph)
            assert array.shape == shape
            assert array.ravel().tolist() == [0, 1, 2, 3, 4, 5]

    def test_sixteen_bits_are_scaled(self):
        grey = Image.fromarray(np.array([[0, 255, 32768, 65535]], dtype=np.uint16))
        assert np.asarray(Preprocessing((1, 4)).view(grey))[0, :, 0].tolist() == [0, 0, 128, 255]

    def test_values_of_no_known_range(self):
        with pytest.raises(ValueError, match=r"mode 'F' has values of no known range; scale it to 0\.\.255"):
            Preprocessing()(Image.new("F", (3, 3)))

    def test_array_instead_of_an_image(self):
        with pytest.raises(TypeError, match="Expected a Pillow image, got a ndarray"):
            Preprocessing()(np.zeros((3, 3, 3), dtype=np.uint8))

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"size": 224}, r"size is 224; give \(height, width\)"),
            ({"size": (224, 0)}, r"size is \(224, 0\)"),
            ({"crop_fraction": 0.0}, r"crop_fraction is 0\.0; give a number in \(0, 1\], or None"),
            ({"crop_fraction": 1.5}, r"crop_fraction is 1\.5"),
            ({"interpolation": "cubic"}, "interpolation is 'cubic'; choose one of nearest, box, bilinear"),
            ({"channels": "middle"}, "channels is 'middle'; choose one of first, last"),
            ({"mean": [1.0, 2.0]}, r"mean is \[1\.0, 2\.0\]; give one finite number, or three"),
            ({"mean": float("nan")}, "mean is nan"),
            ({"std": [1.0, 0.0, 1.0]}, "every value must be greater than 0"),
            ({"colours": "grey", "mean": [1, 2, 3], "std": 1}, r"one number as mean and as std, got \[1, 2, 3\] and 1"),
        ],
    )
    def test_bad_options(self, options, message):
        with pytest.raises(ValueError, match=message):
            Preprocessing(**options)


class TestReadPhotograph:
    def test_turns_as_exif_says(self, tmp_path):
        exif = Image.Exif()
        exif[0x0112] = 6  # turn by 90 degrees clockwise: what is stored left is shown on top
        stored = Image.fromarray(np.array([[[255, 0, 0], [0, 0, 255]]], dtype=np.uint8))
        stored.save(tmp_path / "turned.png", exif=exif)
        photograph = read_photograph(tmp_path / "turned.png")
        assert np.asarray(photograph).tolist() == [[[255, 0, 0]], [[0, 0, 255]]]
        assert Preprocessing().window(photograph).getpixel((0, 0)) == (255, 0, 0)

    def test_missing_file(self, tmp_path):
        with pytest.raises(ValueError, match=r"nothing\.png: there is no such file"):
            read_photograph(tmp_path / "nothing.png")

    def test_text_file(self, tmp_path):
        (tmp_path / "notes.png").write_text("not a picture")
        with pytest.raises(ValueError, match=r"notes\.png is not an image Pillow can read\.$"):
            read_photograph(tmp_path / "notes.png")

    def test_truncated_file(self, tmp_path):
        whole = io.BytesIO()
        Image.effect_noise((64, 64), 50).save(whole, "png")
        (tmp_path / "half.png").write_bytes(whole.getvalue()[:1000])
        with pytest.raises(ValueError, match=r"half\.png cannot be read as a photograph: .*truncated"):
            read_photograph(tmp_path / "half.png")

    def test_directory(self, tmp_path):
        with pytest.raises(ValueError, match=r"cannot be read as a photograph: .*[Dd]irectory"):
            read_photograph(tmp_path)

    def test_values_of_no_known_range_name_the_file(self, tmp_path):
        Image.new("F", (3, 3)).save(tmp_path / "depth.tif")
        with pytest.raises(ValueError, match=r"depth\.tif cannot be read as a photograph: .*mode 'F'"):
            read_photograph(tmp_path / "depth.tif")


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class TestProgressBar:
    @pytest.mark.parametrize(
        ("progress", "stream", "shown"),
        [
            (None, io.StringIO, False),
            (None, _Terminal, True),
            (True, io.StringIO, False),
            (True, _Terminal, True),
            (False, _Terminal, False),
            ("lines", io.StringIO, False),
            ("lines", _Terminal, True),
        ],
    )
    def test_shown_when_somebody_watches(self, monkeypatch, progress, stream, shown):
        monkeypatch.setattr(sys, "stderr", stream())
        with progress_bar(4, "Score-CAM", progress) as advance:
            advance(4)
        assert ("Score-CAM:   0%" in sys.stderr.getvalue()) == shown
        assert bool(sys.stderr.getvalue()) == shown

    @pytest.mark.parametrize("progress", [True, "lines"])
    @pytest.mark.parametrize("total", [400, None])
    def test_lines_where_nobody_watches(self, monkeypatch, total, progress):
        moment = [0.0]
        monkeypatch.setattr(sys, "stderr", io.StringIO())
        monkeypatch.setattr(watching.time, "monotonic", lambda: moment[0])
        with progress_bar(total, "Evaluating", progress) as advance:
            advance.skip(200)
            for moment[0] in (10.0, 29.0, 65.0, 70.0, 4000.0):
                advance(10)
        known = ["Evaluating: 30 of 200 (15 %) in 1:05, about 6:08 left"]
        known += ["Evaluating: 50 of 200 (25 %) in 1:06:40, about 3:20:00 left"]
        unknown = ["Evaluating: 30 done in 1:05", "Evaluating: 50 done in 1:06:40"]
        assert sys.stderr.getvalue().splitlines() == (unknown if total is None else known)

    def test_a_bar_in_a_notebook(self, monkeypatch):
        monkeypatch.setattr(sys, "stderr", io.StringIO())
        monkeypatch.setitem(sys.modules, "ipykernel", sys)
        with progress_bar(4, "Score-CAM", True) as advance:
            advance(4)
        assert "Score-CAM:   0%" in sys.stderr.getvalue()

    def test_skipped_channels_are_not_in_the_rate(self, monkeypatch, shapes, shapes_weights):
        """Of an ablation of which most channels are zero, the bar counts those that were run."""
        pytest.importorskip("torch")
        from torch_models import Shapes

        monkeypatch.setattr(sys, "stderr", _Terminal())
        counted = []
        original = watching._Bar.__call__
        monkeypatch.setattr(watching._Bar, "__call__", lambda bar, steps: counted.append(steps) or original(bar, steps))
        model = Shapes(shapes_weights).eval()
        black = 0 * shapes["images"][:1]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = ScoreCAM(model, "features", progress=True)(black, 1)
        assert sum(counted) == int(found.masks_run.sum()) < 48

    def test_advances(self, monkeypatch):
        monkeypatch.setattr(sys, "stderr", _Terminal())
        with progress_bar(4, "Score-CAM") as advance:
            advance(3)
            assert advance.bar.n == 3
            advance.skip(1)
            assert advance.bar.total == 3

    def test_closed_standard_error_shows_nothing(self, monkeypatch):
        monkeypatch.setattr(sys, "stderr", None)
        for progress in (None, True, "lines"):
            with progress_bar(4, "Score-CAM", progress) as advance:
                advance(4)

    def test_without_tqdm_it_stays_away_unless_demanded(self, monkeypatch):
        hide("tqdm", monkeypatch)
        monkeypatch.setattr(sys, "stderr", _Terminal())
        with progress_bar(4, "Score-CAM") as advance:
            advance(4)
        assert sys.stderr.getvalue() == ""
        needed = pytest.raises(MissingExtra, match=r'A progress bar needs tqdm: pip install "fusioncam\[cli\]"')
        with needed, progress_bar(4, "Score-CAM", True):
            pass


class TestExtras:
    def test_missing_package_is_named_as_it_is_installed(self, monkeypatch):
        hide("PIL", monkeypatch)
        with pytest.raises(MissingExtra, match=r'^Reading needs pillow: pip install "fusioncam\[cli\]"$'):
            require("PIL.Image", "Reading")

    def test_missing_module_of_an_installed_package_is_a_bug(self):
        with pytest.raises(ModuleNotFoundError) as caught:
            require("fusioncam_core.no_such_module", "This test")
        assert not isinstance(caught.value, MissingExtra)


def test_missing_framework_names_its_extra(tmp_path, monkeypatch):
    (tmp_path / "network.py").write_text("import equinox.nn\n")
    monkeypatch.chdir(tmp_path)
    hide("equinox", monkeypatch)
    with pytest.raises(ValueError, match=r"is not installed: pip install \"fusioncam\[equinox\]\"\.$"):
        load_model("python:network:load")
