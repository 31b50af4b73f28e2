"""Array libraries for tests: what to make arrays with, and how to compare what comes back."""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from fusioncam_core.arrays.namespaces import array_namespace, to_numpy

EVERYTHING = os.environ.get("FUSIONCAM_TESTS") == "all"
"""Whether the slow and the redundant variants of tests are run as well: `make test-all`."""

REQUIRED = tuple(name for name in os.environ.get("FUSIONCAM_REQUIRE", "").split(",") if name)
"""Frameworks whose absence fails the tests that need them; others are skipped where they are absent."""


def framework(name: str) -> Any:
    """The module of a framework, or a skipped test where it is not installed and not required."""
    if name.partition(".")[0] not in REQUIRED and importlib.util.find_spec(name.partition(".")[0]) is None:
        pytest.skip(f"{name} is not installed", allow_module_level=True)
    return importlib.import_module(name)


def torchvision() -> Any:
    """torchvision, without its compiled operators where they do not load; or skipped tests where it is not installed.

    What imports it by itself, such as timm or transformers, needs this call before.
    """
    if importlib.util.find_spec("torchvision") is None:
        pytest.skip("torchvision is not installed", allow_module_level=True)
    pytest.importorskip("benchmarks.sweep", reason="the sdist has no benchmarks")
    importlib.import_module("benchmarks.sweep.torchvision_operators").install()
    return importlib.import_module("torchvision")


@dataclass(frozen=True)
class Library:
    """One array library, eager or compiled.

    Attributes:
        name: for the test's id.
        asarray: makes an array from NumPy values.
        compile: compiles a function of arrays; the identity when eager.
    """

    name: str
    asarray: Callable[[Any], Any]
    compile: Callable[[Callable[..., Any]], Callable[..., Any]] = lambda function: function

    @property
    def compiled(self) -> bool:
        return "-" in self.name


def _strict() -> Library:
    strict = framework("array_api_strict")
    return Library("strict", strict.asarray)


def _torch() -> Library:
    torch = framework("torch")
    return Library("torch", lambda values: torch.from_numpy(np.array(values)))


def _tensorflow(name: str = "tensorflow", **options: Any) -> Library:
    """Eager, or compiled by `tf.function` with those options."""
    tensorflow = framework("tensorflow")

    def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
        return tensorflow.function(function, autograph=False, **options)

    return Library(name, tensorflow.constant, compiled if options else lambda function: function)


def _jax() -> Library:
    jax = framework("jax")
    return Library("jax", jax.numpy.asarray)


def _jax_jit() -> Library:
    jax = framework("jax")
    return Library("jax-jit", jax.numpy.asarray, jax.jit)


LIBRARIES: dict[str, Callable[[], Library]] = {
    "numpy": lambda: Library("numpy", np.asarray),
    "strict": _strict,
    "torch": _torch,
    "jax": _jax,
    "jax-jit": _jax_jit,
    "tensorflow": _tensorflow,
    "tensorflow-function": lambda: _tensorflow("tensorflow-function", jit_compile=False),
    "tensorflow-xla": lambda: _tensorflow("tensorflow-xla", jit_compile=True),
}


def assert_close(actual: Any, expected: Any, like: Any, *, atol: float = 1e-6, rtol: float = 0.0) -> None:
    """`actual` is an array of `like`'s library and dtype, of `expected`'s shape and values."""
    assert type(actual) is type(like), f"{type(actual)} came, {type(like)} was expected"
    assert array_namespace(actual) is array_namespace(like)
    assert actual.dtype == like.dtype, f"{actual.dtype} came, {like.dtype} was expected"
    values = to_numpy(actual)
    assert values.shape == np.shape(expected), f"shape {values.shape} came, {np.shape(expected)} was expected"
    np.testing.assert_allclose(values, expected, atol=atol, rtol=rtol)
