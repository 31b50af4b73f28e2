"""What an editor and mypy say of a user's code: the packages carry their types."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

if importlib.util.find_spec("mypy") is None:
    pytest.skip("mypy is not installed", allow_module_level=True)

USERS_CODE = """
from fusioncam_core import AblationCAM, Explanation, FusionCAM, GradCAM, GroupCAM, RISE, ScoreCAM, evaluate

def use(model: object) -> Explanation:
    ScoreCAM(model, batch_size=3, budget=16, backend_options={"channels": "last"})
    GroupCAM(model, groups=4, baseline="blur", engine="auto")
    FusionCAM(model, engine="openvino", engine_precision="bfloat16")
    RISE(model, masks=100, progress=False)
    FusionCAM(model, "layer4", gradient=GradCAM(model), task="multilabel", output_kind="probabilities")
    evaluate(model, "photographs", ["grad-cam", AblationCAM], task="binary", engine=None)
    return FusionCAM(model)([[0.0]], targets=[1])
"""

WRONG = {
    "ScoreCAM(model, bach_size=3)": 'Unexpected keyword argument "bach_size"',
    'FusionCAM(model, task="multi")': 'Argument "task"',
    'FusionCAM(model, contributions="clip")': 'Argument "contributions"',
    "GradCAM(model, budget=3)": 'Unexpected keyword argument "budget"',
    'ScoreCAM(model, channels="last")': 'Unexpected keyword argument "channels"',
    'GradCAM(model, engine="openvino")': 'Unexpected keyword argument "engine"',
    'RISE(model, engine_precision="int8")': 'Argument "engine_precision"',
    'AblationCAM(model, combine="sum")': 'Argument "combine"',
    'evaluate(model, "photographs", task="multi")': 'Argument "task"',
}


@pytest.fixture(scope="module")
def complaints(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What mypy, strict, says of a user's file, in which the wrong lines come last."""
    folder = tmp_path_factory.mktemp("user")
    lines = [*USERS_CODE.splitlines(), "", "def wrong(model: object) -> None:", *(f"    {line}" for line in WRONG)]
    file = folder / "code.py"
    file.write_text("\n".join(lines) + "\n")
    import fusioncam_core

    source = Path(fusioncam_core.__file__).parents[1]
    # The settings and the cache of `make typecheck`, which has just looked at all that is imported here.
    run = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--config-file", "pyproject.toml", file],
        cwd=source,
        capture_output=True,
        text=True,
        check=False,
    )
    assert not run.stderr
    return [line for line in run.stdout.splitlines() if ": error:" in line]


def test_right_code_is_not_complained_about(complaints: list[str]) -> None:
    first_wrong = len(USERS_CODE.splitlines()) + 3
    assert [line for line in complaints if int(line.partition("code.py:")[2].partition(":")[0]) < first_wrong] == []


@pytest.mark.parametrize(("number", "line"), list(enumerate(WRONG)))
def test_wrong_code_is(complaints: list[str], number: int, line: str) -> None:
    place = len(USERS_CODE.splitlines()) + 3 + number
    found = [each for each in complaints if f"code.py:{place}: " in each]
    assert any(WRONG[line] in each for each in found), (line, found)
