"""The sweep over other packages' models: a few small ones of it, and its own parts."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import libraries

torch = pytest.importorskip("torch")
libraries.torchvision()
pytest.importorskip("timm")
pytest.importorskip("transformers")

from benchmarks.sweep import (  # noqa: E402 - what they need is there
    of_timm,
    of_torchvision,
    of_transformers,
    on_torch,
    reference,
    report,
    with_engine,
)
from benchmarks.sweep.judge import judge  # noqa: E402
from benchmarks.sweep.layouts import FIRST, LAST, ByLayer, Layout, UnknownLayoutError  # noqa: E402
from benchmarks.sweep.subject import Subject  # noqa: E402
from benchmarks.sweep.torchvision_operators import nms  # noqa: E402
from benchmarks.sweep.with_engine import judge_with_engine  # noqa: E402
from engine_names import ENGINES, registered_engines  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # of weights that nobody trained, and of the packages

MODELS: dict[ModuleType, list[str]] = {
    of_timm: [
        "byobnet",  # channels first throughout
        "cait",  # a class token that joins late
        "coat",  # rows of tokens and maps in turn
        "convnext",
        "efficientnet",
        "mambaout",  # channels last throughout
        "maxxvit",
        "pit",  # rows behind more maps than are looked at in one round
        "pvt_v2",
        "resnet",
        "vision_transformer",  # a class token
        "xcit",
    ],
    of_transformers: [
        "classification convnext",
        "classification deit",  # two tokens in front of the patches
        "classification dinov2_with_registers",  # five
        "classification pvt",
        "classification resnet",
        "classification swin",
        "classification vit",
    ],
    of_torchvision: ["regnet_x_400mf", "shufflenet_v2_x0_5", "resnet18"],
}


@pytest.mark.parametrize(("package", "name"), [(package, name) for package, names in MODELS.items() for name in names])
def test_model(package: ModuleType, name: str) -> None:
    row = judge(package.subject("package", name), on_torch)
    assert row["status"] == "right", row
    assert report.largest_difference(row) <= report.NINE_IN_TEN, row
    assert row["expected"], row
    assert row["informative"] > 0.1, row
    assert row["corners"] != "not found", row
    assert row["passes"] <= 8, row


# --- its own parts


class Columns(torch.nn.Module):
    """A network whose score is that of the left half of a layer, in channels first or last."""

    def __init__(self, *, last: bool) -> None:
        super().__init__()
        self.features = torch.nn.Conv2d(3, 4, 4, stride=4)
        self.placed = torch.nn.Identity()
        self.head = torch.nn.Linear(4, 6)
        self.last = last

    def forward(self, images: Any) -> Any:
        features = self.features(images)
        features = self.placed(features.permute(0, 2, 3, 1) if self.last else features)
        features = features if self.last else features.permute(0, 2, 3, 1)
        return self.head(features[:, :, : features.shape[2] // 2].mean(dim=(1, 2)))


class Counting(Columns):
    """Which makes a constant of the number of images."""

    def forward(self, images: Any) -> Any:
        return super().forward(images.reshape(len(images), *images.shape[1:]))


def subject(**words: Any) -> Subject:
    given = {"make": lambda _: Columns(last=False), "layout": ByLayer(FIRST), "expected": "placed|features", **words}
    return Subject("package", "columns", "classification", sizes=((32, 32),), other=(32, 48), **given)


def test_a_model_that_is_right() -> None:
    row = judge(subject(), on_torch)
    assert (row["status"], row["corners"], row["expected"], row["other"]["status"]) == ("right", "found", True, "right")
    assert row["parameters"] == 4 * 3 * 16 + 4 + 6 * 4 + 6
    assert row["shape"] == [1, 4, 8, 8]


def test_a_layout_that_is_not_the_library_s() -> None:
    """Where the layout by hand is another one, the row says so: the comparison can fail."""
    transposed = Layout(own=lambda values, size: np.swapaxes(values, 2, 3))
    row = judge(subject(layout=ByLayer(transposed)), on_torch)
    assert row["status"] == "wrong"
    assert row["difference"] > 0.1
    assert row["corners"] == "not found"


def test_a_layer_that_the_field_does_not_name() -> None:
    assert judge(subject(expected="head"), on_torch)["expected"] is False


@pytest.mark.usefixtures(registered_engines.__name__)
@ENGINES
class TestWithAnEngine:
    def test_a_map_that_is_the_framework_s(self, name: str) -> None:
        row = judge_with_engine(subject(), on_torch, name)
        assert row["status"] == "right"
        assert row["difference"] <= 1e-5

    def test_a_map_that_is_not(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        own, maps = with_engine._maps, iter((0.0, 1e-3))
        monkeypatch.setattr(with_engine, "_maps", lambda *given: own(*given) + next(maps))
        row = judge_with_engine(subject(), on_torch, name)
        assert row["status"] == "wrong"

    def test_a_model_that_is_refused(self, name: str) -> None:
        row = judge_with_engine(subject(make=lambda _: Counting(last=False)), on_torch, name)
        assert row["status"] == "refused"
        assert "torch.export needs images.shape[0]" in row["sentence"]

    def test_the_small_set_is_of_models_that_there_are(self, name: str) -> None:
        for package in (of_timm, of_torchvision, of_transformers):
            short = package.__name__.rpartition("of_")[2]
            assert set(with_engine.SMALL[short]) <= set(package.names(short))


def test_a_model_that_is_not_built() -> None:
    def make(_: Any) -> Any:
        raise RuntimeError("no such thing")

    row = judge(subject(make=make), on_torch)
    assert (row["status"], row["sentence"]) == ("not built", "(32, 32): RuntimeError: no such thing")


def test_a_model_that_is_refused() -> None:
    row = judge(
        subject(make=lambda _: torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 6))), on_torch
    )
    assert row["status"] == "refused"
    assert "layer" in row["sentence"]


def test_maps_by_hand() -> None:
    activations = np.array([[[[1.0, 2.0]], [[3.0, 1.0]]]], np.float32)  # two channels of one row
    gradients = np.array([[[[1.0, 3.0]], [[-1.0, -1.0]]]], np.float32)  # means 2 and -1
    raw = reference.raw_map(activations, gradients)
    np.testing.assert_allclose(raw, [[[0, 3]]])  # 2 - 3 < 0, 4 - 1
    # Half-pixel centres at -0.25, 0.25, 0.75, 1.25 of the old grid.
    np.testing.assert_allclose(reference.finished_map(raw, (1, 4)), [[[0, 0.25, 0.75, 1]]])
    np.testing.assert_array_equal(reference.finished_map(np.ones((1, 2, 2)), (4, 4)), np.zeros((1, 4, 4)))
    assert reference.contrast(raw) == 1
    assert reference.contrast(np.array([[[3.0, 4.0]]])) == 0.25


def test_the_centre_of_change() -> None:
    before, after = np.zeros((1, 2, 3, 5)), np.zeros((1, 2, 3, 5))
    after[0, 0, 2, 1] = -4
    np.testing.assert_allclose(reference.centre_of_change(before, after), [1, 0.25])
    np.testing.assert_allclose(reference.centre_of_change(before, after + 1), [1, 0.25])  # 3 beside 1 everywhere
    images = np.random.Generator(np.random.PCG64(0)).normal(size=(1, 3, 8, 8))
    changed = dict(reference.corners(images, (2, 3), seed=1))
    assert list(changed) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert ((changed[0, 1] != images).nonzero()[2].max(), (changed[0, 1] != images).nonzero()[3].min()) == (3, 4)


def test_layouts() -> None:
    """Token t of a grid, and tokens around them, are where the family puts them."""
    values = np.arange(1 + 12 + 2, dtype=np.float32).reshape(1, 15, 1)
    placed = Layout(before=1, after=2).channels_first(values, (48, 64))
    np.testing.assert_array_equal(placed, 1 + np.arange(12).reshape(1, 1, 3, 4))
    # Frames last: the token of row h, column w and frame t is (h W + w) T + t.
    values = np.arange(2 * 3 * 4, dtype=np.float32).reshape(1, 24, 1)
    placed = Layout(patch=(1, 16, 16), order=(1, 2, 0)).channels_first(values, (4, 32, 48))
    assert placed.shape == (1, 1, 4, 2, 3)
    assert placed[0, 0, 3, 1, 2] == (1 * 3 + 2) * 4 + 3
    assert LAST.channels_first(np.zeros((1, 3, 4, 7)), (48, 64)).shape == (1, 7, 3, 4)
    for shape in ((1, 3, 82, 64), (1, 14, 7), (1, 5)):
        with pytest.raises(UnknownLayoutError):
            FIRST.channels_first(np.zeros(shape), (48, 64))
    by_layer = ByLayer(FIRST, [(r"blocks\.\d+", LAST)])
    assert (by_layer.of("blocks.3#1"), by_layer.of("norm")) == (LAST, FIRST)


def test_boxes_that_overlap() -> None:
    boxes = torch.tensor([[0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30.0]])  # the first two share 90 of 100
    scores = torch.tensor([0.5, 0.9, 0.7])
    assert nms(boxes, scores, 0.8).tolist() == [1, 2]
    assert nms(boxes, scores, 0.95).tolist() == [1, 2, 0]


def test_the_tables(tmp_path: Path) -> None:
    right = judge(subject(), on_torch)
    rows = [
        {**right, "package": "timm", "model": "one", "variant": "one_tiny", "difference": 2e-4},
        {**right, "package": "timm", "model": "two", "expected": False},
        {"package": "timm", "model": "three", "kind": "video", "status": "refused", "sentence": "It says | why."},
        {"package": "timm", "model": "four", "kind": "video", "status": "not built", "sentence": "nothing"},
    ]
    (tmp_path / "timm.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (tmp_path / "versions.json").write_text(
        json.dumps({"date": "2026-01-02", "python": "3.11", "packages": {"timm": "1"}})
    )
    document = tmp_path / "models.md"
    document.write_text("before\n<!-- measured -->\nold\n<!-- end -->\nafter\n")
    assert report.main([str(tmp_path), str(document)]) == 0
    text = document.read_text()
    assert text.startswith("before\n<!-- measured -->\n\nMeasured on 2026-01-02 with Python 3.11; timm 1.\n")
    assert text.endswith("<!-- end -->\nafter\n")
    assert "old" not in text
    assert "| timm | 3 | 2 | 1 | 1 | 0 | 0 | 1 of 2 | 2 of 2 |" in text
    assert "| one (one_tiny) | classification |" in text
    assert "It says \\| why." in text
    assert "| timm | two | `features` |" in text or "| timm | two | `placed` |" in text
    assert "| timm | four | - | nothing |" in text
