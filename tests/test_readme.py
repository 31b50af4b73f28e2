"""The Python of the README runs as it stands there."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from fusioncam_core.cli import main

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"

BLOCKS = re.findall(r"^```python\n(.*?)^```", README.read_text(), flags=re.DOTALL | re.MULTILINE)
NEEDED = {
    "torch": "torch",
    "PIL": "PIL",
    "examples.zoo.efficientnet_lite0_torch": "efficientnet_lite_pytorch",
    "keras": "tensorflow",
    "jax": "jax",
    "flax": "flax",
    "equinox": "equinox",
}


def test_there_are_blocks_to_run() -> None:
    assert len(BLOCKS) >= 7


def test_table_of_methods_is_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    """Up to the width of names: the command lists a plugin's methods, and new ones, as well."""
    assert main(["methods"]) == 0
    printed = {tuple(line.split()) for line in capsys.readouterr().out.splitlines()}
    table = README.read_text().partition("method             family")[2].partition("```")[0].splitlines()[1:]
    assert len(table) == 16
    assert {tuple(line.split()) for line in table} <= printed


@pytest.mark.parametrize("block", BLOCKS, ids=[f"block-{number}" for number in range(len(BLOCKS))])
def test_block(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, package in NEEDED.items():
        used = f"import {name}" in block or f"from {name} " in block
        if used and importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "README.md", "exec"), {"__name__": "readme"})
