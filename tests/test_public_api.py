from __future__ import annotations

import ast
import inspect
import pkgutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import fusioncam_core


def test_all_is_sorted_and_there() -> None:
    names = fusioncam_core.__all__
    assert names == sorted(names, key=lambda name: (not name.isupper(), name[0].islower(), name))
    for name in names:
        assert hasattr(fusioncam_core, name)


def test_all_holds_every_public_name() -> None:
    submodules = {module.name for module in pkgutil.iter_modules(fusioncam_core.__path__)}
    helpers = {"TYPE_CHECKING", "Any", "importlib"}
    public = {name for name in dir(fusioncam_core) if not name.startswith("_")} - submodules - helpers
    assert public | {"__version__"} == set(fusioncam_core.__all__)


@pytest.mark.parametrize("name", fusioncam_core.__all__)
def test_public_functions_say_what_they_take_return_and_raise(name: str) -> None:
    thing = getattr(fusioncam_core, name)
    documentation = inspect.getdoc(thing)
    assert documentation
    if inspect.isfunction(thing) and inspect.signature(thing).parameters:
        assert "Args:" in documentation
        assert "Raises:" in documentation
        for argument in inspect.signature(thing).parameters:
            assert argument in documentation, argument


def test_no_framework_is_named_in_an_import_of_the_core() -> None:
    frameworks = {"torch", "tensorflow", "jax", "flax", "keras", "equinox", "cv2"}
    root = Path(fusioncam_core.__file__).parent
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not frameworks & {name.partition(".")[0] for name in names}, path


def test_evaluation_is_imported_when_it_is_asked_for() -> None:
    code = """
import sys
import fusioncam_core
assert not {"fusioncam_core.evaluation", "fusioncam_core.metrics", "importlib.metadata"} & set(sys.modules)
assert {"evaluate", "Evaluation", "metrics"} <= set(dir(fusioncam_core))
from fusioncam_core import *
assert evaluate is fusioncam_core.evaluate is sys.modules["fusioncam_core.evaluation"].evaluate
assert fusioncam_core.metrics is sys.modules["fusioncam_core.metrics"]
fusioncam_core.nothing
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.stderr.splitlines()[-1] == "AttributeError: module 'fusioncam_core' has no attribute 'nothing'"


def test_version() -> None:
    assert fusioncam_core.__version__ == version("fusioncam")
    assert fusioncam_core.__version__.count(".") == 2


def test_the_citation_names_the_version() -> None:
    citation = Path(__file__).parents[1] / "CITATION.cff"
    if not citation.exists():
        pytest.skip("the tests of a wheel lie without it")
    assert f"\nversion: {fusioncam_core.__version__}\n" in citation.read_text(encoding="utf-8")
