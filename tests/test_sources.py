"""Many images: from arrays, loaders and folders, in groups, with some read ahead."""

from __future__ import annotations

import itertools
import os
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fusioncam_core import Explanation, FusionCAM, GradCAM, Preprocessing, ScoreCAM
from fusioncam_core.arrays.namespaces import to_numpy
from fusioncam_core.data import sources
from fusioncam_core.data.prefetching import prefetched
from fusioncam_core.data.sources import regrouped
from fusioncam_core.errors import EmptyMapWarning, InvalidValueError, SkippedImageWarning, UnreadableImageWarning
from libraries import framework

torch = pytest.importorskip("torch")


@pytest.fixture
def model(shapes_weights: dict[str, Any]) -> Any:
    from torch_models import Shapes

    return Shapes(shapes_weights).eval()


@pytest.fixture
def cam(model: Any) -> GradCAM:
    return GradCAM(model, batch_size=3)


def maps(explanations: Any) -> np.ndarray:
    return np.concatenate([to_numpy(each.maps) for each in explanations])


def count_sizes(model: Any) -> list[int]:
    sizes: list[int] = []
    model.register_forward_hook(lambda m, inputs, outputs: sizes.append(len(inputs[0])))
    return sizes


class TestSources:
    @pytest.fixture
    def expected(self, cam: GradCAM, shapes: dict[str, Any]) -> np.ndarray:
        return to_numpy(cam(shapes["images"]).maps)

    def test_an_array(self, cam: GradCAM, shapes: dict[str, Any], expected: np.ndarray) -> None:
        explanations = list(cam.explain_many(shapes["images"]))
        assert [each.maps.shape for each in explanations] == [(1, 48, 48)] * 8
        assert all(isinstance(each, Explanation) for each in explanations)
        np.testing.assert_allclose(maps(explanations), expected, atol=1e-6)

    @pytest.mark.parametrize("batch", [1, 3, 5, 8])
    def test_a_data_loader(self, cam: GradCAM, shapes: dict[str, Any], expected: np.ndarray, batch: int) -> None:
        data = torch.utils.data.TensorDataset(torch.from_numpy(shapes["images"]), torch.from_numpy(shapes["target"]))
        loader = torch.utils.data.DataLoader(data, batch_size=batch)
        np.testing.assert_allclose(maps(cam.explain_many(loader)), expected, atol=1e-6)

    def test_a_tensorflow_data_set(self, cam: GradCAM, shapes: dict[str, Any], expected: np.ndarray) -> None:
        tensorflow = framework("tensorflow")
        data = tensorflow.data.Dataset.from_tensor_slices((shapes["images"], shapes["target"])).batch(5)
        np.testing.assert_allclose(maps(cam.explain_many(data)), expected, atol=1e-6)

    def test_mappings(self, cam: GradCAM, shapes: dict[str, Any], expected: np.ndarray) -> None:
        batches = [{"pixel_values": row[None], "label": [0]} for row in shapes["images"]]
        np.testing.assert_allclose(maps(cam.explain_many(batches)), expected, atol=1e-6)
        with pytest.raises(ValueError, match=r"(?=.*'pixels').*'image' or 'pixel_values'"):
            list(cam.explain_many([{"pixels": shapes["images"]}]))

    def test_several_inputs(self, shapes: dict[str, Any]) -> None:
        class Two(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                torch.manual_seed(0)
                self.conv = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU())

            def forward(self, image: Any, offset: Any) -> Any:
                return self.conv(image).mean(dim=(2, 3)) + offset

        cam = GradCAM(Two(), "conv", masked_input="image", batch_size=3)
        offset = np.random.default_rng(0).random((8, 4), dtype=np.float32)
        expected = cam({"image": shapes["images"], "offset": offset}).maps
        batches = [{"image": shapes["images"][rows], "offset": offset[rows]} for rows in (slice(5), slice(5, 8))]
        np.testing.assert_allclose(maps(cam.explain_many(batches)), expected, atol=1e-6)
        pairs = [(batch, np.zeros(len(batch["offset"]), int)) for batch in batches]
        first = next(iter(cam.explain_many(pairs, "labels")))
        assert first.targets.tolist() == [0]

    def test_images_of_different_shapes(self, cam: GradCAM, shapes: dict[str, Any]) -> None:
        images = shapes["images"]
        batches = [images[:2], images[2:4], images[4:6, :, :40], images[6:]]
        explanations = list(cam.explain_many(batches))
        assert [each.maps.shape[1] for each in explanations] == [48] * 4 + [40] * 2 + [48] * 2
        np.testing.assert_allclose(explanations[4].maps, cam(images[4:5, :, :40]).maps, atol=1e-6)

    def test_nothing(self, cam: GradCAM) -> None:
        assert list(cam.explain_many([])) == []


