"""All that we raise derives from one class, all that we warn of from another, and both name what a user can act on."""

from __future__ import annotations

import ast
import inspect
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import fusioncam_core
from fusioncam_core import FusionCamError, FusionCamWarning, errors, normalise

SOURCE = Path(fusioncam_core.__file__).parent
ROOTS = [SOURCE, *(path for path in (SOURCE.parent / "backends").glob("fusioncam_*"))]

OTHERS = {
    "AttributeError": "what a `__getattr__` has to raise",
    "ArgumentTypeError": "what argparse makes a usage error of",
    "NotImplementedError": "what a test's author has to write",
}
"""What else is raised by name, and why."""


def raised() -> Iterator[tuple[str, str]]:
    """The place and the name of each class that is raised with a message."""
    for root in ROOTS:
        for path in sorted(root.rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
                    name = ast.unparse(node.exc.func).rpartition(".")[2]
                    if name[:1].isupper():
                        yield f"{path.name}:{node.lineno}", name


def test_every_error_is_ours() -> None:
    ours = {name for name, each in vars(errors).items() if inspect.isclass(each) and issubclass(each, FusionCamError)}
    found = list(raised())
    assert len(found) > 100
    assert [(place, name) for place, name in found if name not in ours | OTHERS.keys()] == []


def test_every_warning_is_ours() -> None:
    for root in ROOTS:
        for path in root.rglob("*.py"):
            if path.name != "errors.py":
                assert "warnings.warn(" not in path.read_text(), path


@pytest.mark.parametrize("name", ["InvalidValueError", "InvalidTypeError", "MissingExtra", "UnknownNameError"])
def test_errors_are_those_of_python_as_well(name: str) -> None:
    builtin = {"InvalidValueError": ValueError, "InvalidTypeError": TypeError, "MissingExtra": ImportError}
    assert issubclass(getattr(errors, name), builtin.get(name, KeyError))


def test_one_except_catches_them() -> None:
    with pytest.raises(FusionCamError, match=r"Expected an array, got a builtins\.str"):
        normalise("no array")


def test_an_unknown_name_is_a_sentence() -> None:
    assert str(errors.UnknownNameError("There is none.")) == "There is none."


def test_a_warning_names_the_users_line() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        errors.warn("A sentence.", FusionCamWarning)
    assert caught[0].filename == __file__
    assert caught[0].category is FusionCamWarning


def test_a_warning_of_an_explanation_names_the_users_line() -> None:
    torch = pytest.importorskip("torch")
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 2, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(2, 2)
    )
    torch.nn.init.zeros_(model[3].weight)
    cam = fusioncam_core.GradCAM(model, "0")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        cam(np.ones((1, 3, 8, 8), dtype=np.float32))
    assert {each.filename for each in caught} == {__file__}
    assert all(issubclass(each.category, FusionCamWarning) for each in caught)
