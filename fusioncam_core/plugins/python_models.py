"""The plugin for model specs of the kind `python:package.module:function`."""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import ModuleType
from typing import Any

import pluggy

from fusioncam_core.errors import FusionCamError, InvalidValueError
from fusioncam_core.plugins.foreign import foreign_code
from fusioncam_core.plugins.loaded_model import LoadedModel, as_loaded

hookimpl = pluggy.HookimplMarker("fusioncam")

_KIND = "python:"


@hookimpl
def fusioncam_load_model(spec: str) -> LoadedModel | None:
    """Call the function that `spec` names; its module may lie in the current directory.

    Raises:
        InvalidValueError: the spec is not of the form `python:package.module:function`, its module does not import
            or has no such function, or the function raised an error, which is the cause, or returned no model.
    """
    if not spec.startswith(_KIND):
        return None
    module_name, _, function_name = spec.removeprefix(_KIND).partition(":")
    if not all(name.isidentifier() for name in [*module_name.split("."), function_name]):
        raise InvalidValueError(f"{spec!r} is incomplete; write python:package.module:function.")
    with _current_directory_on_path(), foreign_code(repr(spec)):
        answer = _answer(_function(_import(module_name, spec), function_name, spec), spec)
    return as_loaded(answer, f"{spec!r} returned")


def _answer(function: Callable[[], Any], spec: str) -> Any:
    try:
        return function()
    except (FusionCamError, ImportError) as error:  # a model's packages are often imported where it is built
        raise InvalidValueError(f"{spec!r}: {error}") from error


@contextmanager
def _current_directory_on_path() -> Iterator[None]:
    directory = os.getcwd()
    sys.path.insert(0, directory)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        with suppress(ValueError):  # the user's module may have taken it off already
            sys.path.remove(directory)


def _import(name: str, spec: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if name == missing or name.startswith(missing + "."):
            where = "from the current directory or the installed packages"
            raise InvalidValueError(f"{spec!r}: there is no module {missing!r} {where}.") from error
        raise InvalidValueError(
            f"{spec!r}: {name} needs the module {missing!r}, which is not installed{_remedy(missing)}."
        ) from error
    except ImportError as error:
        raise InvalidValueError(f"{spec!r}: {name} does not import: {error}.") from error
    except SyntaxError as error:
        place = f"line {error.lineno} of {error.filename}"
        raise InvalidValueError(f"{spec!r}: {name} does not import: {error.msg} in {place}.") from error


def _remedy(missing: str) -> str:
    """How to install a module that is named like one of fusioncam's extras; nothing for others."""
    from importlib.metadata import metadata  # slow to import, and wanted for this error alone

    package = missing.partition(".")[0]
    extras = metadata("fusioncam").get_all("Provides-Extra") or []
    return f': pip install "fusioncam[{package}]"' if package in extras else ""


def _function(module: ModuleType, name: str, spec: str) -> Callable[[], Any]:
    if not hasattr(module, name):
        near = difflib.get_close_matches(name, [n for n in vars(module) if not n.startswith("_")])
        hint = f"; did you mean {' or '.join(near)}?" if near else "."
        raise InvalidValueError(f"{spec!r}: the module {module.__name__} has no {name!r}{hint}")
    function: Callable[[], Any] = getattr(module, name)
    if not (inspect.isroutine(function) or inspect.isclass(function)):
        kind = type(function).__name__
        raise InvalidValueError(f"{spec!r}: {name} is of type {kind}; name a function that returns the model.")
    try:
        signature = inspect.signature(function)
    except ValueError:  # some of those in C have none to look at: calling them tells
        return function
    try:
        signature.bind()
    except TypeError as error:
        raise InvalidValueError(f"{spec!r}: {name} must work without arguments: {error}.") from error
    return function
