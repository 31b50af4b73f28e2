"""`fusioncam_core` by the name that the project is installed by.

`import fusioncam` gives the very module `fusioncam_core`, and `import fusioncam.metrics` the very module
`fusioncam_core.metrics`: nothing is imported twice, and a class has one identity, whichever name it came by.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import CodeType, ModuleType

import fusioncam_core

_ALIAS, _MEANT = "fusioncam", "fusioncam_core"


class _Alias:
    """Finds and loads what is below `fusioncam.` as what is below `fusioncam_core.`."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Asked before the folders of the path are: the core's files are in them, and would run a second time."""
        if not fullname.startswith(f"{_ALIAS}."):
            return None
        meant = importlib.util.find_spec(_meant(fullname))
        if meant is None:
            return None
        package = meant.submodule_search_locations is not None
        # Of the classes in importlib.abc, which bring `tempfile` with them, it has the methods alone.
        return ModuleSpec(fullname, self, origin=meant.origin, is_package=package)  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """The module that is meant, imported under its own name."""
        module = importlib.import_module(_meant(spec.name))
        spec.loader_state = module.__spec__  # the import system is about to put the alias's in its place
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Nothing is left to run: the module gets back the specification that it was imported by."""
        assert module.__spec__ is not None
        module.__spec__ = module.__spec__.loader_state

    def get_code(self, fullname: str) -> CodeType | None:
        """For `python -m fusioncam`, which runs a module without importing it."""
        meant = importlib.util.find_spec(_meant(fullname))
        get_code = getattr(meant and meant.loader, "get_code", None)
        code: CodeType | None = get_code and get_code(_meant(fullname))
        return code


def _meant(name: str) -> str:
    return _MEANT + name.removeprefix(_ALIAS)


sys.meta_path.insert(0, _Alias())
sys.modules[__name__] = fusioncam_core
