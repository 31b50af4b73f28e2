"""The Python of the tutorials runs as it stands there, prints what it says, and is that of the examples."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

from code_blocks import promises, python_blocks, run
from fusioncam_core.explainers import EXPLAINERS
from fusioncam_core.metrics import METRICS
from fusioncam_core.plugins.manager import plugin_manager

ROOT = Path(__file__).parent.parent
TUTORIALS = [
    page
    for page in sorted((ROOT / "docs" / "tutorials").glob("*.md"))
    if "file_format: mystnb" not in page.read_text("utf-8")
]
"""Those whose code stands in plain blocks; `make docs` runs the others, which are notebooks."""
OWN_METHOD = ROOT / "docs" / "tutorials" / "own_method.md"
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


@pytest.mark.parametrize("document", TUTORIALS, ids=[document.stem for document in TUTORIALS])
def test_the_code_runs_and_prints_what_it_says(
    document: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(PACKAGE.parent)
    blocks = python_blocks(document)
    assert blocks
    run(document, blocks)
    assert capsys.readouterr().out.splitlines() == promises(blocks)


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
