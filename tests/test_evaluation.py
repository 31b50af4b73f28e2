"""Methods compared on images: what is measured, left out, kept on record, and shown."""

from __future__ import annotations

import contextlib
import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fusioncam_core import RISE, FusionCAM, GradCAM, Preprocessing, ScoreCAM, UnionCAM, evaluate
from fusioncam_core.data.progress import Steps
from fusioncam_core.evaluation import runner
from fusioncam_core.evaluation.compared import compared_methods
from fusioncam_core.evaluation.ground_truth import GroundTruth
from fusioncam_core.metrics import AverageDrop, Deletion, Insertion
from fusioncam_core.stores.fingerprints import Fingerprints
from libraries import framework

torch = pytest.importorskip("torch")

from given_maps import Given, Looks, inverted, perfect, white  # noqa: E402

METRICS = (AverageDrop(), Insertion(steps=9, baseline="zero"), Deletion(steps=9))


@pytest.fixture
def model(shapes_weights: dict[str, Any]) -> Any:
    from torch_models import Shapes

    return Shapes(shapes_weights).eval()


def square(maps: Any, **options: Any) -> Given:
    return Given(Looks(**options), maps, output_kind="probabilities")


class TestValues:
    def test_a_perfect_and_an_inverted_map(self) -> None:
        methods = {"right": square(perfect), "wrong": square(inverted)}
        found = evaluate(Looks(), white(3), methods, METRICS, 1, reference="right")
        share = 64 / 576
        assert found.mean("right", "average-drop").mean == 0
        assert found.mean("wrong", "average-drop").mean == pytest.approx(1)
        assert found.mean("right", "insertion").mean == pytest.approx(1 - share / 2)
        assert found.mean("right", "deletion").mean == pytest.approx(share / 2)
        assert found.ranking("insertion") == found.ranking("deletion") == ["right", "wrong"]
        versus = found.against("wrong", "insertion")
        assert (versus.better, versus.worse) == (0, 3)
        assert versus.difference.mean == pytest.approx(share - 1)
        np.testing.assert_allclose(found.curves["deletion"][0], np.tile([1.0] + [0.0] * 9, (3, 1)), atol=1e-6)
        assert found.problems == ()

    def test_names_and_options_of_methods(self, model: Any, shapes: dict[str, Any]) -> None:
        methods = {
            "gradient": "grad-cam",
            "region": ("score-cam", {"budget": 8}),
            "own": FusionCAM(model, "features", budget=8),
        }
        found = evaluate(model, shapes["images"], methods, ["average-drop"], shapes["target"], layer="features")
        assert found.methods == ("gradient", "region", "own")
        assert found.reference == "gradient"
        expected = ScoreCAM(model, "features", budget=8)(shapes["images"], shapes["target"])
        black = (expected.maps[:, None] * torch.from_numpy(shapes["images"])).float()
        with torch.no_grad():
            under = model(black).softmax(dim=1)[torch.arange(8), torch.from_numpy(shapes["target"])]
        drops = ((expected.probabilities - under).clamp(min=0) / expected.probabilities).numpy()
        np.testing.assert_allclose(found.of("region", "average-drop"), drops, atol=1e-4)

    def test_budget_goes_to_those_that_know_it(self, model: Any, shapes: dict[str, Any]) -> None:
        found = evaluate(model, shapes["images"][:2], metrics=["complexity"], budget=4, layer="features")
        assert found.methods == ("grad-cam", "score-cam", "fusion-cam")
        assert found.reference == "fusion-cam"
        few = ScoreCAM(model, "features", budget=4)(shapes["images"][:2]).maps.mean(dim=(1, 2))
        np.testing.assert_allclose(found.of("score-cam", "complexity"), few, atol=1e-5)

    def test_options_go_to_those_that_have_them(self, model: Any, shapes: dict[str, Any]) -> None:
        chosen: dict[str, Any] = {"percentile": 60.0, "contributions": "signed", "variant": "calibrated"}
        images, limits = shapes["images"][:2], {"tolerance": 0.5, "layer": "features"}
        found = evaluate(model, images, ["grad-cam", "fusion-cam"], ["complexity"], **limits, **chosen)
        fused = FusionCAM(model, "features", tolerance=0.5, **chosen)(images).maps.mean(dim=(1, 2))
        np.testing.assert_allclose(found.of("fusion-cam", "complexity"), fused, atol=1e-5)
        usual = evaluate(model, images, ["fusion-cam"], ["complexity"], **limits)
        taken = compared_methods(model, ["grad-cam", "union-cam", "fusion-cam"], None, chosen).explainers
        assert taken["union-cam"] == UnionCAM(model, percentile=60.0, contributions="signed")
        assert taken["grad-cam"] == GradCAM(model)
        assert (found.of("fusion-cam", "complexity") != usual.of("fusion-cam", "complexity")).any()

    def test_top_classes_and_labels(self, model: Any, shapes: dict[str, Any]) -> None:
        top = evaluate(model, shapes["images"], ["grad-cam"], ["complexity"])
        np.testing.assert_array_equal(top.targets, shapes["logits"].argmax(axis=1))
        batches = [(shapes["images"][:3], shapes["target"][:3]), (shapes["images"][3:], shapes["target"][3:])]
        labelled = evaluate(model, batches, ["grad-cam"], ["complexity"], "labels")
        np.testing.assert_array_equal(labelled.targets, shapes["target"])
        assert labelled.images == tuple("01234567")

    @pytest.mark.parametrize("batch_size", [1, 3, 8])
    def test_batch_size_and_order_do_not_matter(self, model: Any, shapes: dict[str, Any], batch_size: int) -> None:
        options: dict[str, Any] = {"layer": "features", "batch_size": batch_size, "budget": 12}
        expected = evaluate(
            model, shapes["images"], metrics=METRICS, targets=shapes["target"], **{**options, "batch_size": 4}
        )
        found = evaluate(
            model, shapes["images"][::-1].copy(), metrics=METRICS, targets=shapes["target"][::-1].copy(), **options
        )
        np.testing.assert_allclose(found.values[:, :, ::-1], expected.values, atol=1e-4)

    def test_frameworks_agree(self, model: Any, shapes: dict[str, Any], shapes_weights: dict[str, Any]) -> None:
        framework("jax")
        from jax_models import tapped_function

        options: dict[str, Any] = {"metrics": METRICS, "targets": shapes["target"], "budget": 12}
        ours = evaluate(model, shapes["images"], layer="features", **options)
        last = np.ascontiguousarray(np.moveaxis(shapes["images"], 1, -1))
        theirs = evaluate(tapped_function(shapes_weights), last, layer="conv4", **options)
        np.testing.assert_allclose(theirs.values, ours.values, atol=1e-4)


