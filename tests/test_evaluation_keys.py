"""Values are kept by all that they depend on: no option, no model and no image gets those of another."""

from __future__ import annotations

import functools
import importlib.util
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fusioncam_core
from fusioncam_core import RISE, BlackBox, FusionCAM, GradCAM, Preprocessing, ScoreCAM, adapt_model, evaluate
from fusioncam_core.evaluation import named
from fusioncam_core.evaluation.ground_truth import GroundTruth
from fusioncam_core.evaluation.keys import KeptKeys, Row, image_digests
from fusioncam_core.explainers import EXPLAINERS
from fusioncam_core.explainers.arguments import WITHOUT_EFFECT
from fusioncam_core.metrics import METRICS, Deletion, Metric
from fusioncam_core.metrics.metric import Measured
from fusioncam_core.stores.fingerprints import Fingerprints
from libraries import framework

torch = pytest.importorskip("torch")

from given_maps import Given, Looks, inverted, perfect, white  # noqa: E402

OWN = [name for name, each in EXPLAINERS.items() if each.__module__.startswith("fusioncam_core.")]
OWN_METRICS = [name for name, each in METRICS.items() if each.__module__.startswith("fusioncam_core.")]


def grid(tokens: Any) -> Any:
    return tokens.reshape(len(tokens), 14, 14, -1)


CHANGED: dict[str, Any] = {
    "engine": "onnxruntime",
    "engine_precision": "bfloat16",
    "layer": "features.5",
    "task": "multilabel",
    "output_kind": "probabilities",
    "output": 0,
    "masked_input": 0,
    "shared": (1,),
    "reshape": (14, 14),
    "combine": "max",
    "baseline": 0.5,
    "relu": False,
    "normalised": False,
    "size": (24, 24),
    "backend_options": {"channels": "first"},
    "budget": 8,
    "tolerance": 0.1,
    "channel_weights": "probability",
    "groups": 5,
    "grouping": "k-means",
    "percentile": 33.0,
    "blur": 12.5,
    "seed": 7,
    "samples": 3,
    "std": 0.33,
    "steps": 4,
    "masks": 11,
    "cells": 5,
    "probability": 0.25,
    "gradient": "hires-cam",
    "region": "group-cam",
    "gradient_options": {},
    "region_options": {},
    "contributions": "signed",
    "variant": "calibrated",
    # of metrics
    "fractions": (0.5,),
    "noise": 0.2,
    "sides": (0.25, 0.5),
    "radius": 0.1,
    "tolerance of pointing-game": 15,
    "threshold": 0.75,
}
"""Another value of every keyword than its default; a keyword that is not here fails the test until it is."""


REFUSED = {(name, keyword) for name in ("fusion-cam", "union-cam") for keyword in ("relu", "normalised")}
"""Keywords of which a method has no other value."""


@pytest.fixture
def model(shapes_weights: dict[str, Any]) -> Any:
    from torch_models import Shapes

    return Shapes(shapes_weights).eval()


def key(explainer: Any = None, metric: Any = None, **options: Any) -> tuple[str, str]:
    """The method and the metric of a value's key."""
    measure = Deletion() if metric is None else metric
    cam = Given(Looks(), perfect) if explainer is None else explainer
    fingerprints = Fingerprints(options.pop("model_name", "looks"))
    keys = KeptKeys({"cam": cam}, [measure], GroundTruth(None), fingerprints, options.pop("backend_options", None))
    found = keys.value(Row("0", 0, "image", 1, 0.5), "cam", measure)
    return found.method, found.metric


