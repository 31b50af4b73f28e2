"""The zoo's networks for Fashion-MNIST: the pictures, the checkpoints in three frameworks, the training."""

from __future__ import annotations

import gzip
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from examples.zoo.fashion_mnist import (
    FOLDER,
    MEAN,
    STD,
    Labelled,
    class_names,
    prepare,
    preprocessing,
    read_data_set,
)
from examples.zoo.fashion_networks import (
    RESNET8,
    TINY_VIT,
    checkpoint_path,
    layer_parameters,
    read_parameters,
    write_parameters,
)
from fusioncam_core import FusionCAM, GradCAM, LoadedModel
from libraries import framework

# Float32 logits of up to 5 differ by less than 1e-5 between the frameworks; wrong padding makes it tenths.
TOLERANCE = 1e-4
MEGABYTE = 1_000_000

NETWORKS = {"resnet8": RESNET8, "tiny_vit": TINY_VIT}
KINDS = ("torch", "keras", "flax")


@pytest.fixture(scope="module")
def pictures() -> Labelled:
    """The first four test images of each class, in the order of the test set."""
    with np.load(Path(__file__).parent / "data" / "fashion_mnist.npz") as arrays:
        return Labelled(arrays["images"], arrays["labels"])


def write_data_set(folder: Path, part: str, images: np.ndarray, labels: np.ndarray) -> None:
    for kind, array in (("images", images), ("labels", labels)):
        header = bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">u4").tobytes()
        path = folder / f"{part}-{kind}-idx{array.ndim}-ubyte.gz"
        path.write_bytes(gzip.compress(header + array.tobytes()))


