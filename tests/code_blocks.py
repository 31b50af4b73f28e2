"""The Python of a document, run from its first block to its last as one program."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

_BLOCK = re.compile(r"^```(?:python|\{code-cell\} python)\n(.*?)^```", flags=re.DOTALL | re.MULTILINE)

_OPTIONS = re.compile(r"\A(?::.*\n)+")
"""Of a notebook's cell, such as `:tags: [remove-cell]`."""

_PROMISE = re.compile(r"^ *print\(.*\)  # (.*)$", flags=re.MULTILINE)


class Block(NamedTuple):
    """Some code, and the line of the document on which it begins."""

    line: int
    code: str


def python_blocks(document: Path) -> list[Block]:
    """The blocks of a Markdown file that are marked as Python, or as cells of a notebook in Python, in their order."""
    text = document.read_text(encoding="utf-8")
    return [Block(text.count("\n", 0, found.start(1)) + 1, _code(found[1])) for found in _BLOCK.finditer(text)]


def _code(block: str) -> str:
    """A block without its options, in whose place empty lines stand."""
    return _OPTIONS.sub(lambda options: "\n" * options[0].count("\n"), block)


def promises(blocks: list[Block]) -> list[str]:
    """What the blocks say that they print: the comments behind `print(...)`."""
    return [promise for block in blocks for promise in _PROMISE.findall(block.code)]


def run(document: Path, blocks: list[Block]) -> dict[str, Any]:
    """Run the blocks in one namespace, which is returned; an error's lines are those of the document."""
    namespace: dict[str, Any] = {"__name__": document.stem}
    for block in blocks:
        exec(compile("\n" * (block.line - 1) + block.code, str(document), "exec"), namespace)
    return namespace
