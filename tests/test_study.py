"""The study: its tables follow from its values, its masks are where the objects are, and what is measured is kept."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import libraries

pytest.importorskip("benchmarks.study", reason="the sdist has no benchmarks")

from benchmarks.study import cells, crossed, recorded, tables
from benchmarks.study.recorded import Recorded
from benchmarks.study.store import Lines

DOCUMENTS = [Path(__file__).parents[1] / "docs" / name for name in tables.DOCUMENTS]
QUICK = ("lite0-composites", "lite2-composites", "lite0-grid", "lite0-sanity", "resnet8-sanity", "frameworks")


class TestTables:
    @pytest.mark.parametrize("name", QUICK)
    def test_one_is_made_of_its_values(self, name: str) -> None:
        assert self.in_the_document(name) == "\n".join(tables.TABLES[name]()).strip()

    @pytest.mark.slow
    def test_all_are(self) -> None:
        for document in DOCUMENTS:
            text = document.read_text(encoding="utf-8")
            assert tables.written(text) == text

    def test_every_one_is_in_a_document(self) -> None:
        marked = [name for document in DOCUMENTS for name in re.findall(r"<!-- ([\w-]+) -->\n", document.read_text())]
        assert set(marked) >= set(tables.TABLES)

    def test_values_are_small(self) -> None:
        for path in recorded.FOLDER.iterdir():
            assert path.stat().st_size < 300_000, path.name

    @staticmethod
    def in_the_document(name: str) -> str:
        text = DOCUMENTS[0].read_text(encoding="utf-8")
        (found,) = re.findall(rf"<!-- {name} -->\n(.*?)<!-- end -->", text, flags=re.DOTALL)
        return str(found).strip()


def hand_made() -> Recorded:
    """Ten images, a subject that is better than one rival on all of them and than another on half."""
    subject, first = np.full(10, 0.6), np.full(10, 0.5)
    second = np.where(np.arange(10) % 2, 0.7, 0.5)
    values = np.stack([subject, first, second], axis=1)[..., None]
    return Recorded(tuple("abcdefghij"), ("ours", "grad-cam", "score-cam"), ("insertion",), values)


class TestStatistics:
    def test_differences_and_holms_p(self) -> None:
        found = cells.against(hand_made(), "ours", ("grad-cam", "score-cam"), ("insertion",))
        clear, p = found["grad-cam", "insertion"]
        assert clear.difference.mean == pytest.approx(0.1)
        assert (clear.better, clear.equal, clear.worse) == (10, 0, 0)
        assert p == pytest.approx(2 * 2 / 2**10)  # all signs alike, and the smaller one of two p-values
        even, p = found["score-cam", "insertion"]
        assert even.difference.mean == pytest.approx(0)
        assert (even.better, even.worse, p) == (5, 5, 1)

    def test_what_is_clear_is_in_bold(self) -> None:
        lines = list(cells.versus(hand_made(), ["insertion"], "ours"))
        assert any(line.startswith("| grad-cam | **+0.100** (+0.100 to +0.100; p 0.004)") for line in lines)
        assert any(line.startswith("| score-cam | +0.000 ") for line in lines) or any(
            "| score-cam | -0.000 " in line for line in lines
        )

    def test_adcc_is_of_the_images_that_have_all_terms(self) -> None:
        values = np.array([[[0.5, 0.25]], [[0.5, 0.25]]])
        found = Recorded(("a", "b"), ("ours",), ("average-drop", "complexity"), values)
        again = Recorded(("b",), ("ours",), ("coherency",), np.array([[[1.0]]]))
        joined = tables.with_adcc(found, again)
        assert np.isnan(joined.of("ours", "adcc")[0])
        assert joined.of("ours", "adcc")[1] == pytest.approx(3 / (1 / 1 + 1 / 0.75 + 1 / 0.5))


def of_pairs() -> Recorded:
    """Eight images of two gradient methods and a region method: the best pair of the even ones is none on the odd."""
    names = ("grad-cam alone", "layer-cam alone", "score-cam alone", "grad-cam + score-cam", "layer-cam + score-cam")
    values = np.tile(np.asarray([0.1, 0.2, 0.3, 0.5, 0.4]), (8, 1))
    values[::2, 4], values[1::2, 4] = 0.9, 0.45
    return Recorded(tuple("abcdefgh"), names, ("insertion",), values[..., None])


class TestPairs:
    @pytest.fixture(autouse=True)
    def recorded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(recorded, "read", lambda part: of_pairs())

    def test_each_has_its_row_and_column(self) -> None:
        assert [line for line in crossed.crossed("resnet8-pairs", ["insertion"]) if line] == [
            "| Insertion (↑) | score-cam | alone |",
            "| --- | --- | --- |",
            "| grad-cam | 0.500 | 0.100 |",
            "| layer-cam | **0.675** | 0.200 |",
            "| alone | 0.300 |  |",
            "n: 8.",
        ]

    def test_the_best_is_reported_on_images_it_was_not_chosen_on(self) -> None:
        lines = list(crossed.best_pairs(["resnet8-pairs"], ["insertion"]))
        first, second = (line for line in lines if line.startswith("| resnet8"))
        assert first.startswith("| resnet8 | Insertion | layer-cam + score-cam | grad-cam + score-cam | -0.050 ")
        assert second.startswith("| resnet8 | Insertion | layer-cam + score-cam | score-cam alone | **+0.150** ")


class TestRecorded:
    def test_values_come_back(self, tmp_path: Path) -> None:
        rows = [{"name": name, "values": {"ours": {"drop": value}}} for name, value in (("b", 0.12345), ("a", None))]
        recorded.write(tmp_path / "part.npz", recorded.of_rows(rows))
        found = recorded.read("part", tmp_path)
        assert found.names == ("a", "b")
        assert found.of("ours", "drop")[1] == pytest.approx(0.1234, abs=1e-4)
        assert np.isnan(found.of("ours", "drop")[0])

    def test_one_too_large_is_refused(self, tmp_path: Path) -> None:
        rows = [{"name": "a", "values": {"ours": {"drop": 4.0}}}]
        with pytest.raises(ValueError, match="Expected values below"):
            recorded.write(tmp_path / "part.npz", recorded.of_rows(rows))


class TestResuming:
    def test_a_line_that_was_cut_off_is_measured_again(self, tmp_path: Path) -> None:
        lines = Lines(tmp_path / "part.jsonl")
        lines.add({"name": "a", "values": {}})
        with lines.path.open("a") as file:
            file.write('{"name": "b", "val')
        assert lines.known() == {"a"}
        lines.add({"name": "b", "values": {}})
        assert [json.loads(line)["name"] for line in lines.path.read_text().splitlines()] == ["a", "b"]

    def test_what_is_done_is_not_done_again(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        libraries.framework("torch")
        from benchmarks.study import parts
        from benchmarks.study.__main__ import measure

        done: list[str] = []

        def items(given: Any) -> Iterator[parts.Item]:
            for name in ("a", "b", "c"):
                yield parts.Item(name, lambda name=name: done.append(name) or {"ours": {"drop": 0.5}})

        monkeypatch.setitem(parts.PARTS, "made up", items)
        measure("made up", None, tmp_path, limit=2)
        measure("made up", None, tmp_path)
        assert done == ["a", "b", "c"]


@pytest.fixture
def stamps(tmp_path: Path) -> tuple[Path, Path]:
    """A red disc and a blue square, each with an empty border."""
    found = []
    for name, colour in (("disc", (255, 0, 0)), ("square", (0, 0, 255))):
        rows, columns = np.mgrid[:60, :80]
        inside = (
            (rows - 30) ** 2 + (columns - 40) ** 2 < 400 if name == "disc" else (abs(rows - 30) < 20) & (columns > 40)
        )
        pixels = np.zeros((60, 80, 4), dtype=np.uint8)
        pixels[inside] = (*colour, 255)
        found.append(tmp_path / f"{name}.png")
        Image.fromarray(pixels).save(found[-1])
    return found[0], found[1]


class TestComposites:
    def test_masks_are_where_the_cut_outs_are(self, stamps: tuple[Path, Path]) -> None:
        libraries.framework("torch")
        from benchmarks.study.composites import SHARE, SIDE, compose

        for seed in range(4):
            made = compose("name", Image.new("RGB", (640, 480), (0, 255, 0)), stamps, 7, seed)
            pixels = np.asarray(made.picture).astype(int)
            assert (made.explained == (pixels[..., 0] > 127)).all()
            assert (made.distractor == (pixels[..., 2] > 127)).all()
            assert not (made.explained & made.distractor).any()
            longer = max(np.ptp(each) + 1 for each in np.nonzero(made.distractor))
            assert longer == pytest.approx(SHARE * SIDE, abs=2)

    def test_maps_are_held_against_both(self) -> None:
        libraries.framework("torch")
        from benchmarks.study.composites import localised

        values = np.array([[0.5, 1.0, 0.5, 0.0]], dtype=np.float32)
        explained, distractor = np.array([[1, 1, 0, 0]], dtype=bool), np.array([[0, 0, 1, 0]], dtype=bool)
        found = localised(values, explained, distractor)
        assert found == {
            "pointing game": 1.0,
            "energy in the mask": pytest.approx(0.75),
            "share of the right object": pytest.approx(0.75),
        }


class TestMaps:
    def test_forms_are_the_librarys(self) -> None:
        """Channel scores that are run once give the maps that explainers give."""
        torch = libraries.framework("torch")
        from benchmarks.study.methods import METHODS
        from benchmarks.study.networks import Network
        from benchmarks.study.views import View
        from fusioncam_core import FusionCAM, GroupCAM, ScoreCAM, UnionCAM

        torch.manual_seed(0)
        body = torch.nn.Conv2d(3, 6, 3, padding=1), torch.nn.ReLU(), torch.nn.MaxPool2d(4)
        head = torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(6, 3)
        model = torch.nn.Sequential(*body, *head).eval()
        image = np.random.default_rng(0).random((3, 24, 24), dtype=np.float32)
        view = View(Network("tiny", model, (3, 24, 24), erased=0.2), image, layer="2")
        own = {
            "score-cam": ScoreCAM(model, "2", baseline=0.2),
            "group-cam": GroupCAM(model, "2", percentile=0, blur=25),
            "union-cam": UnionCAM(model, "2", baseline=0.2),
            "fusion-cam": FusionCAM(model, "2", baseline=0.2),
            "fusion-cam calibrated": FusionCAM(model, "2", variant="calibrated", baseline=0.2),
            "fusion-cam united": FusionCAM(model, "2", variant="united", baseline=0.2),
        }
        for name, explainer in own.items():
            expected = explainer(image[None]).numpy().maps[0]
            assert np.abs(METHODS[name](view)[0, 0] - expected).max() < 1e-5, name

    def test_a_map_of_held_complexity(self) -> None:
        libraries.framework("torch")
        from benchmarks.study.measuring import at_complexity

        values = np.linspace(0, 1, 101, dtype=np.float32)[None]
        held = at_complexity(values)
        assert held.mean() == pytest.approx(0.25, abs=1e-4)
        assert (np.diff(held) >= 0).all()
        assert np.isnan(at_complexity(np.ones((2, 2)))).all(), "no power darkens a map of ones"

    def test_what_the_repository_keeps_goes_on(self, tmp_path: Path) -> None:
        rows = [{"name": name, "values": {"ours": {"drop": 0.25}, "theirs": {}}} for name in ("a", "b")]
        recorded.write(tmp_path / "part.npz", recorded.of_rows(rows))
        lines = Lines(tmp_path / "out" / "part.jsonl")
        recorded.restore(lines, "part", tmp_path)
        assert list(lines.rows()) == rows
        lines.add({"name": "c", "values": {}})
        recorded.restore(lines, "part", tmp_path)
        recorded.restore(Lines(tmp_path / "out" / "other.jsonl"), "other", tmp_path)
        assert lines.known() == {"a", "b", "c"}, "once only"
        assert not (tmp_path / "out" / "other.jsonl").exists()