class TestDataSet:
    def test_kept_pictures(self, pictures: Labelled) -> None:
        assert pictures.images.shape == (40, 28, 28)
        assert pictures.images.dtype == pictures.labels.dtype == np.uint8
        assert np.bincount(pictures.labels).tolist() == [4] * 10
        assert pictures.labels[:8].tolist() == [9, 2, 1, 1, 6, 1, 4, 6]

    @pytest.mark.parametrize(("part", "size"), [("train", 60_000), ("test", 10_000)])
    def test_installed_one(self, pictures: Labelled, part: str, size: int) -> None:
        if not FOLDER.is_dir():
            pytest.skip("dataset-fashion-mnist is not installed")
        images, labels = read_data_set(part, FOLDER)
        assert images.shape == (size, 28, 28)
        assert np.bincount(labels).tolist() == [size // 10] * 10
        if part == "test":
            first = np.sort(np.concatenate([np.flatnonzero(labels == each)[:4] for each in range(10)]))
            np.testing.assert_array_equal(images[first], pictures.images, strict=True)
        else:
            assert images.mean() / 255 == pytest.approx(MEAN, abs=5e-5)
            assert images.std() / 255 == pytest.approx(STD, abs=5e-5)

    @pytest.mark.parametrize(("part", "prefix"), [("train", "train"), ("test", "t10k")])
    def test_files_are_read(self, pictures: Labelled, tmp_path: Path, part: str, prefix: str) -> None:
        write_data_set(tmp_path, prefix, pictures.images, pictures.labels)
        images, labels = read_data_set(part, tmp_path)
        np.testing.assert_array_equal(images, pictures.images, strict=True)
        np.testing.assert_array_equal(labels, pictures.labels, strict=True)

    @pytest.mark.parametrize("part", ["train", "test"])
    def test_absence_names_the_package(self, tmp_path: Path, part: str) -> None:
        with pytest.raises(FileNotFoundError, match="apt-get install dataset-fashion-mnist"):
            read_data_set(part, tmp_path / "nowhere")

    def test_other_lengths_are_refused(self, pictures: Labelled, tmp_path: Path) -> None:
        write_data_set(tmp_path, "train", pictures.images, pictures.labels[:-1])
        with pytest.raises(ValueError, match="has 40 images and 39 labels of the part 'train'"):
            read_data_set("train", tmp_path)

    def test_a_file_that_is_cut_short_is_refused(self, pictures: Labelled, tmp_path: Path) -> None:
        write_data_set(tmp_path, "train", pictures.images, pictures.labels)
        path = tmp_path / "train-images-idx3-ubyte.gz"
        whole = path.read_bytes()
        path.write_bytes(gzip.compress(gzip.decompress(whole)[:-1]))
        with pytest.raises(ValueError, match="should hold 40 x 28 x 28 bytes; it holds 31359"):
            read_data_set("train", tmp_path)
        path.write_bytes(whole[:-9])
        with pytest.raises(ValueError, match="is not a whole gzip file"):
            read_data_set("train", tmp_path)

    def test_another_format_is_refused(self, pictures: Labelled, tmp_path: Path) -> None:
        write_data_set(tmp_path, "train", pictures.images, pictures.labels)
        path = tmp_path / "train-images-idx3-ubyte.gz"
        path.write_bytes(gzip.compress(b"\x89PNG"))
        with pytest.raises(ValueError, match=r"expected an idx file of bytes with 3 axes; .* begins with b'\\x89PNG'"):
            read_data_set("train", tmp_path)
        path.write_bytes(b"\x89PNG")
        with pytest.raises(ValueError, match="is not a whole gzip file"):
            read_data_set("train", tmp_path)


class TestPreprocessing:
    def test_values(self) -> None:
        prepared = prepare(np.array([[[0, 255]]], np.uint8), "first")
        expected = np.array([[[[-0.286 / 0.353, 0.714 / 0.353]]]], np.float32)
        assert prepared.dtype == expected.dtype
        assert prepared.shape == expected.shape
        np.testing.assert_allclose(prepared, expected, rtol=1e-6)

    def test_channels(self, pictures: Labelled) -> None:
        first, last = prepare(pictures.images, "first"), prepare(pictures.images, "last")
        assert first.shape == (40, 1, 28, 28)
        np.testing.assert_array_equal(first[:, 0], last[..., 0], strict=True)

    @pytest.mark.parametrize("channels", ["first", "last"])
    @pytest.mark.parametrize("mode", ["L", "RGB"])
    def test_a_pillow_image(self, pictures: Labelled, channels: Any, mode: str) -> None:
        image = pytest.importorskip("PIL.Image").fromarray(pictures.images[0]).convert(mode)
        expected = prepare(pictures.images[:1], channels)[0]
        np.testing.assert_array_equal(preprocessing(channels)(image), expected, strict=True)

    def test_colours_become_grey(self) -> None:
        image = pytest.importorskip("PIL.Image").new("RGB", (60, 40), (255, 0, 0))
        prepared = preprocessing("last")(image)
        assert prepared.shape == (28, 28, 1)
        np.testing.assert_allclose(prepared, (76 / 255 - MEAN) / STD, rtol=1e-5)  # 0.299 * 255, as Pillow rounds it

    def test_class_names(self) -> None:
        assert class_names()[0] == "T-shirt/top"
        assert class_names()[5:8] == ["Sandal", "Shirt", "Sneaker"]
        assert len(set(class_names())) == 10


class TestCheckpoints:
    @pytest.mark.parametrize(("network", "trained"), [(RESNET8, 77_754), (TINY_VIT, 139_018)])
    def test_contents(self, network: str, trained: int) -> None:
        arrays = read_parameters(checkpoint_path(network))
        assert {array.dtype for array in arrays.values()} == {np.dtype(np.float32)}
        assert sum(array.size for name, array in arrays.items() if "running" not in name) == trained
        assert checkpoint_path(network).stat().st_size < 1.2 * MEGABYTE

    def test_layouts(self) -> None:
        resnet, vit = layer_parameters(RESNET8), layer_parameters(TINY_VIT)
        assert resnet["stem_conv"]["weight"].shape == (3, 3, 1, 16)
        assert resnet["stage2.shortcut_conv"]["weight"].shape == (1, 1, 16, 32)
        assert resnet["stage3.norm2"]["running_var"].shape == (64,)
        assert resnet["classifier"]["weight"].shape == (64, 10)
        assert "stage1.shortcut_conv" not in resnet
        assert vit["patch_embedding"]["weight"].shape == (4, 4, 1, 64)
        assert vit["tokens"]["positions"].shape == (1, 50, 64)
        assert vit["blocks.3.mlp_expand"]["weight"].shape == (64, 128)

    def test_what_is_written_is_read(self, tmp_path: Path) -> None:
        arrays = {"stage1.conv1.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "bias": np.ones(2, np.float32)}
        write_parameters(tmp_path / "some.checkpoint", arrays)
        found = read_parameters(tmp_path / "some.checkpoint")
        assert list(found) == list(arrays)
        for name, array in arrays.items():
            np.testing.assert_array_equal(found[name], array, strict=True)


class Network:
    """One of the networks in one framework; it takes uint8 images (n, 28, 28) and gives NumPy arrays."""

    def __init__(self, name: str, kind: str):
        framework(kind)
        self.kind = kind
        self.loaded: LoadedModel = import_module(f"examples.zoo.{name}_{kind}").load()

    def inputs(self, images: np.ndarray) -> np.ndarray:
        return prepare(images, "first" if self.kind == "torch" else "last")

    def logits(self, images: np.ndarray) -> np.ndarray:
        inputs = self.inputs(images)
        if self.kind == "torch":
            torch = framework("torch")
            with torch.no_grad():
                return self.loaded.model(torch.from_numpy(inputs)).numpy()
        if self.kind == "keras":
            return framework("keras").ops.convert_to_numpy(self.loaded.model(inputs, training=False))
        return np.asarray(framework("flax.nnx").jit(lambda model, images: model(images))(self.loaded.model, inputs))

    def layer_shapes(self, images: np.ndarray) -> dict[str, tuple[int, ...]]:
        """Of one image, by layer."""
        return {layer.name: layer.shape for layer in GradCAM(self.loaded.model).layers(self.inputs(images[:1]))}


@pytest.fixture(scope="module")
def networks() -> dict[tuple[str, str], Network]:
    return {}


@pytest.fixture(params=NETWORKS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=KINDS)
def network(request: pytest.FixtureRequest, name: str, networks: dict[tuple[str, str], Network]) -> Network:
    return built(networks, name, request.param)


@pytest.fixture
def torch_network(name: str, networks: dict[tuple[str, str], Network]) -> Network:
    return built(networks, name, "torch")


def built(networks: dict[tuple[str, str], Network], name: str, kind: str) -> Network:
    """Each network once, however many tests use it."""
    if (name, kind) not in networks:
        networks[name, kind] = Network(name, kind)
    return networks[name, kind]


LAYERS = {  # channels first as PyTorch has them; the last entry is the default
    ("resnet8", "torch"): {"stage1": (16, 28, 28), "stage2": (32, 14, 14), "stage3": (64, 7, 7)},
    ("resnet8", "keras"): {"stage1_relu2": (28, 28, 16), "stage2_relu2": (14, 14, 32), "stage3_relu2": (7, 7, 64)},
    ("resnet8", "flax"): {"stage1": (28, 28, 16), "stage2": (14, 14, 32), "stage3": (7, 7, 64)},
    ("tiny_vit", "torch"): {"tokens": (50, 64), "blocks.3": (50, 64), "blocks.3.attention_norm": (50, 64)},
    ("tiny_vit", "keras"): {"tokens": (50, 64), "block_3_mlp_add": (50, 64), "block_3_attention_norm": (50, 64)},
    ("tiny_vit", "flax"): {"tokens": (50, 64), "blocks[3]": (50, 64), "blocks[3].attention_norm": (50, 64)},
}


# Keras on PyTorch copies tensors to NumPy in a way that NumPy 2 complains of.
@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
class TestNetworks:
    def test_classes(self, network: Network, pictures: Labelled) -> None:
        logits = network.logits(pictures.images)
        assert logits.shape == (40, 10)
        assert (logits.argmax(axis=1) == pictures.labels).sum() >= 34

    def test_logits_agree_with_torch(self, network: Network, torch_network: Network, pictures: Labelled) -> None:
        expected = torch_network.logits(pictures.images)
        np.testing.assert_allclose(network.logits(pictures.images), expected, rtol=0, atol=TOLERANCE, strict=True)

    def test_layers(self, network: Network, name: str, pictures: Labelled) -> None:
        expected = {layer: (1, *shape) for layer, shape in LAYERS[name, network.kind].items()}
        shapes = network.layer_shapes(pictures.images)
        assert {layer: shapes.get(layer) for layer in expected} == expected

    def test_what_is_loaded(self, network: Network, name: str, pictures: Labelled) -> None:
        image = pytest.importorskip("PIL.Image").fromarray(pictures.images[0])
        prepared = network.loaded.preprocessing(image)
        np.testing.assert_array_equal(prepared, network.inputs(pictures.images)[0], strict=True)
        assert network.loaded.class_names == class_names()
        assert network.loaded.name == NETWORKS[name]

    # The Grad-CAM map is the first part of Fusion-CAM.
    @pytest.mark.parametrize("method", [pytest.param(GradCAM, marks=pytest.mark.slow), FusionCAM])
    def test_maps_agree_with_torch(
        self, network: Network, torch_network: Network, name: str, pictures: Labelled, method: Any
    ) -> None:
        def explain(each: Network) -> Any:
            return method(each.loaded.model)(each.inputs(pictures.images[:3]), pictures.labels[:3].tolist()).numpy()

        explanation, expected = explain(network), explain(torch_network)
        assert explanation.layer == list(LAYERS[name, network.kind])[-1]
        assert explanation.maps.shape == (3, 28, 28)
        np.testing.assert_allclose(explanation.maps.max(axis=(1, 2)), 1, rtol=1e-6)
        np.testing.assert_allclose(explanation.maps, expected.maps, rtol=0, atol=TOLERANCE)
        for stage, part in expected.parts.items():
            np.testing.assert_allclose(explanation.parts[stage], part, rtol=0, atol=TOLERANCE, err_msg=stage)

    def test_keras_saves_the_transformer(
        self, networks: dict[tuple[str, str], Network], pictures: Labelled, tmp_path: Path
    ) -> None:
        network = built(networks, "tiny_vit", "keras")
        expected = network.logits(pictures.images[:2])
        network.loaded.model.save(tmp_path / "vit.keras")
        saved = framework("keras").saving.load_model(tmp_path / "vit.keras")
        logits = framework("keras").ops.convert_to_numpy(saved(network.inputs(pictures.images[:2])))
        np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-6)


@pytest.fixture(scope="module")
def training() -> Any:
    framework("torch")
    return import_module("examples.zoo.train_fashion_mnist")


@pytest.fixture(scope="module")
def shades() -> Labelled:
    """Class 0 is dark, class 1 is bright."""
    labels = np.arange(64, dtype=np.uint8) % 2
    images = np.where(labels == 0, 40, 220).astype(np.uint8)
    return Labelled(np.broadcast_to(images[:, None, None], (64, 28, 28)), labels)


class TestTraining:
    @pytest.mark.parametrize("name", ["resnet8", "tiny-vit"])
    def test_the_loss_falls(self, training: Any, shades: Labelled, name: str) -> None:
        torch = framework("torch")
        recipe = training.RECIPES[name]._replace(epochs=3, batch_size=16)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = recipe.network()
        losses = list(training.train(model, recipe, shades))
        assert len(losses) == 3
        assert losses[-1] < 0.7 * losses[0]
        assert training.accuracy(model, shades) == 1
        assert not model.training

    def test_the_same_seed_makes_the_same_network(self, training: Any, shades: Labelled) -> None:
        torch = framework("torch")
        recipe = training.RECIPES["tiny-vit"]._replace(epochs=1, batch_size=16)
        losses = []
        for seed in (0, 0, 1):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                losses += training.train(recipe.network(), recipe, shades, seed)
        assert losses[0] == losses[1] != losses[2]

    def test_accuracy(self, training: Any, pictures: Labelled) -> None:
        torch = framework("torch")

        class AlwaysThree(torch.nn.Module):
            def forward(self, images: Any) -> Any:
                return torch.eye(10)[3].expand(len(images), 10)

        assert training.accuracy(AlwaysThree(), pictures) == 0.1

    def test_augmentation_moves_and_mirrors(self, training: Any) -> None:
        images = np.zeros((2000, 28, 28), np.uint8)
        images[:, 14, 3] = 200
        moved = training.augment(images, np.random.default_rng(0))
        assert moved.shape == images.shape
        assert moved.dtype == np.uint8
        image, row, column = np.nonzero(moved)
        assert image.tolist() == list(range(2000))
        columns = [*range(1, 6), *range(22, 27)]  # 27 - 3 = 24 when mirrored
        assert {*zip(row.tolist(), column.tolist(), strict=True)} == {(r, c) for r in range(12, 17) for c in columns}

    def test_command(self, training: Any, pictures: Labelled, tmp_path: Path, capsys: Any) -> None:
        for prefix in ("train", "t10k"):
            write_data_set(tmp_path, prefix, np.repeat(pictures.images, 4, axis=0), np.repeat(pictures.labels, 4))
        out = tmp_path / "resnet8.npz"
        arguments = ["resnet8", "--epochs", "1", "--data", str(tmp_path), "--out", str(out)]
        with framework("torch").random.fork_rng(devices=[]):
            assert training.main(arguments) == 0
        assert "epoch 1: loss" in capsys.readouterr().out
        written, shipped = read_parameters(out), read_parameters(checkpoint_path(RESNET8))
        assert {name: array.shape for name, array in written.items()} == {
            name: array.shape for name, array in shipped.items()
        }

    def test_command_without_the_data_set(self, training: Any, tmp_path: Path, capsys: Any) -> None:
        with pytest.raises(SystemExit) as left:
            training.main(["resnet8", "--data", str(tmp_path)])
        assert left.value.code == 2
        assert "apt-get install dataset-fashion-mnist" in capsys.readouterr().err

    def test_command_takes_whole_epochs_only(self, training: Any, capsys: Any) -> None:
        with pytest.raises(SystemExit):
            training.main(["tiny-vit", "--epochs", "0"])
        assert "expected at least 1 epoch, got 0" in capsys.readouterr().err
