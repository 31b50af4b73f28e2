"""An evaluation that is killed with SIGKILL goes on where it was: the same values, none of them computed twice."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from kills import campaign

from libraries import EVERYTHING

pytest.importorskip("torch")
pytest.importorskip("filelock")

DRIVER = Path(__file__).with_name("killed_evaluation.py")
KILLS = 30 if EVERYTHING else 2
IMAGES, METHODS, METRICS, BATCH = 12, 2, 3, 2
VALUES = IMAGES * METHODS * METRICS


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes cannot be forked and killed here")
def test_kills_at_random_times(tmp_path: Path) -> None:
    found, seed = campaign(DRIVER, tmp_path, KILLS)
    assert np.isfinite(found["expected"]).all()
    assert np.size(found["expected"]) == VALUES
    for number, kill in enumerate(found["kills"]):
        where = f"kill {number} of seed {seed}, {kill['kept']} lines kept"
        np.testing.assert_allclose(kill["values"], found["expected"], rtol=1e-5, atol=1e-6, err_msg=where)
        assert kill["repeated"] == 0, where
        # What was under way: one metric of one batch, computed and not on disk yet.
        assert VALUES <= kill["computed"] <= VALUES + BATCH, where
    if EVERYTHING:
        assert sum(0 < kill["kept"] < VALUES for kill in found["kills"]) > KILLS // 3, "kills that hit the work itself"