class TestWhatIsLeftOut:
    def test_an_image_with_nan(self, model: Any, shapes: dict[str, Any]) -> None:
        images = shapes["images"].copy()
        images[2, 0, 0, 0] = np.nan
        found = evaluate(model, images, ["grad-cam"], METRICS, shapes["target"])
        whole = evaluate(model, shapes["images"], ["grad-cam"], METRICS, shapes["target"])
        assert np.isnan(found.values[:, :, 2]).all()
        rest = [0, 1, 3, 4, 5, 6, 7]
        np.testing.assert_allclose(found.values[:, :, rest], whole.values[:, :, rest], atol=1e-5)
        assert found.mean("grad-cam", "average-drop").n == 7
        (problem,) = {(each.image, each.method) for each in found.problems}
        assert problem == ("2", "grad-cam")
        assert "NaN or infinity in the" in found.problems[0].reason

    def test_a_map_with_nan(self) -> None:
        def maps(images: np.ndarray) -> np.ndarray:
            found = perfect(images)
            found[images.mean(axis=(1, 2, 3)) < 1] = np.nan
            return found

        images = white(3)
        images[1] *= 0.5
        found = evaluate(Looks(), images, {"given": square(maps)}, METRICS, 1)
        assert np.isnan(found.values[0, :, 1]).all()
        assert np.isfinite(found.values[0, :, [0, 2]]).all()
        assert {each.image for each in found.problems} == {"1"}
        assert {each.metric for each in found.problems} == {"average-drop", "insertion", "deletion"}

    def test_a_class_without_probability(self) -> None:
        images = white(3)
        images[2] = 0
        found = evaluate(Looks(), images, {"given": square(perfect)}, METRICS, 1)
        assert np.isnan(found.of("given", "average-drop")[2])
        assert found.mean("given", "average-drop").n == 2
        assert found.mean("given", "deletion").n == 3
        assert [each[:3] for each in found.problems] == [("2", "given", "average-drop")]
        assert "the class has probability 0" in str(found)

    def test_an_unreadable_photograph(self, model: Any, tmp_path: Path) -> None:
        image = pytest.importorskip("PIL.Image")
        for name in ("a", "c"):
            pixels = np.random.default_rng(0).integers(0, 255, (50, 60, 3), dtype=np.uint8)
            image.fromarray(pixels).save(tmp_path / f"{name}.png")
        (tmp_path / "b.png").write_bytes(b"nothing")
        preprocessing = Preprocessing(size=(48, 48), mean=0.0, std=255.0)
        found = evaluate(model, tmp_path, ["grad-cam"], METRICS, [1, 2, 3], preprocessing=preprocessing)
        assert found.images == ("a", "c")
        assert found.targets.tolist() == [1, 3]
        assert [each[:3] for each in found.problems if each.method is None] == [("b", None, None)]

    def test_an_image_on_which_the_model_does_not_run(self) -> None:
        torch.manual_seed(0)
        net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 24 * 24, 2)).eval()
        small = np.ones((1, 3, 12, 12), dtype=np.float32)
        options: dict[str, Any] = {"methods": [RISE(net, masks=4)], "metrics": ["complexity"], "progress": False}
        found = evaluate(net, [white(2), small, white(1)], batch_size=2, **options)
        assert found.images == ("0", "1", "3")
        assert np.isfinite(found.values).all()
        ((image, method, metric, reason),) = found.problems
        assert (image, method, metric) == ("2", None, None)
        assert "(1, 3, 12, 12)" in reason or "1x432" in reason
        with pytest.raises(ValueError, match=r"12|432"):
            evaluate(net, small, **options)

    def test_nothing_to_evaluate(self, model: Any) -> None:
        with pytest.raises(ValueError, match="There is no image to evaluate"):
            evaluate(model, [], ["grad-cam"])

    def test_a_map_of_zeros_is_named_and_counts(self) -> None:
        found = evaluate(Looks(), white(), {"given": square(lambda images: 0 * perfect(images))}, METRICS, 1)
        assert found.mean("given", "average-drop").mean == 1
        assert {each.reason for each in found.problems} == {"the map is zero everywhere (its values count)"}


