"""Maps of other libraries in an evaluation and in single metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fusioncam_core import EXPLAINERS, GradCAM, ScoreCAM, evaluate, normalise
from fusioncam_core.arrays.namespaces import to_numpy
from fusioncam_core.metrics import METRICS, Deletion, Measured, Metric, measure_maps
from libraries import Library, framework

torch = pytest.importorskip("torch")

from given_maps import Given, Looks, inverted, perfect, white  # noqa: E402

OWN_METRICS = [name for name, each in METRICS.items() if each.__module__.startswith("fusioncam_core.")]
AGAIN = ("coherency", "adcc", "max-sensitivity")
OPTIONS: dict[str, Any] = {"output_kind": "probabilities", "progress": False}


def maps_of(count: int = 3, make: Any = perfect) -> np.ndarray:
    return make(white(count)).astype(np.float32)


def uneven(count: int = 3) -> np.ndarray:
    """White images of different brightness."""
    return white(count) * np.linspace(0.4, 1, count, dtype=np.float32)[:, None, None, None]


@pytest.fixture
def model(shapes_weights: dict[str, Any]) -> Any:
    from torch_models import Shapes

    return Shapes(shapes_weights).eval()


class TestTheSameValuesAsOfAnExplainer:
    @pytest.mark.parametrize("name", [name for name in OWN_METRICS if name not in AGAIN])
    def test_every_metric(self, model: Any, shapes: dict[str, Any], name: str) -> None:
        images, targets, masks = shapes["images"][:3], shapes["target"][:3], shapes["masks"][:3]
        cam = GradCAM(model, "features", batch_size=2)
        maps = cam(images, targets).maps
        methods = {"own": cam, "given": maps}
        found = evaluate(model, images, methods, [name], targets, masks=masks, batch_size=2, progress=False)
        assert found.problems == ()
        np.testing.assert_allclose(found.of("given", name), found.of("own", name), atol=1e-6)
        alone = measure_maps(name, maps, model, images, targets, masks=masks)
        np.testing.assert_allclose(to_numpy(alone.values), found.of("own", name), atol=1e-5)

    def test_maps_of_any_library(self, eager: Library) -> None:
        maps = eager.asarray(maps_of())
        found = evaluate(Looks(), uneven(), {"mine": maps}, ["deletion", "complexity"], 1, **OPTIONS)
        expected = evaluate(
            Looks(), uneven(), {"mine": Given(Looks(), perfect, **OPTIONS)}, ["deletion", "complexity"], 1, **OPTIONS
        )
        np.testing.assert_allclose(found.values, expected.values, atol=1e-6)
        assert found.reference == "mine"

    @pytest.mark.slow
    def test_a_model_of_another_framework(self, shapes: dict[str, Any], shapes_weights: dict[str, Any]) -> None:
        framework("jax")
        from jax_models import tapped_function

        last = np.ascontiguousarray(np.moveaxis(shapes["images"][:2], 1, -1))
        cam = GradCAM(tapped_function(shapes_weights), "conv4")
        maps = cam(last, shapes["target"][:2]).maps
        found = measure_maps("average-drop", torch.from_numpy(np.array(maps)), cam.adapter, last, shapes["target"][:2])
        expected = evaluate(cam.adapter, last, [cam], ["average-drop"], shapes["target"][:2], progress=False)
        np.testing.assert_allclose(to_numpy(found.values), expected.values[0, 0], atol=1e-6)

    def test_options_of_the_model(self) -> None:
        """What an erased pixel is, for one of two methods with the same maps."""
        methods = {"black": maps_of(), "grey": (maps_of(), {"baseline": 0.5}), "wrong": maps_of(make=inverted)}
        found = evaluate(Looks(), white(3), methods, ["average-drop"], 1, **OPTIONS)
        assert found.mean("black", "average-drop").mean == 0
        assert found.mean("grey", "average-drop").mean == 0
        assert found.mean("wrong", "average-drop").mean == pytest.approx(1)
        methods = {"black": maps_of(make=inverted), "grey": (maps_of(make=inverted), {"baseline": 0.5})}
        found = evaluate(Looks(), white(3), methods, ["average-drop"], 1, **OPTIONS)
        assert found.mean("black", "average-drop").mean == pytest.approx(1)
        assert found.mean("grey", "average-drop").mean == pytest.approx(0.5)

    def test_groups_of_images_and_batches_of_a_source(self) -> None:
        batches = [uneven(5)[:2], uneven(5)[2:]]
        found = evaluate(Looks(), batches, {"mine": maps_of(5)}, ["deletion"], 1, batch_size=2, **OPTIONS)
        expected = evaluate(Looks(), uneven(5), {"mine": maps_of(5)}, ["deletion"], 1, **OPTIONS)
        np.testing.assert_allclose(found.values, expected.values, atol=1e-6)


class TestMetricsThatExplainAgain:
    @pytest.mark.parametrize("name", AGAIN)
    def test_they_have_no_value_and_say_why(self, name: str) -> None:
        methods = {"mine": maps_of(2), "own": Given(Looks(), perfect, **OPTIONS)}
        found = evaluate(Looks(), uneven(2), methods, [name, "deletion"], 1, **OPTIONS)
        assert np.isnan(found.of("mine", name)).all()
        assert np.isfinite(found.of("own", name)).all()
        assert np.isfinite(found.of("mine", "deletion")).all()
        assert {each[:3] for each in found.problems} == {("0", "mine", name), ("1", "mine", name)}
        assert all("the metric explains images again" in each.reason for each in found.problems)

    @pytest.mark.parametrize("name", AGAIN)
    def test_alone_they_are_refused(self, name: str) -> None:
        with pytest.raises(ValueError, match=r"explains images again.* or give an explainer"):
            measure_maps(name, maps_of(2), Looks(), uneven(2), 1, output_kind="probabilities")

    def test_a_metric_of_ones_own_is_refused_as_well(self) -> None:
        class Explains(Metric):
            title = "Explains"
            better = "lower"

            def measure(self, explained: Any, ground_truth: Any = None) -> Measured:
                return Measured(explained.explain(explained.images).mean(dim=(1, 2)))

        Explains.name = "explains"
        with pytest.raises(ValueError, match="explains images again"):
            measure_maps(Explains(), maps_of(2), Looks(), uneven(2), 1, output_kind="probabilities")

    def test_no_method_is_called_so(self) -> None:
        assert "given maps" not in EXPLAINERS


class TestKeeping:
    def kept(self, folder: Path, maps: np.ndarray, images: np.ndarray, **options: Any) -> int:
        """How many lines an evaluation adds."""
        path = folder / "values.jsonl"
        before = path.read_text().count("\n") if path.exists() else 1
        chosen: dict[str, Any] = {"out": folder, "model_name": "looks", **OPTIONS, **options}
        found = evaluate(Looks(), images, {"mine": maps}, ["deletion"], 1, **chosen)
        assert np.isfinite(found.values).all()
        return path.read_text().count("\n") - before

    def test_by_the_maps(self, tmp_path: Path) -> None:
        images, maps = uneven(4), maps_of(4)
        assert self.kept(tmp_path, maps[:3], images[:3]) == 6
        assert self.kept(tmp_path, maps[:3], images[:3]) == 0
        assert self.kept(tmp_path, torch.from_numpy(maps[:3]), images[:3]) == 0
        assert self.kept(tmp_path, maps, images) == 2, "the new image alone"
        changed = maps.copy()
        changed[1, 0, 0] = 0.5
        assert self.kept(tmp_path, changed, images) == 1, "the map that is another one alone"
        assert self.kept(tmp_path, changed, images, baseline=0.5) == 4, "another option of the model"


class TestWhatIsLeftOut:
    def test_a_map_with_nan(self) -> None:
        maps = maps_of()
        maps[1, 3, 3] = np.nan
        found = evaluate(Looks(), white(3), {"mine": maps}, ["average-drop", "deletion"], 1, **OPTIONS)
        assert np.isnan(found.values[0, :, 1]).all()
        assert np.isfinite(found.values[0][:, [0, 2]]).all()
        assert {each.image for each in found.problems} == {"1"}

    def test_a_map_of_zeros_is_named_and_counts(self) -> None:
        found = evaluate(Looks(), white(2), {"mine": 0 * maps_of(2)}, ["average-drop"], 1, **OPTIONS)
        assert found.mean("mine", "average-drop").mean == 1
        assert {each.reason for each in found.problems} == {"the map is zero everywhere (its values count)"}

    def test_an_image_that_cannot_be_read_has_its_place(self, tmp_path: Path) -> None:
        image = pytest.importorskip("PIL.Image")
        for name in ("a", "c"):
            image.fromarray(np.full((24, 24, 3), 255, dtype=np.uint8)).save(tmp_path / f"{name}.png")
        (tmp_path / "b.png").write_bytes(b"nothing")
        maps = np.stack([maps_of(1)[0], np.ones((24, 24), np.float32), maps_of(1, inverted)[0]])

        def pixels(photograph: Any) -> np.ndarray:
            return np.asarray(photograph, dtype=np.float32).transpose(2, 0, 1) / 255

        found = evaluate(Looks(), tmp_path, {"mine": maps}, ["average-drop"], 1, preprocessing=pixels, **OPTIONS)
        assert found.images == ("a", "c")
        np.testing.assert_allclose(found.values[0, 0], [0, 1], atol=1e-6)


class TestBadInput:
    @pytest.mark.parametrize(
        ("methods", "kind", "message"),
        [
            ({"mine": maps_of(2)}, ValueError, "expected 3 of 'mine', got 2"),
            ({"mine": maps_of(4)}, ValueError, "expected 3 of 'mine', got 4"),
            (
                {"mine": maps_of(3)[:, ::2, ::2]},
                ValueError,
                r"expected maps of \(24, 24\), got \(12, 12\).*resize\(maps",
            ),
            ({"mine": maps_of(3)[:, None]}, ValueError, r"expected maps of \(24, 24\), got \(1, 24, 24\)"),
            ({"mine": 5 * maps_of(3) - 2}, ValueError, r"lie in \[0, 1\]: got values from -2 to 3 for 'mine'"),
            ({"mine": np.full((3, 24, 24), np.inf)}, ValueError, "got values from inf to inf"),
            ({"mine": maps_of(3) > 0}, TypeError, "The maps 'mine' must be of a floating-point dtype: got bool"),
            ({"mine": np.zeros(3)}, ValueError, r"Expected maps \(N, \*size\), got shape \(3,\)"),
            ({"mine": (maps_of(3), {"percentile": 3})}, TypeError, "has no option 'percentile'"),
            ({"mine": [1, 2]}, TypeError, "A method is"),
            (maps_of(3), TypeError, "maps without a name: give a mapping, {'mine': maps}"),
            ([maps_of(3)], TypeError, "Maps have no name: give a mapping"),
        ],
    )
    def test_of_evaluations(self, methods: Any, kind: type[Exception], message: str) -> None:
        with pytest.raises(kind, match=message):
            evaluate(Looks(), white(3), methods, ["deletion"], 1, **OPTIONS)

    def test_a_budget_that_nothing_takes(self) -> None:
        with pytest.raises(TypeError, match=r"budget= goes to methods that are given by name, .*: there is none"):
            evaluate(Looks(), white(3), {"mine": maps_of(3)}, ["deletion"], 1, budget=4, **OPTIONS)

    def test_an_explanation(self) -> None:
        explanation = Given(Looks(), perfect, **OPTIONS)(white(3), 1)
        with pytest.raises(TypeError, match=r"'mine' is an explanation: expected its maps, explanation.maps"):
            evaluate(Looks(), white(3), {"mine": explanation}, ["deletion"], 1, **OPTIONS)

    @pytest.mark.parametrize("count", [2, 4])
    def test_a_source_that_does_not_say_how_many_images_it_has(self, count: int) -> None:
        batches = iter([white(2), white(1)])
        with pytest.raises(ValueError, match=f"expected 3 of 'mine', got {count}"):
            evaluate(Looks(), batches, {"mine": maps_of(count)}, ["deletion"], 1, **OPTIONS)

    @pytest.mark.parametrize(
        ("options", "kind", "message"),
        [
            ({"maps": maps_of(2)}, ValueError, "expected 3 of 'given', got 2"),
            ({"maps": [[1.0]]}, TypeError, r"Expected maps \(N, \*size\) in an array, got list"),
            ({"metric": "iou"}, ValueError, "compares maps with masks of the objects: got none"),
            ({"metric": "iou", "masks": np.ones((2, 24, 24))}, ValueError, r"masks have shape \(2, 24, 24\)"),
            ({"metric": "cam"}, ValueError, "A metric is one of"),
            ({"targets": [[0, 1]] * 3}, ValueError, "measured for one class an image"),
        ],
    )
    def test_of_single_metrics(self, options: dict[str, Any], kind: type[Exception], message: str) -> None:
        usual: dict[str, Any] = {"metric": Deletion(steps=3), "maps": maps_of(3), "images": white(3), "targets": 1}
        with pytest.raises(kind, match=message):
            measure_maps(model=Looks(), output_kind="probabilities", **{**usual, **options})

    def test_explainers_whose_maps_are_no_masks(self) -> None:
        """Raw maps are ranked, and mask nothing."""
        raw = Given(Looks(), lambda images: 5 * perfect(images) - 2, **OPTIONS)
        found = evaluate(Looks(), white(2), {"raw": raw}, ["average-drop", "deletion"], 1, **OPTIONS)
        assert np.isnan(found.of("raw", "average-drop")).all()
        expected = measure_maps("deletion", maps_of(2), Looks(), white(2), 1, output_kind="probabilities")
        np.testing.assert_allclose(found.of("raw", "deletion"), to_numpy(expected.values), atol=1e-6)
        assert all("lies in [0, 1]: got values from -2 to 3" in each.reason for each in found.problems)


def test_maps_of_captum(model: Any, shapes: dict[str, Any]) -> None:
    """Attributions of another library beside a method of ours, as a study has them."""
    attr = pytest.importorskip("captum.attr")
    images, targets = torch.from_numpy(shapes["images"][:3]), torch.from_numpy(shapes["target"][:3])
    gradients = attr.Saliency(model).attribute(images.requires_grad_(), targets)
    maps = normalise(gradients.sum(dim=1))
    methods = {"saliency": maps, "inverted": 1 - maps, "score-cam": ScoreCAM(model, "features", budget=8)}
    found = evaluate(model, images.detach(), methods, ["insertion"], targets.numpy(), progress=False)
    assert found.problems == ()
    assert found.ranking("insertion")[-1] == "inverted"
