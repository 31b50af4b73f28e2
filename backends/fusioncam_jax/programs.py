"""Compiled functions of a model's parameters, which keep nothing alive but what they are likely to run with again."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Iterator
from typing import Any

import jax

from fusioncam_core.models.structure import ByForm
from fusioncam_jax.lanes import behind, by_turns
from fusioncam_jax.quick import ONCE, quickly


class Program:
    """A function of parameters and of structures of arrays, compiled for each form and shape of these.

    JAX holds a compiled function weakly, but static arguments and the structures of pytrees for as long as the process
    lives, and a structure may refer to the model (the graph of an NNX module, the static fields of an Equinox one). So
    JAX is given the parameters' arrays; their structure stays with the function.

    Args:
        function: of the parameters and of structures.
        once: whether it runs once or twice for a shape, so that compiling it takes longer than running it.
        short: whether it takes little beside a pass of the network, behind which it waits.
        structures: for so many of the parameters it is kept at once.
    """

    def __init__(self, function: Callable[..., Any], *, once: bool = False, short: bool = False, structures: int = 1):
        self._function = function
        self._structures = structures
        started = behind if short else by_turns
        self._compiler: Callable[..., Any] = lambda function: started(jax.jit(function))
        if once:
            self._compiler = functools.partial(quickly, options=ONCE, started=started)
        self._compiled: list[tuple[Any, ByForm]] = []

    def __call__(self, parameters: Any, *arguments: Any) -> Any:
        leaves, structure = jax.tree.flatten(parameters)
        compiled = next((each for own, each in self._compiled if own == structure), None)
        if compiled is None:
            compiled = ByForm(self._compiler, of_leaves(self._function, structure), leading=1)
            self._compiled = [*self._compiled, (structure, compiled)][-self._structures :]
        return compiled(leaves, *arguments)


def of_leaves(function: Callable[..., Any], structure: Any) -> Callable[..., Any]:
    """The function of a pytree's leaves in place of the pytree of that structure."""
    return lambda leaves, *arguments: function(structure.unflatten(leaves), *arguments)


class Programs:
    """The latest program of each kind: a new score takes the place of the one before it, and what that one held."""

    def __init__(self) -> None:
        self._latest: dict[Hashable, tuple[Any, Program]] = {}

    def of(self, kind: Hashable, key: Any, make: Callable[[], Callable[..., Any]], **options: Any) -> Program:
        """The program of that kind for the key, of the function that `make` gives if the latest one was for another."""
        latest = self._latest.get(kind)
        if latest is None or latest[0] != key:
            latest = self._latest[kind] = (key, Program(make(), **options))
        return latest[1]


def equations(program: Any) -> Iterator[Any]:
    """All equations of a program (a jaxpr), those of the programs in them included; of anything else none."""
    program = getattr(program, "jaxpr", program)
    for equation in getattr(program, "eqns", ()):
        yield equation
        for parameter in equation.params.values():
            for inner in parameter if isinstance(parameter, tuple | list) else (parameter,):
                yield from equations(inner)
