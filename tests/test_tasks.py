"""The pages of docs/tasks run from their first cell to their last, and assert what their text says of the numbers.

Each runs in a process of its own, as it does when the documentation is built.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from code_blocks import Block

ROOT = Path(__file__).parent.parent
TASKS = sorted((ROOT / "docs" / "tasks").glob("*.md"))
GALLERY = ROOT / "docs" / "gallery.md"
FRAMEWORKS = {"chest_films": ("tensorflow", "keras"), "leaves": ("flax",), "surface_defects": ("torch",)}

CELL = re.compile(r"^```\{code-cell\} python\n((?::[^\n]*\n)*)(.*?)^```", flags=re.DOTALL | re.MULTILINE)

HEADER = """---
file_format: mystnb
kernelspec:
  name: python3
  display_name: Python 3
---

# """

FIXTURE_PAGE = (
    HEADER
    + "Page\n\n```{code-cell} python\n:tags: [remove-cell]\n\nx = 1\n```\n\n```{code-cell} python\nassert x == 2\n```\n"
)


def cells(page: Path) -> list[Block]:
    """The code cells of a page, without their tags."""
    text = page.read_text(encoding="utf-8")
    return [Block(text.count("\n", 0, found.start(2)) + 1, found[2]) for found in CELL.finditer(text)]


def run(page: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """All cells as one program, whose errors have the page's lines; figures are made and not shown."""
    script = folder / "page.py"
    program = ""
    for cell in cells(page):
        program += "\n" * (cell.line - 1 - program.count("\n")) + cell.code
    script.write_text(program, encoding="utf-8")
    paths = os.pathsep.join([str(ROOT), str(ROOT / "backends")])
    quiet = {"MPLBACKEND": "Agg", "PYTHONPATH": paths + os.pathsep + os.environ.get("PYTHONPATH", "")}
    return subprocess.run(
        [sys.executable, str(script)],
        cwd=folder,
        env={**os.environ, **quiet},
        capture_output=True,
        text=True,
        timeout=900,
    )


def test_every_page_is_known() -> None:
    assert [page.stem for page in TASKS] == sorted(FRAMEWORKS)


@pytest.mark.parametrize("page", TASKS, ids=[page.stem for page in TASKS])
def test_a_page_is_a_notebook_that_asserts_what_it_says(page: Path) -> None:
    assert page.read_text(encoding="utf-8").startswith(HEADER)
    statements = [node for cell in cells(page) for node in ast.walk(ast.parse(cell.code))]
    assert sum(isinstance(node, ast.Assert) for node in statements) >= 5


@pytest.mark.slow
@pytest.mark.parametrize("page", TASKS, ids=[page.stem for page in TASKS])
def test_a_page_runs_and_its_claims_hold(page: Path, tmp_path: Path) -> None:
    for framework in FRAMEWORKS[page.stem]:
        pytest.importorskip(framework)
    done = run(page, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "n = " in done.stdout


def test_a_claim_that_does_not_hold_fails_with_the_line_of_the_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(FIXTURE_PAGE, encoding="utf-8")
    assert [cell.code for cell in cells(page)] == ["\nx = 1\n", "assert x == 2\n"]
    done = run(page, tmp_path)
    assert done.returncode == 1
    assert "line 17" in done.stderr
    assert "AssertionError" in done.stderr


class TestGallery:
    def test_its_pictures_are_there_and_small(self) -> None:
        linked = re.findall(r"!\[[^\]]*\]\((images/gallery/[^)]+)\)", GALLERY.read_text(encoding="utf-8"))
        pictures = {GALLERY.parent / each for each in linked}
        assert pictures == set((GALLERY.parent / "images" / "gallery").iterdir())
        assert sum(picture.stat().st_size for picture in pictures) < 600_000

    def test_its_table_has_a_row_for_each_method(self) -> None:
        from fusioncam_core.explainers.registry import EXPLAINERS, capabilities

        _, _, rest = GALLERY.read_text(encoding="utf-8").partition("<!-- numbers -->\n")
        table, _, _ = rest.partition("\n<!-- end -->")
        titles = [line.split(" | ")[0].removeprefix("| ") for line in table.splitlines()[2:]]
        ours = {name for name, each in EXPLAINERS.items() if each.__module__.startswith("fusioncam_core.")}
        assert titles[:-2] == [each.title for each in capabilities() if each.name in ours]
        assert len(titles) == 16 + 2

    def test_only_what_lies_between_the_marks_is_replaced(self) -> None:
        pytest.importorskip("torch")
        from examples.gallery import replaced

        page = "a\n<!-- numbers -->\nold\n<!-- end -->\nb\n<!-- end -->\n"
        assert replaced(page, "numbers", "new") == "a\n<!-- numbers -->\nnew\n<!-- end -->\nb\n<!-- end -->\n"
        with pytest.raises(ValueError, match="expected <!-- other -->"):
            replaced(page, "other", "new")
