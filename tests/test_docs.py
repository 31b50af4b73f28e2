"""The pages of docs/ and the examples of the reference: what they show runs, and nothing public is missing.

`make docs` builds the site, which finds broken links; here is what needs no Sphinx.
"""

from __future__ import annotations

import doctest
import importlib
import importlib.util
import inspect
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

import fusioncam_core
import libraries
from code_blocks import Block, python_blocks, run
from fusioncam_core.plugins import hookspecs

DOCS = Path(__file__).parent.parent / "docs"
REFERENCE = sorted((DOCS / "reference").glob("*.md"))
PUBLIC_MODULES = (
    "fusioncam_core",
    "fusioncam_core.evaluation",
    "fusioncam_core.explainers",
    "fusioncam_core.metrics",
    "fusioncam_core.testing",
)


# --- the guides: every block of Python is a program of its own

GUIDES = (
    "arrays.md",
    "evaluation.md",
    "explain.md",
    "objects.md",
    "own_models.md",
    "pictures.md",
    "report.md",
    "targets.md",
)
NEEDED = {"torch": "torch", "keras": "tensorflow", "jax": "jax", "flax": "flax", "equinox": "equinox"}

GUIDE_BLOCKS = [(page, block) for page in GUIDES for block in python_blocks(DOCS / page)]


def test_no_merge_was_left_half_done() -> None:
    pages = [*DOCS.rglob("*.md"), *DOCS.parent.glob("*.md")]
    assert pages
    assert not [page for page in pages if re.search(r"^(<{7} |={7}$|>{7} )", page.read_text(encoding="utf-8"), re.M)]


def test_guides_have_code() -> None:
    assert {page for page, _ in GUIDE_BLOCKS} == set(GUIDES)
    assert len(GUIDE_BLOCKS) >= 11