class TestEveryKeyword:
    @pytest.mark.parametrize("name", OWN)
    def test_of_explainers(self, model: Any, name: str) -> None:
        kind = EXPLAINERS[name]
        seen = {key(kind(model))}
        for keyword in kind(model).get_params():
            if keyword in WITHOUT_EFFECT and keyword != "layer":
                continue
            if keyword == "engine" and importlib.util.find_spec("onnxruntime") is None:
                continue
            value = CHANGED[keyword]
            if (name, keyword) in REFUSED:
                with pytest.raises(ValueError, match=keyword):
                    kind(model, **{keyword: value})
                continue
            found, again = key(kind(model, **{keyword: value})), key(kind(model, **{keyword: value}))
            assert found not in seen, keyword
            assert found == again, keyword
            seen.add(found)

    @pytest.mark.parametrize("name", OWN)
    def test_how_fast_and_how_watched_does_not_count(self, model: Any, name: str) -> None:
        kind = EXPLAINERS[name]
        assert key(kind(model, batch_size=3, progress=True)) == key(kind(model))

    @pytest.mark.parametrize(
        ("name", "options"),
        [
            ("rise", {"masks": 12}),
            ("ss-cam", {"samples": 2, "budget": 20}),
            ("smooth-grad-cam++", {"samples": 3}),
            ("group-cam", {"groups": 4, "grouping": "k-means"}),
        ],
    )
    def test_nor_does_it_change_what_is_drawn(
        self, model: Any, shapes: dict[str, Any], name: str, options: dict[str, Any]
    ) -> None:
        layer = {} if name == "rise" else {"layer": "features"}
        maps = [
            EXPLAINERS[name](model, **layer, batch_size=size, progress=False, **options)(shapes["images"][:3])
            .numpy()
            .maps
            for size in (1, 5)
        ]
        np.testing.assert_allclose(maps[0], maps[1], atol=1e-4)

    @pytest.mark.parametrize("name", OWN_METRICS)
    def test_of_metrics(self, name: str) -> None:
        kind = METRICS[name]
        seen = {key(metric=kind())}
        for field in fields(kind):
            value = CHANGED.get(f"{field.name} of {name}", CHANGED[field.name])
            found = key(metric=kind(**{field.name: value}))
            assert found not in seen, field.name
            assert found == key(metric=kind(**{field.name: value})), field.name
            seen.add(found)

    def test_of_parts(self, model: Any) -> None:
        forms = [
            FusionCAM(model),
            FusionCAM(model, region=ScoreCAM(model)),
            FusionCAM(model, region=ScoreCAM(model, budget=8)),
            FusionCAM(model, region=ScoreCAM(model, "features.5")),
            FusionCAM(model, region="rise"),
            FusionCAM(model, region="rise", region_options={"masks": 5}),
            FusionCAM(model, region="ss-cam", region_options={"std": 1.0}),
            FusionCAM(model, region="ss-cam", region_options={"std": 2.5}),
        ]
        assert len({key(each) for each in forms}) == len(forms)

    def test_values_in_options(self, model: Any) -> None:
        baselines = [np.zeros(3), np.ones(3), np.zeros((3, 48, 48)), 0.0, "blur"]
        assert len({key(ScoreCAM(model, baseline=each)) for each in baselines}) == len(baselines)
        assert key(ScoreCAM(model, baseline=np.zeros(3))) == key(ScoreCAM(model, baseline=np.zeros(3)))
        assert key(FusionCAM(model, percentile=10)) == key(FusionCAM(model, percentile=10.0))
        shared = [GradCAM(model, shared=each) for each in (("a",), ["a"])]
        assert key(shared[0]) == key(shared[1])

    def test_of_the_evaluation(self) -> None:
        assert key(backend_options={"channels": "first"}) != key()
        assert key(model_name="another") != key()

    def test_the_version(self, monkeypatch: pytest.MonkeyPatch) -> None:
        before = key()
        monkeypatch.setattr(fusioncam_core, "__version__", "99.0")
        assert all(one != other for one, other in zip(key(), before, strict=True))

    def test_the_same_in_another_process(self) -> None:
        script = (
            "import sys; sys.path[:0] = sys.argv[1:]\n"
            "from tests.test_evaluation_keys import *\n"
            "print(repr([key(), key(GradCAM(Looks(), reshape=grid)), key(metric=Brightest())]))"
        )
        root = Path(__file__).parents[1]
        paths = [str(root), str(root / "tests"), str(root / "backends")]
        done = subprocess.run([sys.executable, "-c", script, *paths], capture_output=True, text=True, check=True)
        from tests import test_evaluation_keys as same

        expected = [same.key(), same.key(GradCAM(Looks(), reshape=same.grid)), same.key(metric=same.Brightest())]
        assert done.stdout.strip() == repr(expected)


