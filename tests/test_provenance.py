"""How an explanation came to be: what is said of it, and that nothing is said that was not so."""

from __future__ import annotations

import enum
import functools
import gc
import hashlib
import json
import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fusioncam_core
from fusioncam_core import (
    RISE,
    BlackBox,
    Explanation,
    FusionCAM,
    GradCAM,
    Preprocessing,
    Provenance,
    ScoreCAM,
    SmoothGradCAMPlusPlus,
    UnionCAM,
    adapt_model,
)
from fusioncam_core.models.digest import shows_weights, weights_digest
from fusioncam_core.results.provenance import plain
from libraries import framework

IMAGES = np.random.default_rng(0).random((3, 3, 12, 10), dtype=np.float32)

# With weights as they were drawn there may be nothing to see.
pytestmark = pytest.mark.filterwarnings("ignore::fusioncam_core.EmptyMapWarning")


def network(seed: int = 0) -> Any:
    """A tiny one, which has running averages."""
    torch = framework("torch")
    torch.manual_seed(seed)
    nn = torch.nn
    layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)]
    return nn.Sequential(*layers).eval()


def made_by(cam: Any, **call: Any) -> Provenance:
    provenance = cam(IMAGES, 0, **call).provenance
    assert provenance is not None
    return provenance


class TestWhatIsSaid:
    def test_of_one_method(self) -> None:
        torch = framework("torch")
        found = made_by(GradCAM(network(), "2", batch_size=2, progress=False, backend_options={"channels": "first"}))
        assert found.version == fusioncam_core.__version__
        assert (found.method, found.layers, found.model, found.device) == ("grad-cam", ("2",), "Sequential", "cpu")
        assert found.frameworks == {"torch": torch.__version__}
        assert (found.weights_digest, found.preprocessing, found.seed) == (None, None, None)
        options = dict(found.options)
        assert {name: options.pop(name) for name in ("batch_size", "backend_options", "baseline", "task")} == {
            "batch_size": 2,
            "backend_options": {"channels": "first"},
            "baseline": "zero",
            "task": "multiclass",
        }
        assert not {"model", "layer", "progress", "weights_digest"} & set(options)

    def test_of_methods_made_of_others(self) -> None:
        model = network()
        found = made_by(FusionCAM(model, "2", region=ScoreCAM(model, "1", budget=3), percentile=20))
        assert found.options["percentile"] == 20
        assert found.options["gradient"]["method"] == "grad-cam"
        assert "layers" not in found.options["gradient"]
        region = found.options["region"]
        assert (region["method"], region["layers"], region["options"]["budget"]) == ("score-cam", ["1"], 3)
        assert region["options"]["channel_weights"] == "softmax"

    @pytest.mark.parametrize(
        ("make", "seed"),
        [
            (lambda model: RISE(model, masks=4, seed=5), 5),
            (lambda model: SmoothGradCAMPlusPlus(model, samples=2), 0),
            (lambda model: UnionCAM(model, region="rise", region_options={"masks": 4, "seed": 6}), 6),
            (lambda model: UnionCAM(model), None),
        ],
    )
    def test_the_seed(self, make: Callable[[Any], Any], seed: int | None) -> None:
        assert made_by(make(network())).seed == seed

    def test_no_layer(self) -> None:
        assert made_by(RISE(network(), masks=4)).layers == ()

    def test_several_layers(self) -> None:
        assert made_by(GradCAM(network(), ["0", "2"])).layers == ("0", "2")

    def test_the_call_of_a_layer(self) -> None:
        torch = framework("torch")

        class Twice(torch.nn.Module):  # type: ignore[misc, name-defined]
            def __init__(self) -> None:
                super().__init__()
                self.conv, self.fc = torch.nn.Conv2d(3, 3, 1), torch.nn.Linear(3, 2)

            def forward(self, images: Any) -> Any:
                return self.fc(self.conv(self.conv(images).relu()).mean((2, 3)))

        assert made_by(GradCAM(Twice().eval(), "conv#0")).layers == ("conv#0",)
        assert made_by(GradCAM(Twice().eval(), "conv")).layers == ("conv",)

    @pytest.mark.parametrize("library", ["numpy", "torch", "jax"])
    def test_of_a_black_box(self, library: str) -> None:
        like = {"numpy": np.zeros(1, np.float32)}.get(library)
        if like is None:
            module = framework(library)
            like = module.zeros(1) if library == "torch" else module.numpy.zeros(1)
        explained = RISE(BlackBox(lambda images: images.mean(axis=(2, 3)), like=like), masks=4)(IMAGES, 0)
        assert explained.provenance is not None
        (name,) = explained.provenance.frameworks
        assert name.startswith(library)
        assert explained.provenance.frameworks[name][0].isdigit()
        assert "cpu" in explained.provenance.device.lower()

    def test_of_photographs(self, tmp_path: Path) -> None:
        image = pytest.importorskip("PIL.Image")
        image.new("RGB", (20, 20), (200, 10, 10)).save(tmp_path / "a.png")
        preprocessing = Preprocessing(size=(12, 10))
        (found,) = GradCAM(network()).explain_many(tmp_path, preprocessing=preprocessing)
        assert found.provenance.preprocessing == {
            "kind": "fusioncam_core.data.preprocessing.Preprocessing",
            "size": [12, 10],
            "crop_fraction": 1.0,
            "interpolation": "bicubic",
            "mean": 127.0,
            "std": 128.0,
            "channels": "first",
            "colours": "rgb",
        }
        found.save(tmp_path / "out", pictures=False)
        assert Explanation.load(tmp_path / "out" / "a") == found
        numbers = json.loads((tmp_path / "out" / "a.json").read_text())
        assert numbers["provenance"] == found.provenance.to_json()
        (found,) = GradCAM(network()).explain_many(IMAGES[:1], preprocessing=preprocessing)
        assert found.provenance.preprocessing is None, "arrays come as they are"

    def test_equal_work_has_an_equal_origin(self) -> None:
        model = network()
        assert made_by(GradCAM(model)) == made_by(GradCAM(model))
        assert made_by(FusionCAM(model)) != made_by(FusionCAM(model, percentile=11))

    def test_baselines_are_told_apart(self) -> None:
        model = network()
        images = [np.full((3, 12, 10), value, np.float32) for value in (0.25, 0.25, 0.5)]
        first, second, third = (made_by(RISE(model, masks=4, baseline=each)).options["baseline"] for each in images)
        assert first == second != third
        assert (first["shape"], first["dtype"]) == ([3, 12, 10], "float32")


