"""Functions of arrays that run as one program, where an array library compiles every step by itself otherwise."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable
from typing import Any, ParamSpec, TypeVar, cast

from fusioncam_core.arrays.namespaces import Namespace

P = ParamSpec("P")
R = TypeVar("R")

KEPT = 256
"""So many functions with their options: each keeps what was compiled for the shapes that it met."""


_PLAIN = (int, float, str)


def as_one_program(function: Callable[P, R]) -> Callable[P, R]:
    """The function, compiled as a whole by a namespace that has the word `compiled`.

    JAX compiles every small step of arrays for every shape it meets: Grad-CAM was a hundred programs of 25 ms each, for
    each number of images anew, and as many calls of them later.

    Args:
        function: of arrays by position (nested in tuples and dicts, None among them), of plain numbers and words, by
            which it is compiled anew, and of `xp`; options by name can be hashed. It looks at no value, and returns
            arrays, a tuple or dict of them, or a named tuple in which words stand besides.
    """

    @functools.wraps(function)
    def run(*arrays: Any, xp: Namespace, **options: Any) -> Any:
        if getattr(xp, "compiled", None) is None:
            return function(*arrays, xp=xp, **options)  # type: ignore[arg-type]
        plain = tuple((place, each) for place, each in enumerate(arrays) if isinstance(each, _PLAIN))
        program = _program(function, cast(Hashable, xp), plain, tuple(sorted(options.items())))
        return program(*(each for each in arrays if not isinstance(each, _PLAIN)))

    return run  # type: ignore[return-value]


@functools.lru_cache(maxsize=KEPT)
def _program(
    function: Callable[..., Any], xp: Any, plain: tuple[tuple[int, Any], ...], options: tuple[tuple[str, Any], ...]
) -> Callable[..., Any]:
    words: dict[str, str] = {}  # of the result, the same whatever the arrays are

    def arrays_alone(*arrays: Any) -> Any:
        given = list(arrays)
        for place, each in plain:
            given.insert(place, each)
        made = function(*given, xp=xp, **dict(options))
        if not hasattr(made, "_replace"):
            return made
        words.update({name: each for name, each in made._asdict().items() if isinstance(each, str)})
        return made._replace(**dict.fromkeys(words))

    arrays_alone.__name__ = function.__name__  # what profilers call the program
    compiled = xp.compiled(arrays_alone)

    def run(*arrays: Any) -> Any:
        made = compiled(*arrays)
        return made._replace(**words) if words else made

    return run