@pytest.mark.parametrize(
    ("page", "block"), GUIDE_BLOCKS, ids=[f"{page.removesuffix('.md')}-{block.line}" for page, block in GUIDE_BLOCKS]
)
def test_the_code_of_a_guide_runs(page: str, block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, package in NEEDED.items():
        if re.search(rf"^(import|from) {name}\b", block.code, flags=re.MULTILINE):
            libraries.framework(package)
    monkeypatch.chdir(tmp_path)
    run(DOCS / page, [block])


# --- the quickstart: each section is a program that begins with the page's first block


class Start(NamedTuple):
    """What a section of the quickstart needs, and what comes out of it."""

    frameworks: tuple[str, ...]
    layer: str
    size: tuple[int, int]
    model: str


STARTS = {
    "PyTorch": Start(("torch",), "3", (96, 96), "Sequential"),
    "timm": Start(("torch", "timm"), "blocks", (224, 224), "MobileNetV3"),
    "transformers": Start(
        ("torch", "transformers"), "vit.layers.1.layernorm_before", (224, 224), "ViTForImageClassification"
    ),
    "Keras": Start(("tensorflow", "keras"), "conv_pw_13_relu", (128, 128), "mobilenet_0.25_128"),
    "Flax": Start(("jax", "flax"), "features", (96, 96), "Network"),
}


def section(page: Path, title: str) -> list[Block]:
    """The blocks between a heading of the second level and the next one."""
    lines = page.read_text(encoding="utf-8").splitlines()
    first = lines.index(f"## {title}") + 1
    last = next((number for number in range(first, len(lines)) if lines[number].startswith("## ")), len(lines))
    return [block for block in python_blocks(page) if first < block.line <= last]


def test_each_section_of_the_quickstart_is_tested() -> None:
    titles = re.findall(r"^## (.*)$", (DOCS / "quickstart.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert titles == [*STARTS, "And then"]


@pytest.mark.parametrize("title", STARTS)
@pytest.mark.filterwarnings("ignore::fusioncam_core.FusionCamWarning")  # of weights that nobody trained
def test_three_lines(title: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = STARTS[title]
    if {"timm", "transformers"} & set(expected.frameworks):
        libraries.torchvision()
    for name in expected.frameworks:
        libraries.framework(name)
    pixels = np.random.default_rng(0).integers(0, 255, (120, 160, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    page = DOCS / "quickstart.md"
    given, three_lines = section(page, title)
    assert len(three_lines.code.splitlines()) == 3
    found = run(page, [python_blocks(page)[0], given, three_lines])
    explanation, figure = found["explanation"].numpy(), found["figure"]
    assert (explanation.layer, explanation.model) == (expected.layer, expected.model)
    assert explanation.maps.shape == (1, *expected.size)
    assert (explanation.maps.min(), explanation.maps.max()) == (0, 1)
    assert figure.axes[0].get_images()[0].get_array().shape == (120, 160, 3)


# --- the reference


def public_names() -> list[str]:
    """Every public name, with its module: in that of the package alone where it has it, too."""
    names = []
    for module in PUBLIC_MODULES:
        known = () if module == "fusioncam_core" else fusioncam_core.__all__
        names += [f"{module}.{name}" for name in importlib.import_module(module).__all__ if name not in known]
    return names


def documented_names() -> list[str]:
    """The full names of what the reference's directives document."""
    names = []
    for page in REFERENCE:
        module = ""
        for directive, argument in re.findall(
            r"^\.\. ([a-z:]+):: (\S+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE
        ):
            if directive == "currentmodule":
                module = argument
            elif directive != "automodule":
                names.append(argument if argument.startswith("fusioncam_core.") else f"{module}.{argument}")
    return names


def test_every_public_name_is_on_one_page_of_the_reference() -> None:
    documented = documented_names()
    assert len(documented) == len(set(documented))
    assert set(public_names()) - set(documented) == set()


def test_the_hooks_are_on_a_page() -> None:
    text = (DOCS / "reference" / "plugins.md").read_text(encoding="utf-8")
    assert ".. automodule:: fusioncam_core.plugins.hookspecs\n   :members:" in text
    hooks = [each for name, each in inspect.getmembers(hookspecs, inspect.isfunction) if name.startswith("fusioncam_")]
    assert len(hooks) == 9
    assert all(inspect.getdoc(hook) for hook in hooks)


# --- the examples in docstrings

WITHOUT_EXAMPLE = {
    "EXPLAINERS", "METRICS", "FAITHFULNESS", "__version__",  # values, not made to be called
    "Capture", "LayerInfo",  # for authors of backends, whose contract has them
    "AdapterContract", "BrokenModelError",
    "Batch", "Combined", "Result", "ExplainedBatch", "Measured", "Metric",  # docs/tutorials/own_method.md has one whole
    "BoxAccuracy", "GridGame", "Randomisation",  # what functions return that have an example
}  # fmt: skip
METRIC_CLASSES = set(fusioncam_core.metrics.__all__) & {
    kind.__name__ for kind in fusioncam_core.metrics.METRICS.values()
}
"""Each is asked for by its name: `measure_maps` and `evaluate` have examples."""


def thing(name: str) -> Any:
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


def has_examples(name: str) -> bool:
    """Whether a public name should have one."""
    bare = name.rpartition(".")[2]
    is_error = inspect.isclass(thing(name)) and issubclass(thing(name), BaseException)
    return not is_error and bare not in WITHOUT_EXAMPLE | METRIC_CLASSES


EXAMPLES = [name for name in public_names() if has_examples(name)]


def doctests(name: str) -> list[doctest.DocTest]:
    """The examples of a name, and of its methods; with nothing of this library imported beforehand."""
    found = doctest.DocTestFinder(exclude_empty=True).find(inspect.unwrap(thing(name)), name, globs={})
    return [each for each in found if each.examples]


def failures(test: doctest.DocTest) -> str:
    """What went wrong in the words of `doctest`; "" where nothing did."""
    said: list[str] = []
    doctest.DocTestRunner(verbose=False).run(test, out=said.append)
    return "".join(said)


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_of_the_reference(name: str) -> None:
    tests = doctests(name)
    assert tests, f"{name} has no example"
    for test in tests:
        if "import torch" in test.docstring:
            libraries.framework("torch")
        assert failures(test) == ""


def test_an_example_that_is_wrong_is_found() -> None:
    parsed = doctest.DocTestParser().get_doctest(">>> 1 + 1\n3\n", {}, "wrong", "wrong.py", 0)
    assert "Expected:\n    3\nGot:\n    2" in failures(parsed)
