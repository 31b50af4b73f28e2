"""`fusioncam explain --report`, run in this process on a small PyTorch model."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from absence import hide
from fusioncam_core.cli import main

pytest.importorskip("torch")

MODEL = """
import torch
from torch import nn

from fusioncam_core import LoadedModel, Preprocessing


def load():
    torch.manual_seed(3)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    preprocessing = Preprocessing(size=(12, 12), mean=0.0, std=255.0)
    return LoadedModel(net, preprocessing, ("cat", "</script>", "cow"), name="Tiny")
"""


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A current directory with a model, two photographs and a file that is none."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "reported_model", raising=False)
    (tmp_path / "reported_model.py").write_text(MODEL, encoding="utf-8")
    noise = np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8)
    for name in ("one", "two"):
        Image.fromarray(noise).save(tmp_path / f"{name}.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    yield tmp_path
    sys.modules.pop("reported_model", None)


def explain(*arguments: str) -> int:
    return main(["explain", *arguments, "--model", "python:reported_model:load", "--no-progress", "--batch-size", "4"])


def block(path: Path, identifier: str) -> Any:
    found = re.search(rf'id="{identifier}">(.*?)</script>', path.read_text(encoding="utf-8"))
    assert found is not None
    return json.loads(found[1])


def test_all_photographs_in_one_page(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = str(workplace / "broken.png")
    arguments = ("one.png", broken, "two.png", "--targets", "0,1", "--report", "all.html", "--panels", "gradient,maps")
    assert explain(*arguments, "--alpha", "0.4") == 1
    assert "\nwrote all.html\n" in capsys.readouterr().out
    page = workplace / "all.html"
    index = block(page, "index")
    assert [len(each["targets"]) for each in index["images"]] == [2, 2]
    assert [each["label"] for each in index["images"][0]["targets"]] == ["cat", "</script>"]
    assert list(index["stages"]) == ["gradient", "maps"]
    pictures = block(page, "pictures-1")
    assert pictures["size"] == [40, 24]
    assert pictures["window"] is not None
    source = page.read_text(encoding="utf-8")
    assert 'value="40" data-start="40"' in source
    assert "Left out: 1" in source
    assert broken not in source


def test_an_earlier_report_is_replaced_when_asked_for(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert explain("one.png", "--report", "all.html") == 0
    capsys.readouterr()
    assert explain("two.png", "--report", "all.html") != 0
    assert "all.html is there already" in capsys.readouterr().err
    assert not (workplace / "fusioncam-out" / "two.png").exists()  # it is looked at before any work is done
    assert explain("two.png", "--report", "all.html", "--overwrite") == 0


@pytest.mark.parametrize("name", ["all.pdf", "one.png"])
def test_other_endings_are_refused_before_any_work(
    workplace: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert explain("one.png", "--report", name) != 0
    assert "Expected the path of a report to end in .html" in capsys.readouterr().err
    assert not (workplace / "fusioncam-out" / "one.json").exists()


def test_without_a_photograph_there_is_no_page(workplace: Path) -> None:
    assert explain("broken.png", "--report", "all.html") == 1
    assert not (workplace / "all.html").exists()


def test_without_jinja2(workplace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    hide("jinja2", monkeypatch)
    assert explain("one.png", "--report", "all.html") != 0
    assert 'pip install "fusioncam[report]"' in capsys.readouterr().err
    assert not (workplace / "fusioncam-out" / "one.json").exists()