class TestPhotographs:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        image = pytest.importorskip("PIL.Image")
        generator = np.random.default_rng(0)
        (tmp_path / "inner").mkdir()
        for name in ("b.png", "a.PNG", "inner/c.jpg"):
            pixels = generator.integers(0, 255, (60, 80, 3), dtype=np.uint8)
            image.fromarray(pixels).save(tmp_path / name)
        (tmp_path / "broken.png").write_bytes(b"no picture")
        (tmp_path / "notes.txt").write_text("no picture either")
        return tmp_path

    @pytest.fixture
    def preprocessing(self) -> Preprocessing:
        return Preprocessing(size=(48, 48), mean=0.0, std=255.0)

    def test_a_folder(self, cam: GradCAM, folder: Path, preprocessing: Preprocessing) -> None:
        with pytest.warns(UnreadableImageWarning, match=r"broken.png is not an image Pillow can read. It is left out"):
            explanations = list(cam.explain_many(folder, preprocessing=preprocessing))
        assert [each.names for each in explanations] == [("a",), ("b",), ("inner/c",)]
        assert [each.indices for each in explanations] == [(0,), (1,), (3,)], "the broken one has its place"
        written = explanations[1].numpy().save(folder / "out", pictures=False)
        assert {path.name for path in written} == {"b.npz", "b.json"}

    def test_files_of_one_name_in_two_folders(
        self, cam: GradCAM, folder: Path, preprocessing: Preprocessing, tmp_path: Path
    ) -> None:
        image = pytest.importorskip("PIL.Image")
        for number, name in enumerate(("cat/001.png", "dog/001.png", "dog/001.jpg", "dog/001.PNG")):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            image.new("RGB", (48, 48), (60 * number, 10, 10)).save(tmp_path / name)
        files = [tmp_path / name for name in ("cat/001.png", "dog/001.png", "dog/001.jpg", "dog/001.PNG")]
        explanations = list(cam.explain_many(files, preprocessing=preprocessing))
        assert [each.names[0] for each in explanations] == ["cat/001", "dog/001", "dog/001-2", "dog/001-3"]
        assert [each.files[0] for each in explanations] == [str(file) for file in files]
        written = [path for each in explanations for path in each.save(tmp_path / "out", pictures=False)]
        assert len(set(written)) == 8
        for each in explanations:
            assert Explanation.load(tmp_path / "out" / each.names[0]) == each

    def test_into_the_folder_of_the_photographs(self, cam: GradCAM, folder: Path, preprocessing: Preprocessing) -> None:
        pytest.importorskip("matplotlib")
        before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        with pytest.warns(UnreadableImageWarning):
            _, explanation, _ = cam.explain_many(folder, preprocessing=preprocessing)
        with pytest.raises(ValueError, match=r"b\.png is one of the files that are read"):
            explanation.save(folder, overwrite=True)
        assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before

    def test_files_that_come_one_by_one(self, cam: GradCAM, folder: Path, preprocessing: Preprocessing) -> None:
        files = (folder / name for name in ("b.png", "inner/c.jpg", "b.png"))
        explanations = list(cam.explain_many(files, preprocessing=preprocessing))
        whole = folder.as_posix().lstrip("/")
        assert [each.names[0] for each in explanations] == [f"{whole}/b", f"{whole}/inner/c", f"{whole}/b-2"]

    def test_what_is_no_file_is_not_opened(self, cam: GradCAM, folder: Path, preprocessing: Preprocessing) -> None:
        os.mkfifo(folder / "pipe.png")
        (folder / "called_like.png").mkdir()
        with pytest.warns(UnreadableImageWarning) as caught:
            explanations = list(cam.explain_many(folder, preprocessing=preprocessing))
        assert [each.names[0] for each in explanations] == ["a", "b", "inner/c"]
        told = [str(warning.message) for warning in caught]
        assert len(told) == 2
        assert told[1].endswith("pipe.png cannot be read as a photograph: expected a file, got a pipe. It is left out.")

    @pytest.mark.filterwarnings("error")
    def test_more_pixels_than_pillows_limit(
        self, cam: GradCAM, folder: Path, preprocessing: Preprocessing, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        image = pytest.importorskip("PIL.Image")
        monkeypatch.setattr(image, "MAX_IMAGE_PIXELS", 60 * 80)
        image.new("RGB", (81, 60)).save(folder / "large.png")
        with pytest.warns(UnreadableImageWarning) as caught:
            explanations = list(cam.explain_many(folder, preprocessing=preprocessing))
        assert [each.names[0] for each in explanations] == ["a", "b", "inner/c"]
        assert "large.png cannot be read as a photograph: expected at most 4800 pixels" in str(caught[1].message)
        assert "81 x 60 = 4860" in str(caught[1].message)

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            (lambda photograph: None, r"a\.PNG: expected an array from preprocessing, got None"),
            (lambda photograph: "x", r"a\.PNG: expected an array from preprocessing, got a builtins\.str"),
            (lambda photograph: {}["mean"], r"a\.PNG: preprocessing raised KeyError: 'mean'"),
            (lambda photograph: np.full((3, 48, 48), np.nan), r"a\.PNG: expected finite numbers from preprocessing"),
        ],
    )
    @pytest.mark.parametrize("prefetch", [0, 2])
    def test_preprocessing_that_fails(
        self, cam: GradCAM, folder: Path, preprocessing: Preprocessing, given: Any, message: str, prefetch: int
    ) -> None:
        calls: list[int] = []

        def fails_once(photograph: Any) -> Any:
            calls.append(1)
            return given(photograph) if len(calls) == 1 else preprocessing(photograph)

        files = [folder / name for name in ("a.PNG", "b.png", "inner/c.jpg")]
        with pytest.raises(ValueError, match=message):
            list(cam.explain_many(files, preprocessing=fails_once, prefetch=prefetch))
        calls.clear()
        with pytest.warns(SkippedImageWarning, match=message) as caught:
            explanations = list(cam.explain_many(files, preprocessing=fails_once, prefetch=prefetch, on_error="skip"))
        assert [(each.names[0], each.indices) for each in explanations] == [("b", (1,)), ("inner/c", (2,))]
        assert len(caught) == 1

    def test_a_list_of_files(self, cam: GradCAM, folder: Path, preprocessing: Preprocessing) -> None:
        (explanation,) = cam.explain_many([str(folder / "b.png")], 2, preprocessing=preprocessing)
        assert explanation.targets.tolist() == [2]

    def test_targets_of_files_after_a_broken_one(
        self, cam: GradCAM, folder: Path, preprocessing: Preprocessing
    ) -> None:
        files = [folder / name for name in ("a.PNG", "broken.png", "b.png")]
        with pytest.warns(UnreadableImageWarning):
            explanations = list(cam.explain_many(files, [1, 2, 3], preprocessing=preprocessing))
        assert [each.targets.tolist() for each in explanations] == [[1], [3]]

    def test_without_preprocessing(self, cam: GradCAM, folder: Path) -> None:
        with pytest.raises(ValueError, match="give preprocessing="):
            list(cam.explain_many(folder))

    def test_no_folder(self, cam: GradCAM, tmp_path: Path, preprocessing: Preprocessing) -> None:
        with pytest.raises(ValueError, match="is not a folder"):
            list(cam.explain_many(tmp_path / "absent", preprocessing=preprocessing))
        with pytest.raises(ValueError, match="There is no photograph in"):
            list(cam.explain_many(tmp_path, preprocessing=preprocessing))


