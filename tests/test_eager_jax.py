"""Every array function on JAX without `jit`: one small call each, with NumPy's values.

JAX compiles each operation of eager code by itself, for each shape, which takes most of a test's time. Hence one call a
function and one shape for all; the values of many cases are tested under `jit`.
"""

from __future__ import annotations

import inspect
from types import ModuleType

import numpy as np
import pytest

import fusioncam_core as core
from each_function import CALLS, OTHERS
from fusioncam_core import metrics
from libraries import LIBRARIES, assert_close


def public_functions(module: ModuleType) -> set[str]:
    return {name for name in module.__all__ if inspect.isfunction(getattr(module, name))}


def test_no_function_is_left_out() -> None:
    assert set(CALLS) | OTHERS == public_functions(core) | public_functions(metrics)


@pytest.mark.parametrize("name", CALLS)
def test_values_of_numpy(name: str) -> None:
    call, jax = CALLS[name], LIBRARIES["jax"]()
    expected = call(np.asarray)
    assert_close(call(jax.asarray), expected, jax.asarray(expected), atol=1e-5, rtol=1e-5)
