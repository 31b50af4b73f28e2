"""Runs all benchmarks, a process for each framework, and writes pytest-benchmark's JSON into a folder.

python -m benchmarks.run --out bench-out --frameworks torch tensorflow jax
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.subjects import SUBJECTS

HERE = Path(__file__).parent
STARTS = "start"
FILES = ("test_speed.py", "test_many.py", "test_peers.py", "test_options.py")


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the first exit status that is not 0, after everything has run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run")
    parser.add_argument("--out", type=Path, default=Path("bench-out"), metavar="DIR")
    parser.add_argument("--rounds", type=int, default=3, help="how often everything is timed (%(default)s)")
    parser.add_argument("--frameworks", nargs="+", choices=[STARTS, *SUBJECTS], default=[STARTS, *SUBJECTS])
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    statuses = [_run(name, options.out / f"{name}.json", options.rounds) for name in options.frameworks]
    return next((status for status in statuses if status), 0)


def _run(name: str, out: Path, rounds: int) -> int:
    tests = ["test_start.py"] if name == STARTS else FILES
    chosen = [] if name == STARTS else ["--framework", name, "--rounds", str(rounds)]
    command = [sys.executable, "-m", "pytest", "-q", *(str(HERE / file) for file in tests), *chosen]
    quiet = ["-p", "no:cacheprovider", "-o", "filterwarnings=default", "--benchmark-disable-gc"]
    return subprocess.run([*command, *quiet, f"--benchmark-json={out}"], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
