"""Pictures that do not mislead: overlays, scales, contributions, frames and formats."""

from __future__ import annotations

import argparse
import base64
import io
import pickle
import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from code_blocks import python_blocks, run
from fusioncam_core import Explanation, FigureRow, Preprocessing, figure, overlay
from fusioncam_core.arrays.namespaces import array_namespace
from fusioncam_core.cli.drawing import add_drawing
from fusioncam_core.results.digits import probability_text, value_text
from fusioncam_core.results.explanation import join
from fusioncam_core.results.figures import rendered
from fusioncam_core.results.named_targets import with_target
from fusioncam_core.results.overlay import part_of, placed
from fusioncam_core.results.pictures import image_figure, overlay_png, plotted, signed_panels
from fusioncam_core.results.scaling import scaled
from fusioncam_core.results.style import Style
from fusioncam_core.results.terminal import photograph_report, target_numbers
from fusioncam_core.results.writing import is_ours

NAMES = ("cat", "dog", "cow")


def photograph(height: int = 30, width: int = 40) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def explanation(
    maps: Any, *, contributions: Any = None, raw_range: Any = None, probabilities: Any = None, parts: Any = None
) -> Explanation:
    """Of maps (B, K, h, w), with K targets an image."""
    maps = np.asarray(maps, dtype=np.float32)
    batch, several, *size = maps.shape
    ones = np.ones((batch, several), dtype=np.float32)
    found = 0.5 * ones if probabilities is None else np.asarray(probabilities, dtype=np.float32).reshape(ones.shape)
    weights = {} if contributions is None else {"contribution_union": np.float32(contributions).reshape(ones.shape)}
    return Explanation(
        method="fusion-cam",
        layer="conv",
        model="Net",
        maps=maps,
        targets=np.broadcast_to(np.arange(several), (batch, several)),
        scores=ones,
        probabilities=found,
        class_probabilities=np.full((batch, 3), 1 / 3, dtype=np.float32),
        images=np.zeros((batch, 3, *size), dtype=np.float32),
        image_channel_axis=1,
        evaluations=1,
        parts={} if parts is None else parts,
        weights=weights,
        titles={"maps": "Fusion-CAM", **({} if parts is None else {"region": "Score-CAM"})},
        raw_range=None if raw_range is None else np.asarray(raw_range, dtype=np.float32).reshape(batch, several, 2),
    )


RAMP = np.linspace(0, 1, 6)[None, None, None] * np.ones((1, 1, 4, 1))
"""One map (1, 1, 4, 6) from 0 on its left to 1."""

TWO = np.concatenate([RAMP, RAMP], axis=1)
NUMPY = array_namespace(TWO)
"""Two targets with one and the same normalised map, as those of a binary model often are."""


def panel(drawn: Any, number: int) -> np.ndarray:
    """The pixels of the panel: of the photograph with 0, then of the maps."""
    return np.asarray(drawn.axes[number].images[0].get_array())


def texts(drawn: Any) -> list[str]:
    return [text.get_text() for axes in drawn.axes for text in axes.texts]


def caption(drawn: Any) -> str:
    return " ".join(text.get_text() for text in reversed(drawn.texts))


