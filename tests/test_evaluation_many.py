"""Evaluations of many images: what is read back from the file of values, and what several workers found."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fusioncam_core import evaluate
from fusioncam_core.errors import CannotWriteError, InvalidValueError
from fusioncam_core.evaluation import curves, ground_truth, index, store
from fusioncam_core.evaluation.curves import Curves, mean_curve
from fusioncam_core.evaluation.ground_truth import GroundTruth
from fusioncam_core.evaluation.index import Index, Place, digest_of
from fusioncam_core.evaluation.run import ZERO
from fusioncam_core.evaluation.store import Entry, Key, Store
from fusioncam_core.metrics import AverageDrop, Complexity, Deletion, Insertion, IoU
from fusioncam_core.scale import evaluation as scaled
from fusioncam_core.stores.fingerprints import Fingerprints

pytest.importorskip("torch")

from given_maps import Given, Looks, inverted, perfect, white

METRICS = (AverageDrop(), Insertion(steps=3, baseline="zero"), Deletion(steps=3))


def methods(**options: Any) -> dict[str, Given]:
    return {
        name: Given(Looks(), maps, output_kind="probabilities", batch_size=2, **options)
        for name, maps in {"right": perfect, "wrong": inverted}.items()
    }


def images(count: int = 7) -> np.ndarray:
    return white(count) * np.linspace(0.3, 1, count, dtype=np.float32)[:, None, None, None]


def keys(count: int) -> list[Key]:
    return [Key(f"image {number}", number % 3, "method", "metric") for number in range(count)]


class TestCurves:
    @pytest.fixture(params=["a folder", "no folder"])
    def folder(self, request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
        return tmp_path / "out" if request.param == "a folder" else None

    def found(self, folder: Path | None) -> Any:
        return evaluate(Looks(), images(), methods(), METRICS, 1, out=folder, model_name="looks")

    def test_many_are_read_when_they_are_asked_for(self, folder: Path | None, monkeypatch: pytest.MonkeyPatch) -> None:
        expected = self.found(None)
        assert isinstance(expected.curves, dict)
        monkeypatch.setattr(curves, "LOADED", 2 * 2 * 7 * 4 - 1)  # methods, metrics, images, points: one too many
        monkeypatch.setattr(curves, "PART", 3)
        found = self.found(folder)
        assert isinstance(found.curves, Curves)
        assert found.curves._loaded == {}
        if folder is not None:
            shutil.rmtree(folder)  # the file is open, and can be read
        means = [mean_curve(found.curves, "deletion", method) for method in range(2)]
        np.testing.assert_allclose(means, np.mean(expected.curves["deletion"], axis=1), rtol=1e-12)
        assert found.curves._loaded == {}, "a mean holds no curves"
        assert list(found.curves) == list(expected.curves) == ["insertion", "deletion"]
        for metric in expected.curves:
            np.testing.assert_array_equal(found.curves[metric], expected.curves[metric])
            np.testing.assert_array_equal(found.fractions[metric], expected.fractions[metric])
        again = pickle.loads(pickle.dumps(found))
        np.testing.assert_array_equal(again.curves["insertion"], expected.curves["insertion"])

    def test_a_mean_without_those_that_are_missing(self) -> None:
        rows = np.array([[1.0, 2], [np.nan, np.nan], [3, 6]])
        np.testing.assert_array_equal(mean_curve({"deletion": rows[None]}, "deletion", 0), [2, 4])
        nothing = mean_curve({"deletion": np.full((1, 2, 3), np.nan)}, "deletion", 0)
        assert np.isnan(nothing).all()
        assert nothing.shape == (3,)

    def test_a_file_that_memory_does_not_hold(self, monkeypatch: pytest.MonkeyPatch) -> None:
        expected = self.found(None)
        monkeypatch.setattr(store, "_IN_MEMORY", 64)
        np.testing.assert_array_equal(self.found(None).curves["deletion"], expected.curves["deletion"])


class TestTheStore:
    def test_more_keys_than_are_looked_for_together(self, tmp_path: Path) -> None:
        there, absent = keys(1300)[::2], keys(1300)[1::2]
        kept = Store(tmp_path)
        first = kept.add({key: Entry(float(number)) for number, key in enumerate(there)})
        assert kept.places(keys(1300)) == first == Store(tmp_path).places(there)
        assert [first[key].value for key in there] == list(range(650))
        assert kept.count == 650
        assert kept[there[7]] == Entry(7.0)
        with pytest.raises(KeyError):
            kept[absent[0]]

    def test_keys_for_those_who_cannot_look(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(index, "_PART", 100)
        kept = Store(None)
        assert not kept.known().has(digest_of(keys(1)[0]))
        kept.add(dict.fromkeys(keys(1000)[::2], Entry(0.5)))
        known = kept.known()
        assert [known.has(digest_of(key)) for key in keys(1000)] == [True, False] * 500
        # Another digest with the same first half.
        one = digest_of(keys(1)[0])
        assert not known.has(one[:8] + bytes(8))

    def test_a_full_disk_is_said(self) -> None:
        found = Index()
        found._database.execute("PRAGMA max_page_count = 3")
        places = [(digest_of((str(number),)), Place(0.5, None, number, False), True) for number in range(10_000)]
        with pytest.raises(CannotWriteError, match=r"index: .*full.* TMPDIR, has to have room"):
            found.add(places)

    def test_a_line_with_a_value_that_is_none(self, tmp_path: Path) -> None:
        kept = Store(tmp_path)
        kept.add({keys(1)[0]: Entry(0.5)})
        path = tmp_path / "values.jsonl"
        path.write_bytes(path.read_bytes().replace(b"0.5", b'"half"'))
        with pytest.raises(InvalidValueError, match=r"Line 2 of .*values\.jsonl is no entry of an evaluation"):
            Store(tmp_path)

    def test_equal_images_are_explained_once(self, tmp_path: Path) -> None:
        cams = methods()
        twice = np.concatenate([images(4), images(4)])
        found = evaluate(Looks(), twice, cams, METRICS, 1, out=tmp_path, model_name="looks")
        assert [cam.explained for cam in cams.values()] == [4, 4]
        np.testing.assert_array_equal(found.values[:, :, :4], found.values[:, :, 4:])
        assert found.images == tuple("01234567")


def test_prints_of_masks_are_remembered_while_they_are_of_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ground_truth, "REMEMBERED", 3)
    truth = GroundTruth(np.stack([np.eye(4) * (number % 2) for number in range(9)]))
    words = [truth.fingerprint(str(place), place, Fingerprints()) for place in range(9)]
    assert len(truth._prints) == 3
    assert words == [words[0], words[1]] * 4 + [words[0]]
    assert words[0] != words[1]


def test_the_table_in_a_file_is_the_one_in_memory(tmp_path: Path) -> None:
    damaged = images()
    damaged[3] = np.nan
    found = evaluate(Looks(), damaged, methods(), METRICS, 1)
    found.save(tmp_path, pictures=False)
    text = (tmp_path / "values.csv").read_text()
    assert text == found.to_csv()
    assert text.splitlines()[0] == "image,target,probability,method,metric,value"
    assert len(text.splitlines()) == 1 + 2 * 3 * len(found.images)


OPTIONS: dict[str, Any] = {"progress": False, "output_kind": "probabilities", "batch_size": 2, "budget": 6}
COMPARED = ("grad-cam", "score-cam")


class Backwards:
    """Workers that are none: the pieces come back in the reverse order."""

    def __init__(self, make: Callable[[], Any], **_: Any):
        self._held = pickle.loads(pickle.dumps(make))()

    def __enter__(self) -> Backwards:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def first(self, do: Callable[[Any, Any], Any], item: Any) -> Any:
        return do(self._held, item)

    def each(self, do: Callable[[Any, Any], Any], items: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
        found = [(item, pickle.loads(pickle.dumps(do(self._held, item)))) for item in items]
        yield from reversed(found)


class TestPiecesInAnyOrder:
    """What `evaluate_on_ray` makes of what workers found; with Ray itself in test_ray_evaluate.py."""

    @pytest.fixture(autouse=True)
    def backwards(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(scaled, "Workers", Backwards)
        monkeypatch.setattr(scaled, "require", lambda *_: None)

    @pytest.fixture
    def model(self) -> Any:
        import torch

        torch.manual_seed(0)
        layers = [torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()]
        return torch.nn.Sequential(*layers, torch.nn.Linear(4, 5), torch.nn.Softmax(1)).eval()

    @pytest.fixture
    def some(self) -> np.ndarray:
        """Eleven, the first two once more at the end, and one with no numbers."""
        made = np.random.default_rng(1).random((11, 1, 12, 12), dtype=np.float32)
        made[5] = np.nan
        return np.concatenate([made, made[:2]])

    def on_workers(self, model: Any, source: Any, targets: Any, **options: Any) -> Any:
        make = Held(model)
        return scaled.evaluate_on_ray(make, source, COMPARED, METRICS, targets, **{**OPTIONS, **options})

    @pytest.mark.parametrize("piece", [1, 4, 100])
    @pytest.mark.parametrize("kept", [False, True])
    def test_they_make_one_evaluation(
        self, model: Any, some: np.ndarray, tmp_path: Path, piece: int, kept: bool
    ) -> None:
        targets = np.arange(13) % 5
        expected = evaluate(model, some, COMPARED, METRICS, targets, **OPTIONS)
        found = self.on_workers(model, some, targets, piece=piece, out=tmp_path if kept else None)
        assert found.images == expected.images == tuple(map(str, range(13)))
        np.testing.assert_array_equal(found.targets, targets)
        assert sorted(found.problems) == sorted(expected.problems)
        assert {each.image for each in found.problems if each.reason != ZERO} == {"5"}
        np.testing.assert_allclose(found.values, expected.values, atol=1e-6)
        np.testing.assert_allclose(found.curves["insertion"], expected.curves["insertion"], atol=2e-6)

    def test_nothing_is_done_twice(self, model: Any, some: np.ndarray, tmp_path: Path) -> None:
        """There, here, and there again."""
        found = self.on_workers(model, some, 1, piece=4, out=tmp_path)
        kept = (tmp_path / "values.jsonl").read_bytes()
        here = evaluate(model, some, COMPARED, METRICS, 1, out=tmp_path, **OPTIONS)
        there = self.on_workers(model, some, 1, piece=3, out=tmp_path)
        assert (tmp_path / "values.jsonl").read_bytes() == kept
        np.testing.assert_array_equal(here.values, found.values)
        np.testing.assert_array_equal(there.values, found.values)

    def test_batches_of_a_loader(self, model: Any, some: np.ndarray) -> None:
        """Of one image, of several, and of more than a piece."""
        parts = np.split(some, [1, 3, 10])
        batches = [(part, np.full(len(part), number)) for number, part in enumerate(parts)]
        expected = evaluate(model, batches, COMPARED, METRICS, "labels", **OPTIONS)
        found = self.on_workers(model, iter(batches), "labels", piece=2)
        np.testing.assert_array_equal(found.targets, [0] + [1] * 2 + [2] * 7 + [3] * 3)
        assert found.images == expected.images
        np.testing.assert_allclose(found.values, expected.values, atol=1e-6)

    def test_all_workers_find_layers_by_one_image(self, model: Any, some: np.ndarray) -> None:
        """The first that can be explained: of others, workers might find others."""
        tasks: list[Any] = []

        class Caught(Backwards):
            def __init__(self, make: Any, **options: Any):
                tasks.append(make)
                super().__init__(make, **options)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(scaled, "Workers", Caught)
            self.on_workers(model, some, 1, piece=4)
        one, other = (pickle.loads(pickle.dumps(tasks[0]))() for _ in range(2))
        damaged = some[:3].copy()
        damaged[0] = np.nan
        begin = scaled._begin(one, scaled._Part(0, 0, [(damaged, None)]))
        np.testing.assert_array_equal(begin, some[1:2])
        seen: list[np.ndarray] = []
        explainers = other.compared.explainers
        for explainer in explainers.values():
            assert explainer.layer_names is None
            call = explainer._call
            explainer._call = lambda images, *rest, call=call, **more: (
                seen.append(np.asarray(images)),
                call(images, *rest, **more),
            )[1]
        scaled._measure(other, scaled._Part(3, 8, [(some[8:], None)]), begin)
        for image in seen[:2]:
            np.testing.assert_array_equal(image, begin)
        names = {each.layer_names for each in (*explainers.values(), *one.compared.explainers.values())}
        assert names == {("1",)}
        assert scaled._begin(other, scaled._Part(0, 0, [(some[:1], None)])) is None, "there is nothing to be found"

    def test_given_maps(self, model: Any, some: np.ndarray) -> None:
        maps = np.random.default_rng(2).random((13, 12, 12))
        masks = maps > 0.5
        given: dict[str, Any] = {"mine": maps, "ours": "grad-cam"}
        metrics = [Complexity(), IoU()]
        expected = evaluate(model, some, given, metrics, 1, masks=masks, progress=False)
        found = scaled.evaluate_on_ray(Held(model), some, given, metrics, 1, masks=masks, piece=3, progress=False)
        np.testing.assert_allclose(found.values, expected.values, atol=1e-6)
        whole = np.arange(13) != 5
        np.testing.assert_allclose(found.of("mine", "complexity")[whole], maps.mean(axis=(1, 2))[whole], atol=1e-6)
        for source in (some, iter([some])):
            with pytest.raises(ValueError, match="expected 13 of 'mine', got 12"):
                scaled.evaluate_on_ray(Held(model), source, {"mine": maps[:12]}, metrics, 1, masks=masks, piece=3)

    def test_a_model_that_runs_on_no_image(self, model: Any) -> None:
        with pytest.raises(ValueError, match=r"cannot run on inputs of shape \(1, 1, 2, 2\)"):
            self.on_workers(model, np.zeros((3, 1, 2, 2), dtype=np.float32), None)

    def test_progress(self, model: Any, some: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        told: list[tuple[str, int]] = []
        self.on_workers(model, some[:4], 1, out=tmp_path)

        class Watched(scaled.Steps):
            def __call__(self, steps: int) -> None:
                told.append(("done", steps))

            def skip(self, steps: int) -> None:
                told.append(("skipped", steps))

        import contextlib

        monkeypatch.setattr(scaled, "progress_bar", lambda *_: contextlib.nullcontext(Watched()))
        self.on_workers(model, some[:5], 1, out=tmp_path)
        assert sum(steps for word, steps in told if word == "skipped") == 8
        assert sum(steps for word, steps in told if word == "done") == 2


class Held:
    """Makes a model: a function that pickles."""

    def __init__(self, model: Any):
        self.model = model

    def __call__(self) -> Any:
        return self.model