class TestWeights:
    def test_of_the_model_that_was_explained_and_not_of_what_became_of_it(self, tmp_path: Path) -> None:
        """Training that goes on between the call and the file, in ways that leave no trace in PyTorch's counters."""
        torch = framework("torch")
        model = network()
        explained = GradCAM(model, weights_digest=True)(IMAGES, 0)
        explained.save(tmp_path, ["before", "b", "c"], pictures=False)
        model[0].weight.data.mul_(2)
        explained.save(tmp_path, ["after", "e", "f"], pictures=False)
        before, after = (Explanation.load(tmp_path / name).provenance for name in ("before", "after"))
        assert before == after
        assert before.weights_digest == weights_digest(adapt_model(network()))
        assert before.weights_digest != made_by(GradCAM(model, weights_digest=True)).weights_digest
        with torch.no_grad():
            model[0].weight.div_(2)
        assert before.weights_digest == made_by(GradCAM(model, weights_digest=True)).weights_digest

    def test_it_is_what_hashlib_says(self) -> None:
        """Of shape, dtype and bytes: first of what is trained, then of running averages and the number of batches."""
        model = network()
        state = model.state_dict()
        trained = [name for name, _ in model.named_parameters()]
        expected = hashlib.sha256()
        for name in [*trained, *(each for each in state if each not in trained)]:
            values = state[name].numpy()
            expected.update(f"{values.shape} {values.dtype}\n".encode() + values.tobytes())
        assert made_by(GradCAM(model, weights_digest=True)).weights_digest == f"sha256:{expected.hexdigest()}"

    @pytest.mark.parametrize("change", ["weight", "running average", "shape"])
    def test_models_are_told_apart(self, change: str) -> None:
        torch = framework("torch")
        first, second = network(), network()
        assert weights_digest(adapt_model(first)) == weights_digest(adapt_model(second))
        with torch.no_grad():
            if change == "weight":
                second[5].bias[1] += 1e-7
            elif change == "running average":
                second[1].running_mean[0] += 1e-7
            else:
                second[0].weight = torch.nn.Parameter(second[0].weight.reshape(3, 4, 3, 3))
        assert weights_digest(adapt_model(first)) != weights_digest(adapt_model(second))

    def test_bfloat16(self) -> None:
        torch = framework("torch")
        short, long = (weights_digest(adapt_model(network().to(torch.bfloat16).to(dtype))) for dtype in
                       (torch.bfloat16, torch.float32))  # fmt: skip
        assert short != long, "of equal values, and of another dtype"

    def test_they_are_read_only_if_that_is_asked_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        cam = GradCAM(network())
        monkeypatch.setattr(type(cam.adapter), "weights", lambda self: pytest.fail("they were read"))
        assert made_by(cam).weights_digest is None

    def test_parts_do_not_digest_them_again(self, monkeypatch: pytest.MonkeyPatch) -> None:
        cam = FusionCAM(network(), weights_digest=True)
        counted, weights = [], type(cam.adapter).weights
        monkeypatch.setattr(type(cam.adapter), "weights", lambda self: counted.append(1) or weights(self))
        assert made_by(cam).weights_digest is not None
        assert len(counted) == 1

    @pytest.mark.parametrize("value", ["yes", 1, None], ids=repr)
    def test_neither_true_nor_false(self, value: Any) -> None:
        with pytest.raises(TypeError, match=rf"weights_digest is True or False: got {value!r}"):
            GradCAM(network(), weights_digest=value)

    def test_of_a_black_box(self) -> None:
        box = BlackBox(lambda images: images.mean(axis=(2, 3)))
        assert not shows_weights(box)
        with pytest.raises(TypeError, match="Expected a model that shows its weights for weights_digest=True, got"):
            RISE(box, masks=4, weights_digest=True)(IMAGES, 0)

    def test_an_explanation_does_not_keep_the_model(self) -> None:
        model = network()
        explained = GradCAM(model, weights_digest=True)(IMAGES, 0)
        gone = weakref.ref(model[0].weight)
        del model
        gc.collect()
        assert gone() is None
        assert explained.provenance is not None


