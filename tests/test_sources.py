"""Many images: from arrays, loaders and folders, in groups, with some read ahead."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fusioncam_core import Explanation, FusionCAM, GradCAM, Preprocessing, ScoreCAM
from fusioncam_core.arrays.namespaces import to_numpy
from fusioncam_core.data.sources import prefetched
from fusioncam_core.errors import UnreadableImageWarning
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

    def test_an_error_arrives(self) -> None:
        def items() -> Iterator[int]:
            yield 1
            raise OSError("the disk is gone")

        source = prefetched(items(), 2)
        assert next(source) == 1
        with pytest.raises(OSError, match="the disk is gone"):
            next(source)

    def test_progress_counts_images(self, cam: GradCAM, shapes: dict[str, Any], capsys: Any) -> None:
        pytest.importorskip("tqdm")
        list(cam.explain_many(shapes["images"], progress=True))
        bar = capsys.readouterr().err
        assert "Grad-CAM, images" in bar
        assert "0/8" in bar
        list(cam.explain_many(shapes["images"], progress=False))
        assert capsys.readouterr().err == ""
