"""How long users wait before anything happens, and how much memory Score-CAM takes: each in fresh processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.memory import LIBRARIES

COMMANDS = {
    "import fusioncam_core": ([sys.executable, "-c", "import fusioncam_core"], 0.3),
    "fusioncam --help": ([str(Path(sys.executable).with_name("fusioncam")), "--help"], 0.5),
}


@pytest.mark.parametrize("name", list(COMMANDS))
def test_start(benchmark: Any, name: str) -> None:
    command, bound = COMMANDS[name]
    # Installers compile the modules of a package; what is compiled here in the first round serves the others.
    own = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    benchmark.pedantic(
        lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=own), rounds=15, warmup_rounds=2
    )
    benchmark.extra_info |= {"command": name, "bound": bound}


@pytest.mark.parametrize("framework", ["jax", "tensorflow", "torch"])
def test_first_call(benchmark: Any, framework: str) -> None:
    """Of Fusion-CAM within 32 masks, over a later one."""
    command = [sys.executable, "-m", "benchmarks.first_call", framework]
    found: list[str] = []
    benchmark.pedantic(
        lambda: found.append(subprocess.run(command, check=True, capture_output=True, text=True).stdout), rounds=3
    )
    each = [json.loads(printed.splitlines()[-1]) for printed in found]
    middle = sorted(each, key=lambda one: one["ratio"])[len(each) // 2]
    benchmark.extra_info |= {**middle, "ratios": [one["ratio"] for one in each], "bound": 1.5}


@pytest.mark.parametrize("library", LIBRARIES)
def test_memory(benchmark: Any, library: str) -> None:
    command = [sys.executable, "-m", "benchmarks.memory", library]
    found: list[str] = []
    benchmark.pedantic(
        lambda: found.append(subprocess.run(command, check=True, capture_output=True, text=True).stdout), rounds=1
    )
    benchmark.extra_info |= {**json.loads(found[-1].splitlines()[-1]), "bound": 256}