class TestOneOfAGroup:
    """What is wrong with one image is told of that one, by its place in the source, and the others are explained."""

    @pytest.fixture
    def images(self, shapes: dict[str, Any]) -> np.ndarray:
        images: np.ndarray = shapes["images"].copy()
        images[4] = np.nan
        return images

    def test_raise(self, cam: GradCAM, images: np.ndarray) -> None:
        found = cam.explain_many(images)
        assert [next(found).indices for _ in range(4)] == [(0,), (1,), (2,), (3,)]
        with pytest.raises(InvalidValueError, match=r"Image 4 of the source: NaN or infinity in the "):
            next(found)

    def test_skip(self, cam: GradCAM, images: np.ndarray, shapes: dict[str, Any]) -> None:
        with pytest.warns(SkippedImageWarning, match="Image 4 of the source is left out: NaN or infinity") as caught:
            explanations = list(cam.explain_many(images, on_error="skip"))
        assert len(caught) == 1
        assert [each.indices for each in explanations] == [(n,) for n in (0, 1, 2, 3, 5, 6, 7)]
        expected = np.delete(to_numpy(cam(shapes["images"]).maps), 4, axis=0)
        np.testing.assert_allclose(maps(explanations), expected, atol=1e-6)

    def test_one_of_many_does_not_have_each_explained_by_itself(
        self, cam: GradCAM, shapes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        images = np.concatenate([shapes["images"][:, :, :16, :16]] * 8)
        images[21] = np.nan
        seen, own = [], GradCAM._call
        monkeypatch.setattr(GradCAM, "_call", lambda self, *given, **more: seen.append(1) or own(self, *given, **more))
        with pytest.warns(SkippedImageWarning, match="Image 21"):
            explanations = list(cam.explain_many(images, on_error="skip"))
        assert [each.indices[0] for each in explanations] == [place for place in range(64) if place != 21]
        assert len(seen) <= 1 + 2 * 6, "a half at each of six steps fails, the other one does not"

    def test_an_error_of_the_model_itself_gets_a_note(self, shapes: dict[str, Any]) -> None:
        class Fails(torch.nn.Conv2d):
            def forward(self, images: Any) -> Any:
                if torch.any(images > 50):
                    raise RuntimeError("by the model")
                return super().forward(images)

        images = shapes["images"].copy()
        images[5, 0, 0, 0] = 60
        model = torch.nn.Sequential(Fails(3, 4, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        cam = GradCAM(model, "1", batch_size=4)
        cam.layers(shapes["images"][:1])
        with pytest.raises(Exception, match="by the model") as caught:
            list(cam.explain_many(images))
        notes = getattr(caught.value, "__notes__", [])
        assert "image 5 of the source" in f"{caught.value} {notes}".casefold()
        with pytest.warns(SkippedImageWarning, match="Image 5 of the source is left out"):
            explanations = list(cam.explain_many(images, on_error="skip"))
        assert [each.indices[0] for each in explanations] == [0, 1, 2, 3, 4, 6, 7]

    def test_warnings_name_the_image_of_the_source(self, shapes: dict[str, Any]) -> None:
        model = torch.nn.Sequential(
            torch.nn.Conv2d(3, 4, 3, bias=False), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
        )
        torch.nn.init.constant_(model[0].weight, 0.1)  # by weights that are drawn other images might be empty as well
        images = shapes["images"] + 1
        images[5] = 0
        with pytest.warns(EmptyMapWarning) as caught:
            list(GradCAM(model, "1", batch_size=4).explain_many(images, 0))
        named = [re.findall("image [0-9]+", str(warning.message)) for warning in caught]
        assert ["image 5"] in named
        assert ["image 1"] not in named

    def test_an_unknown_word(self, cam: GradCAM, shapes: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match="on_error is 'raise' or 'skip': got 'ignore'"):
            cam.explain_many(shapes["images"], on_error="ignore")  # type: ignore[arg-type]


class TestTargets:
    def test_labels(self, cam: GradCAM, shapes: dict[str, Any]) -> None:
        batches = [(shapes["images"][:5], shapes["target"][:5]), (shapes["images"][5:], shapes["target"][5:])]
        explanations = list(cam.explain_many(batches, "labels"))
        assert [int(each.targets[0]) for each in explanations] == shapes["target"].tolist()

    def test_labels_that_are_not_there(self, cam: GradCAM, shapes: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match=r"targets='labels' .* none"):
            list(cam.explain_many(shapes["images"], "labels"))

    def test_one_row_an_image(self, cam: GradCAM, shapes: dict[str, Any]) -> None:
        wanted = np.arange(16).reshape(8, 2) % 5
        for targets in (wanted, wanted.tolist(), torch.from_numpy(wanted)):
            explanations = list(cam.explain_many(shapes["images"], targets))
            np.testing.assert_array_equal(np.concatenate([each.targets for each in explanations]), wanted)

    def test_too_few_rows(self, cam: GradCAM, shapes: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match=r"targets for all images, got them for 4\b.* more images"):
            list(cam.explain_many(shapes["images"], [0, 1, 2, 3]))

    @pytest.mark.parametrize("targets", [None, 3, np.int64(3), "top2", lambda outputs: outputs[:, 1]])
    def test_the_same_for_all(self, cam: GradCAM, shapes: dict[str, Any], targets: Any) -> None:
        expected = cam(shapes["images"], targets)
        np.testing.assert_allclose(maps(cam.explain_many(shapes["images"], targets)), expected.maps, atol=1e-6)


class TestGroups:
    def test_masks_of_several_images_share_batches(self, model: Any, shapes: dict[str, Any]) -> None:
        cam = ScoreCAM(model, "features", batch_size=8, budget=4)
        cam.layers(shapes["images"])  # what is measured of the layer is kept
        sizes = count_sizes(model)
        explanations = list(cam.explain_many([row[None] for row in shapes["images"]]))
        assert sizes == [8, 1, 8, 8, 8, 8], "the images, the black one, and four masks of each"
        assert sum(each.evaluations for each in explanations) == sum(sizes)
        assert all(each.masks_run.tolist() == [4] for each in explanations)

    def test_everything_of_an_explanation_comes_apart(self, model: Any, shapes: dict[str, Any]) -> None:
        cam = FusionCAM(model, "features", batch_size=4, budget=10)
        whole = cam(shapes["images"], [[0, 1]] * 8)
        for row, single in enumerate(cam.explain_many(shapes["images"], [[0, 1]] * 8)):
            arrays = ("maps", "targets", "scores", "class_probabilities", "images", "masks_run", "uncertainty")
            for name in arrays:
                np.testing.assert_allclose(getattr(single, name)[0], getattr(whole, name)[row], atol=1e-5)
            np.testing.assert_allclose(single.parts["union"][0], whole.parts["union"][row], atol=1e-5)
            np.testing.assert_allclose(
                single.weights["weight_region"][0], whole.weights["weight_region"][row], atol=1e-5
            )

    def test_a_loaders_images_are_counted_over_all_its_batches(
        self, cam: GradCAM, shapes: dict[str, Any], tmp_path: Path
    ) -> None:
        loader = torch.utils.data.DataLoader(torch.from_numpy(shapes["images"]), batch_size=2)
        for each in cam.explain_many(loader):
            each.save(tmp_path, pictures=False)
        names = {path.name for path in tmp_path.iterdir()}
        assert names == {f"image-{place}.{ending}" for place in range(8) for ending in ("npz", "json")}

    def test_images_are_joined_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Not the waiting ones anew for each that comes."""
        joined: list[int] = []
        concatenate = sources._joined

        def counted(groups: Any) -> Any:
            joined.append(sum(len(each.names) for each in groups))
            return concatenate(groups)

        monkeypatch.setattr(sources, "_joined", counted)
        single = [sources.Group(np.full((1, 2), n), None, (None,), (n,)) for n in range(1000)]
        found = list(regrouped(single, lambda _: 100))
        assert [group.places for group in found] == [tuple(range(n, n + 100)) for n in range(0, 1000, 100)]
        np.testing.assert_array_equal(np.concatenate([group.inputs for group in found])[:, 0], np.arange(1000))
        assert sum(joined) == 1000

    @pytest.mark.parametrize("sizes", [[3, 3, 3], [7], [1, 6], [2, 2, 2, 1], [5, 1, 5]])
    def test_groups_of_any_sizes_are_cut_alike(self, sizes: list[int]) -> None:
        starts = np.cumsum([0, *sizes])[:-1]
        groups = [
            sources.Group(np.arange(a, a + n)[:, None], np.arange(a, a + n), ("x",) * n, tuple(range(a, a + n)))
            for a, n in zip(starts.tolist(), sizes, strict=True)
        ]
        found = list(regrouped(groups, lambda _: 3))
        whole, rest = divmod(sum(sizes), 3)
        assert [len(group.names) for group in found] == [3] * whole + [rest] * (rest > 0)
        for one in found:
            assert one.inputs[:, 0].tolist() == list(one.places) == one.labels.tolist()
        assert [place for group in found for place in group.places] == list(range(sum(sizes)))

    def test_groups_grow_while_they_are_taken(self) -> None:
        size = [2]
        groups = [
            sources.Group(np.arange(n, n + 5)[:, None], None, (None,) * 5, tuple(range(n, n + 5))) for n in (0, 5)
        ]
        found = []
        for group in regrouped(groups, lambda _: size[0]):
            found.append(list(group.places))
            size[0] = 4
        assert found == [[0, 1], [2, 3, 4, 5], [6, 7, 8, 9]]

    def test_another_frameworks_loader(self, shapes: dict[str, Any], shapes_weights: dict[str, Any]) -> None:
        framework("jax")
        from jax_models import tapped_function

        cam = GradCAM(tapped_function(shapes_weights), batch_size=4)
        images = np.ascontiguousarray(np.moveaxis(shapes["images"], 1, -1))
        loader = torch.utils.data.DataLoader(torch.from_numpy(images), batch_size=3)
        np.testing.assert_allclose(maps(cam.explain_many(loader)), to_numpy(cam(images).maps), atol=1e-6)


class TestReadingAhead:
    def test_in_another_thread(self) -> None:
        threads = []

        def items() -> Iterator[int]:
            for number in range(5):
                threads.append(threading.current_thread())
                yield number

        assert list(prefetched(items(), 2)) == list(range(5))
        assert threading.current_thread() not in threads
        threads.clear()
        assert list(prefetched(items(), 0)) == list(range(5))
        assert set(threads) == {threading.current_thread()}

    def test_no_further_than_asked(self) -> None:
        made: list[int] = []
        source = prefetched((made.append(number) or number for number in range(100)), 3)  # type: ignore[func-returns-value]
        assert next(source) == 0
        source.close()  # type: ignore[attr-defined]
        assert len(made) <= 5

    def test_closing_does_not_wait_for_a_source_that_does(self, cam: GradCAM, shapes: dict[str, Any]) -> None:
        gate, ended = threading.Event(), threading.Event()

        def batches() -> Iterator[Any]:
            try:
                yield shapes["images"][:3]
                gate.wait(60)
                yield shapes["images"][3:6]
            finally:
                ended.set()

        found = cam.explain_many(batches())
        assert next(found).indices == (0,)
        start = time.monotonic()
        found.close()  # type: ignore[attr-defined]
        assert time.monotonic() - start < 5
        gate.set()
        assert ended.wait(5), "the source is closed once it lets go"

    def test_the_thread_ends_with_the_items_and_with_closing(self) -> None:
        def readers() -> list[threading.Thread]:
            return [each for each in threading.enumerate() if each.name == "fusioncam reader"]

        before = len(readers())
        assert list(prefetched(range(3), 2)) == [0, 1, 2]
        source = prefetched(itertools.count(), 2)
        assert next(source) == 0
        source.close()
        assert len(readers()) == before

    def test_an_exit_of_the_source_arrives(self) -> None:
        def items() -> Iterator[int]:
            yield 1
            raise SystemExit(0)

        source = prefetched(items(), 2)
        assert next(source) == 1
        with pytest.raises(SystemExit):
            next(source)

    def test_an_error_arrives(self) -> None:
        def items() -> Iterator[int]:
            yield 1
            raise OSError("the disk is gone")

        source = prefetched(items(), 2)
        assert next(source) == 1
        with pytest.raises(OSError, match="the disk is gone"):
            next(source)

    def test_progress_counts_images(
        self, cam: GradCAM, shapes: dict[str, Any], capsys: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("fusioncam_core.data.progress.SECONDS", 0)
        list(cam.explain_many(shapes["images"], progress=True))
        assert "\nGrad-CAM, images: 8 of 8 (100 %)" in capsys.readouterr().err
        list(cam.explain_many(shapes["images"], progress=False))
        assert capsys.readouterr().err == ""
