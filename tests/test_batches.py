"""Batches in other programs' hands, explained: as NumPy, pandas and pyarrow have them, without these programs."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fusioncam_core import FusionCAM, GradCAM, Preprocessing
from fusioncam_core.jobs.table import schema
from fusioncam_core.scale.batches import ExplainBatches
from test_jobs import network

pyarrow = pytest.importorskip("pyarrow")
torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).random((7, 1, 12, 10), dtype=np.float32)


def grad_cam() -> Any:
    return GradCAM(network(), "1", batch_size=4)


def photographs() -> Any:
    return GradCAM(network(channels=3), "1", batch_size=4)


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


PREPROCESSING = Preprocessing(size=(12, 12), mean=0.0, std=255.0)


class TestRows:
    def test_they_are_those_of_a_job(self, images: np.ndarray) -> None:
        explain = ExplainBatches(grad_cam, "top2", class_names=list("abcde"), maps=(3, 2))
        names = [f"image-{n}" for n in range(7)]
        table = explain({"id": np.array(names), "image": images, "path": names[::-1]})
        assert table.schema.remove_metadata() == schema([], pyarrow.string())
        assert set(table.column_names) == set(schema([]).names)
        found = table.to_pylist()
        assert [(row["id"], row["path"], row["row"]) for row in found] == [
            (names[n], names[6 - n], k) for n in range(7) for k in range(2)
        ]
        own = grad_cam()(images, "top2").numpy()
        for number, row in enumerate(found):
            n, k = divmod(number, 2)
            assert (row["class"], row["name"]) == (own.targets[n, k], "abcde"[own.targets[n, k]])
            assert row["score"] == pytest.approx(own.scores[n, k], abs=1e-6)
            assert (row["layer"], row["map_shape"], row["error"]) == ("1", [3, 2], None)

    @pytest.mark.parametrize("kind", ["pandas", "pyarrow", "list"])
    def test_from_whatever_holds_the_batch(self, images: np.ndarray, kind: str) -> None:
        explain = ExplainBatches(grad_cam, 2)
        expected = explain({"id": np.arange(7), "image": images}).to_pylist()
        assert [row["id"] for row in expected] == list(range(7))
        if kind == "pandas":
            pandas = pytest.importorskip("pandas")
            batch: Any = pandas.DataFrame({"id": range(7), "image": list(images)})
        elif kind == "pyarrow":
            nested = [each.tolist() for each in images]
            numbers = pyarrow.array(nested, pyarrow.list_(pyarrow.list_(pyarrow.list_(pyarrow.float32()))))
            batch = pyarrow.table({"id": range(7), "image": numbers})
        else:
            batch = {"id": list(range(7)), "image": list(images)}
        assert explain(batch).to_pylist() == expected

    def test_photographs(self) -> None:
        pixels = np.random.default_rng(1).integers(0, 256, (4, 20, 14, 3), dtype=np.uint8)
        explain = ExplainBatches(photographs, 1, preprocessing=PREPROCESSING)
        decoded = explain({"id": range(4), "image": pixels}).to_pylist()
        contents = explain({"id": range(4), "image": [png(each) for each in pixels]}).to_pylist()
        inputs = np.stack([PREPROCESSING(Image.fromarray(each)) for each in pixels])
        own = photographs()(inputs, 1).numpy()
        assert decoded == contents
        np.testing.assert_allclose([row["score"] for row in decoded], own.scores, atol=1e-6)
        grey = explain({"id": [0, 1], "image": [pixels[0, :, :, 0], pixels[0, :, :, :1]]}).to_pylist()
        assert grey[0]["map"] == grey[1]["map"]

    def test_images_that_cannot_be_explained_have_a_reason(self, images: np.ndarray) -> None:
        broken = images.copy()
        broken[2] = np.nan
        found = ExplainBatches(grad_cam)({"id": list("abcdefg"), "image": broken}).to_pylist()
        assert [row["id"] for row in found if row["error"]] == ["c"]
        assert "NaN or infinity" in found[2]["error"]
        pixels = np.zeros((12, 12, 3), np.uint8)
        given = [png(pixels), b"no picture", png(pixels), pixels / 2]
        found = ExplainBatches(photographs, preprocessing=PREPROCESSING)({"id": range(4), "image": given}).to_pylist()
        assert [row["error"] is None for row in found] == [True, False, True, False]
        assert found[1]["error"] == "1 is not an image Pillow can read."
        assert "3: expected a photograph as the content of a file or as an array" in found[3]["error"]
        with pytest.raises(ValueError, match="NaN or infinity"):
            ExplainBatches(grad_cam, on_error="raise")({"id": list("abcdefg"), "image": broken})

    def test_labels_are_targets(self, images: np.ndarray) -> None:
        labels = np.arange(7) % 5
        found = ExplainBatches(grad_cam, "labels")({"id": range(7), "image": images, "label": labels}).to_pylist()
        assert [row["class"] for row in found] == labels.tolist()

    def test_a_methods_weights_are_columns(self, images: np.ndarray) -> None:
        explain = ExplainBatches(lambda: FusionCAM(network(), "1", batch_size=8), 2)
        table = explain({"id": range(2), "image": images[:2]})
        own = FusionCAM(network(), "1", batch_size=8)(images[:2], 2).numpy()
        for name, values in own.weights.items():
            np.testing.assert_allclose(table[name].to_pylist(), values, atol=1e-5)
        bad = np.full_like(images[:1], np.nan)
        assert explain({"id": [9], "image": bad}).schema == table.schema
        told = ExplainBatches(lambda: FusionCAM(network(), "1"), 2, weights=list(own.weights))
        assert told({"id": [9], "image": bad}).schema == table.schema

    def test_a_map_that_is_empty_is_told_of_its_own_image(self) -> None:
        model = network()
        with torch.no_grad():
            model[0].bias.fill_(-1)
        explain = ExplainBatches(lambda: GradCAM(model, "1"), 1)
        found = explain({"id": ["a", "b"], "image": np.zeros((2, 1, 12, 10), np.float32)}).to_pylist()
        assert "map is zero everywhere for image 1 (b)" in found[1]["warnings"][0]


class TestRefused:
    def test_targets_of_single_images(self) -> None:
        with pytest.raises(ValueError, match="Batches may come in any order: expected the same targets for all"):
            ExplainBatches(grad_cam, [1, 2, 3])

    def test_columns_that_are_missing(self, images: np.ndarray) -> None:
        with pytest.raises(ValueError, match="Expected a column 'image', got 'id', 'pixels'"):
            ExplainBatches(grad_cam)({"id": range(7), "pixels": images})
        with pytest.raises(ValueError, match="Expected a column 'label', got 'id', 'image'"):
            ExplainBatches(grad_cam, "labels")({"id": range(7), "image": images})

    def test_contents_of_files_without_preprocessing(self) -> None:
        given = {"id": [0], "image": [png(np.zeros((4, 4), np.uint8))]}
        with pytest.raises(
            TypeError, match="'image' has contents of files: expected preprocessing= for them, got none"
        ):
            ExplainBatches(photographs)(given)

    def test_a_factory_of_something_else(self) -> None:
        with pytest.raises(TypeError, match="a function that returns an explainer, got one that returns a Sequential"):
            ExplainBatches(network)


def test_as_spark_calls_it(images: np.ndarray) -> None:
    """`mapInPandas` gives a function an iterator of frames and takes one: docs/cluster.md."""
    pandas = pytest.importorskip("pandas")

    def explained(frames: Any) -> Any:
        explain = ExplainBatches(grad_cam, 2)
        for frame in frames:
            yield explain(frame).to_pandas()

    frames = (pandas.DataFrame({"id": range(n, n + 3), "image": list(images[n : n + 3])}) for n in (0, 3))
    found = pandas.concat(explained(frames))
    assert found["id"].tolist() == list(range(6))
    own = grad_cam()(images[:6], 2).numpy()
    np.testing.assert_allclose(found["score"], own.scores, atol=1e-6)
    np.testing.assert_allclose(np.stack(found["map"]), own.maps.reshape(6, -1), atol=5e-4)
