"""Memory of an evaluation grows by what its answer is: some bytes a value, and a sentence for what is missing."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from libraries import EVERYTHING

pytest.importorskip("torch")
pytest.importorskip("filelock")

IMAGES = 100_000 if EVERYTHING else 4_000
FIRST, ELSE = 1_000, 8

VALUES, CURVES, NAME = 2 * 3, 2, 70
"""Of an image: values of two methods by three metrics, those with a curve, and bytes of its name among others."""

POINTS, LOADED = 9, 2**24
"""Of a curve; bytes of all curves together that are held in the end, and not more."""

DRIVER = """
import json, sys, time
import numpy as np, torch
from fusioncam_core import evaluate
from fusioncam_core.metrics import AverageDrop, Complexity, Deletion

folder, images, damaged = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "damaged"
torch.manual_seed(0)
layers = [torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()]
model = torch.nn.Sequential(*layers, torch.nn.Linear(4, 5)).eval()
grown = {}

def resident():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) / 1024

class Images:
    dataset = range(images)

    def __iter__(self):
        for start in range(0, images, 100):
            if start % 1000 == 0:
                grown[start] = resident()
            made = np.random.default_rng(start).random((100, 1, 28, 28), dtype=np.float32)
            yield made * np.float32("nan") if damaged else made

begun = time.monotonic()
found = evaluate(
    model, Images(), ["grad-cam", "grad-cam++"], [AverageDrop(), Complexity(), Deletion(steps=8)], 0,
    layer="1", out=folder, batch_size=50, progress=False,
)
grown[images] = resident()
seconds = time.monotonic() - begun
print(json.dumps([list(grown.items()), seconds, list(found.values.shape), len(found.problems), len(found.curves)]))
"""


class Grown(NamedTuple):
    """MB after the first thousand, while images come and with the answer; what the answer has."""

    coming: float
    whole: float
    seconds: float
    shape: list[int]
    problems: int
    curves: int


def grown(folder: Path, images: int, kind: str) -> Grown:
    command = [sys.executable, "-c", DRIVER, str(folder), str(images), kind]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800, check=True)
    by_place, *rest = json.loads(done.stdout)
    resident = dict(by_place)
    later = max(megabytes for place, megabytes in resident.items() if FIRST <= place < images)
    return Grown(later - resident[FIRST], resident[images] - resident[FIRST], *rest)


needs_proc = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="resident memory is read from Linux's files"
)


@needs_proc
def test_memory_is_that_of_the_values(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    """Once while they come, and once more where they are put together; also if all of them were there already."""
    own = 8 * (VALUES + CURVES + 2)
    for run in ("computed", "there already"):
        found = grown(tmp_path / "out", IMAGES, "whole")
        assert (found.shape, found.problems, found.curves) == ([2, 3, IMAGES], 0, 1), run
        record_property(f"{run}: MB after the first thousand", round(found.coming, 1))
        record_property(f"{run}: with the answer", round(found.whole, 1))
        record_property(f"{run}: seconds", round(found.seconds, 1))
        assert found.coming < ELSE + IMAGES * (own + NAME) / 1e6, run
        held = min(8 * CURVES * POINTS * IMAGES, LOADED)
        assert found.whole < ELSE + (IMAGES * (2 * own + NAME) + held) / 1e6, run
    (tmp_path / "out" / "values.jsonl").unlink()


@needs_proc
def test_what_is_missing_takes_a_sentence(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    """Images with NaN, of which the methods say so one by one."""
    images = max(IMAGES // 4, 2 * FIRST)
    found = grown(tmp_path / "out", images, "damaged")
    assert (found.shape, found.problems, found.curves) == ([2, 3, images], 2 * images, 0)
    record_property("MB after the first thousand", round(found.coming, 1))
    record_property("with the answer", round(found.whole, 1))
    assert found.whole < ELSE + 2 * images * 600 / 1e6