@dataclass(frozen=True)
class Brightest(Metric):
    """A metric of a user's own."""

    words: frozenset[str] = frozenset({"a", "b", "c"})

    title = "Brightest"
    better = "higher"

    def measure(self, explained: Any, ground_truth: Any = None) -> Measured:
        dimensions = (
            (1, 2) if self.name in {"brightest", "second", "third"} else 1
        )  # a set of words among the constants
        return Measured(explained.maps.amax(dim=dimensions))


Brightest.name = "brightest"


class TestWhatHasNoValue:
    def closure(self, side: int) -> Callable[[Any], Any]:
        def reshape(tokens: Any) -> Any:
            return tokens.reshape(len(tokens), side, side, -1)

        return reshape

    def test_a_closure_is_refused(self, model: Any, tmp_path: Path) -> None:
        with pytest.raises(TypeError, match=r"The reshape of 'grad-cam' is a closure \(.*reshape\).*named\(function, "):
            evaluate(
                model,
                white(),
                ["grad-cam"],
                ["complexity"],
                reshape=self.closure(14),
                out=tmp_path / "new",
                layer="features",
            )
        assert not (tmp_path / "new").exists()

    def test_unless_it_has_a_name(self, model: Any) -> None:
        prints = [key(GradCAM(model, reshape=named(self.closure(14), name))) for name in ("14", "14", "16")]
        assert prints[0] == prints[1] != prints[2]
        assert named(self.closure(2), "two")(np.zeros((1, 4, 3))).shape == (1, 2, 2, 3)
        with pytest.raises(TypeError, match="Expected a function and its name, got 14 and 'x'"):
            named(14, "x")  # type: ignore[arg-type]

    def test_functions_count_by_their_code(self) -> None:
        def first(images: Any) -> Any:
            return images + 1

        def second(images: Any) -> Any:
            return images + 2

        words = Fingerprints()
        assert words.of(first) != words.of(second)
        assert words.of(grid) == Fingerprints().of(grid)
        assert words.of(lambda images: images + 1) != words.of(lambda images: images + 2)
        assert words.of(functools.partial(grid, 1)) != words.of(functools.partial(grid, 2))

    def test_objects(self) -> None:
        words = Fingerprints()
        with pytest.raises(TypeError, match="The value is a object, an object without a value"):
            words.of(object())
        with pytest.raises(TypeError, match=r"The value\['x'\]\[1\] is a object"):
            words.of({"x": [1, object()]})
        assert words.of(Preprocessing()) == words.of(Preprocessing())
        assert words.of(Preprocessing()) != words.of(Preprocessing(size=(1, 1)))
        assert words.of(torch.float32) != words.of(torch.float64)
        assert words.of({"a": 1, "b": 2}) == words.of({"b": 2, "a": 1})
        assert words.of(True) != words.of(1)
        assert words.of("1") != words.of(1)

    def test_maps_of_a_users_explainer(self) -> None:
        assert key(Given(Looks(), perfect)) != key(Given(Looks(), inverted))

    def test_code_of_a_users_explainer(self) -> None:
        def made(number: int) -> Any:
            class Own(Given):
                strength = number

            return Own(Looks(), perfect)

        def changed() -> Any:
            class Own(Given):
                strength = 1

                def explain(self, batch: Any) -> Any:
                    return super().explain(batch)

            return Own(Looks(), perfect)

        prints = {"first": key(made(1)), "same": key(made(1)), "attribute": key(made(2)), "method": key(changed())}
        assert prints["first"] == prints["same"]
        assert len(set(prints.values())) == 3


