"""A job that is killed with SIGKILL goes on where it was: the same rows, at most a piece of them made twice."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from kills import campaign

from libraries import EVERYTHING

pytest.importorskip("torch")
pytest.importorskip("filelock")
pytest.importorskip("pyarrow")

DRIVER = Path(__file__).with_name("killed_job.py")
KILLS = 20 if EVERYTHING else 2
IMAGES, PIECE = 120, 8


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes cannot be forked and killed here")
def test_kills_at_random_times(tmp_path: Path) -> None:
    found, seed = campaign(DRIVER, tmp_path, KILLS)
    assert found["rows"] == IMAGES * 2
    for number, kill in enumerate(found["kills"]):
        where = f"kill {number} of seed {seed}, after {kill['before']} files"
        assert kill["equal"], where
        assert kill["repeated"] <= PIECE, where
        assert kill["left"] == ["_job.json", "_job.lock"], where
    if EVERYTHING:
        assert sum(0 < kill["before"] < IMAGES // PIECE for kill in found["kills"]) > KILLS // 3, "hit the work itself"
