"""`import fusioncam` is `import fusioncam_core`: the same modules, never a second copy of them."""

from __future__ import annotations

import importlib.util
import pickle
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import fusioncam
import fusioncam.metrics.boxes
import fusioncam_core
from fusioncam import EmptyMapWarning, GradCAM
from fusioncam.data.preprocessing import Preprocessing


def python(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False, cwd=cwd)


def test_it_is_the_core() -> None:
    assert fusioncam is fusioncam_core
    assert fusioncam.metrics is sys.modules["fusioncam_core.metrics"]
    assert GradCAM is fusioncam_core.GradCAM
    assert Preprocessing is fusioncam_core.Preprocessing
    assert EmptyMapWarning is fusioncam_core.EmptyMapWarning
    assert fusioncam.__version__ == fusioncam_core.__version__
    assert dir(fusioncam) == dir(fusioncam_core)


def test_every_module_has_one_copy() -> None:
    code = """
import sys
import fusioncam.metrics.boxes, fusioncam_core.metrics.boxes
import fusioncam_core.results.files, fusioncam.results.files
from fusioncam.cli import main
for name, module in list(sys.modules.items()):
    if name.partition(".")[0] == "fusioncam":
        assert module is sys.modules["fusioncam_core" + name[len("fusioncam"):]], name
        assert module.__name__ == module.__spec__.name == "fusioncam_core" + name[len("fusioncam"):], name
print(sum(name.startswith("fusioncam.") for name in sys.modules))
"""
    ran = python("-c", code)
    assert (ran.stdout, ran.stderr) == ("5\n", "")


def test_it_imports_no_more_than_the_core() -> None:
    code = "import {}, sys; print(*(name for name in sys.modules if not name.startswith('importlib.')))"
    alias, core = (set(python("-c", code.format(name)).stdout.split()) for name in ("fusioncam", "fusioncam_core"))
    assert "fusioncam_core" in core
    assert alias - core == {"fusioncam"}


def test_what_was_pickled_by_one_name_is_the_other_s() -> None:
    preprocessing = fusioncam.Preprocessing(size=(3, 4))
    pickled = pickle.dumps(preprocessing)
    assert b"fusioncam_core.data.preprocessing" in pickled
    assert pickle.loads(pickled) == preprocessing
    by_alias = pickled.replace(b"\x8c\x21fusioncam_core.data.preprocessing", b"\x8c\x1cfusioncam.data.preprocessing")
    framed = pickle.loads(by_alias.replace(pickled[2:11], b""))  # the frame, which says how long it is
    assert framed == preprocessing
    assert type(framed) is Preprocessing


@pytest.mark.parametrize("name", ["fusioncam.nothing", "fusioncam.nothing.deeper", "fusioncam.metrics.nothing"])
def test_what_is_not_there(name: str) -> None:
    shown = name.removesuffix(".deeper").replace(".", r"\.")
    with pytest.raises(ModuleNotFoundError, match=f"^No module named '{shown}'$"):
        importlib.import_module(name)


def test_attributes_that_are_not_there() -> None:
    with pytest.raises(AttributeError, match="module 'fusioncam_core' has no attribute 'GradCam'"):
        _ = fusioncam.GradCam
    with pytest.raises(ImportError, match="cannot import name 'GradCam' from 'fusioncam_core'"):
        from fusioncam import GradCam  # noqa: F401


def test_specs_and_names_can_be_asked_for() -> None:
    spec = importlib.util.find_spec("fusioncam.metrics.grid")
    assert spec is not None
    assert spec.origin == fusioncam_core.metrics.grid.__file__
    assert spec.loader.get_code("fusioncam.metrics.grid").co_filename == spec.origin
    listed = {each.name for each in pkgutil.iter_modules(fusioncam.__path__, "fusioncam.")}
    assert {"fusioncam.metrics", "fusioncam.errors"} <= listed


def test_run_as_a_module() -> None:
    ran = python("-m", "fusioncam", "--version")
    assert (ran.stdout, ran.stderr) == (f"fusioncam {fusioncam_core.__version__}\n", "")


USERS_CODE = """
import fusioncam
import fusioncam as fc
import fusioncam.metrics as measures
import fusioncam_core
from fusioncam import Explanation, FusionCAM, evaluate
from fusioncam.errors import FusionCamError

def use(model: object) -> Explanation:
    same: type[fusioncam_core.GradCAM] = fc.GradCAM
    measures.BoxIoU()
    fusioncam.metrics.BoxIoU()
    evaluate(model, "photographs", [same], task="binary")
    try:
        return FusionCAM(model)([[0.0]], targets=[1])
    except FusionCamError:
        return fc.GradCAM(model, batch_size="wrong")([[0.0]])

def version() -> str:
    print(fc.nothing)
    return fc.__version__
"""


@pytest.mark.skipif(importlib.util.find_spec("mypy") is None, reason="mypy is not installed")
def test_types_are_those_of_the_core(tmp_path: Path) -> None:
    (tmp_path / "code.py").write_text(USERS_CODE)
    source = Path(fusioncam_core.__file__).parents[1]
    # The settings and the cache of `make typecheck`, which has just looked at all that is imported here.
    settings = ("--strict", "--no-error-summary", "--config-file", "pyproject.toml")
    ran = python("-m", "mypy", *settings, str(tmp_path / "code.py"), cwd=source)
    errors = [line.partition("code.py:")[2] for line in ran.stdout.splitlines() if ": error:" in line]
    assert ran.stderr == ""
    assert len(errors) == 2, ran.stdout
    assert errors[0].startswith('17: error: Argument "batch_size" to "GradCAM" has incompatible type')
    assert errors[1].startswith('20: error: Module has no attribute "nothing"')
