"""The guides: their Python runs, their pictures and pages are there, and their tables are filled in."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import code_blocks

ROOT = Path(__file__).parents[1]
GUIDES = sorted((ROOT / "docs" / "guides").glob("*.md"))


def test_there_are_guides() -> None:
    assert {each.stem for each in GUIDES} >= {"which_method", "which_layer", "is_my_map_right"}


@pytest.mark.parametrize("guide", GUIDES, ids=lambda guide: guide.stem)
class TestGuide:
    def test_its_python_runs(self, guide: Path) -> None:
        blocks = code_blocks.python_blocks(guide)
        if not blocks:
            pytest.skip("there is none in it")
        pytest.importorskip("torch")
        names = code_blocks.run(guide, blocks)
        if guide.stem == "which_layer":
            assert names["late"].layer == "4"
            assert names["small"].maps.shape == (2, 16, 16)
            assert names["early"].layer == "1"
            assert set(names["both"].parts) == {"1", "4"}
        if guide.stem == "is_my_map_right":
            assert names["check"].similarities.shape == (2, 2), "two layers, two images"

    def test_what_it_links_to_is_there(self, guide: Path) -> None:
        text = guide.read_text(encoding="utf-8")
        links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
        assert links
        for link in links:
            assert (guide.parent / link).is_file(), link

    def test_its_tables_are_filled_in(self, guide: Path) -> None:
        """By docs/guides/figures.py, between its marks."""
        text = guide.read_text(encoding="utf-8")
        marked = re.findall(r"<!-- (\w+) -->\n(.*?)<!-- end -->", text, flags=re.S)
        assert marked
        for name, lines in marked:
            assert lines.count("\n| ") >= 5, name