class TestOverlay:
    def test_where_the_map_is_zero_the_photograph_is_untouched(self) -> None:
        pixels = photograph()
        assert np.array_equal(overlay(pixels, np.zeros((4, 4)), alpha=1.0), pixels)
        saliency = np.zeros((30, 40))
        saliency[10:20, 10:20] = 1.0
        drawn = overlay(pixels, saliency)
        zero = saliency == 0
        assert np.array_equal(drawn[zero], pixels[zero])
        assert (drawn[~zero] != pixels[~zero]).any(axis=-1).all()

    def test_what_is_drawn_elsewhere(self) -> None:
        """Of 100 grey: inferno(1) * 255 = (252.03, 254.58, 164.46) with a share of 0.7, and half of that at 0.5."""
        grey = np.full((1, 1, 3), 100, dtype=np.uint8)
        assert overlay(grey, np.ones((1, 1))).tolist() == [[[206, 208, 145]]]
        # inferno(0.5) * 255 = (188.2, 55.3, 84.1)
        assert overlay(grey, np.full((1, 1), 0.5), alpha=0.5).tolist() == [[[122, 89, 96]]]

    def test_a_photographs_colours_turn_grey_with_the_map(self) -> None:
        red = np.broadcast_to(np.uint8([255, 0, 0]), (2, 2, 3))
        drawn = overlay(red, np.ones((2, 2)), colour_map="gray", alpha=1.0)
        assert np.array_equal(drawn, np.full((2, 2, 3), 255)), "nothing of the red is left"

    def test_the_map_is_stretched(self) -> None:
        """Linear between the centres of two halves: 0, 1/4, 3/4, 1, in matplotlib's 256 steps of grey, over black."""
        drawn = overlay(np.zeros((1, 4, 3), np.uint8), np.array([[0.0, 1.0]]), colour_map="gray", alpha=1.0)
        assert drawn[0, :, 0].tolist() == [0, 16, 144, 255]

    def test_below_the_threshold_nothing_is_drawn(self) -> None:
        pixels = photograph(1, 3)
        saliency = np.array([[0.3, 0.5, 0.8]])
        drawn = overlay(pixels, saliency, threshold=0.5)
        assert np.array_equal(drawn[:, 0], pixels[:, 0])
        assert np.array_equal(drawn[:, 1:], overlay(pixels, saliency)[:, 1:])

    def test_signed_maps_have_two_colours_and_none_in_the_middle(self) -> None:
        pixels = np.full((1, 3, 3), 120, dtype=np.uint8)
        against, nothing, for_it = overlay(pixels, np.array([[-1.0, 0.0, 1.0]]))[0].astype(int)
        assert nothing.tolist() == [120, 120, 120]
        assert against[2] > against[0] + 50, "blue"
        assert for_it[0] > for_it[2] + 50, "red"

    def test_muted_is_grey_and_fainter(self) -> None:
        pixels = np.full((1, 1, 3), 100, dtype=np.uint8)
        (drawn,) = overlay(pixels, np.ones((1, 1)), muted=True)[0].astype(int)
        assert len(set(drawn.tolist())) == 1
        assert drawn[0] == round(100 + 0.7 * 0.6 * 155)

    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            ({"alpha": 1.5}, ValueError, r"alpha lies in \[0, 1\]: got 1.5"),
            ({"alpha": "much"}, TypeError, "alpha is a number: got 'much'"),
            ({"alpha": float("nan")}, ValueError, "alpha is a finite number"),
            ({"threshold": 1.0}, ValueError, r"threshold lies in \[0, 1\)"),
            ({"threshold": -0.1}, ValueError, r"threshold lies in \[0, 1\)"),
            ({"colour_map": "infermo"}, ValueError, "got 'infermo'; did you mean 'inferno'"),
            ({"saliency": np.zeros((2, 2, 2))}, ValueError, r"Expected a map as an array .* shape \(2, 2, 2\)"),
            ({"saliency": np.full((2, 2), np.nan)}, ValueError, "Expected a map of finite numbers"),
            ({"photograph": np.zeros((4, 4))}, ValueError, r"Expected a photograph .* shape \(4, 4\)"),
            ({"photograph": np.zeros((4, 4, 3))}, ValueError, "Expected a photograph .* dtype float64"),
        ],
    )
    def test_errors(self, options: dict[str, Any], error: type[Exception], message: str) -> None:
        given = {"photograph": photograph(), "saliency": np.zeros((2, 2)), **options}
        with pytest.raises(error, match=message):
            overlay(given.pop("photograph"), given.pop("saliency"), **given)


class TestDigits:
    @pytest.mark.parametrize(
        ("value", "text"),
        [
            (0.9997, "0.9997"),
            (0.00041, "0.00041"),
            (0.7, "0.7000"),
            (0.001, "0.0010"),
            (0.99996, "0.99996"),
            (0.9999999, "0.9999999"),
            (1.3e-15, "1.3e-15"),
            (0.0, "0"),
            (1.0, "1"),
        ],
    )
    def test_probabilities(self, value: float, text: str) -> None:
        assert probability_text(value) == text

    @pytest.mark.parametrize(
        ("value", "text"),
        [(0.7651, "0.7651"), (-0.00041, "−0.00041"), (0.0, "0"), (-12.345, "−12.35"), (2e-9, "2.0e−09")],
    )
    def test_values(self, value: float, text: str) -> None:
        assert value_text(value) == text


class TestContributions:
    def test_titles_have_p_and_the_contribution(self) -> None:
        drawn = explanation(RAMP, contributions=0.7651, probabilities=0.9997).plot(class_names=NAMES)
        assert texts(drawn) == ["cat\np = 0.9997", "contribution 0.7651"]
        assert "Contribution: the class's probability where only what the map shows is kept" in caption(drawn)

    @pytest.mark.parametrize("contribution", [0.0, -0.8959])
    def test_without_support_a_map_is_marked_and_grey(self, contribution: float) -> None:
        drawn = explanation(TWO, contributions=[0.5, contribution]).plot([photograph()])
        assert "No support, drawn grey: a contribution that is not above 0." in caption(drawn)
        assert texts(drawn)[1::2] == ["contribution 0.5000", f"no support: {value_text(contribution)}"]
        supported, unsupported = panel(drawn, 1), panel(drawn, 3)
        saliency = TWO[0, 0].astype(np.float32)
        assert np.array_equal(supported, overlay(photograph(), saliency))
        assert np.array_equal(unsupported, overlay(photograph(), saliency, muted=True))

    def test_every_stage_has_its_own(self) -> None:
        given = explanation(RAMP, contributions=0.5, parts={"region": RAMP})
        given = replace(given, weights={**given.weights, "contribution_region": np.float32([[-0.1]])})
        drawn = given.plot()
        assert texts(drawn)[1:] == ["no support: −0.1000", "contribution 0.5000"]

    def test_methods_without_contributions_show_none(self) -> None:
        drawn = explanation(RAMP).plot()
        assert texts(drawn) == ["class 0\np = 0.5000"]
        assert "ontribution" not in caption(drawn)


