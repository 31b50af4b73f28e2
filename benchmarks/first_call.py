"""How long the first explanation by a model takes, and later ones, in a process of its own: frameworks keep programs.

    python -m benchmarks.first_call jax --budget 32

Beside both is what the framework alone needs to make the network's programs, without which there is no first call: on
JAX one for a single image and one for a batch of masked ones, on TensorFlow one for both.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np

from benchmarks.subjects import SUBJECTS, Subject
from fusioncam_core import FusionCAM

LATER = 7

PROGRAMS = {"torch": (), "tensorflow": (4,), "jax": (1, 4)}
"""Batches for each of which a framework makes a program of the network, at least."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints JSON: seconds of the first call, and of later ones in the median, by the clock and of the processor; and
    how many times a later one the programs alone and such a call take.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.first_call")
    parser.add_argument("framework", choices=sorted(SUBJECTS))
    parser.add_argument("--budget", type=int, default=32)
    options = parser.parse_args(arguments)
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    subject = SUBJECTS[options.framework]()
    first = timed(lambda: FusionCAM(subject.model, budget=options.budget)(subject.image).numpy())
    cam = FusionCAM(subject.model, budget=options.budget)
    later = [timed(lambda: cam(subject.image).numpy()) for _ in range(LATER)]
    clock, processor = (statistics.median(each) for each in zip(*later[1:], strict=True))
    found = {"first": first[0], "later": clock, "first_processor": first[1], "later_processor": processor}
    programs = sum(map(functools.partial(made_ready, subject), PROGRAMS[options.framework]))
    ratios = {"ratio": first[0] / clock, "programs": programs, "least_ratio": 1 + programs / clock}
    print(json.dumps({"framework": options.framework, "budget": options.budget, **found, **ratios}))
    return 0


def made_ready(subject: Subject, size: int) -> float:
    """Seconds that the first batch of a size takes more than later ones, by the network alone in its framework."""
    (make,) = subject.ways.values()
    run = make(np.concatenate([subject.image] * size))
    first, *later = (timed(run)[0] for _ in range(1 + LATER))
    return first - statistics.median(later)


def timed(call: Callable[[], object]) -> tuple[float, float]:
    """Seconds by the clock, and of the processor."""
    clock, processor = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - clock, time.process_time() - processor


if __name__ == "__main__":
    sys.exit(main())
