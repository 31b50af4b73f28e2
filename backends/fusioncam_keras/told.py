"""What a model's layers have been told: what they do follows from it and from their variables, and so do programs."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import keras

from fusioncam_core.models.told import PLAIN, Same, heard
from fusioncam_keras.state import COUNTED


def told_of(parts: Sequence[Any]) -> list[Any]:
    """What the parts are told now, to be compared with what they are told later.

    Of Keras' own layers these are the public attributes, of users' layers private ones as well: numbers, words, arrays,
    functions, and what is in lists and dictionaries. Of users' functions it is what they have from around them: their
    closures, their defaults, and the globals they name. It is asked for at both ends of a session.
    """
    return [each for part in parts for each in (_by_keras if _is_own(type(part)) else _by_users)(part)]


def is_of_keras(part: Any) -> bool:
    """Whether all that a layer runs is Keras' own, so that what it does follows from its weights and `told_of`.

    What users' code goes by, such as a counter in another module, nobody can know.
    """
    functions = (value for name, value in vars(part).items() if name[0] != "_" and callable(value))
    return _is_own(type(part)) and all(map(_is_own, functions))


def _is_own(value: Any) -> bool:
    """Whether a class, or a function or an object's class, is in Keras' own package."""
    return str(getattr(value, "__module__", None) or type(value).__module__).partition(".")[0] == "keras"


def _by_keras(part: Any) -> Iterator[Any]:
    for name, value in vars(part).items():
        if name[0] == "_" or name in COUNTED:
            continue
        if type(value) in PLAIN or _is_row(value):
            yield name, value
        elif callable(value) and _is_own(value):
            yield name, Same(value)
        else:
            yield name, heard(value)


def _is_row(value: Any) -> bool:
    return isinstance(value, tuple) and all(type(each) in PLAIN or _is_row(each) for each in value)


def _by_users(part: Any) -> Iterator[Any]:
    for name, value in vars(part).items():
        if name not in COUNTED and name not in _of_every_layer():
            yield name, heard(value)
    yield "call", heard(type(part).call)


@functools.cache
def _of_every_layer() -> frozenset[str]:
    """The private attributes that Keras itself gives to every layer and model."""
    # By a name of ours: Keras counts the ones that it gives itself.
    bare = keras.layers.Layer(name="bare"), keras.Model(name="bare")
    return frozenset(name for each in bare for name in vars(each) if name[0] == "_")