class TestScale:
    RANGES = ((0.0, 4.0), (0.0, 1.0))
    """The second map is a quarter as strong as the first."""

    def test_each_map_by_itself_looks_the_same(self) -> None:
        drawn = explanation(TWO, raw_range=self.RANGES).plot([photograph()])
        assert np.array_equal(panel(drawn, 1), panel(drawn, 3))
        assert "Each map is scaled to its own range" in caption(drawn)

    def test_one_scale_of_the_image_shows_the_difference(self) -> None:
        drawn = explanation(TWO, raw_range=self.RANGES).plot([photograph()], scale="image")
        saliency = TWO[0, 0].astype(np.float32)
        assert np.array_equal(panel(drawn, 1), overlay(photograph(), saliency))
        assert np.array_equal(panel(drawn, 3), overlay(photograph(), saliency / 4))
        assert "Fusion-CAM: one scale for the rows of an image" in caption(drawn)

    def test_images_have_scales_of_their_own(self) -> None:
        both = join([explanation(TWO, raw_range=self.RANGES), explanation(TWO, raw_range=[(0, 1), (0, 10)])], NUMPY)
        tops = [scaled(both, "maps", index, "image").max(axis=(1, 2)).tolist() for index in (0, 1)]
        assert tops == [[1.0, 0.25], [0.1, 1.0]]

    def test_raw_values_below_zero_are_zero(self) -> None:
        given = explanation(TWO, raw_range=[(-1.0, 1.0), (-3.0, -1.0)])
        first, second = scaled(given, "maps", 0, "image")
        np.testing.assert_allclose(first[0], [0, 0, 0, 0.2, 0.6, 1.0], atol=1e-6)  # 2x - 1
        assert not second.any()

    def test_of_signed_maps(self) -> None:
        given = explanation(2 * TWO - 1, raw_range=[(-2.0, 2.0), (-1.0, 1.0)])
        first, second = scaled(given, "maps", 0, "image", signed=True)
        assert [first.min(), first.max(), second.min(), second.max()] == [-1.0, 1.0, -0.5, 0.5]

    def test_parts_keep_their_own(self) -> None:
        given = explanation(TWO, raw_range=self.RANGES, parts={"region": TWO / 2})
        drawn = given.plot([photograph()], scale="image")
        assert "Other columns: each map to its own range." in caption(drawn)
        assert scaled(given, "region", 0, "image").max() == 0.5, "as it is: within [0, 1]"

    def test_without_raw_values(self) -> None:
        with pytest.raises(ValueError, match=r"this explanation by Fusion-CAM has no raw_range.*scale='each'"):
            explanation(TWO).plot(scale="image")

    def test_without_the_final_maps(self) -> None:
        given = explanation(TWO, raw_range=self.RANGES, parts={"region": TWO})
        with pytest.raises(ValueError, match=r"give panels with 'maps' among them.*Got \('region',\)"):
            given.plot(scale="image", panels=("region",))

    def test_of_the_wrong_name(self) -> None:
        with pytest.raises(ValueError, match="scale is 'each' or 'image': got 'all'"):
            explanation(TWO).plot(scale="all")  # type: ignore[arg-type]

    @pytest.mark.parametrize("factor", [0.001, 7.0, 1000.0])
    def test_maps_that_were_not_normalised_are_drawn_in_their_range(self, factor: float) -> None:
        (drawn,) = scaled(explanation(factor * (RAMP + 1)), "maps", 0, "each")
        np.testing.assert_allclose(drawn, RAMP[0, 0], atol=1e-6)

    def test_signed_maps_that_were_not_normalised(self) -> None:
        (drawn,) = scaled(explanation(10 * RAMP - 5), "maps", 0, "each", signed=True)
        np.testing.assert_allclose(drawn, 2 * RAMP[0, 0] - 1, atol=1e-6)

    def test_the_middle_of_a_clip_is_scaled_with_the_clip(self) -> None:
        clip = np.concatenate([RAMP, RAMP / 2, RAMP / 4], axis=1)[:, None]
        given = replace(explanation(RAMP), maps=clip.astype(np.float32), images=np.zeros((1, 3, 3, 4, 6), np.float32))
        assert np.array_equal(panel(given.plot([photograph()]), 1), overlay(photograph(), RAMP[0, 0] / 2))

    def test_signed_maps_are_told_in_the_caption(self) -> None:
        told = "Above 0 speaks for the class, below 0 against it."
        assert told in caption(explanation(2 * RAMP - 1).plot())
        assert told not in caption(explanation(RAMP).plot())

    def test_one_of_many_images_has_the_colours_of_all(self) -> None:
        both = explanation(np.concatenate([RAMP, 2 * RAMP - 1]))
        signed = signed_panels(both, Style())
        assert signed == {"maps": True}
        drawn = image_figure(both, 0, photograph(), None, Style(), None, signed)
        assert drawn.axes[-1].get_yticks().tolist() == [-1.0, 0.0, 1.0]
        assert image_figure(both, 0, photograph(), None, Style()).axes[-1].get_yticks()[0] == 0.0

    def test_a_colour_bar_from_minus_one_if_any_map_is_signed(self) -> None:
        bars = [explanation(maps).plot().axes[-1].get_yticks().tolist() for maps in (RAMP, 2 * RAMP - 1)]
        assert bars == [[0.0, 0.5, 1.0], [-1.0, 0.0, 1.0]]

    def test_maps_of_another_size_are_stretched(self) -> None:
        given = replace(explanation(RAMP), images=np.zeros((1, 3, 30, 40), dtype=np.float32))
        assert panel(given.plot(), 1).shape == (30, 40, 3)


