"""Packages that only some commands need, imported when they are needed."""

from __future__ import annotations

import importlib
from types import ModuleType

from fusioncam_core.errors import MissingExtra

_DISTRIBUTIONS = {"PIL": "pillow"}


def require(module: str, purpose: str, extra: str = "cli") -> ModuleType:
    """Import `module`, or say which extra brings it.

    Args:
        module: the dotted name to import, such as `"matplotlib.figure"`.
        purpose: what needs it, as the start of a sentence: `"Drawing pictures"`.
        extra: the extra of the distribution `fusioncam` that installs it.

    Raises:
        MissingExtra: the package that `module` belongs to is not installed.
        ImportError: it is installed, but does not import; the error is the package's own.
    """
    package = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        distribution = _DISTRIBUTIONS.get(package, package)
        raise MissingExtra(f'{purpose} needs {distribution}: pip install "fusioncam[{extra}]"') from error
