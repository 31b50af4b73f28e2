"""Memory of a job does not grow with the images."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from libraries import EVERYTHING

pytest.importorskip("torch")
pytest.importorskip("pyarrow")

IMAGES = 100_000 if EVERYTHING else 4_000
FIRST, GROWTH = 1_000, 50

DRIVER = """
import json, sys
import numpy as np, torch
from fusioncam_core import GradCAM

folder, images = sys.argv[1], int(sys.argv[2])
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
            yield np.random.default_rng(start).random((100, 1, 28, 28), dtype=np.float32)

GradCAM(model, batch_size=64).explain_to(folder, Images(), piece=1000, progress=False)
print(json.dumps(list(grown.items())))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="resident memory is read from Linux's files")
def test_memory_is_flat(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    command = [sys.executable, "-c", DRIVER, str(tmp_path / "out"), str(IMAGES)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True)
    grown = dict(json.loads(done.stdout))
    later = max(megabytes for place, megabytes in grown.items() if place >= FIRST)
    record_property("MB after the first thousand", round(later - grown[FIRST], 1))
    assert later - grown[FIRST] < GROWTH, grown