class TestOptions:
    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            ({"alpha": -0.1}, ValueError, "alpha lies in"),
            ({"threshold": "x"}, TypeError, "threshold is a number"),
            ({"colour_map": "no such"}, ValueError, "colour_map is a name that matplotlib knows"),
            ({"colour_map": 3}, TypeError, "colour_map is a name that matplotlib knows, or None"),
            ({"contours": 0.5}, TypeError, r"contours are the levels of lines, such as \(0.3, 0.6\): got 0.5"),
            ({"contours": (0.5, 1.0)}, ValueError, r"contours lie in \(0, 1\).*got 1.0"),
            ({"contours": (-0.5,)}, ValueError, "the maps have no values below 0. Got the level -0.5"),
            ({"panels": "maps"}, TypeError, "panels are names of stages"),
            ({"panels": ()}, ValueError, "panels are at least one stage"),
            ({"panels": ("region",)}, ValueError, "panels are some of 'maps': got 'region'"),
            ({"dpi": 0}, ValueError, r"dpi lies in \[10, 2000\], or is 'photograph': got 0"),
            ({"dpi": "high"}, ValueError, "dpi is a number, or 'photograph': got 'high'"),
            ({"dpi": None}, TypeError, "dpi is a number: got None"),
            ({"most": 0}, ValueError, "most is a positive number of rows"),
            ({"most": 1.5}, TypeError, "most is a whole number of rows"),
            ({"photographs": []}, ValueError, "There are 1 images, but 0 photographs"),
            ({"class_names": ["a"]}, ValueError, "The model has 3 classes, but there are 1 class names"),
            ({"preprocessing": Preprocessing()}, ValueError, "preprocessing came without photographs"),
            ({"preprocessing": len, "photographs": [photograph()]}, TypeError, "got a builtin_function_or_method"),
        ],
    )
    def test_errors(self, options: dict[str, Any], error: type[Exception], message: str) -> None:
        with pytest.raises(error, match=message):
            explanation(RAMP).plot(**options)

    def test_contours_are_lines_at_the_levels_that_are_there(self) -> None:
        drawn = explanation(RAMP).plot([photograph()], contours=(0.3, 0.6))
        (lines,) = drawn.axes[1].collections
        assert lines.levels.tolist() == [0.3, 0.6]
        assert not explanation(0 * RAMP).plot(contours=(0.5,)).axes[1].collections
        assert "Lines at 0.3, 0.6." in caption(drawn)

    def test_contours_of_a_line_lie_where_the_map_has_the_level(self) -> None:
        drawn = explanation(RAMP).plot([photograph(40, 60)], contours=(0.5,))
        (lines,) = drawn.axes[1].collections
        columns = np.concatenate([path.vertices[:, 0] for path in lines.get_paths()])
        np.testing.assert_allclose(columns, 29.5, atol=0.01)

    def test_threshold_colour_map_and_alpha_reach_the_panel(self) -> None:
        drawn = explanation(RAMP).plot([photograph()], threshold=0.4, colour_map="viridis", alpha=0.3)
        expected = overlay(photograph(), RAMP[0, 0], threshold=0.4, colour_map="viridis", alpha=0.3)
        assert np.array_equal(panel(drawn, 1), expected)
        assert "Nothing is drawn below 0.4." in caption(drawn)

    def test_panels_in_their_order(self) -> None:
        given = explanation(RAMP, parts={"region": RAMP, "similarity": RAMP, "layer3": RAMP})
        drawn = given.plot(panels=("maps", "similarity", "region", "layer3"))
        titles = ["Input", "Fusion-CAM", "Similarity", "Score-CAM", "layer3"]
        assert [axes.get_title() for axes in drawn.axes[:5]] == titles

    def test_dots_of_the_photograph(self) -> None:
        wide = np.zeros((900, 1200, 3), dtype=np.uint8)
        drawn = explanation(RAMP).plot([wide], dpi="photograph")
        assert panel(drawn, 1).shape == (900, 1200, 3)
        box = drawn.axes[1].get_window_extent()
        assert (box.width, box.height) == pytest.approx((1200, 900))
        assert explanation(RAMP).plot(dpi=50).dpi == 50

    def test_a_figure_shows_itself_in_a_notebook_that_has_no_pyplot(self) -> None:
        drawn = explanation(RAMP).plot(dpi=50)
        shown = Image.open(io.BytesIO(drawn._repr_png_()))
        assert shown.size == tuple(int(50 * inches) for inches in drawn.get_size_inches())
        assert type(pickle.loads(pickle.dumps(drawn))) is type(drawn)

    def test_rows_left_out_are_told(self) -> None:
        many = explanation(np.repeat(TWO[:, :1], 64, axis=0))
        assert caption(many.plot(most=8)).endswith("8 of 64 images shown.")
        assert caption(explanation(np.repeat(TWO[:, :1], 8, axis=0)).plot(most=8)).endswith("how much.")
        assert caption(many.plot(most=None)).endswith("37 of 64 images shown."), "as many as fit"
        several = explanation(np.repeat(TWO, 3, axis=0)).plot(most=4)
        assert caption(several).endswith("4 of 6 rows shown (2 targets of each of 3 images).")

    def test_a_notebook_shows_the_maps_of_eight_in_two_columns(self) -> None:
        many = explanation(np.repeat(RAMP, 9, axis=0))
        with Image.open(io.BytesIO(many._repr_png_())) as shown:
            width = 0.08 + 2 * (0.36 + 2 * (2.1 + 0.06)) + 0.1 + 0.42
            height = 0.24 + 4 * (1.4 + 0.06) + 0.08 + 0.125
            assert shown.size == pytest.approx((200 * width, 200 * height), abs=1)
        assert overlay_png(many, NAMES) != many._repr_png_()
        drawn = plotted(many, None, None, Style(panels=("maps",)), None, 8, across=2)
        assert [axes.get_title() for axes in drawn.axes[:5]] == ["Input", "Fusion-CAM", "Input", "Fusion-CAM", ""]
        boxes = [axes.get_position() for axes in drawn.axes[:8:2]]
        lefts, tops = [round(box.x0, 6) for box in boxes], [round(box.y1, 6) for box in boxes]
        assert lefts[0] == lefts[2] < lefts[1] == lefts[3]
        assert tops[0] == tops[1] > tops[2] == tops[3]


