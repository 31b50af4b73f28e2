"""Gradients of models in float16: the smallest number of that dtype is 6e-8, and gradients of a mean are smaller."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fusioncam_jax.programs import equations

LARGEST_SCALE = 2.0**15
"""The largest power of two in float16: the scaled score's own gradient is still a number."""

SMALLEST_SCALE = 2.0**-13
"""The smallest one that is tried: gradients of up to 2^29 are still numbers with it."""

STEP = 2.0**-4
"""By which the scale is made smaller where some gradient is none any more."""

Arrays = list[jax.Array]


def scaled_pull_back(pull_back: Callable[[jax.Array], Arrays], cotangents: jax.Array) -> Arrays:
    """What `pull_back` makes of cotangents, in float32, computed of cotangents that are scaled and scaled back.

    A product with a power of two is exact, unless it is too large or too small for its dtype. Of the scales from 2^15
    down to 2^-13 the first one is taken with which all gradients are finite.
    """

    def scaled(scale: jax.Array) -> Arrays:
        return [each.astype(jnp.float32) / scale for each in pull_back(cotangents * scale.astype(cotangents.dtype))]

    def too_large(state: tuple[jax.Array, Arrays]) -> jax.Array:
        scale, gradients = state
        finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(each)) for each in gradients]))
        return ~finite & (scale > SMALLEST_SCALE)

    def with_a_smaller_one(state: tuple[jax.Array, Arrays]) -> tuple[jax.Array, Arrays]:
        scale = state[0] * STEP
        return scale, scaled(scale)

    largest = jnp.asarray(LARGEST_SCALE, jnp.float32)
    gradients: Arrays = jax.lax.while_loop(too_large, with_a_smaller_one, (largest, scaled(largest)))[1]
    return gradients


def passes_float16(program: Any) -> bool:
    """Whether a program (a jaxpr) has a number in float16 anywhere."""
    variables = (each for equation in equations(program) for each in (*equation.invars, *equation.outvars))
    return any(getattr(each.aval, "dtype", None) == jnp.float16 for each in variables)
