"""Programs that run beside each other on a processor.

XLA lets the programs that one thread starts follow each other, each of them in several threads where its parts allow
that. Those of convolutions of one group a channel do not, by which EfficientNet-Lite0 kept one of two cores busy. So
long programs are started by turns from as many threads as there are cores. What they give are arrays like any other,
which wait until they are there.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax

from fusioncam_core.models.adapter import Execution
from fusioncam_core.models.threads import allowed
from fusioncam_jax.reach import outside

MOST = 4
"""So many at once at most: each has activations of its own in memory."""


class Lanes:
    """Threads that start programs by turns.

    Args:
        count: how many run long programs.
    """

    def __init__(self, count: int):
        self.count = count
        lanes = [ThreadPoolExecutor(1, f"fusioncam lane {number}") for number in range(count)]
        self._turns: Iterator[ThreadPoolExecutor] = itertools.cycle(lanes)
        self._behind = ThreadPoolExecutor(1, "fusioncam behind lanes")

    def start(self, program: Callable[..., Any], *arguments: Any) -> Any:
        """What a long program gives, which may not be there yet."""
        return next(self._turns).submit(program, *arguments).result()

    def start_behind(self, program: Callable[..., Any], *arguments: Any) -> Any:
        """What a short one gives that waits for a long one: what this thread starts next does not wait with it."""
        return self._behind.submit(program, *arguments).result()


_OF_PROCESS: list[Lanes | None] = []
"""Those of this process, once they are needed. One that is forked off has none of its parent's threads."""

if hasattr(os, "register_at_fork"):  # where processes fork
    os.register_at_fork(after_in_child=_OF_PROCESS.clear)


def by_turns(program: Any) -> Callable[..., Any]:
    """A long function of arrays that is compiled; on a processor with several cores its calls run beside each other.

    It is compiled here, for whatever the calling thread has set up, and only started elsewhere.
    """

    def run(*arguments: Any) -> Any:
        lanes = _lanes() if _may_start_elsewhere() else None
        return program(*arguments) if lanes is None else lanes.start(compiled(program, arguments), *arguments)

    return run


def behind(program: Any) -> Callable[..., Any]:
    """A short function of arrays that is compiled, which waits for long ones where nobody waits with it."""

    def run(*arguments: Any) -> Any:
        lanes = _lanes() if _OF_PROCESS and _may_start_elsewhere() and _waits(arguments) else None
        return program(*arguments) if lanes is None else lanes.start_behind(compiled(program, arguments), *arguments)

    return run


def several_lanes() -> bool:
    """Whether programs run beside each other."""
    return execution().beside > 1


def execution() -> Execution:
    """How JAX likes to work."""
    lanes = _lanes() if _on_one_processor() else None
    return Execution(fixed_shapes=True, beside=1 if lanes is None else lanes.count)


def compiled(program: Any, arguments: tuple[Any, ...]) -> Callable[..., Any]:
    """What a jitted function runs for these arguments: JAX keeps it, so that this takes a millisecond."""
    made: Callable[..., Any] = program.lower(*arguments).compile()
    return made


OF_THE_CALLER = ("jax_disable_jit", "jax_debug_nans", "jax_debug_infs")
"""What is looked at where a program is called, and not where it is compiled."""


def _may_start_elsewhere() -> bool:
    return outside() and not any(getattr(jax.config, name) for name in OF_THE_CALLER) and _on_one_processor()


def _on_one_processor() -> bool:
    """Programs of several devices wait for each other, in the order in which they were started."""
    return jax.default_backend() == "cpu" and jax.device_count() == 1


def _waits(arguments: tuple[Any, ...]) -> bool:
    arrays = (each for each in jax.tree.leaves(arguments) if isinstance(each, jax.Array))
    return any(hasattr(each, "is_ready") and not each.is_ready() for each in arrays)  # which arrays of keys lack


def _lanes() -> Lanes | None:
    """None where there is one core."""
    if not _OF_PROCESS:
        count = allowed(MOST)
        _OF_PROCESS.append(Lanes(count) if count > 1 else None)
    return _OF_PROCESS[0]
