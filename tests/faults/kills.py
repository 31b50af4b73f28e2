"""Campaigns of kills: each has a driver of its own, which forks, kills, and writes what came of it as JSON."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any


def campaign(driver: Path, folder: Path, kills: int) -> tuple[dict[str, Any], int]:
    """What the driver found, and the seed of its random times."""
    seed = time.time_ns()
    command = [sys.executable, str(driver), str(folder), str(kills), str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, f"seed {seed}: {done.stderr}"
    found: dict[str, Any] = json.loads(done.stdout)
    assert len(found["kills"]) == kills
    return found, seed