class TestModels:
    def test_one_weight(self, model: Any) -> None:
        before = key(GradCAM(model))
        with torch.no_grad():
            model.fc.weight[0, 0] += 1e-6
        assert key(GradCAM(model)) != before

    def test_the_same_weights_in_another_object(self, shapes_weights: dict[str, Any]) -> None:
        from torch_models import Shapes

        first, second = (Shapes(shapes_weights).eval() for _ in range(2))
        assert key(GradCAM(first)) == key(GradCAM(second))
        assert key(GradCAM(first), model_name=None) == key(GradCAM(second), model_name=None)

    def test_what_is_not_trained(self) -> None:
        def net() -> Any:
            return torch.nn.Sequential(torch.nn.BatchNorm2d(3), torch.nn.LeakyReLU(0.1), torch.nn.Flatten()).eval()

        moved, slope, frozen = net(), net(), net()
        moved[0].running_mean += 1
        slope[1].negative_slope = 0.2
        frozen[0].requires_grad_(False)
        words = [Fingerprints().model(adapt_model(each)) for each in (net(), moved, slope)]
        assert len(set(words)) == 3
        assert Fingerprints().model(adapt_model(frozen)) == words[0]

    @pytest.mark.parametrize("record", [torch.jit.script, torch.fx.symbolic_trace])
    @pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
    def test_recorded_modules(self, record: Any) -> None:
        def net(slope: float) -> Any:
            return record(torch.nn.Sequential(torch.nn.BatchNorm2d(3), torch.nn.LeakyReLU(slope)).eval())

        words = [Fingerprints().model(adapt_model(net(slope))) for slope in (0.1, 0.1, 0.2)]
        assert words[0] == words[1] != words[2]

    def test_functions_of_jax(self) -> None:
        framework("jax")
        first, second, third = (self.scaled(value) for value in (1.0, 1.0, 1.0001))
        words = [Fingerprints().model(adapt_model(each)) for each in (first, second, third)]
        assert words[0] == words[1] != words[2]

    def scaled(self, factor: float) -> Any:
        import jax.numpy as jnp

        def apply(parameters: Any, images: Any) -> Any:
            return parameters["scale"] * images.mean(axis=(1, 2))

        return apply, {"scale": jnp.asarray([factor, 1.0, 2.0])}

    def test_without_weights_it_needs_a_name(self, tmp_path: Path) -> None:
        def bright(images: Any) -> Any:
            return np.stack([images.mean(axis=(1, 2, 3)), 1 - images.mean(axis=(1, 2, 3))], axis=1)

        box = BlackBox(bright)
        call = functools.partial(
            evaluate, box, white(), [RISE(box, masks=3)], ["complexity"], progress=False, targets=0
        )
        assert call().problems == (), "nothing is kept, and nothing needs a name"
        with pytest.raises(TypeError, match=r"bright shows no weights.* Expected model_name=.* got none"):
            call(out=tmp_path / "new")
        assert not (tmp_path / "new").exists()
        call(out=tmp_path / "new", model_name="bright")

    def test_it_is_looked_at_once(self, model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        looked: list[str] = []
        original = Fingerprints._digest_of
        monkeypatch.setattr(Fingerprints, "_digest_of", lambda self, each: looked.append("") or original(self, each))
        methods = {"name": "grad-cam", "class": GradCAM, "object": GradCAM(model), "again": FusionCAM(model)}
        images = np.zeros((1, 3, 48, 48), dtype=np.float32) + 0.5
        evaluate(model, images, {"name": methods["name"]}, ["complexity"], 1, out=tmp_path, layer="features")
        assert len(looked) == 1
        looked.clear()
        KeptKeys(
            {label: each for label, each in methods.items() if label in ("object", "again")},
            [Deletion()],
            GroundTruth(None),
            Fingerprints(),
            None,
        )
        assert len(looked) == 1


class TestImages:
    def test_digests_are_those_of_the_numbers(self) -> None:
        images, words = white(2), Fingerprints()
        images[1] *= 0.5
        assert len(set(image_digests(images, words))) == 2
        assert image_digests(images, words) == image_digests(torch.from_numpy(images), words)
        assert image_digests(images, words) != image_digests(images.reshape(2, 3, -1, 1), words)

    def test_what_is_no_array_counts(self) -> None:
        words = Fingerprints()
        prints = [image_digests((white(1), flag), words) for flag in (None, "a", "b")]
        assert len({each[0] for each in prints}) == 3