class TestGoingOn:
    def counting(self, explainer: Given, stop_after: int | None = None) -> Given:
        """The explainer; it is interrupted when it has explained so many images."""
        original = explainer._maps

        def maps(images: np.ndarray) -> np.ndarray:
            if stop_after is not None and explainer.explained > stop_after:
                raise KeyboardInterrupt
            return original(images)

        explainer._maps = maps
        return explainer

    def images(self) -> np.ndarray:
        return white(8) * np.linspace(0.3, 1, 8, dtype=np.float32)[:, None, None, None]

    def test_an_interrupted_run(self, tmp_path: Path) -> None:
        images = self.images()
        cam = Given(Looks(), perfect, output_kind="probabilities", batch_size=2)
        with pytest.raises(KeyboardInterrupt):
            evaluate(Looks(), images, {"given": self.counting(cam, 5)}, METRICS, 1, out=tmp_path, model_name="looks")
        again = Given(Looks(), perfect, output_kind="probabilities", batch_size=2)
        found = evaluate(Looks(), images, {"given": again}, METRICS, 1, out=tmp_path, model_name="looks")
        assert again.explained == 4, "of eight images four were on record"
        fresh = evaluate(Looks(), images, {"given": square(perfect)}, METRICS, 1)
        np.testing.assert_allclose(found.values, fresh.values, atol=1e-6)
        np.testing.assert_allclose(found.curves["insertion"], fresh.curves["insertion"], atol=1e-5)

    def test_nothing_is_computed_twice(self, tmp_path: Path) -> None:
        images = self.images()
        first = square(perfect)
        before = evaluate(Looks(), images, {"given": first}, METRICS, 1, out=tmp_path, model_name="looks")
        lines = (tmp_path / "values.jsonl").read_text().count("\n")
        second = square(perfect)
        after = evaluate(Looks(), images, {"given": second}, METRICS, 1, out=tmp_path, model_name="looks")
        assert second.explained == 0
        assert (tmp_path / "values.jsonl").read_text().count("\n") == lines
        np.testing.assert_array_equal(after.values, before.values)

    def test_values_on_record_are_not_in_the_rate(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        done, skipped = [], []

        class Watched(Steps):
            def __call__(self, steps: int) -> None:
                done.append(steps)

            def skip(self, steps: int) -> None:
                skipped.append(steps)

        def watched(total: Any, description: str, progress: Any) -> Any:
            return contextlib.nullcontext(Watched())

        monkeypatch.setattr(runner, "progress_bar", watched)
        options: dict[str, Any] = {"metrics": METRICS, "targets": 1, "out": tmp_path, "model_name": "looks"}
        evaluate(Looks(), self.images()[:3], {"given": square(perfect)}, **options)
        assert (sum(done), sum(skipped)) == (3, 0)
        evaluate(Looks(), self.images(), {"given": square(perfect)}, **options)
        assert (sum(done), sum(skipped)) == (8, 3)

    def test_more_metrics_images_and_methods(self, tmp_path: Path) -> None:
        images = self.images()
        evaluate(Looks(), images[:3], {"given": square(perfect)}, METRICS[:1], 1, out=tmp_path, model_name="looks")
        cam = square(perfect)
        evaluate(Looks(), images[:5], {"given": cam}, METRICS[:1], 1, out=tmp_path, model_name="looks")
        assert cam.explained == 2
        cam = square(perfect)
        evaluate(Looks(), images[:5], {"given": cam}, METRICS, 1, out=tmp_path, model_name="looks")
        assert cam.explained == 5, "a new metric needs the maps again"
        cam = square(perfect)
        evaluate(Looks(), images[:5], {"given": cam}, [Deletion(steps=3)], 1, out=tmp_path, model_name="looks")
        assert cam.explained == 5, "other options are another metric"

    def test_a_line_that_was_cut_off(self, tmp_path: Path) -> None:
        evaluate(Looks(), self.images(), {"given": square(perfect)}, METRICS, 1, out=tmp_path, model_name="looks")
        path = tmp_path / "values.jsonl"
        path.write_bytes(path.read_bytes()[:-10])
        cam = square(perfect)
        found = evaluate(Looks(), self.images(), {"given": cam}, METRICS, 1, out=tmp_path, model_name="looks")
        assert np.isfinite(found.values).all()
        assert 0 < cam.explained < 8
        for line in path.read_text().splitlines():
            json.loads(line)

    def test_another_model_has_values_of_its_own(self, tmp_path: Path) -> None:
        first = evaluate(
            Looks(), self.images(), {"given": square(perfect)}, METRICS, 1, out=tmp_path, model_name="looks"
        )
        other = square(perfect, outside=0.5)
        found = evaluate(
            Looks(outside=0.5), self.images(), {"given": other}, METRICS, 1, out=tmp_path, model_name="looks"
        )
        assert other.explained == 8
        assert (found.values != first.values).any()

    def test_another_model_that_looks_the_same(self, tmp_path: Path) -> None:
        """Neither its weights nor its attributes tell, and its probabilities do."""

        class Hidden(Looks):
            _factor = 1.0

            def forward(self, images: torch.Tensor) -> torch.Tensor:
                return super().forward(self._factor * images)

        options: dict[str, Any] = {"metrics": ["complexity"], "targets": 1, "out": tmp_path, "model_name": "hidden"}
        evaluate(Hidden(), self.images(), {"given": Given(Hidden(), perfect, output_kind="probabilities")}, **options)
        Hidden._factor = 0.5
        with pytest.raises(ValueError, match=r"The folder has values of another model: it gave class 1 of '0'"):
            evaluate(
                Hidden(), self.images(), {"given": Given(Hidden(), perfect, output_kind="probabilities")}, **options
            )

    def test_failures_are_tried_again(self, model: Any, shapes: dict[str, Any], tmp_path: Path) -> None:
        images = shapes["images"].copy()
        images[2, 0, 0, 0] = np.nan
        for _ in range(2):
            found = evaluate(model, images, ["grad-cam"], METRICS, shapes["target"], out=tmp_path, model_name="looks")
            assert [each.image for each in found.problems] == ["2"]


class TestTables:
    @pytest.fixture
    def found(self) -> Any:
        images = white(6) * np.linspace(0.3, 1, 6, dtype=np.float32)[:, None, None, None]
        methods = {"right": square(perfect), "wrong": square(inverted)}
        return evaluate(Looks(), images, methods, METRICS, 1)

    def test_text(self, found: Any) -> None:
        text = str(found)
        assert max(map(len, text.splitlines())) <= 80
        assert "Looks: 6 images, 2 methods" in text
        assert "Insertion (higher is better)" in text
        assert "0/0/6" in text
        assert "less right" in text
        # Six equal differences: two of 64 signs are as far from zero; times three metrics.
        assert "0.094" in text
        assert "corrected for 3 comparisons (Holm)" in " ".join(text.split())

    def test_csv(self, found: Any) -> None:
        rows = list(csv.DictReader(found.to_csv().splitlines()))
        assert len(rows) == 6 * 2 * 3
        assert {row["method"] for row in rows} == {"right", "wrong"}
        drops = [float(row["value"]) for row in rows if row["method"] == "wrong" and row["metric"] == "average-drop"]
        np.testing.assert_allclose(drops, 1, atol=1e-6)

    def test_json(self, found: Any) -> None:
        numbers = json.loads(found.to_json())
        deletion = numbers["metrics"]["deletion"]["methods"]
        assert list(deletion) == ["right", "wrong"]
        assert deletion["wrong"]["worse"] == 6
        assert deletion["wrong"]["less_reference"]["low"] > 0

    def test_p_values_are_corrected_for_all_comparisons(self, found: Any) -> None:
        names = [metric.name for metric in METRICS]
        assert found.p_values() == {("wrong", name): pytest.approx(3 * 2 / 64) for name in names}
        assert all(found.against("wrong", name).p == 2 / 64 for name in names)
        numbers = json.loads(found.to_json())
        assert numbers["metrics"]["deletion"]["methods"]["wrong"]["p"] == 2 / 64
        assert numbers["metrics"]["deletion"]["methods"]["wrong"]["p_corrected"] == pytest.approx(6 / 64)
        assert numbers["metrics"]["deletion"]["methods"]["right"]["p"] is None

    def test_few_images_are_warned_of_wherever_numbers_are(self, found: Any) -> None:
        (warning,) = found.warnings
        assert warning.startswith("Warning: 6 images are few. Intervals of fewer than 20 hold the mean less often")
        for text in (str(found), found.to_markdown(), found.to_latex()):
            assert "Warning: 6 images are few" in text
        assert json.loads(found.to_json())["warnings"] == [warning]
        assert evaluate(Looks(), white(20), {"a": square(perfect)}, ["complexity"], 1).warnings == ()

    def test_markdown(self, found: Any) -> None:
        lines = found.to_markdown().splitlines()
        assert lines[0] == "| method | Average drop ↓ | Insertion ↑ | Deletion ↓ |"
        assert lines[1] == "| --- | ---: | ---: | ---: |"
        mean = found.mean("right", "insertion")
        assert f"**{mean.mean:.3f}** [{mean.low:.3f}, {mean.high:.3f}]" in lines[2]
        assert lines[2].startswith("| right | **0.000** [0.000, 0.000] | ")
        assert len(lines[3].split(" | ")) == 4
        assert "differs from right" in lines[5]

    def test_latex(self, found: Any) -> None:
        text = found.to_latex()
        assert r"Method & Average drop $\downarrow$ & Insertion $\uparrow$ & Deletion $\downarrow$ \\" in text
        assert r"right & \textbf{0.000} [0.000, 0.000] & \textbf{" in text
        assert r"95 \%" in text
        assert "p $<$ 0.05" in text

    def test_names_that_would_be_read_as_marks(self) -> None:
        methods = {"a_b|c*": square(perfect), "50 % {x} \\y": square(inverted)}
        found = evaluate(Looks(), white(2), methods, ["complexity"], 1)
        assert r"| a\_b\|c\* |" in found.to_markdown()
        latex = found.to_latex()
        assert r"a\_b$|$c* &" in latex
        assert r"50 \% \{x\} \textbackslash{}y &" in latex

    def test_a_star_a_missing_value_and_titles(self, model: Any, shapes: dict[str, Any]) -> None:
        images = white(8) * np.linspace(0.3, 1, 8, dtype=np.float32)[:, None, None, None]
        images[7] = 0
        methods = {"right": square(perfect), "wrong": square(inverted)}
        found = evaluate(Looks(), images, methods, ["average-drop"], 1)
        assert found.p_values()["wrong", "average-drop"] == 2 / 2**7
        assert r"| wrong | 1.000 [1.000, 1.000]\* (n = 7) |" in found.to_markdown()
        assert r"wrong & 1.000 [1.000, 1.000]$^{*}$ (n = 7) \\" in found.to_latex()
        assert "0.016*" in str(found)
        own = evaluate(model, shapes["images"][:2], {"grad-cam": "grad-cam", "b": "grad-cam"}, ["complexity"])
        assert own.titles == {"grad-cam": "Grad-CAM"}
        assert own.to_markdown().splitlines()[2].startswith("| Grad-CAM | ")
        assert own.to_markdown().splitlines()[3].startswith("| b | ")

    def test_one_method_has_nothing_to_compare(self, tmp_path: Path) -> None:
        pytest.importorskip("matplotlib")
        found = evaluate(Looks(), white(2), {"a": square(perfect)}, ["complexity"], 1)
        assert found.p_values() == {}
        assert "less" not in str(found).partition("Warning")[0]
        assert [path.name for path in found.save(tmp_path)][3:] == ["ranking.png"]

    def test_files(self, found: Any, tmp_path: Path) -> None:
        pytest.importorskip("matplotlib")
        written = found.save(tmp_path / "out")
        assert [path.name for path in written] == [
            "values.csv",
            "summary.json",
            "summary.txt",
            "ranking.png",
            "differences.png",
            "curves.png",
        ]
        assert all(path.read_bytes()[1:4] == b"PNG" for path in written[3:])

    def test_unknown_names(self, found: Any) -> None:
        with pytest.raises(KeyError, match="There is no 'road' of 'right'"):
            found.mean("right", "road")


class TestBadInput:
    @pytest.mark.parametrize(
        ("options", "kind", "message"),
        [
            ({"methods": ["cam"]}, ValueError, r"A method is one of .*'fusion-cam'.*: got 'cam'"),
            ({"methods": "grad-cam"}, TypeError, "Methods are a sequence or mapping"),
            ({"methods": ["grad-cam", "grad-cam"]}, ValueError, "Two methods have one name"),
            ({"metrics": []}, ValueError, "each kind once"),
            ({"metrics": ["deletion", Deletion(steps=3)]}, ValueError, "each kind once"),
            ({"metrics": ["iou"]}, ValueError, r"iou compare maps with masks of the objects.* none"),
            ({"reference": "score-cam"}, ValueError, r"The reference is one of 'grad-cam'.* 'score-cam'"),
            ({"targets": "top5"}, ValueError, "An evaluation has one class an image"),
            ({"targets": 7}, ValueError, "Shapes has 5 classes"),
            ({"percentile": 5}, TypeError, "percentile= goes to methods .* and none of these has it: grad-cam"),
            ({"budget": 5}, TypeError, "budget= goes to methods .* and none of these has it: grad-cam"),
            ({"methods": ["union-cam"], "variant": "calibrated"}, TypeError, "variant= goes to methods .*: union-cam"),
            ({"ground_truth": None}, TypeError, "^evaluate has no argument 'ground_truth'; did you mean 'masks'"),
            ({"labels": [1]}, TypeError, "^evaluate has no argument 'labels'; did you mean 'targets'"),
            ({"refference": "grad-cam"}, TypeError, "^evaluate has no argument .*; did you mean 'reference'"),
            ({"batchsize": 2}, TypeError, "^GradCAM has no option 'batchsize'; did you mean 'batch_size'"),
            ({"methods": ["fusion-cam"], "percentile": 101}, ValueError, "lies between 0 and 100: got 101"),
            ({"methods": ["fusion-cam"], "contributions": "own"}, ValueError, "contributions is .*: got 'own'"),
        ],
    )
    def test_it(self, model: Any, shapes: dict[str, Any], options: Any, kind: Any, message: str) -> None:
        with pytest.raises(kind, match=message):
            evaluate(model, shapes["images"], **{"methods": ["grad-cam"], "metrics": ["complexity"], **options})


class TestMasks:
    def test_arrays_and_mappings(self, shapes: dict[str, Any]) -> None:
        ground_truth = perfect(white(3))
        for masks in (ground_truth, {str(number): row for number, row in enumerate(ground_truth)}):
            found = evaluate(Looks(), white(3), {"given": square(perfect)}, ["iou", "energy-in-mask"], 1, masks=masks)
            assert found.values.tolist() == [[[1, 1, 1], [1, 1, 1]]]

    def test_a_mask_that_is_missing_is_named(self) -> None:
        found = evaluate(Looks(), white(2), {"given": square(perfect)}, ["iou"], 1, masks={"0": perfect(white(1))[0]})
        assert found.values[0, 0, 0] == 1
        assert np.isnan(found.values[0, 0, 1])
        assert [each.image for each in found.problems] == ["1"]
        assert "There is no mask for the image '1'" in found.problems[0].reason

    def test_nor_does_one_of_another_size_matter_to_others(self) -> None:
        ground_truth = {"0": perfect(white(1))[0], "1": np.ones((3, 3)), "2": perfect(white(1))[0]}
        found = evaluate(Looks(), white(3), {"given": square(perfect)}, ["iou"], 1, masks=ground_truth)
        np.testing.assert_array_equal(found.values[0, 0], [1, np.nan, 1])
        assert [each.reason for each in found.problems] == ["The mask of '1' has shape (3, 3), and its image (24, 24)."]

    def test_a_folder(self, tmp_path: Path) -> None:
        image = pytest.importorskip("PIL.Image")
        picture = np.zeros((40, 60), dtype=np.uint8)
        picture[10:30, 20:40] = 255
        image.fromarray(picture).save(tmp_path / "cat.png")
        ground_truth = GroundTruth(tmp_path, Preprocessing(size=(20, 20)))
        (mask,) = ground_truth.of(["cat"], (20, 20))
        expected = np.zeros((20, 20), dtype=bool)
        expected[5:15, 5:15] = True  # the centred square of 40 x 40, at half its size
        np.testing.assert_array_equal(mask, expected)
        with pytest.raises(ValueError, match=r"has shape \(20, 20\), and its image \(24, 24\)"):
            ground_truth.of(["cat"], (24, 24))
        words = Fingerprints()
        assert ground_truth.fingerprint("dog", 1, words) == "no mask"
        other = GroundTruth(tmp_path, Preprocessing(size=(20, 20), crop_fraction=0.5))
        assert len({each.fingerprint("cat", 0, words) for each in (ground_truth, other)}) == 2
