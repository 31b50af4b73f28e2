"""What PyTorch has once for the whole process, and is otherwise while one of our sessions needs it."""

from __future__ import annotations

import contextlib
import functools
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.utils.checkpoint

Undo = Callable[[], object]


class Switch:
    """Turned when the first one needs it, and back when the last one is done with it.

    Args:
        turn: does it, given a question (who needs it in the calling thread, None if nobody does) and a list to which it
            adds each step back before or with the step.
    """

    def __init__(self, turn: Callable[[Callable[[], Any], list[Undo]], None]):
        self._turn = turn
        self._lock = threading.RLock()
        self._threads: dict[object, int] = {}
        self._steps_back: list[Undo] = []

    def need(self, who: object) -> None:
        """Turn it; `done(who)` is called in any case."""
        with self._lock:
            self._threads[who] = threading.get_ident()
            if not self._steps_back:
                self._turn(self._who_is_here, self._steps_back)

    def done(self, who: object) -> None:
        """Turn it back, unless somebody else needs it; may be called twice."""
        try:
            with self._lock:
                self._threads.pop(who, None)
                while self._steps_back and not self._threads:
                    self._steps_back[-1]()
                    self._steps_back.pop()
        finally:
            self._let_go()

    def _let_go(self) -> None:
        """An interrupt on the way out of a `with` leaves the lock with its thread, and other threads would wait."""
        with contextlib.suppress(RuntimeError):  # which a lock raises that is not the thread's, or no longer
            while True:
                self._lock.release()

    def _who_is_here(self) -> object | None:
        here = threading.get_ident()
        return next((who for who, thread in list(self._threads.items()) if thread == here), None)


def _put(owner: Any, name: str, value: Any, steps_back: list[Undo]) -> None:
    steps_back.append(functools.partial(setattr, owner, name, getattr(owner, name)))
    setattr(owner, name, value)


def _without_saving(mine: Callable[[], Any], steps_back: list[Undo]) -> None:
    """Checkpoints run what they are given, and inference mode is no_grad, for the threads that need it.

    Checkpointing saves memory by running a part again in the backward pass. A graph that begins inside of it, at an
    explained layer, is cut off by the reentrant kind, and confuses the other, which counts what it kept. Tensors that
    inference mode makes can be in no graph at all.
    """
    module: Any = torch.utils.checkpoint
    function, generator = module.CheckpointFunction, module._checkpoint_without_reentrant_generator
    mode = torch._C._InferenceMode

    class Plain(function):  # type: ignore[misc]
        @classmethod
        def apply(cls, run: Callable[..., Any], keep_random: bool, *arguments: Any) -> Any:
            return run(*arguments) if mine() else function.apply(run, keep_random, *arguments)

    def nothing(*arguments: Any, **keywords: Any) -> Iterator[None]:
        return _nothing() if mine() else generator(*arguments, **keywords)

    def without_gradients(inference: bool) -> Any:
        return torch.no_grad() if inference and mine() else mode(inference)

    _put(module, "CheckpointFunction", Plain, steps_back)
    _put(module, "_checkpoint_without_reentrant_generator", nothing, steps_back)
    _put(torch._C, "_InferenceMode", without_gradients, steps_back)


def _nothing() -> Iterator[None]:
    yield


class Gradients:
    """What a model's own no_grad does to a graph that has begun.

    Args:
        stay_on: whether it does nothing, and the graph goes on.

    Attributes:
        went_off: whether the model switched gradients off, or would have.
    """

    def __init__(self, *, stay_on: bool):
        self.stay_on = stay_on
        self.went_off = False


def _gradients_are_watched(mine: Callable[[], Any], steps_back: list[Undo]) -> None:
    switch = torch._C._set_grad_enabled

    def turned(mode: bool) -> None:
        gradients: Gradients | None = mine()
        if gradients is not None and not mode and torch.is_grad_enabled():
            gradients.went_off = True
            mode = gradients.stay_on
        switch(mode)

    _put(torch._C, "_set_grad_enabled", turned, steps_back)


def _without_compiling(_: Callable[[], Any], steps_back: list[Undo]) -> None:
    """What is compiled runs as it was written: programs that exist do not know of hooks that came later."""
    steps_back.append(functools.partial(torch.compiler.set_stance("force_eager").__exit__, None, None, None))


def _without_cudnn(_: Callable[[], Any], steps_back: list[Undo]) -> None:
    """PyTorch's own operations in the place of cuDNN's."""
    _put(torch.backends.cudnn, "enabled", False, steps_back)


NO_CUDNN = Switch(_without_cudnn)
GRADIENTS = Switch(_gradients_are_watched)
WHOLE_GRAPHS = Switch(_without_saving)
EAGER = Switch(_without_compiling)


def is_compiled(found: Callable[[], list[torch.nn.Module]]) -> bool:
    """Whether `torch.compile` made something of one of the modules, its forward, or another method of its class.

    Args:
        found: finds the modules, where anything was compiled at all.
    """
    if "torch._dynamo" not in sys.modules:
        return False
    modules = found()
    kinds = {kind for each in {type(module) for module in modules} for kind in each.__mro__}
    attributes = (value for each in (*modules, *kinds) for value in vars(each).values())
    return any(getattr(module, "_compiled_call_impl", None) is not None for module in modules) or any(
        hasattr(value, "_torchdynamo_orig_callable") for value in attributes
    )
