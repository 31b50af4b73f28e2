"""Explanations as one page: what is in the file, what a browser would obey in it, and what is refused."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from absence import hide
from code_blocks import python_blocks, run
from fusioncam_core import Explanation, InvalidTypeError, InvalidValueError, MissingExtra, Preprocessing, write_report
from fusioncam_core.results.overlay import overlay
from fusioncam_core.results.provenance import Provenance
from fusioncam_core.results.report import Report
from fusioncam_core.results.report_images import map_address, photograph_address

HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "</script><script>alert(1)</script>",
    "\"'><svg onload=alert(1)>",
    "bidi \u202etxt.exe",
    "line\nbreak {{ 7 * 7 }} {% raw %}",
    "<!--<script>",
    "\udcff \u2028 \x00",
)

RAMP = np.linspace(0, 1, 6, dtype=np.float32) * np.ones((4, 1), dtype=np.float32)
"""One map (4, 6) from 0 on its left to 1."""


def explanation(maps: Any, contributions: Any = None, **others: Any) -> Explanation:
    """Of maps (B, K, h, w), with K targets an image."""
    maps = np.asarray(maps, dtype=np.float32)
    batch, several, *size = maps.shape
    ones = np.ones((batch, several), dtype=np.float32)
    weights = {} if contributions is None else {"contribution_union": np.float32(contributions).reshape(ones.shape)}
    own: dict[str, Any] = {
        "method": "fusion-cam",
        "layer": "conv",
        "model": "Net",
        "maps": maps,
        "targets": np.broadcast_to(np.arange(several), (batch, several)),
        "scores": ones,
        "probabilities": np.float32(0.00041) * ones,
        "class_probabilities": np.full((batch, 3), 1 / 3, dtype=np.float32),
        "images": np.zeros((batch, 3, *size), dtype=np.float32),
        "image_channel_axis": 1,
        "evaluations": 1,
        "weights": weights,
        "titles": {"maps": "Fusion-CAM"},
    }
    return Explanation(**{**own, **others})


ONE = explanation(RAMP[None, None], [0.25], parts={"region": 1 - RAMP[None, None]})
ONE = replace(ONE, titles={"region": "Score-CAM", "maps": "Fusion-CAM"})


def photograph(height: int = 30, width: int = 40) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


class Page(HTMLParser):
    """A page, taken apart as browsers do.

    Attributes:
        tags: every start tag, with its attributes.
        blocks: the contents of scripts and styles, with their tags' attributes.
        text: what is shown, run together.
    """

    def __init__(self, path: Path):
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.blocks: list[tuple[str, dict[str, str | None], str]] = []
        self.shown: list[str] = []
        self._open = ""
        self.feed(self.source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open = tag

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def handle_data(self, data: str) -> None:
        if self._open in ("script", "style"):
            self.blocks.append((self._open, self.tags[-1][1], data))
        else:
            self.shown.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.shown).split())

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    def data(self, identifier: str) -> Any:
        """What a block of JSON holds."""
        return next(json.loads(text) for _, own, text in self.blocks if own.get("id") == identifier)


def page(tmp_path: Path, *arguments: Any, **options: Any) -> Page:
    return Page(write_report(tmp_path / "report.html", *arguments, **options))


def pixels(address: str, mode: str) -> np.ndarray:
    """Of an image in a page."""
    head, _, body = address.partition(",")
    assert head in ("data:image/png;base64", "data:image/jpeg;base64")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(body))).convert(mode))


class TestImages:
    def test_a_map_over_a_photograph_is_the_overlay(self) -> None:
        """Of a grey photograph, whose colours do not fade, laid over as CSS says: to one level of 256."""
        grey = np.repeat(photograph(4, 6)[..., :1], 3, axis=2)
        layer = pixels(map_address(RAMP), "RGBA").astype(float)
        share = 0.7 * layer[..., 3:] / 255
        drawn = (1 - share) * grey + share * layer[..., :3]
        assert np.abs(drawn - overlay(grey, RAMP, alpha=0.7)).max() <= 1.5

    def test_opacity_is_the_map(self) -> None:
        opacity = pixels(map_address(RAMP), "RGBA")[0, :, 3]
        assert opacity.tolist() == [0, 51, 102, 153, 204, 255]

    def test_nothing_is_drawn_below_the_threshold(self) -> None:
        opacity = pixels(map_address(RAMP, threshold=0.5), "RGBA")[0, :, 3]
        assert opacity.tolist() == [0, 0, 0, 153, 204, 255]

    def test_muted_maps_are_grey_and_fainter(self) -> None:
        layer = pixels(map_address(RAMP, muted=True), "RGBA")[0]
        assert (layer[:, 0] == layer[:, 1]).all()
        assert layer[:, 3].tolist() == [0, 31, 61, 92, 122, 153]

    def test_signed_maps_have_two_colours_and_nothing_at_0(self) -> None:
        layer = pixels(map_address(np.array([[-1.0, 0.0, 1.0]]), signed=True), "RGBA")[0]
        assert layer[:, 3].tolist() == [255, 0, 255]
        assert layer[0, 2] > layer[0, 0]  # blue speaks against
        assert layer[2, 0] > layer[2, 2]  # red for

    def test_large_ones_are_made_smaller(self) -> None:
        assert pixels(map_address(np.zeros((300, 600))), "RGBA").shape == (128, 256, 4)
        assert pixels(photograph_address(photograph(1000, 2000)), "RGB").shape == (320, 640, 3)

    def test_small_photographs_stay_as_they_are(self) -> None:
        assert (pixels(photograph_address(photograph()), "RGB") == photograph()).all()


class TestContents:
    def test_every_image_with_its_stages_and_targets(self, tmp_path: Path) -> None:
        two = np.stack([RAMP, RAMP[:, ::-1]])[None]
        several = explanation(
            np.concatenate([two, two, two]), names=("a", "b", "c"), parts={"region": np.zeros((3, 2, 4, 6))}
        )
        several = replace(several, titles={"region": "Score-CAM", "maps": "Fusion-CAM"})
        own = page(tmp_path, several, [photograph()] * 3, ("cat", "dog", "cow"))
        index = own.data("index")
        assert [each["name"] for each in index["images"]] == ["a", "b", "c"]
        assert [each["label"] for each in index["images"][2]["targets"]] == ["cat", "dog"]
        assert index["stages"] == {"region": "Score-CAM", "maps": "Fusion-CAM"}
        pictures = own.data("pictures-2")
        assert list(pictures["maps"]) == ["region", "maps"]
        assert pixels(pictures["maps"]["maps"][1], "RGBA")[0, :, 3].tolist() == [255, 204, 153, 102, 51, 0]
        assert index["images"][0]["targets"][0]["notes"] == {"region": "the map is 0 everywhere", "maps": ""}

    def test_numbers_keep_their_digits(self, tmp_path: Path) -> None:
        own = page(tmp_path, ONE, class_names=("cat", "dog", "cow"))
        assert "p = 0.00041" in own.text
        assert "cat" in own.text
        assert own.data("index")["images"][0]["targets"][0]["p"] == 0.00041
        assert "Contribution Union 0.2500" in own.text

    def test_no_support_is_said_and_drawn_grey(self, tmp_path: Path) -> None:
        own = page(tmp_path, explanation(np.stack([RAMP, RAMP])[None], [0.25, -0.125]))
        targets = own.data("index")["images"][0]["targets"]
        assert [each["notes"]["maps"] for each in targets] == ["contribution 0.2500", "no support: −0.1250"]
        assert [each["muted"] for each in targets] == [[], ["maps"]]
        first, second = (pixels(each, "RGBA") for each in own.data("pictures-0")["maps"]["maps"])
        assert first[..., 3].max() == 255
        assert second[..., 3].max() == 153
        assert "A contribution that is not above 0" in own.text

    def test_what_was_not_measured_is_not_explained(self, tmp_path: Path) -> None:
        own = page(tmp_path, explanation(RAMP[None, None]))
        assert "Contribution" not in own.text
        assert own.data("index")["images"][0]["targets"][0]["c"] is None

    def test_functions_have_values(self, tmp_path: Path) -> None:
        named = explanation(RAMP[None, None], target_names=(("cat − dog",),), scores=np.full((1, 1), 2.5))
        (target,) = page(tmp_path, named).data("index")["images"][0]["targets"]
        assert (target["label"], target["value"], target["p"]) == ("cat − dog", "value 2.5000", None)

    def test_several_explanations_of_several_methods(self, tmp_path: Path) -> None:
        other = replace(explanation(RAMP[None, None]), titles={"maps": "Grad-CAM"}, layer="deep")
        own = page(tmp_path, (each for each in (ONE, other, ONE)), [photograph()] * 3)
        assert len(own.data("index")["images"]) == 3
        assert "Explanations by Fusion-CAM, Grad-CAM" in own.text
        assert [each["id"] for each in own.of("section") if str(each.get("id")).startswith("origin-")] == [
            "origin-0",
            "origin-1",
        ]

    def test_what_has_no_sign_in_one_image_has_one_if_another_has(self, tmp_path: Path) -> None:
        signed = explanation(np.stack([RAMP, -RAMP])[:, None], form="raw")
        own = page(tmp_path, signed)
        assert pixels(own.data("pictures-0")["maps"]["maps"][0], "RGBA")[0, 5, 0] > 150  # red, of coolwarm
        assert "against the class" in own.text

    def test_the_map_lies_where_the_input_was(self, tmp_path: Path) -> None:
        preprocessing = Preprocessing(size=(10, 10), mean=0.0, std=255.0)
        picture = Image.fromarray(photograph(10, 20))
        pictures = page(tmp_path, ONE, [picture], preprocessing=preprocessing).data("pictures-0")
        assert pictures["size"] == [20, 10]
        left, top, right, bottom = pictures["window"]
        assert (left, right) == (0.25, 0.75)
        assert 0 <= top < bottom <= 1

    def test_stages_that_are_asked_for(self, tmp_path: Path) -> None:
        assert list(page(tmp_path, ONE, panels=["region"]).data("pictures-0")["maps"]) == ["region"]

    def test_clips_show_the_middle(self, tmp_path: Path) -> None:
        clip = np.stack([0 * RAMP, RAMP, 0 * RAMP])[None, None]
        pictures = page(tmp_path, explanation(clip)).data("pictures-0")
        assert pixels(pictures["maps"]["maps"][0], "RGBA")[0, 5, 3] == 255

    def test_provenance_at_the_foot(self, tmp_path: Path) -> None:
        made = Provenance("1.2.3", "fusion-cam", {"percentile": 10}, ("conv",), "Net", "sha256:0f", {"torch": "2.9"})
        own = page(tmp_path, replace(ONE, provenance=made))
        assert "1.2.3" in own.text
        assert "torch 2.9" in own.text
        assert "sha256:0f" in own.text
        assert '"percentile": 10' in own.text

    def test_paths_of_files_stay_out(self, tmp_path: Path) -> None:
        own = page(tmp_path, replace(ONE, names=("cat",), files=("/home/someone/cat.png",)))
        assert "someone" not in own.source

    def test_the_same_explanation_gives_the_same_file(self, tmp_path: Path) -> None:
        first = ONE.report(tmp_path / "one.html").read_bytes()
        assert ONE.report(tmp_path / "two.html").read_bytes() == first

    def test_what_was_left_out_is_said(self, tmp_path: Path) -> None:
        report = Report(tmp_path / "report.html", title="Of two")
        report.add(ONE)
        report.leave_out("b.png: no picture")
        own = Page(report.write())
        assert "Left out: 1 b.png: no picture" in own.text
        assert "Of two" in own.text


class TestSafety:
    def hostile(self, tmp_path: Path) -> Page:
        batch = len(HOSTILE)
        made = Provenance("1", HOSTILE[0], {HOSTILE[1]: HOSTILE[6]}, (HOSTILE[1],), HOSTILE[2], None, {}, HOSTILE[3])
        maps = np.repeat(RAMP[None, None], batch, axis=0)
        bad = explanation(maps, names=HOSTILE, model=HOSTILE[1], provenance=made, parts={HOSTILE[1]: maps})
        bad = replace(bad, titles={HOSTILE[1]: HOSTILE[0], "maps": HOSTILE[1]})
        bad = replace(bad, targets=np.arange(batch)[:, None], class_probabilities=np.ones((batch, batch)))
        return page(tmp_path, bad, class_names=HOSTILE, title=HOSTILE[1])

    def test_names_of_others_are_text(self, tmp_path: Path) -> None:
        own = self.hostile(tmp_path)
        calm = page(tmp_path / "calm", explanation(np.repeat(RAMP[None, None], len(HOSTILE), axis=0)))
        assert {tag for tag, _ in own.tags} <= {tag for tag, _ in calm.tags} | {"pre", "details"}
        assert [own for own in own.of("script") if own.get("type") != "application/json"] == [{}]
        assert "<img src=x onerror=alert(1)>" in own.text
        assert "{{ 7 * 7 }}" in own.text

    def test_no_attribute_is_obeyed(self, tmp_path: Path) -> None:
        for tag, attributes in self.hostile(tmp_path).tags:
            assert not [name for name in attributes if name.startswith("on") or name == "style"], tag
            for name in ("src", "href", "action", "srcset"):
                assert (attributes.get(name) or "#").startswith(("#", "data:image/png;base64,", "data:,")), tag

    def test_scripts_hold_no_way_out(self, tmp_path: Path) -> None:
        for _, attributes, text in self.hostile(tmp_path).blocks:
            if attributes.get("type") == "application/json":
                assert not set("<>&\u2028\u2029") & set(text)

    def test_what_would_steer_is_shown(self, tmp_path: Path) -> None:
        own = self.hostile(tmp_path)
        assert not re.search("[\u202e\u2028\x00]", own.source)
        names = [each["name"] for each in own.data("index")["images"]]
        assert names[3] == "bidi \\u202etxt.exe"
        assert names[4] == "line\\nbreak {{ 7 * 7 }} {% raw %}"
        assert names[6] == "\\udcff \\u2028 \\x00"

    def test_only_its_own_script_and_style_are_allowed(self, tmp_path: Path) -> None:
        own = self.hostile(tmp_path)
        (policy,) = (each["content"] for each in own.of("meta") if each.get("http-equiv") == "Content-Security-Policy")
        rules = dict(rule.strip().split(" ", 1) for rule in str(policy).split(";"))
        assert rules["default-src"] == "'none'"
        assert rules["img-src"] == "data:"
        for kind, rule in (("script", "script-src"), ("style", "style-src")):
            (text,) = (text for tag, attributes, text in own.blocks if tag == kind and not attributes)
            digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
            assert rules[rule] == f"'sha256-{digest}'"

    def test_the_policy_comes_before_what_it_is_about(self, tmp_path: Path) -> None:
        source = self.hostile(tmp_path).source
        assert source.index("Content-Security-Policy") < min(source.index("<style"), source.index("<script"))


class TestAccess:
    def test_everything_that_is_set_has_a_label(self, tmp_path: Path) -> None:
        own = page(tmp_path, ONE)
        labelled = {each["for"] for each in own.of("label")}
        assert {each["id"] for tag in ("input", "select") for each in own.of(tag)} == labelled

    def test_identifiers_are_unique(self, tmp_path: Path) -> None:
        identifiers = [own["id"] for _, own in page(tmp_path, [ONE, ONE]).tags if own.get("id")]
        assert len(identifiers) == len(set(identifiers))

    def test_what_changes_is_said(self, tmp_path: Path) -> None:
        own = page(tmp_path, ONE)
        assert {"id": "count", "role": "status"} in own.of("p")
        assert own.of("html") == [{"lang": "en"}]


class TestFiles:
    def test_nothing_is_overwritten_unasked(self, tmp_path: Path) -> None:
        path = ONE.report(tmp_path / "report.html")
        with pytest.raises(InvalidValueError, match=r"is there already: it is replaced only with overwrite=True"):
            ONE.report(path)
        ONE.report(path, overwrite=True, title="Another")
        assert "<h1>Another</h1>" in path.read_text(encoding="utf-8")

    def test_pages_of_others_are_never_overwritten(self, tmp_path: Path) -> None:
        path = tmp_path / "report.html"
        theirs = '<!doctype html>\n<p>A page about <meta name="generator" content="fusioncam explanation"></p>'
        path.write_text(theirs)
        with pytest.raises(InvalidValueError, match="no explanation that fusioncam has written"):
            ONE.report(path, overwrite=True)
        assert path.read_text() == theirs

    def test_folders_are_made(self, tmp_path: Path) -> None:
        assert ONE.report(str(tmp_path / "a" / "b.html")) == tmp_path / "a" / "b.html"


class TestRefused:
    @pytest.mark.parametrize("path", ["report.htm", "report", "report.html.png"])
    def test_other_endings(self, tmp_path: Path, path: str) -> None:
        with pytest.raises(InvalidValueError, match=rf"Expected the path of a report to end in \.html, got .*{path}"):
            ONE.report(tmp_path / path)

    def test_what_is_no_path_or_title(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidTypeError, match="Expected the path of a report, got 3"):
            ONE.report(3)  # type: ignore[arg-type]
        with pytest.raises(InvalidTypeError, match="Expected the title of a report as text, or None, got 3"):
            ONE.report(tmp_path / "report.html", title=3)  # type: ignore[arg-type]

    def test_what_is_no_explanation(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidTypeError, match="Expected explanations in a report, got one of type str"):
            write_report(tmp_path / "report.html", "ab")  # type: ignore[arg-type]
        with pytest.raises(InvalidTypeError, match="Expected an explanation or several, got one of type int"):
            write_report(tmp_path / "report.html", 3)  # type: ignore[arg-type]

    def test_none_at_all(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidValueError, match="at least one explanation in a report, got none"):
            write_report(tmp_path / "report.html", [])

    @pytest.mark.parametrize("count", [0, 1, 3])
    def test_photographs_that_are_not_one_an_image(self, tmp_path: Path, count: int) -> None:
        with pytest.raises(InvalidValueError, match=r"There (is|are) \d images?, but \d photographs"):
            write_report(tmp_path / "report.html", [ONE, ONE], [photograph()] * count)
        assert not (tmp_path / "report.html").exists()

    def test_names_that_are_not_one_a_class_or_image(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidValueError, match="The model has 3 classes, but there are 2 class names"):
            ONE.report(tmp_path / "report.html", class_names=("cat", "dog"))
        with pytest.raises(InvalidValueError, match="There are 1 images, but 2 names"):
            Report(tmp_path / "report.html").add(ONE, names=("a", "b"))

    def test_unknown_stages_and_maps_that_cannot_be_drawn(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidValueError, match="panels are some of 'region', 'maps': got 'regoin'"):
            ONE.report(tmp_path / "report.html", panels=["regoin"])
        with pytest.raises(InvalidValueError, match="Pictures are drawn of inputs with 2 spatial axes"):
            explanation(np.zeros((1, 1, 4))).report(tmp_path / "report.html")
        with pytest.raises(InvalidValueError, match="finite numbers"):
            explanation(RAMP[None, None] * np.nan).report(tmp_path / "report.html")

    @pytest.mark.parametrize(("package", "extra"), [("jinja2", "report"), ("PIL", "cli")])
    def test_without_what_it_needs(self, tmp_path: Path, monkeypatch: Any, package: str, extra: str) -> None:
        hide(package, monkeypatch)
        with pytest.raises(MissingExtra, match=rf"Writing a report needs .*fusioncam\[{extra}\]"):
            ONE.report(tmp_path / "report.html")


class TestDocument:
    DOCUMENT = Path(__file__).parents[1] / "docs" / "report.md"

    def test_the_code_runs_as_it_stands_there(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        pytest.importorskip("torch")
        monkeypatch.chdir(tmp_path)
        run(self.DOCUMENT, python_blocks(self.DOCUMENT))
        assert len(Page(tmp_path / "maps.html").data("index")["images"][0]["targets"]) == 2
        assert len(Page(tmp_path / "many.html").data("index")["images"]) == 4
