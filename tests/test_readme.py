"""The Python of the README runs as it stands there, and what it names is there."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from code_blocks import Block, python_blocks, run
from fusioncam_core.cli import main
from fusioncam_core.metrics import METRICS

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
TEXT = README.read_text(encoding="utf-8")
METHODS = ROOT / "docs" / "methods.md"

BLOCKS = python_blocks(README)
NEEDED = {"torch": "torch", "examples.zoo.efficientnet_lite0_torch": "efficientnet_lite_pytorch"}


def test_there_are_blocks_to_run() -> None:
    assert len(BLOCKS) == 2


def test_it_is_a_page() -> None:
    assert len(TEXT.splitlines()) <= 150


def test_links_lead_somewhere() -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", TEXT)
    # The tests of a wheel lie without what is beside the README.
    inside = [target for target in targets if target.startswith("docs/")]
    assert len(inside) >= 15
    assert [target for target in inside if not (ROOT / target).exists()] == []


def test_commands_are_targets_of_the_makefile() -> None:
    makefile = ROOT / "Makefile"
    if not makefile.exists():
        pytest.skip("the tests of a wheel lie without it")
    named = set(re.findall(r"\bmake ([a-z]+)", TEXT))
    assert named == {"demo", "test", "docs", "study"}
    assert named <= set(re.findall(r"^([a-z-]+):", makefile.read_text(encoding="utf-8"), flags=re.MULTILINE))


def test_numbers_of_methods_and_metrics() -> None:
    table = METHODS.read_text(encoding="utf-8").partition("method             family")[2].partition("```")[0]
    assert len(table.splitlines()[1:]) == 16
    assert "sixteen kinds of class activation maps" in TEXT
    own = [metric for metric in METRICS.values() if metric.__module__.startswith("fusioncam_core.")]
    assert f"| {len(own)} metrics," in TEXT


def test_table_of_methods_is_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    """Up to the width of names: the command lists a plugin's methods, and new ones, as well."""
    assert main(["methods"]) == 0
    printed = {tuple(line.split()) for line in capsys.readouterr().out.splitlines()}
    table = METHODS.read_text(encoding="utf-8").partition("method             family")[2].partition("```")[0]
    assert {tuple(line.split()) for line in table.splitlines()[1:]} <= printed


@pytest.mark.parametrize("block", BLOCKS, ids=[f"line-{block.line}" for block in BLOCKS])
def test_block(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, package in NEEDED.items():
        used = f"import {name}" in block.code or f"from {name} " in block.code
        if used and importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    monkeypatch.chdir(tmp_path)
    run(README, [block])
