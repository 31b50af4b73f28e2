"""Methods and metrics by name: who may have a name, who gets it, and what is said of a name that nobody has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pluggy
import pytest

from fusioncam_core import (
    FusionCAM,
    GradCAM,
    GroupCAM,
    LayerCAM,
    PluginWarning,
    ScoreCAM,
    UnionCAM,
    evaluate,
    plugin_manager,
)
from fusioncam_core.arrays.namespaces import constant_like
from fusioncam_core.explainers import EXPLAINERS, Batch, Explainer, Result
from fusioncam_core.explainers.registry import capabilities, find_method, methods
from fusioncam_core.metrics import METRICS, Complexity, ExplainedBatch, Measured, Metric
from fusioncam_core.metrics.metric import find_metric
from registries import as_before  # noqa: F401 - a fixture

torch = pytest.importorskip("torch")

hookimpl = pluggy.HookimplMarker("fusioncam")


@pytest.fixture
def model() -> Any:
    torch.manual_seed(0)
    convolution = torch.nn.Conv2d(3, 8, 3, padding=1)
    return torch.nn.Sequential(
        convolution, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(8, 4)
    ).eval()


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).random((2, 3, 8, 12), dtype=np.float32)


def columns(name: str, family: str = "gradient") -> type[Explainer]:
    """A method of that name whose maps are 1 on the first columns, half of them by default."""

    class Columns(Explainer):
        def __init__(self, model: Any, layer: Any = None, *, share: float = 0.5, **options: Any):
            self.share = share
            super().__init__(model, layer, **options)

        def explain(self, batch: Batch) -> Result:
            rows, width = batch.size
            maps = np.broadcast_to(np.arange(width) < self.share * width, (*batch.targets.shape, rows, width))
            return Result(constant_like(maps.astype(np.float32), batch.logits, batch.xp))

    return type("Named", (Columns,), {"name": name, "title": "Columns", "family": family})


def total(name: str) -> type[Metric]:
    """A metric of that name: the sum of a map, times a scale."""

    @dataclass(frozen=True)
    class Total(Metric):
        scale: float = 1

        title = "Total"
        better = "higher"

        def measure(self, explained: ExplainedBatch, ground_truth: Any = None) -> Measured:
            return Measured(self.scale * explained.xp.sum(explained.maps, axis=(-2, -1)))

    return dataclass(frozen=True)(type("Named", (Total,), {"name": name}))


class TestNames:
    @pytest.mark.parametrize("name", ["grad-cam", "score-cam", "fusion-cam"])
    def test_those_of_own_methods_are_refused(self, name: str) -> None:
        own = EXPLAINERS[name]
        expected = rf"^Named is called '{name}', as fusioncam's own {own.__name__}: give it another name\.$"
        with pytest.raises(ValueError, match=expected):
            columns(name)
        assert EXPLAINERS[name] is own

    def test_those_of_own_metrics_are_refused(self) -> None:
        with pytest.raises(ValueError, match=r"^Named is called 'complexity', as fusioncam's own Complexity: give it"):
            total("complexity")
        assert METRICS["complexity"] is Complexity

    def test_one_that_is_defined_anew_takes_the_place(self) -> None:
        first, again = columns("columns"), columns("columns")
        assert (find_method("columns"), list(EXPLAINERS).count("columns")) == (again, 1)
        assert first is not again
        total("total")
        anew = total("total")
        assert type(find_metric("total")) is anew

    def test_a_method_and_a_metric_may_share_one(self) -> None:
        method, metric = columns("both"), total("both")
        assert (EXPLAINERS["both"], METRICS["both"]) == (method, metric)

    def test_a_class_that_only_inherits_one_does_not_get_it(self) -> None:
        class Mine(LayerCAM):
            pass

        assert EXPLAINERS["layer-cam"] is LayerCAM
        assert Mine not in EXPLAINERS.values()


class TestLookup:
    @pytest.mark.parametrize(("asked", "near"), [("grad_cam", "grad-cam"), ("LayerCAM", None), ("rice", "rise")])
    def test_unknown_names(self, asked: str, near: str | None) -> None:
        hint = "" if near is None else rf" Did you mean '{near}'\?"
        with pytest.raises(ValueError, match=rf"^A method is one of .*'layer-cam'.*: got '{asked}'\.{hint}$"):
            find_method(asked)

    def test_unknown_metrics(self) -> None:
        with pytest.raises(ValueError, match=r"^A metric is one of .*: got 'deletoin'\. Did you mean 'deletion'\?$"):
            find_metric("deletoin")

    def test_names_of_ones_own_are_meant_as_well(self) -> None:
        columns("first-columns")
        with pytest.raises(ValueError, match=r"got 'first-column'\. Did you mean 'first-columns'\?$"):
            find_method("first-column")

    @pytest.mark.parametrize("asked", [3, None, ["grad-cam"]])
    def test_neither_name_nor_method(self, asked: Any) -> None:
        kind = type(asked).__qualname__
        with pytest.raises(TypeError, match=rf"^A method is given by name, .*: got {kind}\. The names are '"):
            find_method(asked)
        with pytest.raises(TypeError, match=rf"^A metric is given by name, .*: got {kind}\. The names are '"):
            find_metric(asked)

    def test_a_mapping(self) -> None:
        assert "grad-cam" in EXPLAINERS
        assert "columns" not in EXPLAINERS
        count = len(EXPLAINERS)
        columns("columns")
        assert len(EXPLAINERS) == len(list(EXPLAINERS)) == count + 1
        with pytest.raises(KeyError):
            EXPLAINERS["complexity"]


class TestFamilies:
    def test_every_method_is_of_one(self) -> None:
        names = [name for family in ("ensemble", "gradient", "region") for name in methods(family)]
        assert sorted(names) == sorted(EXPLAINERS)
        assert methods("gradient")["grad-cam"] is GradCAM
        assert {"fusion-cam", "union-cam"} <= set(methods("ensemble"))

    def test_one_of_ones_own_is_listed_in_its_own(self) -> None:
        columns("columns", "region")
        assert "columns" in methods("region")
        assert "columns" not in methods("gradient")
        (found,) = [each for each in capabilities() if each.name == "columns"]
        assert (found.title, found.family, found.paper) == ("Columns", "region", "")
        assert (found.needs_gradients, found.needs_layer, found.runs_masked) == (False, True, False)

    @pytest.mark.parametrize(
        ("role", "given"), [("gradient", "score-cam"), ("gradient", "union-cam"), ("region", "grad-cam")]
    )
    def test_a_wrong_one_is_refused(self, model: Any, role: str, given: str) -> None:
        with pytest.raises(ValueError, match=rf"^{role} is one of .*: got '{given}'"):
            FusionCAM(model, **{role: given})

    def test_so_is_an_object_of_a_wrong_one(self, model: Any) -> None:
        with pytest.raises(ValueError, match=r"^gradient is an explainer of 'grad-cam', .*: got one of 'score-cam'"):
            FusionCAM(model, gradient=ScoreCAM(model))
        with pytest.raises(ValueError, match=r"^region is an explainer of .*: got one of 'columns'"):
            UnionCAM(model, region=columns("columns")(model))


class Plugin:
    """Offers what it is made with, and counts how often it is asked."""

    def __init__(self, methods: Any = (), metrics: Any = ()):
        self.offered = {"methods": list(methods), "metrics": list(metrics)}
        self.asked = {"methods": 0, "metrics": 0}

    def _answer(self, what: str) -> list[Any]:
        self.asked[what] += 1
        return self.offered[what]

    @hookimpl
    def fusioncam_methods(self) -> list[Any]:
        return self._answer("methods")

    @hookimpl
    def fusioncam_metrics(self) -> list[Any]:
        return self._answer("metrics")


class TestPlugins:
    def test_are_asked_when_a_name_is_looked_up(self, model: Any) -> None:
        plugin = Plugin()
        plugin_manager().register(plugin)
        GradCAM(model)
        columns("columns")
        assert plugin.asked == {"methods": 0, "metrics": 0}
        find_method("grad-cam")
        assert plugin.asked["methods"] > 0
        assert plugin.asked["metrics"] == 0
        find_metric("complexity")
        assert plugin.asked["metrics"] > 0

    def test_bring_classes_that_are_found_by_name(self, model: Any) -> None:
        method, metric = columns("columns"), total("total")
        del EXPLAINERS._classes["columns"], METRICS._classes["total"]  # as in a process that has not imported them yet
        assert "columns" not in EXPLAINERS
        plugin_manager().register(Plugin([method], [metric]))
        assert EXPLAINERS["columns"] is method
        assert METRICS["total"] is metric
        assert FusionCAM(model, gradient="columns").gradient.name == "columns"

    def test_two_plugins(self) -> None:
        first, second = columns("first"), columns("second")
        for plugin in (Plugin([first]), Plugin([second])):
            plugin_manager().register(plugin)
        assert (EXPLAINERS["first"], EXPLAINERS["second"]) == (first, second)

    def test_a_class_without_a_name_is_refused(self) -> None:
        class Nameless(Explainer):
            def explain(self, batch: Batch) -> Result:
                raise NotImplementedError

        plugin_manager().register(Plugin([Nameless]), "nameless")
        with pytest.warns(
            PluginWarning, match=r"'nameless' is left out: .* a method: .* a class with a name, got <.*Na"
        ):
            assert find_method("grad-cam") is GradCAM

    def test_so_is_what_is_no_class(self, model: Any) -> None:
        plugin_manager().register(Plugin(["grad-cam"]), "texts")
        with pytest.warns(PluginWarning, match=r"it offers a method: expected a class with a name, got 'grad-cam'"):
            FusionCAM(model)
        plugin_manager().register(Plugin([], [Complexity()]), "objects")
        with pytest.warns(PluginWarning, match=r"it offers a metric: expected a class with a name, got Complexity\("):
            find_metric("complexity")


class TestEvaluation:
    """Of 96 pixels the first half of the columns, 48, are 1; a quarter of them are 24."""

    @pytest.mark.parametrize("given", ["name", "class", "object"])
    def test_methods_and_metrics_however_they_are_given(self, model: Any, images: np.ndarray, given: str) -> None:
        method, metric = columns("columns"), total("total")
        ways = {"name": ("columns", "total"), "class": (method, metric), "object": (method(model), metric())}
        asked, measured = ways[given]
        found = evaluate(model, images, [asked, "grad-cam"], [measured, "complexity"], [0, 1], progress=False)
        assert found.methods == ("columns", "grad-cam")
        np.testing.assert_allclose(found.of("columns", "total"), [48, 48])
        np.testing.assert_allclose(found.of("columns", "complexity"), [0.5, 0.5])

    def test_with_options(self, model: Any, images: np.ndarray) -> None:
        method, metric = columns("columns"), total("total")
        named = {"by name": ("columns", {"share": 0.25}), "by class": (method, {"share": 0.25}), "plain": "columns"}
        found = evaluate(model, images, named, [metric(scale=2)], [0, 1], progress=False)
        np.testing.assert_allclose(found.of("by name", "total"), [48, 48])
        np.testing.assert_allclose(found.of("by class", "total"), [48, 48])
        np.testing.assert_allclose(found.of("plain", "total"), [96, 96])

    def test_a_class_is_called_by_its_name(self, model: Any, images: np.ndarray) -> None:
        found = evaluate(model, images, [GradCAM, LayerCAM], [Complexity], [0, 1], progress=False)
        assert found.methods == ("grad-cam", "layer-cam")
        with pytest.raises(ValueError, match="Two methods have one name"):
            evaluate(model, images, [GradCAM, GradCAM(model)], [Complexity], progress=False)

    def test_a_class_of_something_else(self, model: Any, images: np.ndarray) -> None:
        with pytest.raises(TypeError, match=r"^A method is given by name, .*: got the class Complexity\."):
            evaluate(model, images, [Complexity], ["complexity"], progress=False)
        with pytest.raises(TypeError, match=r"^A metric is given by name, .*: got the class GradCAM\."):
            evaluate(model, images, ["grad-cam"], [GradCAM], progress=False)


class TestParts:
    def test_one_of_ones_own_with_options(self, model: Any, images: np.ndarray) -> None:
        columns("columns")
        cam = FusionCAM(model, "0", gradient="columns", gradient_options={"share": 0.25})
        part = cam(images, 0).numpy().parts["gradient"]
        np.testing.assert_allclose(part, np.broadcast_to(np.arange(12) < 3, (2, 8, 12)))

    def test_group_cam_with_options(self, model: Any, images: np.ndarray) -> None:
        cam = FusionCAM(model, "0", region="group-cam", region_options={"groups": 4})
        found, alone = cam(images, 0).numpy(), GroupCAM(model, "0", groups=4)(images, 0).numpy()
        assert cam.region.get_params()["groups"] == 4
        np.testing.assert_allclose(found.parts["region"], alone.maps, atol=1e-6)
        # Two images: plain, 4 groups and blurred each; then black once for both, and 3 maps each.
        assert (alone.evaluations, found.evaluations) == (2 * 6, 2 * 6 + 1 + 2 * 3)
        # By default there are 32 groups, here as many as channels: 8.
        assert FusionCAM(model, "0", region="group-cam")(images, 0).evaluations == found.evaluations + 2 * 4
