"""How many threads of its own something may use beside the framework."""

from __future__ import annotations

import math
import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup/cpu.max")
"""Where Linux says how much of its processors a container may use: "200000 100000" are two of them."""


def allowed(wanted: int) -> int:
    """As many as the framework works with, and no more than the process may run at once.

    Args:
        wanted: the framework's threads.
    """
    return max(1, min(wanted, _processors(), _told(), _quota(CGROUP)))


def _processors() -> int:
    """On which this process may run."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _told() -> int:
    """By `OMP_NUM_THREADS`, which every framework respects that has no setting of its own."""
    told = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    return int(told) if told.isdigit() and int(told) > 0 else _processors()


def _quota(limits: Path) -> int:
    try:
        share, _, period = limits.read_text().partition(" ")
        return max(1, math.ceil(int(share) / int(period)))
    except (OSError, ValueError):  # none on other systems, and "max" where there is no limit
        return _processors()
