"""A job that is killed with SIGKILL goes on where it was: the same rows, at most a piece of them made twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from libraries import EVERYTHING

pytest.importorskip("torch")
pytest.importorskip("filelock")
pytest.importorskip("pyarrow")

DRIVER = Path(__file__).with_name("killed_job.py")
KILLS = 20 if EVERYTHING else 2
IMAGES, PIECE = 120, 8


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes cannot be forked and killed here")
def test_kills_at_random_times(tmp_path: Path) -> None:
    seed = time.time_ns()
    command = [sys.executable, str(DRIVER), str(tmp_path), str(KILLS), str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, f"seed {seed}: {done.stderr}"
    found = json.loads(done.stdout)
    assert found["rows"] == IMAGES * 2
    assert len(found["kills"]) == KILLS
    for number, kill in enumerate(found["kills"]):
        where = f"kill {number} of seed {seed}, after {kill['before']} files"
        assert kill["equal"], where
        assert kill["repeated"] <= PIECE, where
        assert kill["left"] == ["_job.json", "_job.lock"], where
    if EVERYTHING:
        assert sum(0 < kill["before"] < IMAGES // PIECE for kill in found["kills"]) > KILLS // 3, "hit the work itself"
