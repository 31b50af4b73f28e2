"""How long the first explanation by a model takes, and later ones, in a process of its own: frameworks keep programs.

python -m benchmarks.first_call jax --budget 32
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence

from benchmarks.subjects import SUBJECTS
from fusioncam_core import FusionCAM

LATER = 7


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints seconds of the first call, and of later ones in the median, by the clock and of the processor: JSON."""
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
    print(json.dumps({"framework": options.framework, "budget": options.budget, **found, "ratio": first[0] / clock}))
    return 0


def timed(call: Callable[[], object]) -> tuple[float, float]:
    """Seconds by the clock, and of the processor."""
    clock, processor = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - clock, time.process_time() - processor


if __name__ == "__main__":
    sys.exit(main())