class TestFigure:
    def test_of_maps_of_ones_own(self) -> None:
        row = FigureRow(photograph(), [RAMP[0, 0]], "mine", ["note"], [True])
        drawn = figure([row], ["Photograph", "Mine"], caption="What it is.", alpha=0.5)
        assert texts(drawn) == ["mine", "note"]
        assert caption(drawn) == "What it is."
        assert np.array_equal(panel(drawn, 1), overlay(photograph(), RAMP[0, 0], alpha=0.5, muted=True))

    @pytest.mark.parametrize(
        ("row", "message"),
        [
            (None, "at least one row, got none"),
            (FigureRow(photograph(), [RAMP[0, 0]], notes=("a", "b")), "Expected notes for each of 1 maps, got 2"),
            (FigureRow(photograph(), [RAMP[0, 0]], muted=(True, False)), "Expected muted for each of 1 maps, got 2"),
            (FigureRow(photograph(), []), "for each of the 0 maps of a row, got 2 titles"),
            (FigureRow(photograph(), [RAMP]), r"shape \(1, 1, 4, 6\)"),
            (FigureRow(np.zeros((2, 2)), [RAMP[0, 0]]), "Expected a photograph"),
        ],
    )
    def test_errors(self, row: FigureRow | None, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            figure([] if row is None else [row], ["Photograph", "Mine"])

    def test_options_out_of_range(self) -> None:
        with pytest.raises(ValueError, match="alpha lies in"):
            figure([FigureRow(photograph(), [RAMP[0, 0]])], ["P", "A"], alpha=2)

    def test_nothing_overlaps_and_nothing_leaves_the_picture(self) -> None:
        given = explanation(TWO, contributions=[0.5, -0.00041], parts={"region": TWO})
        photo = photograph(90, 40)  # the narrowest panels
        drawn = given.plot([photo], NAMES, contours=(0.5,), threshold=0.1, most=1)
        rendered(drawn)  # lays the text out
        boxes = [each.get_window_extent() for axes in drawn.axes for each in (axes, *axes.texts)]
        boxes += [text.get_window_extent() for text in drawn.texts]
        assert len(drawn.texts) >= 2
        page = drawn.bbox
        assert all(page.x0 <= box.x0 and box.x1 <= page.x1 for box in boxes)
        assert all(page.y0 <= box.y0 and box.y1 <= page.y1 for box in boxes)
        assert not [(a, b) for i, a in enumerate(boxes) for b in boxes[i + 1 :] if a.overlaps(b)]


class TestFormats:
    HOSTILE = "<script>alert(1)</script>"

    def drawn(self) -> Any:
        row = FigureRow(photograph(90, 90), [RAMP[0, 0]], f"{self.HOSTILE}\n--><g onload='x'>&\"")
        return figure([row], [self.HOSTILE, "]]>-->"], caption=f"{self.HOSTILE} $x^2$ --> \x00")

    @pytest.mark.parametrize(
        ("picture", "beginning"), [("png", b"\x89PNG"), ("pdf", b"%PDF-"), ("svg", b"<?xml version")]
    )
    def test_files_are_known_to_be_ours(self, tmp_path: Path, picture: Any, beginning: bytes) -> None:
        content = rendered(self.drawn(), picture)
        assert content.startswith(beginning)
        path = tmp_path / f"a.{picture}"
        path.write_bytes(content)
        assert (is_ours(path, "explanation"), is_ours(path, "evaluation")) == (True, False)
        path.write_bytes(rendered(self.drawn(), picture, "evaluation"))
        assert (is_ours(path, "explanation"), is_ours(path, "evaluation")) == (False, True)

    @pytest.mark.parametrize("picture", ["pdf", "svg"])
    def test_figures_of_others_are_not(self, tmp_path: Path, picture: str) -> None:
        drawn = self.drawn()
        drawn.savefig(tmp_path / f"plain.{picture}")
        drawn.savefig(tmp_path / f"titled.{picture}", metadata={"Title": "fusioncam explanation"})
        for name in ("plain", "titled"):
            assert not is_ours(tmp_path / f"{name}.{picture}", "explanation")
        for content in (b"", b"%PDF-", b"<svg>", b"/Creator (fusioncam explanation)"):
            (tmp_path / f"b.{picture}").write_bytes(content)
            assert not is_ours(tmp_path / f"b.{picture}", "explanation")

    def test_an_svg_is_safe_whatever_the_names(self) -> None:
        content = rendered(self.drawn(), "svg")
        tree = ElementTree.fromstring(content)
        tags = {each.tag.rpartition("}")[2] for each in tree.iter()}
        assert "script" not in tags
        assert not [name for each in tree.iter() for name in each.attrib if name.lower().startswith("on")]
        links = {value for each in tree.iter() for name, value in each.attrib.items() if name.endswith("href")}
        assert all(re.match(r"#|data:image/png;base64,", link) for link in links)
        assert b"<script" not in content

    def test_a_picture_keeps_its_pixels_in_an_svg_and_the_figure_its_interpolation(self) -> None:
        drawn = self.drawn()
        embedded = re.findall(rb"base64,\s*([^\"]*)\"", rendered(drawn, "svg"))
        sizes = [Image.open(io.BytesIO(base64.b64decode(each))).size for each in embedded]
        assert sizes == [(90, 90), (90, 90), (1, 256)]
        assert {image.get_interpolation() for axes in drawn.axes for image in axes.images} == {"lanczos", "nearest"}

    def test_other_formats(self) -> None:
        with pytest.raises(ValueError, match="picture is 'png', 'pdf' or 'svg': got 'gif'"):
            rendered(self.drawn(), "gif")  # type: ignore[arg-type]

    @pytest.mark.parametrize("picture", ["pdf", "svg"])
    def test_saved(self, tmp_path: Path, picture: Any) -> None:
        given = explanation(RAMP)
        written = given.save(tmp_path, ["a"], picture=picture)
        assert [path.name for path in written] == [f"a.{picture}", "a.npz", "a.json"]
        given.save(tmp_path, ["a"], picture=picture, overwrite=True)
        (tmp_path / f"a.{picture}").write_bytes(b"theirs")
        with pytest.raises(ValueError, match=rf"a\.{picture} is there already, and is no explanation"):
            given.save(tmp_path, ["a"], picture=picture, overwrite=True)

    def test_saved_in_another_format(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="picture is 'png', 'pdf' or 'svg'"):
            explanation(RAMP).save(tmp_path, picture="jpg")  # type: ignore[arg-type]
        assert list(tmp_path.iterdir()) == []


class TestPhotographsOwnResolution:
    PREPROCESSING = Preprocessing(size=(10, 20), crop_fraction=0.5, interpolation="box")

    def test_a_point_comes_back_to_where_it_was(self) -> None:
        """The window of 200 x 100 pixels lies at (100, 50) in a photograph of 400 x 200: one input pixel is 10 x 10."""
        assert self.PREPROCESSING.box(np.zeros((200, 400, 3), np.uint8)) == (100, 50, 300, 150)
        for row, column in ((4, 7), (1, 18), (8, 1)):
            saliency = np.zeros((10, 20), dtype=np.float32)
            saliency[row, column] = 1.0
            restored = self.PREPROCESSING.restored(saliency, np.zeros((200, 400, 3), np.uint8))
            rows, columns = np.nonzero(restored > restored.max() / 2)
            # The middle of the input's pixel, between pixels 4 and 5 of the ten.
            assert (rows.mean(), columns.mean()) == (50 + 10 * row + 4.5, 100 + 10 * column + 4.5)
            marked = np.zeros((200, 400, 3), dtype=np.uint8)
            marked[round(rows.mean()), round(columns.mean())] = 255
            seen = self.PREPROCESSING(Image.fromarray(marked))[0]
            assert np.unravel_index(seen.argmax(), seen.shape) == (row, column)

    def test_outside_of_the_window_it_is_zero(self) -> None:
        restored = self.PREPROCESSING.restored(np.ones((5, 5)), Image.new("RGB", (400, 200)))
        assert (restored.shape, restored.dtype) == ((200, 400), np.float32)
        assert restored.sum() == 100 * 200
        assert (restored[50:150, 100:300] == 1).all()

    def test_the_same_size_comes_back_as_it_was(self) -> None:
        saliency = np.random.default_rng(0).random((10, 20)).astype(np.float32)
        whole = Preprocessing(size=(10, 20), crop_fraction=None).restored(saliency, np.zeros((10, 20, 3), np.uint8))
        np.testing.assert_array_equal(whole, saliency)

    def test_photographs_that_lie_on_their_side(self) -> None:
        """EXIF 6: the file's first row is the right edge of what is seen."""
        lying = Image.fromarray(np.zeros((400, 200, 3), np.uint8))
        lying.getexif()[274] = 6
        assert self.PREPROCESSING.whole(lying).size == (400, 200)
        assert self.PREPROCESSING.restored(np.ones((5, 5)), lying).shape == (200, 400)

    @pytest.mark.parametrize(
        ("saliency", "photo", "error", "message"),
        [
            (np.zeros((2, 2, 2)), np.zeros((4, 4, 3), np.uint8), ValueError, r"Expected a map .* \(2, 2, 2\)"),
            (np.full((2, 2), np.inf), np.zeros((4, 4, 3), np.uint8), ValueError, "Expected a map .* finite"),
            (np.zeros((2, 2)), np.zeros((4, 4, 3)), ValueError, "got dtype float64"),
            (np.zeros((2, 2)), "cat.jpg", TypeError, "Expected a Pillow image, got a str"),
        ],
    )
    def test_errors(self, saliency: Any, photo: Any, error: type[Exception], message: str) -> None:
        with pytest.raises(error, match=message):
            self.PREPROCESSING.restored(saliency, photo)

    def test_a_figure_draws_it_whole_and_frames_what_was_seen(self) -> None:
        photo = photograph(200, 400)
        drawn = explanation(RAMP).plot([photo], preprocessing=self.PREPROCESSING)
        outside = np.ones((200, 400), dtype=bool)
        outside[50:150, 100:300] = False
        shown = panel(drawn, 1)
        assert np.array_equal(panel(drawn, 0), photo)
        assert np.array_equal(shown[outside], photo[outside])
        right = np.s_[50:150, 290:300]
        assert (shown[right] != photo[right]).any(axis=-1).mean() > 0.99
        assert [len(axes.patches) for axes in drawn.axes[:2]] == [2, 2]
        assert drawn.axes[0].patches[0].get_bbox().bounds == (99.5, 49.5, 200, 100)
        assert "The network saw what lies inside the dashed frame." in caption(drawn)

    def test_without_a_crop_there_is_no_frame(self) -> None:
        drawn = explanation(RAMP).plot([photograph()], preprocessing=Preprocessing(crop_fraction=None))
        assert not drawn.axes[0].patches
        assert "frame" not in caption(drawn)

    def test_no_contour_runs_along_the_frame(self) -> None:
        photo = photograph(200, 400)
        drawn = explanation(RAMP).plot([photo], preprocessing=self.PREPROCESSING, contours=(0.5,))
        (lines,) = drawn.axes[1].collections
        columns = np.concatenate([path.vertices[:, 0] for path in lines.get_paths()])
        np.testing.assert_allclose(columns, 199.5, atol=0.1)

    def test_a_window_of_less_than_a_pixel(self) -> None:
        assert part_of((10, 10), (0.999, 0.999, 1.0, 1.0)) == (slice(9, 10), slice(9, 10))
        assert placed(np.ones((4, 4)), (0.5, 0.5, 0.51, 0.51), (10, 10)).sum() == 1

    def test_saved(self, tmp_path: Path) -> None:
        from fusioncam_core.results.files import save_explanation

        options: dict[str, Any] = {"photographs": [photograph(200, 400)], "preprocessing": self.PREPROCESSING}
        save_explanation(explanation(RAMP), tmp_path, ["a"], **options)
        with Image.open(tmp_path / "a.png") as shown:
            assert shown.width == int(200 * (0.08 + 0.36 + 2 * (2.1 + 0.06) + 0.1 + 0.42))
        with pytest.raises(ValueError, match="preprocessing came without photographs"):
            save_explanation(explanation(RAMP), tmp_path, ["b"], preprocessing=self.PREPROCESSING)


class TestNamedTargets:
    def both(self) -> Explanation:
        classes = explanation(TWO, contributions=[0.5, 0.1], raw_range=[(0, 1), (0, 2)])
        other = replace(explanation(RAMP, contributions=-1.0, raw_range=[0, 3]), scores=np.float32([[-2.5]]))
        single = {name: getattr(other, name)[:, 0] for name in ("maps", "targets", "scores", "probabilities")}
        other = replace(other, **single, raw_range=other.raw_range[:, 0], weights={"contribution_union": -np.ones(1)})
        return with_target(classes, other, "why cat and not dog")

    def test_a_column_more(self) -> None:
        both = self.both()
        assert (both.maps.shape, both.targets.tolist(), both.evaluations) == ((1, 3, 4, 6), [[0, 1, -1]], 2)
        np.testing.assert_allclose(both.weights["contribution_union"], [[0.5, 0.1, -1.0]], rtol=1e-6)
        assert both.raw_range.tolist() == [[[0, 1], [0, 2], [0, 3]]]
        assert both.target_names == (("", "", "why cat and not dog"),)
        assert join([both, both], NUMPY).target_names == both.target_names * 2

    def test_beside_one_class_without_an_axis(self) -> None:
        one = explanation(RAMP)
        one = replace(
            one, **{name: getattr(one, name)[:, 0] for name in ("maps", "targets", "scores", "probabilities")}
        )
        both = with_target(one, one, "other")
        assert (both.maps.shape, both.target_names) == ((1, 2, 4, 6), (("", "other"),))

    def test_functions_alone_need_no_names_of_classes(self) -> None:
        given = replace(explanation(TWO), target_names=(("mine", "yours"),), class_probabilities=np.ones((1, 2)))
        assert texts(given.plot(class_names=NAMES)) == ["mine\n1.0000", "yours\n1.0000"]

    def test_numbers_text_and_picture_have_its_name_and_value(self) -> None:
        both = self.both()
        numbers = list(target_numbers(both, 0, NAMES))[2]
        assert (numbers["class"], numbers["name"], numbers["score"]) == (None, "why cat and not dog", -2.5)
        lines = list(photograph_report("a.jpg", both, NAMES, [Path("a.png")]))
        assert "  why cat and not dog: value -2.500" in lines
        assert texts(both.plot(class_names=NAMES))[4] == "why cat and not dog\n−2.5000"


class TestDocument:
    """docs/pictures.md."""

    DOCUMENT = Path(__file__).parent.parent / "docs" / "pictures.md"

    def test_the_code_runs_as_it_stands_there(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        pytest.importorskip("torch")
        monkeypatch.chdir(tmp_path)
        names = run(self.DOCUMENT, python_blocks(self.DOCUMENT))
        assert names["restored"].shape == (120, 160)
        assert names["pixels"].shape == (120, 160, 3)
        assert (tmp_path / "maps.pdf").read_bytes().startswith(b"%PDF-")

    def test_every_option_of_the_command_line_is_there(self) -> None:
        parser = argparse.ArgumentParser(add_help=False)
        add_drawing(parser)
        text = self.DOCUMENT.read_text(encoding="utf-8")
        options = [option for action in parser._actions for option in action.option_strings]
        assert len(options) == 9
        assert [option for option in options if f"`{option} " not in text] == []