class Colour(enum.Enum):
    RED = 1


@dataclass
class Cut:
    size: tuple[int, int]
    by: Any = None


class Tall:
    def __repr__(self) -> str:
        return "Tall(3)"


class TestPlainValues:
    @pytest.mark.parametrize(
        ("value", "words"),
        [
            (None, None),
            (True, True),
            (3, 3),
            (0.5, 0.5),
            ("a", "a"),
            (np.float32(0.5), 0.5),
            (np.bool_(True), True),
            (float("inf"), "inf"),
            (float("nan"), "nan"),
            ((1, [2, (3,)]), [1, [2, [3]]]),
            ({"a": (1,), 2: None}, {"a": [1], "2": None}),
            ({"b", "a"}, ["a", "b"]),
            (Colour.RED, f"{__name__}.Colour.RED"),
            (Cut((1, 2)), {"kind": f"{__name__}.Cut", "size": [1, 2], "by": None}),
            (plain, "fusioncam_core.results.provenance.plain"),
            (GradCAM, "fusioncam_core.explainers.gradient.GradCAM"),
            (Tall(), "Tall(3)"),
            (object(), "builtins.object"),
            (
                functools.partial(plain, 3, a=(4,)),
                {
                    "kind": "functools.partial",
                    "function": "fusioncam_core.results.provenance.plain",
                    "arguments": [3],
                    "keywords": {"a": [4]},
                },
            ),
            (
                np.array([[1, 2]], np.uint8),
                {
                    "shape": [1, 2],
                    "dtype": "uint8",
                    "digest": "sha256:a12871fee210fb8619291eaea194581cbd2531e4b23759d225f6806923f63222",
                },
            ),
        ],
    )
    def test_in_the_words_of_json(self, value: Any, words: Any) -> None:
        found = plain(value)
        assert found == words
        assert type(found) is type(words)
        assert json.loads(json.dumps(found, allow_nan=False)) == found

    def test_there_and_back(self) -> None:
        given = made_by(FusionCAM(network(), "2", baseline=[0.1, 0.2, 0.3], weights_digest=True))
        given = replace(given, preprocessing=plain(Preprocessing()))
        assert Provenance.from_json(json.loads(json.dumps(given.to_json(), allow_nan=False))) == given

    def test_it_has_no_hash(self) -> None:
        with pytest.raises(TypeError, match="unhashable"):
            hash(made_by(GradCAM(network())))
