"""docs/troubleshooting.md quotes our messages: what it quotes is said somewhere, and no class of ours is missing."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

from fusioncam_core import errors

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
ENTRIES = re.findall(r"^- \*\*`(.+?)`\*\* \(`(\w+)`\)\\\n  \S", PAGE, flags=re.M)
GAP = "…"


def template(node: ast.AST) -> str | None:
    """A text in the source, with a gap for everything that is filled in."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        return "".join(each.value if isinstance(each, ast.Constant) else GAP for each in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return f"{template(node.left) or GAP}{template(node.right) or GAP}"
    return None


def texts_in(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        text = template(node)
        if text is not None:
            yield re.sub(f"{GAP}+", GAP, " ".join(text.split()))


@cache
def texts() -> tuple[str, ...]:
    """All texts of the package and the backends, wherever they are installed; nothing is imported for it."""
    specs = [find_spec(f"fusioncam_{name}") for name in ("core", "jax", "keras", "tensorflow", "torch")]
    folders = [Path(folder) for spec in specs if spec is not None for folder in spec.submodule_search_locations or ()]
    files = [path for folder in folders for path in folder.rglob("*.py")]
    return tuple(text for path in files for text in texts_in(path.read_text(encoding="utf-8")))


def is_said(quoted: str, said: str) -> bool:
    """Whether a text has the quotation in it; a gap in the quotation is one or more words of the text."""
    pieces = [piece.strip() for piece in quoted.split(GAP)]
    if not any(pieces) or not all(piece in said for piece in pieces):
        return False
    return re.search(".+?".join(map(re.escape, pieces)), said) is not None


def test_the_page_has_many_entries() -> None:
    assert len(ENTRIES) >= 70
    assert len({quoted for quoted, _ in ENTRIES}) == len(ENTRIES)


@pytest.mark.parametrize(("quoted", "kind"), ENTRIES)
def test_what_is_quoted_is_said(quoted: str, kind: str) -> None:
    assert any(is_said(quoted, said) for said in texts()), quoted
    assert issubclass(getattr(errors, kind), errors.FusionCamError | errors.FusionCamWarning)


def test_every_entry_is_found() -> None:
    """A line that begins like one, and is written in another way or says nothing behind, would not be checked."""
    assert len(re.findall(r"^\W*\*\*`", PAGE, flags=re.M)) == len(ENTRIES)


def test_every_class_is_named() -> None:
    ours = {
        name
        for name, each in vars(errors).items()
        if inspect.isclass(each) and issubclass(each, errors.FusionCamError | errors.FusionCamWarning)
    }
    _, _, listed = PAGE.partition("## Classes of errors and warnings")
    assert ours <= set(re.findall(r"`(\w+)`", listed))


def test_what_is_not_said_is_told() -> None:
    """The check itself: with another word, and with a gap where the source has none, nothing is found."""
    assert is_said("has no layer …", "… has no layer …. Nearest names: …")
    assert not is_said("has no stratum …", "… has no layer …. Nearest names: …")
    assert not is_said("…", "anything")
    assert texts_in('raise E(f"a {b}"\n  " c")').__next__() == "a … c"


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((guides/[^)#]+)", PAGE):
        assert (ROOT / "docs" / target).is_file(), target
