"""Explanations as pictures, files and text."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from fusioncam_core.arrays.namespaces import array_namespace
from fusioncam_core.evaluation.results import Evaluation, require_place
from fusioncam_core.metrics.metric import find_metric
from fusioncam_core.models.adapter import LayerInfo
from fusioncam_core.results.explanation import Explanation, join
from fusioncam_core.results.figures import FigureRow, figure, png
from fusioncam_core.results.files import save_explanation
from fusioncam_core.results.overlay import overlay
from fusioncam_core.results.pictures import overlay_png
from fusioncam_core.results.terminal import layer_table, photograph_report

CLASS_NAMES = ("cat", "dog", "a name that is far too long for any panel of this width $x^2$")
PARTS = ("gradient", "denoised", "region", "union", "similarity")
WEIGHTS = {
    "probability_baseline": 0.1,
    "probability_denoised": 0.5,
    "probability_region": 0.25,
    "probability_union": 0.6,
    "contribution_denoised": 0.4,
    "contribution_region": 0.15,
    "contribution_union": 0.5,
    "weight_denoised": 0.7273,
    "weight_region": 0.2727,
    "fusion_weight_union": 0.6471,
    "fusion_weight_region": 0.3529,
}


TITLES = {
    "fusion-cam": {"maps": "Fusion-CAM", "denoised": "Denoised Grad-CAM", "region": "Score-CAM"},
    "grad-cam": {"maps": "Grad-CAM"},
    "score-cam": {"maps": "Score-CAM"},
}


def explanation(batch=1, targets=None, method="fusion-cam", spatial=(4, 6), images=None, channel_axis=1):
    """Maps whose value at (row, column) is column / (columns - 1), for parts counted down from 1."""
    shape = (batch,) if targets is None else (batch, targets)
    ramp = np.linspace(0, 1, spatial[-1], dtype=np.float32)
    maps = np.broadcast_to(ramp, (*shape, *spatial))
    ones = np.ones(shape, dtype=np.float32)
    fused = method == "fusion-cam"
    return Explanation(
        method=method,
        layer="features.3",
        model="Net",
        maps=maps,
        targets=np.broadcast_to(np.array([1, 0, 2][: targets or 1]), (batch, targets or 1)).reshape(shape),
        scores=2.5 * ones,
        probabilities=np.float32(0.7) * ones,
        class_probabilities=np.tile(np.array([0.1, 0.7, 0.2], dtype=np.float32), (batch, 1)),
        images=np.zeros((batch, 3, *spatial), dtype=np.float32) if images is None else images,
        image_channel_axis=channel_axis,
        evaluations=9,
        parts=dict.fromkeys(PARTS, 1 - maps) if fused else {},
        weights={name: np.float32(value) * ones for name, value in WEIGHTS.items()} if fused else {},
        titles=TITLES[method],
    )


def many_targets(count):
    """The arrays of `explanation` that have a row a target, with so many of them."""
    ones = np.ones((1, count), dtype=np.float32)
    maps = np.zeros((1, count, 4, 6), dtype=np.float32)
    return {"targets": ones.astype(int), "scores": ones, "probabilities": ones, "maps": maps}


def flat(colour, height=40, width=40):
    return np.broadcast_to(np.array(colour, dtype=np.uint8), (height, width, 3))


def _pixels(file):
    with Image.open(file) as image:
        return np.asarray(image.convert("RGB"))


class TestFigure:
    def rows(self, count, height=40, width=40, maps=3, label="cat\np = 0.9"):
        return [FigureRow(flat((10, 20, 30), height, width), [np.ones((4, 4))] * maps, label)] * count

    def panels(self, drawn):
        """The panels' boxes in inches, without the colour bar's."""
        boxes = [axes.get_window_extent() for axes in drawn.axes[:-1]]
        return [(box.x0, box.y0, box.width, box.height) for box in boxes / np.float64(drawn.dpi)]

    def test_one_panel_for_every_map_and_one_colour_bar(self):
        drawn = figure(self.rows(2), ["P", "A", "B", "C"])
        assert len(drawn.axes) == 2 * 4 + 1
        assert [axes.get_title() for axes in drawn.axes] == ["P", "A", "B", "C", "", "", "", "", ""]
        assert [label.get_text() for label in drawn.axes[-1].get_yticklabels()] == ["0.0", "0.5", "1.0"]

    @pytest.mark.parametrize(("height", "width"), [(40, 40), (48, 80), (80, 48), (10, 100), (100, 10)])
    def test_panels_have_the_photographs_proportions(self, height, width):
        for axes in figure(self.rows(3, height, width), ["P", "A", "B", "C"]).axes[:-1]:
            box = axes.get_window_extent()
            assert box.height / box.width == pytest.approx(height / width)

    @pytest.mark.parametrize(
        ("height", "width", "inches"),
        [(40, 40, 2.1), (48, 80, 2.1), (80, 48, 3.2 * 48 / 80), (10, 100, 4.2), (100, 10, 1.4)],
    )
    def test_extreme_proportions_change_the_width(self, height, width, inches):
        drawn = figure(self.rows(1, height, width), ["P", "A", "B", "C"])
        assert drawn.axes[0].get_window_extent().width / drawn.dpi == pytest.approx(inches)

    @pytest.mark.parametrize(("height", "width", "ratio"), [(5000, 10, 10), (10, 5000, 0.1), (1, 65000, 0.1)])
    def test_no_panel_is_longer_than_ten_times_its_width(self, height, width, ratio):
        drawn = figure(self.rows(1, height, width), ["P", "A", "B", "C"])
        box = drawn.axes[0].get_window_extent()
        assert box.height / box.width == pytest.approx(ratio)
        assert max(drawn.get_size_inches()) < 20

    @pytest.mark.parametrize("name", [CLASS_NAMES[2], "Contrast(540, instead_of=657)", "mmmmmmmmm " * 9])
    def test_nothing_overlaps_and_nothing_leaves_the_picture(self, name):
        rows = self.rows(3, 48, 80, label=f"{name}\np = 0.7")
        drawn = figure(rows, ["Photograph", "Denoised Grad-CAM", "B", "C"])
        png(drawn)  # lays the text out
        page = drawn.bbox
        panels = [axes.get_window_extent() for axes in drawn.axes]
        texts = [axes.title.get_window_extent() for axes in drawn.axes[:4]]
        texts += [text.get_window_extent() for axes in drawn.axes for text in axes.texts]
        texts += [label.get_window_extent() for label in drawn.axes[-1].get_yticklabels()]
        boxes = panels + texts
        assert all(page.x0 <= box.x0 and box.x1 <= page.x1 for box in boxes)
        assert all(page.y0 <= box.y0 and box.y1 <= page.y1 for box in boxes)
        pairs = [(a, b) for i, a in enumerate(boxes) for b in boxes[i + 1 :]]
        assert not [(a, b) for a, b in pairs if a.overlaps(b)]

    def test_dollars_in_labels_are_no_formula(self):
        drawn = figure(self.rows(1, label="$x$ of a name that goes on and on\np = 0.7"), ["P", "A", "B", "C"])
        (text,) = drawn.axes[0].texts
        assert text.get_text() == "$x$ of a name that goes on\nand on\np = 0.7"
        assert not text.get_parse_math()

    @pytest.mark.parametrize(
        ("name", "lines"),
        [
            # Beside 1.26 inches there is room for 17 letters.
            ("Contrast(540, instead_of=657)", "Contrast(540,\ninstead_of=657)"),
            ("SegmentationLogit(1, mask=<48x48>)", "SegmentationLogit\n(1, mask=<48x48>)"),
            (
                "a name that is far too long for a panel of this size",
                "a name that is\nfar too long for\na panel of this…",
            ),
        ],
    )
    def test_long_labels_are_wrapped_and_the_longest_end_in_dots(self, name, lines):
        drawn = figure(self.rows(1, 48, 80, label=f"{name}\np = 0.7"), ["P", "A", "B", "C"])
        (text,) = drawn.axes[0].texts
        assert text.get_text() == f"{lines}\np = 0.7"

    def test_lines_of_a_label_take_no_room_of_panels(self):
        def widths(label):
            drawn = figure(self.rows(1, 48, 80, label=label), ["P", "A", "B", "C"])
            return drawn.get_size_inches()[0], drawn.axes[0].get_window_extent().width / drawn.dpi

        (two, panel), (four, same) = widths("a\nb"), widths("a name that is far too long for any panel\nb")
        assert (four - two, same) == (pytest.approx(2 * 0.15), pytest.approx(panel))

    def test_names_that_no_font_has_are_drawn_as_text(self):
        drawn = figure(self.rows(1, label="a\udcffb\n\x1b[1mp = 0.7"), ["P\u202e", "A", "B", "C"])
        assert png(drawn).startswith(b"\x89PNG")
        (text,) = drawn.axes[0].texts
        assert text.get_text() == "a\\udcffb\n\\x1b[1mp = 0.7"
        assert drawn.axes[0].get_title() == "P\\u202e"

    def test_number_of_titles_must_fit(self):
        with pytest.raises(ValueError, match="for each of the 2 maps of a row, got 4 titles"):
            figure(self.rows(1, maps=2), ["P", "A", "B", "C"])

    def test_pixels_of_the_png(self):
        drawn = figure(self.rows(1), ["P", "A", "B", "C"])
        pixels = _pixels(io.BytesIO(png(drawn)))
        assert pixels.shape[:2] == (round(drawn.bbox.height), round(drawn.bbox.width))
        centres = [axes.get_window_extent() for axes in drawn.axes[:2]]
        colours = [
            pixels[round(len(pixels) - (box.y0 + box.y1) / 2), round((box.x0 + box.x1) / 2)].tolist() for box in centres
        ]
        assert colours == [[10, 20, 30], overlay(flat((10, 20, 30)), np.ones((1, 1)))[0, 0].tolist()]

    def test_pyplot_is_not_loaded(self):
        code = (
            "import sys, numpy as np\n"
            "from fusioncam_core.results.figures import FigureRow, figure, png\n"
            "png(figure([FigureRow(np.zeros((4, 4, 3), np.uint8), [np.zeros((2, 2))])], ['P', 'A']))\n"
            "assert 'matplotlib.figure' in sys.modules\n"
            "assert 'matplotlib.pyplot' not in sys.modules\n"
        )
        subprocess.run([sys.executable, "-c", code], check=True)


class TestSave:
    def test_files_of_every_image(self, tmp_path):
        written = save_explanation(explanation(batch=2), tmp_path / "new" / "folder", ["a.b", "c"])
        names = ["a.b.png", "a.b.npz", "a.b.json", "c.png", "c.npz", "c.json"]
        assert written == [tmp_path / "new" / "folder" / name for name in names]
        assert sorted(written) == sorted((tmp_path / "new" / "folder").iterdir())

    def test_default_names(self, tmp_path):
        written = save_explanation(explanation(batch=2), tmp_path, pictures=False)
        assert [path.name for path in written] == ["image-0.npz", "image-0.json", "image-1.npz", "image-1.json"]

    def test_arrays(self, tmp_path):
        given = explanation(targets=3)
        save_explanation(given, tmp_path, ["a"], pictures=False)
        with np.load(tmp_path / "a.npz") as arrays:
            own = [*(f"parts/{name}" for name in PARTS), *(f"weights/{name}" for name in WEIGHTS)]
            fields = ["maps", "targets", "scores", "probabilities", "class_probabilities", "images"]
            assert sorted(arrays) == sorted(["fusioncam", "explanation", *fields, *own])
            assert arrays["fusioncam"] == 2
            assert json.loads(str(arrays["explanation"]))["method"] == "fusion-cam"
            assert arrays["maps"].dtype == np.float32
            assert np.array_equal(arrays["maps"], given.maps[0])
            assert np.array_equal(arrays["parts/region"], given.parts["region"][0])
            assert arrays["targets"].tolist() == [1, 0, 2]
            assert arrays["weights/weight_region"].tolist() == [np.float32(0.2727)] * 3

    def test_numbers(self, tmp_path):
        save_explanation(explanation(targets=2), tmp_path, ["a"], class_names=CLASS_NAMES, pictures=False)
        numbers = {"score": 2.5, "probability": 0.7, "weights": WEIGHTS}
        assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {
            "fusioncam": "explanation",
            "schema": 2,
            "name": "a",
            "index": None,
            "method": "fusion-cam",
            "layer": "features.3",
            "model": "Net",
            "input_shape": [3, 4, 6],
            "map_shape": [4, 6],
            "images_explained_together": 1,
            "evaluations": 9,
            "targets": [{"class": 1, "name": "dog", **numbers}, {"class": 0, "name": "cat", **numbers}],
            "provenance": None,
        }

    def test_numbers_without_names_and_weights(self, tmp_path):
        save_explanation(explanation(method="grad-cam"), tmp_path, ["a"], pictures=False)
        numbers = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
        expected = {"class": 1, "name": None, "score": 2.5, "probability": 0.7, "weights": {}}
        assert numbers["targets"] == [expected]

    @pytest.mark.parametrize(("method", "panels"), [("fusion-cam", 4), ("grad-cam", 2)])
    @pytest.mark.parametrize(("targets", "rows"), [(None, 1), (3, 3)])
    def test_size_of_the_picture(self, tmp_path, method, panels, targets, rows):
        save_explanation(explanation(targets=targets, method=method), tmp_path, ["a"], [flat((1, 2, 3))])
        height, width = _pixels(tmp_path / "a.png").shape[:2]
        # inches: margin, label, panels with gaps, bar and labels; title, panels with gaps and contributions, caption
        below = 0.15 if method == "fusion-cam" else 0
        lines = {"fusion-cam": 2, "grad-cam": 1}[method]
        assert width == int(200 * (0.08 + 0.36 + panels * (2.1 + 0.06) + 0.1 + 0.42))
        assert height == int(200 * (0.24 + rows * (2.1 + below) + (rows - 1) * 0.06 + 0.08 + 0.06 + 0.125 * lines))

    @pytest.mark.parametrize(("height", "width", "rows"), [(40, 40, 25), (5000, 10, 4)])
    def test_of_many_targets_as_many_are_drawn_as_fit(self, tmp_path, height, width, rows):
        given = replace(explanation(targets=3, method="grad-cam"), **many_targets(200))
        save_explanation(given, tmp_path, ["a"], [flat((1, 2, 3), height, width)])
        drawn = _pixels(tmp_path / "a.png").shape[0] / 200
        panel = 2.1 if rows == 25 else 14
        caption = 0.06 + 0.125 * 2
        assert drawn == pytest.approx(0.24 + rows * panel + (rows - 1) * 0.06 + 0.08 + caption, abs=0.01)
        assert drawn < 61
        assert Explanation.load(tmp_path / "a.npz").maps.shape == (1, 200, 4, 6)
        assert len(json.loads((tmp_path / "a.json").read_text())["targets"]) == 200

    def test_photograph_is_drawn(self, tmp_path):
        save_explanation(explanation(method="grad-cam"), tmp_path, ["a"], [Image.new("RGB", (90, 60), (255, 0, 9))])
        assert _photograph_colours(tmp_path / "a.png") == [[255, 0, 9]] * 2

    def test_large_photograph_is_drawn_whole(self, tmp_path):
        photograph = Image.new("RGB", (4000, 2000), (255, 0, 0))
        photograph.paste((0, 0, 255), (2000, 0, 4000, 2000))
        save_explanation(explanation(method="grad-cam"), tmp_path, ["a"], [photograph])
        assert _photograph_colours(tmp_path / "a.png") == [[255, 0, 0], [0, 0, 255]]

    def test_every_target_has_its_own_row(self, tmp_path):
        values = np.array([0.0, 0.5, 1.0], dtype=np.float32)
        given = explanation(targets=3, method="grad-cam")
        maps = np.broadcast_to(values[None, :, None, None], given.maps.shape).copy()
        maps[:, 1, 0, 0] = 1.0  # of its own range, so that the others are half of it
        given = replace(given, maps=maps)
        save_explanation(given, tmp_path, ["a"], [flat((90, 90, 90))])
        column = round(200 * (0.08 + 0.36 + 2.1 + 0.06 + 2.1 / 2))
        rows = [round(200 * (0.24 + k * (2.1 + 0.06) + 2.1 / 2)) for k in range(3)]
        drawn = [_pixels(tmp_path / "a.png")[row, column].tolist() for row in rows]
        assert drawn == [overlay(flat((90, 90, 90), 1, 1), np.full((1, 1), v))[0, 0].tolist() for v in values]
        assert drawn[0] == [90, 90, 90]

    @pytest.mark.parametrize(
        ("images", "axis", "left", "right"),
        [
            (np.array([[[[-1.0, 3.0]]]]), 1, 0, 255),
            (np.array([[[[-1.0], [3.0]]]]), -1, 0, 255),
            (np.array([[[[0.0, 1.0]], [[3.0, 4.0]]]]), 1, 0, 255),  # two channels: means 1.5 and 2.5
            (np.array([[[[5.0, 5.0]]]]), 1, 0, 0),  # a constant is black
            (np.array([[[[0.0, 4.0]], [[4.0, 4.0]], [[4.0, 0.0]]]]), 1, [0, 255, 255], [255, 255, 0]),
        ],
    )
    def test_input_is_drawn_where_there_is_no_photograph(self, tmp_path, images, axis, left, right):
        given = explanation(method="grad-cam", spatial=(1, 2), images=images, channel_axis=axis)
        save_explanation(given, tmp_path, ["a"])
        assert _photograph_colours(tmp_path / "a.png") == [np.broadcast_to(c, 3).tolist() for c in (left, right)]

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"names": ["a"]}, "There are 2 images, but 1 names"),
            ({"names": ["a", "a"]}, "The name 'a' comes twice: one image would overwrite the other"),
            ({"names": ["a", "A"]}, "The name 'A' comes twice"),
            ({"names": ["\u00e4", "a\u0308"]}, "comes twice"),
            ({"names": ["a", "../b"]}, r"'\.\./b' is not the name of a file below a folder"),
            ({"names": ["a", "b/../../c"]}, "is not the name of a file below a folder"),
            ({"names": ["a", "/b"]}, "'/b' is not the name of a file below a folder"),
            ({"names": ["a", "."]}, "'.' is not the name of a file below a folder"),
            ({"names": ["a", "b\0c"]}, "is not the name of a file below a folder"),
            ({"names": ["a", "\ud800"]}, "is no name that a file can have"),
            ({"names": ["a", ""]}, "'' is not the name of a file below a folder"),
            ({"class_names": ["a"]}, "The model has 3 classes, but there are 1 class names"),
            ({"photographs": [flat((1, 2, 3))]}, "There are 2 images, but 1 photographs"),
            ({"photographs": [np.zeros((4, 4, 3))] * 2}, r"got dtype float64 and shape \(4, 4, 3\)"),
            ({"photographs": [Image.new("L", (4, 4))] * 2}, r"an RGB Pillow image .* shape \(4, 4\)"),
        ],
    )
    def test_bad_options(self, tmp_path, options, message):
        with pytest.raises(ValueError, match=message):
            save_explanation(explanation(batch=2), tmp_path, **options)
        assert list(tmp_path.iterdir()) == []

    def test_a_photograph_that_does_not_fit_leaves_nothing_of_the_others(self, tmp_path):
        with pytest.raises(ValueError, match="got dtype float64"):
            save_explanation(explanation(batch=2), tmp_path, photographs=[flat((1, 2, 3)), np.zeros((4, 4, 3))])
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        "name", ["maps", "targets", "scores", "probabilities", "file", "fusioncam", "a/b", "allow_pickle"]
    )
    def test_parts_and_weights_of_any_name_replace_nothing(self, tmp_path, name):
        part, weight = np.full((1, 4, 6), 0.5, np.float32), np.float32([0.25])
        given = replace(explanation(), parts={name: part}, weights={name: weight})
        save_explanation(given, tmp_path, ["a"], pictures=False)
        assert Explanation.load(tmp_path / "a.npz") == given

    @pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04", b"\x93NUMPY"])
    def test_loading_what_is_no_explanation(self, tmp_path, content):
        (tmp_path / "a.npz").write_bytes(content)
        with pytest.raises(ValueError, match=r"Expected an explanation in schema 2, got .*a\.npz"):
            Explanation.load(tmp_path / "a.npz")

    def test_nothing_is_replaced_unasked(self, tmp_path):
        given = explanation(method="grad-cam")
        given.save(tmp_path)
        before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
        other = replace(given, layer="other")
        with pytest.raises(ValueError, match=r"image-0\.png is there already: it is replaced only with overwrite=True"):
            other.save(tmp_path)
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
        other.save(tmp_path, overwrite=True)
        assert json.loads((tmp_path / "image-0.json").read_text())["layer"] == "other"
        assert {path.name for path in tmp_path.iterdir()} == set(before)

    @pytest.mark.parametrize("ending", ["png", "npz", "json"])
    def test_what_others_have_written_is_never_replaced(self, tmp_path, ending):
        (tmp_path / f"a.{ending}").write_bytes(b"theirs")
        with pytest.raises(ValueError, match=rf"a\.{ending} is there already, and is no explanation"):
            explanation().save(tmp_path, ["a"], overwrite=True)
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {f"a.{ending}": b"theirs"}

    def test_one_name_that_is_taken_keeps_all_from_being_written(self, tmp_path):
        (tmp_path / "b.json").write_bytes(b"theirs")
        with pytest.raises(ValueError, match=r"b\.json is there already"):
            explanation(batch=2).save(tmp_path, ["a", "b"], pictures=False)
        assert [path.name for path in tmp_path.iterdir()] == ["b.json"]

    def test_the_image_itself_is_never_replaced_even_if_we_drew_it(self, tmp_path):
        explanation().save(tmp_path, ["a"])
        before = (tmp_path / "a.png").read_bytes()
        given = replace(explanation(), names=("a",), files=(str(tmp_path / "a.png"),))
        with pytest.raises(ValueError, match=r"a\.png is one of the files that are read"):
            given.save(tmp_path, overwrite=True)
        assert (tmp_path / "a.png").read_bytes() == before

    def test_names_with_folders(self, tmp_path):
        given = replace(explanation(batch=2), names=("cat/001", "dog/001"), indices=(0, 7))
        written = given.save(tmp_path / "out", pictures=False)
        names = [path.relative_to(tmp_path / "out").as_posix() for path in written]
        assert names == ["cat/001.npz", "cat/001.json", "dog/001.npz", "dog/001.json"]
        numbers = json.loads((tmp_path / "out" / "dog" / "001.json").read_text())
        assert (numbers["name"], numbers["index"]) == ("dog/001", 7)

    def test_places_in_the_source_where_there_are_no_names(self, tmp_path):
        given = replace(explanation(batch=2), indices=(41, 9999))
        written = given.save(tmp_path, pictures=False)
        assert [path.name for path in written] == [f"image-{n}.{e}" for n in (41, 9999) for e in ("npz", "json")]

    @pytest.mark.parametrize(
        "name",
        ["x" * 300, "\u00e4" * 200, os.fsdecode(b"\xff\xfe"), os.fsdecode(b"\xff" * 251), "..jpg", "a\nb", "\x1b[2J"],
        ids=ascii,
    )
    def test_names_that_file_systems_hardly_take(self, tmp_path, name):
        written = save_explanation(explanation(), tmp_path, [name])
        assert sorted(written) == sorted(tmp_path.iterdir())
        assert len(written) == 3
        assert json.loads(written[2].read_bytes())["name"] == name

    def test_everything_comes_apart_and_together(self):
        given = replace(explanation(batch=2), names=("a", "b"), indices=(3, 4), files=("/a.png", "/b.png"))
        singles = list(given)
        assert [(each.names, each.indices, each.files) for each in singles] == [
            (("a",), (3,), ("/a.png",)),
            (("b",), (4,), ("/b.png",)),
        ]
        assert join(singles, array_namespace(given.maps)) == given

    @pytest.mark.parametrize("spatial", [(6,), (2, 3, 4, 5)])
    def test_other_dimensions_are_saved_without_a_picture(self, tmp_path, spatial):
        given = explanation(spatial=spatial)
        with pytest.raises(ValueError, match=f"2 spatial axes .* these have {len(spatial)}.*pictures=False"):
            save_explanation(given, tmp_path, ["a"])
        assert list(tmp_path.iterdir()) == []
        save_explanation(given, tmp_path, ["a"], pictures=False)
        with np.load(tmp_path / "a.npz") as arrays:
            assert arrays["maps"].shape == spatial
        assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))["map_shape"] == list(spatial)


def _photograph_colours(path):
    """Of the first panel, in the middle of its left and right half."""
    pixels = _pixels(path)
    left = 200 * (0.08 + 0.36)
    row = (pixels.shape[0] + 200 * (0.24 - 0.08)) / 2
    return [pixels[round(row), round(left + 200 * 2.1 * share)].tolist() for share in (0.2, 0.8)]


class TestSaveEvaluation:
    @pytest.fixture
    def found(self):
        return Evaluation(
            model="Net",
            images=("cat/001", os.fsdecode(b"\xff")),
            targets=np.array([1, 2]),
            probabilities=np.array([0.5, 0.6]),
            methods=("grad-cam", "fusion-cam"),
            metrics=(find_metric("average-drop"),),
            values=np.array([[[0.1, 0.2]], [[0.3, 0.4]]]),
            curves={},
            fractions={},
            reference="fusion-cam",
        )

    def contents(self, folder):
        return {path.name: path.read_bytes() for path in folder.iterdir()}

    def test_its_own_earlier_files_are_replaced(self, found, tmp_path):
        found.save(tmp_path)
        before = self.contents(tmp_path)
        other = replace(found, model="Other")
        other.save(tmp_path)
        assert self.contents(tmp_path).keys() == before.keys()
        assert json.loads((tmp_path / "summary.json").read_text())["model"] == "Other"
        with pytest.raises(ValueError, match=r"values\.csv is there already: it is replaced only with overwrite=True"):
            found.save(tmp_path, overwrite=False)
        assert json.loads((tmp_path / "summary.json").read_text())["model"] == "Other"

    def test_a_name_that_is_no_utf8_is_written_as_an_escape(self, found, tmp_path):
        found.save(tmp_path, pictures=False)
        assert "\\udcff,2,0.6,grad-cam,average-drop,0.2\n" in (tmp_path / "values.csv").read_text(encoding="utf-8")

    @pytest.mark.parametrize("name", ["values.csv", "summary.json", "summary.txt", "ranking.png"])
    @pytest.mark.parametrize("content", [b"", b"theirs", b"image,target\n1,2\n", b'{"model": "Net"}'])
    def test_a_strangers_file_keeps_all_from_being_written(self, found, tmp_path, name, content):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(
            ValueError, match=f"{name} is there already, and is no evaluation that fusioncam has written"
        ):
            require_place(tmp_path)
        with pytest.raises(
            ValueError, match=f"{name} is there already, and is no evaluation that fusioncam has written"
        ):
            found.save(tmp_path)
        assert self.contents(tmp_path) == {name: content}

    def test_an_explanation_is_no_evaluation(self, found, tmp_path):
        explanation().save(tmp_path, ["ranking"])
        before = self.contents(tmp_path)
        with pytest.raises(ValueError, match=r"ranking\.png is there already, and is no evaluation"):
            found.save(tmp_path)
        assert self.contents(tmp_path) == before

    def test_a_photograph_that_is_an_evaluations_picture(self, found, tmp_path):
        found.save(tmp_path)
        before = self.contents(tmp_path)
        with pytest.raises(ValueError, match=r"ranking\.png is one of the files that are read"):
            replace(found, model="Other").save(tmp_path, inputs=[tmp_path / "ranking.png"])
        assert self.contents(tmp_path) == before


class TestNotebook:
    @pytest.mark.parametrize(("batch", "lines"), [(1, 1), (3, 2), (4, 2)])
    def test_two_images_beside_each_other(self, batch, lines):
        height, width = _pixels(io.BytesIO(overlay_png(explanation(batch=batch)))).shape[:2]
        panel = 2.1 * 4 / 6 + 0.15  # with its contribution
        caption = 0.125 * (2 if batch > 1 else 3)
        inches = 0.24 + lines * panel + (lines - 1) * 0.06 + 0.08 + 0.06 + caption
        assert height == pytest.approx(200 * inches, abs=2)  # matplotlib 3.8 draws a pixel less than newer ones
        assert width == int(200 * (0.08 + min(batch, 2) * (0.36 + 2 * (2.1 + 0.06)) + 0.1 + 0.42))

    @pytest.mark.parametrize(("batch", "targets", "lines"), [(8, None, 4), (20, None, 4), (3, 3, 4), (2, 3, 3)])
    def test_of_many_images_and_targets_eight_are_shown(self, batch, targets, lines):
        shown = _pixels(io.BytesIO(overlay_png(explanation(batch=batch, targets=targets, method="grad-cam"))))
        assert shown.shape[0] // round(200 * (2.1 * 4 / 6 + 0.06)) == lines

    def test_explanation_shows_itself(self):
        assert explanation()._repr_png_() == overlay_png(explanation())


class TestReport:
    def test_fusion_cam(self, tmp_path):
        files = [tmp_path / "cat.png", tmp_path / "cat.npz", tmp_path / "cat.json"]
        lines = list(photograph_report("photos/cat.jpg", explanation(targets=2), CLASS_NAMES, files))
        table = [
            "                       probability  contribution  union weight  fusion weight",
            "    baseline                0.1000",
            "    Denoised Grad-CAM       0.5000        0.4000        0.7273",
            "    Score-CAM               0.2500        0.1500        0.2727         0.3529",
            "    union                   0.6000        0.5000                       0.6471",
        ]
        assert lines == [
            "photos/cat.jpg",
            "    class  name                                              probability",
            "        1  dog                                                    0.7000",
            "        2  a name that is far too long for any panel of th…       0.2000",
            "        0  cat                                                    0.1000",
            "  Fusion-CAM, layer features.3, 9 model evaluations",
            "  dog (1): p = 0.7000, logit 2.500",
            *table,
            "  cat (0): p = 0.7000, logit 2.500",
            *table,
            f"  wrote {tmp_path / 'cat.png'}, .npz, .json",
        ]
        assert max(map(len, lines[:-1])) <= 80

    def test_other_methods_without_class_names(self):
        lines = list(photograph_report("cat.jpg", explanation(method="grad-cam"), None, ["cat.png"]))
        assert lines[2].split() == ["1", "0.7000"]
        assert lines[5:7] == [
            "  Grad-CAM, layer features.3, 9 model evaluations",
            "  class 1: p = 0.7000, logit 2.500",
        ]

    def test_layers(self):
        layers = [
            LayerInfo("stem.conv", "Conv2d", (1, 8, 6, 6), True, finding="space along axes 2, 3 (moved 0.41, 0.39)"),
            LayerInfo("features.act", "ReLU", (1, 16, 3, 3), True, default=True),
            LayerInfo("head", "Linear", (1, 5), False),
        ]
        assert list(layer_table(layers)) == [
            "  layer         kind    output      measured",
            "  stem.conv     Conv2d  8 x 6 x 6   space along axes 2, 3 (moved 0.41, 0.39)",
            "* features.act  ReLU    16 x 3 x 3",
            "  head          Linear  5",
            "",
            "* the layer that is explained by default",
        ]

    def test_weights_that_a_method_lacks_are_left_out(self):
        weights = {"contribution_denoised": np.array([0.4]), "weight_denoised": np.array([1.0])}
        given = replace(explanation(), weights=weights, evaluations=1)
        lines = list(photograph_report("cat.jpg", given, CLASS_NAMES, ["cat.png"]))
        assert lines[5] == "  Fusion-CAM, layer features.3, 1 model evaluation"
        assert lines[8:] == [
            "    Denoised Grad-CAM                     0.4000        1.0000",
            "  wrote cat.png",
        ]

    def test_no_layer_with_spatial_extent(self):
        assert list(layer_table([])) == ["  layer  kind  output  measured", "", "No layer has spatial extent."]

    def test_default_layer_of_the_loader(self):
        layers = [LayerInfo("a", "Conv2d", (1, 8, 6, 6), True), LayerInfo("b", "Conv2d", (1, 8, 6, 6), True, True)]
        assert [line[0] for line in list(layer_table(layers, "a"))[1:3]] == ["*", " "]
