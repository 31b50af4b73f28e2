"""A job on Ray, a worker of which is killed, and one that is killed with its cluster: the rows of one process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("ray")
pytest.importorskip("torch")
pytest.importorskip("pyarrow")

DRIVER = Path(__file__).with_name("killed_ray.py")
IMAGES, PIECE = 120, 8


@pytest.mark.slow
def test_kills(tmp_path: Path) -> None:
    command = [sys.executable, str(DRIVER), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout[done.stdout.index('{"worker"') :])
    for name in ("worker", "driver"):
        assert found[name]["equal"], name
        assert found[name]["left"] == ["_job.json", "_job.lock"], name
    # Beside the images each: the first piece, by which a worker finds out how they run; and what was begun at the kill.
    assert IMAGES <= found["worker"]["explained"] - PIECE <= IMAGES + PIECE + PIECE
    assert 3 <= found["driver"]["before"] < IMAGES // PIECE
    assert found["driver"]["explained"] - found["driver"]["seen"] == IMAGES - found["driver"]["before"] * PIECE
