"""The activation function that follows a layer directly, read off the model's program."""

from __future__ import annotations

from typing import Any

import jax
from jax.ad_checkpoint import checkpoint_name

from fusioncam_jax.programs import equations

MARK = "fusioncam layer "
"""What the names of layers' outputs begin with in a program."""

ACTIVATIONS = frozenset(
    [
        "relu",
        "relu6",
        "elu",
        "celu",
        "selu",
        "gelu",
        "silu",
        "mish",
        "glu",
        "leaky_relu",
        "sigmoid",
        "log_sigmoid",
        "hard_sigmoid",
        "hard_silu",
        "hard_tanh",
        "softplus",
        "soft_sign",
        "squareplus",
    ]
)
"""Functions of `jax.nn`."""

OF_JAX_NN = ("jax", "_src", "nn", "functions.py")
"""Where they are."""


def mark(name: str, array: jax.Array) -> jax.Array:
    """The array, found again in the program as that layer's output."""
    marked: jax.Array = checkpoint_name(array, MARK + name)
    return marked


def activations_behind(program: Any) -> dict[str, str]:
    """Of each marked layer that an activation function follows in its last call, the function's name.

    Activations that are layers themselves are left out: nothing needs to be said of them.
    """
    users: dict[int, Any] = {}
    for equation in program.eqns:
        for variable in equation.invars:
            users.setdefault(id(variable), equation)  # the first one
    marked = {_layer(one): one for one in program.eqns if _layer(one) is not None}
    found = {name: _activation(users.get(id(one.outvars[0])), users) for name, one in marked.items()}
    return {name: word for name, word in found.items() if name is not None and word}


def _layer(equation: Any) -> str | None:
    name = str(equation.params.get("name", ""))
    return name.removeprefix(MARK) if name.startswith(MARK) else None


def _activation(equation: Any, users: dict[int, Any]) -> str:
    """The function that the equation begins; none if a layer ends it."""
    word = "" if equation is None else _function(equation)
    while word and equation is not None:
        equation = users.get(id(equation.outvars[0]))
        if equation is not None and _layer(equation) is not None:
            return ""
        if equation is not None and _function(equation) != word:
            return word
    return word


def _function(equation: Any) -> str:
    """The activation function that an equation is of, by the lines that made it, or else by what it computes."""
    for one in (equation, *(inner for each in equation.params.values() for inner in equations(each))):
        frames = getattr(one.source_info.traceback, "frames", ())
        names = [frame.function_name for frame in frames if _is_of_jax_nn(frame.file_name)]
        if names:
            return str(names[-1]) if names[-1] in ACTIVATIONS else ""
    against_zero = any(getattr(each, "val", None) == 0 for each in equation.invars)
    plain = {"tanh": "tanh", "logistic": "sigmoid", "max": "relu" if against_zero else ""}
    return plain.get(equation.primitive.name, "")


def _is_of_jax_nn(file: str) -> bool:
    return tuple(file.replace("\\", "/").split("/")[-4:]) == OF_JAX_NN
