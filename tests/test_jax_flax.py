"""What only Flax models do, NNX and Linen: paths, modes, shared and repeated layers, functional activations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fusioncam_core import EmptyMapWarning, FusionCAM, GradCAM, ScoreCAM, adapt_model
from fusioncam_core.models.outputs import ClassScores

jax = pytest.importorskip("jax")
pytest.importorskip("flax")
jnp = jax.numpy

import flax.linen as nn  # noqa: E402 - only where it is installed
from flax import nnx  # noqa: E402

from fusioncam_jax import tap  # noqa: E402

IMAGES = np.random.default_rng(0).random((2, 12, 12, 3), dtype=np.float32)
TARGETS = np.array([[1], [1]], np.int32)


def names(model: Any, images: np.ndarray = IMAGES) -> list[str]:
    return [layer.name for layer in GradCAM(model).layers(images)]


class NnxNet(nnx.Module):
    """Everything that differs between training and inference, in train mode; `train` is true unless one says so."""

    def __init__(self) -> None:
        rngs = nnx.Rngs(0)
        self.stem = nnx.Conv(3, 4, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.conv = nnx.Conv(4, 4, (3, 3), rngs=rngs)
        self.head = nnx.Linear(4, 3, rngs=rngs)
        self.norm.mean[...] = jnp.arange(4.0)
        self.norm.var[...] = jnp.arange(1.0, 5.0)

    def __call__(self, images: Any, train: bool = True) -> Any:
        values = self.norm(self.stem(images), use_running_average=not train)
        values = self.dropout(nnx.relu(values), deterministic=not train)
        return self.head(self.dropout(nnx.relu(self.conv(values))).mean(axis=(1, 2)))


class LinenNet(nn.Module):
    """The same; the last dropout is told by its attribute, the others when they are called."""

    @nn.compact
    def __call__(self, images: Any, train: bool) -> Any:
        values = nn.BatchNorm(use_running_average=not train)(nn.Conv(4, (3, 3))(images))
        values = nn.Dropout(0.5)(nn.relu(values), not train)
        values = nn.Dropout(0.5, deterministic=False)(nn.relu(nn.Conv(4, (3, 3))(values)))
        return nn.Dense(3)(values.mean(axis=(1, 2)))


def linen(module: nn.Module, images: np.ndarray = IMAGES, **arguments: Any) -> tuple[nn.Module, Any]:
    keys = {"params": jax.random.key(3), "dropout": jax.random.key(1)}
    variables = module.init(keys, images, **arguments)
    statistics = jax.tree.map(lambda each: each + jnp.linspace(0.1, 0.4, 4), variables.get("batch_stats", {}))
    return module, {**variables, "batch_stats": statistics}


def outputs_of(model: Any, layer: str) -> Any:
    """What the model returns in a pass in which the layer is captured."""
    return adapt_model(model).capture(jnp.asarray(IMAGES), [layer], ClassScores(), jnp.asarray(TARGETS)).outputs


def captured_at(model: Any, layer: str) -> Any:
    return adapt_model(model).capture(jnp.asarray(IMAGES), [layer], ClassScores(), jnp.asarray(TARGETS)).layers[layer]


class TestInference:
    def test_nnx(self) -> None:
        model = NnxNet()
        expected = nnx.merge(*nnx.split(model), copy=True)
        expected.eval()
        outputs = outputs_of(model, "conv")
        np.testing.assert_allclose(outputs, expected(IMAGES, train=False), atol=1e-5)
        assert not model.dropout.deterministic
        assert not model.norm.use_running_average

    def test_linen(self) -> None:
        module, variables = linen(LinenNet(), train=False)
        convolve, dense = nn.Conv(4, (3, 3)), nn.Dense(3)
        parameters = {name: {"params": each} for name, each in variables["params"].items()}
        values = convolve.apply(parameters["Conv_0"], IMAGES)
        # The scale is 1, the bias 0.
        statistics = variables["batch_stats"]["BatchNorm_0"]
        values = nn.relu((values - statistics["mean"]) / np.sqrt(statistics["var"] + 1e-5))
        values = nn.relu(convolve.apply(parameters["Conv_1"], values))
        expected = dense.apply(parameters["Dense_0"], values.mean(axis=(1, 2)))
        np.testing.assert_allclose(outputs_of((module, variables), "Conv_1"), expected, atol=1e-5)

    @pytest.mark.parametrize("make", [NnxNet, lambda: linen(LinenNet(), train=False)], ids=["nnx", "linen"])
    def test_an_image_does_not_depend_on_the_batch(self, make: Any) -> None:
        cam = ScoreCAM(make())
        together = cam(IMAGES)
        np.testing.assert_allclose(together.maps[1], cam(IMAGES[1]).maps[0], atol=1e-5)
        np.testing.assert_array_equal(together.maps, cam(IMAGES).maps)

    def test_attention_without_dropout(self) -> None:
        class Attends(nn.Module):
            @nn.compact
            def __call__(self, images: Any) -> Any:
                tokens = nn.Conv(4, (3, 3))(images).reshape(2, 144, 4)
                attended = nn.MultiHeadDotProductAttention(2, dropout_rate=0.5, deterministic=False)(tokens)
                return nn.Dense(3)(attended.mean(axis=1))

        model = linen(Attends())
        outputs = [outputs_of(model, "Conv_0") for _ in range(2)]
        np.testing.assert_array_equal(outputs[0], outputs[1])


class TestLayers:
    def test_nnx_paths_and_objects(self) -> None:
        from nnx_models import Block

        class Net(nnx.Module):
            def __init__(self) -> None:
                rngs = nnx.Rngs(0)
                self.blocks = nnx.List([Block(3, 4, pooled=False, rngs=rngs), Block(4, 4, pooled=False, rngs=rngs)])
                self.again = self.blocks[1].conv

            def __call__(self, images: Any) -> Any:
                return self.again(self.blocks[1](self.blocks[0](images))).mean(axis=(1, 2))

        model = Net()
        spellings = ("blocks[1].conv", "blocks.1.conv", ".blocks[1].conv", "again", model.blocks[1].conv)
        adapter = adapt_model(model)
        (found,) = {adapter.find(layer) for layer in spellings}  # a module in two places has one name
        assert GradCAM(model, "again").layer_names == (found,)
        assert adapter.find(lambda model: model.blocks[0]) == "blocks[0]"
        (listed,) = (each for each in GradCAM(model).layers(IMAGES) if each.name == found)
        assert listed.calls == 2
        assert names(model)[-1] == found, "and its last call counts"
        with pytest.raises(ValueError, match="The Conv given as layer is not a part of Net"):
            GradCAM(model, nnx.Conv(3, 4, (3, 3), rngs=nnx.Rngs(0)))
        with pytest.raises(TypeError, match="A layer of Net is given by its name: got int"):
            GradCAM(model, 3)
        with pytest.raises(ValueError, match=r"Net has no layer 'blocks\[7\]'"):
            GradCAM(model, "blocks[7]")(IMAGES)

    def test_linen_paths(self) -> None:
        model = linen(LinenNet(), train=False)
        assert names(model) == ["Conv_0", "BatchNorm_0", "Dropout_0", "Conv_1", "Dropout_1", "Dense_0"]
        with pytest.raises(TypeError, match="A layer of LinenNet is given by its name: got Conv"):
            GradCAM(model, nn.Conv(4, (3, 3)))
        with pytest.raises(ValueError, match=r"LinenNet has no layer 'Conv_2'\. Nearest names: 'Conv_"):
            GradCAM(model, "Conv_2")(IMAGES)

    def test_linen_paths_of_nested_modules(self, shapes: dict[str, Any], shapes_weights: dict[str, Any]) -> None:
        from linen_models import build

        images = np.moveaxis(shapes["images"], 1, -1)
        for spelling in ("Block_3/Conv_0", "Block_3.Conv_0"):
            assert GradCAM(build(shapes_weights), spelling)(images).layer == "Block_3/Conv_0"

    def test_layer_that_does_not_run(self) -> None:
        model = NnxNet()
        model.spare = nnx.Conv(3, 4, (3, 3), rngs=nnx.Rngs(0))
        with pytest.raises(ValueError, match="The layer 'spare' of NnxNet did not run on these inputs"):
            GradCAM(model, "spare")(IMAGES)

    def test_functional_activations(self) -> None:
        """No sub-module has the ReLU's output: the default is the convolution, and a tap names what is behind it."""

        class Functional(nnx.Module):
            def __init__(self) -> None:
                self.conv = nnx.Conv(3, 4, (3, 3), rngs=nnx.Rngs(0))

            def __call__(self, images: Any) -> Any:
                return self.activate(self.conv(images)).mean(axis=(1, 2))

            def activate(self, values: Any) -> Any:
                return nnx.relu(values)

        class Tapped(Functional):
            def activate(self, values: Any) -> Any:
                return tap("activation", nnx.relu(values))

        assert GradCAM(Functional())(IMAGES).layer == "conv"
        assert float(captured_at(Functional(), "conv").activations.min()) < 0
        assert GradCAM(Tapped())(IMAGES).layer == "activation"
        assert float(captured_at(Tapped(), "activation").activations.min()) == 0
        np.testing.assert_allclose(
            captured_at(Tapped(), "activation").gradients[0][..., 1], np.full((2, 12, 12), 1 / 144)
        )

    def test_functions_in_a_sequence(self) -> None:
        rngs = nnx.Rngs(0)
        model = nnx.Sequential(nnx.Conv(3, 4, (3, 3), rngs=rngs), nnx.relu, lambda values: values.mean(axis=(1, 2)))
        module = nn.Sequential([nn.Conv(4, (3, 3)), nn.relu, lambda values: values.mean(axis=(1, 2))])
        for sequence, layer in ((model, "layers[1]"), (linen(module), "layers_1")):
            explanation = GradCAM(sequence)(IMAGES)
            assert explanation.layer == layer
            captured = captured_at(sequence, layer)
            assert float(captured.activations.min()) == 0
            np.testing.assert_allclose(captured.gradients[0][..., 1], np.full((2, 12, 12), 1 / 144))
        assert model.layers[1] is nnx.relu
        assert module.layers[1] is nn.relu

    @pytest.mark.parametrize("kind", ["nnx", "linen"])
    def test_the_last_call_of_a_layer_counts(self, kind: str) -> None:
        class Twice(nnx.Module):
            def __init__(self) -> None:
                self.conv = nnx.Conv(3, 3, (3, 3), rngs=nnx.Rngs(0))

            def __call__(self, images: Any) -> Any:
                return self.conv(nnx.relu(self.conv(images))).mean(axis=(1, 2))

        class TwiceLinen(nn.Module):
            @nn.compact
            def __call__(self, images: Any) -> Any:
                conv = nn.Conv(3, (3, 3), name="conv")
                return conv(nn.relu(conv(images))).mean(axis=(1, 2))

        model = Twice() if kind == "nnx" else linen(TwiceLinen())
        if kind == "nnx":
            second = model.conv(nnx.relu(model.conv(IMAGES)))
        else:
            conv = nn.Conv(3, (3, 3)).bind({"params": model[1]["params"]["conv"]})
            second = conv(nn.relu(conv(IMAGES)))
        captured = captured_at(model, "conv")
        np.testing.assert_allclose(captured.activations, second, atol=1e-6)
        # Through the first call the kernel would be in the gradient too.
        expected = np.zeros((2, 12, 12, 3))
        expected[..., 1] = 1 / 144
        np.testing.assert_allclose(captured.gradients[0], expected, atol=1e-8)
        adapter = adapt_model(model)
        replaced = adapter.forward_with(jnp.asarray(IMAGES), "conv", jnp.full((2, 12, 12, 3), 2.0))
        np.testing.assert_allclose(replaced, np.full((2, 3), 2.0), rtol=1e-5)
        # The first call has the kernel behind it, and comes out of it where it is replaced.
        (listed,) = adapter.layers(jnp.asarray(IMAGES))
        assert listed.calls == 2
        first = captured_at(model, "conv#0")
        assert np.abs(np.asarray(first.activations) - second).max() > 0.01
        assert np.abs(np.asarray(first.gradients[0]) - expected).max() > 1e-4
        again = adapter.forward_with(jnp.asarray(IMAGES), "conv#0", first.activations)
        np.testing.assert_allclose(again, second.mean(axis=(1, 2)), atol=1e-5)
        with pytest.raises(ValueError, match="ran 2 times: expected a call from #0 to #1, got 'conv#2'"):
            captured_at(model, "conv#2")

    def test_methods_that_are_compiled_themselves(self) -> None:
        class Compiled(NnxNet):
            @nnx.jit
            def __call__(self, images: Any) -> Any:
                return super().__call__(images, train=False)

        model = Compiled()
        jax.block_until_ready(model(jnp.asarray(IMAGES)))
        np.testing.assert_allclose(
            GradCAM(model, "conv")(IMAGES).maps, GradCAM(NnxNet(), "conv")(IMAGES).maps, atol=1e-5
        )

    def test_rematerialised_blocks(self) -> None:
        class Remat(nn.Module):
            @nn.compact
            def __call__(self, images: Any) -> Any:
                values = nn.Conv(4, (3, 3), name="stem")(images)
                values = nn.remat(nn.Conv)(4, (3, 3), name="inside")(values)
                return nn.Dense(3)(nn.relu(values).mean(axis=(1, 2)))

        model = linen(Remat())
        assert names(model) == ["stem", "Dense_0"]
        with pytest.raises(ValueError, match="'inside' of Remat runs inside a transformation"):
            GradCAM(model, "inside")(IMAGES)


class Transformer(nnx.Module):
    """One block of a vision transformer whose head reads the class token."""

    def __init__(self) -> None:
        rngs = nnx.Rngs(0)
        self.patch = nnx.Conv(3, 8, (4, 4), strides=(4, 4), rngs=rngs)
        self.token = nnx.Param(jnp.ones((1, 1, 8)))
        self.norm = nnx.LayerNorm(8, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(2, 8, dropout_rate=0.5, decode=False, rngs=rngs)
        self.last = nnx.LayerNorm(8, rngs=rngs)
        self.head = nnx.Linear(8, 3, rngs=rngs)

    def __call__(self, images: Any) -> Any:
        patches = self.patch(images).reshape(len(images), -1, 8)
        tokens = jnp.concat([jnp.tile(self.token[...], (len(images), 1, 1)), patches], axis=1)
        return self.head(self.last(tokens + self.attention(self.norm(tokens)))[:, 0])


def test_layers_of_tokens() -> None:
    explanation = ScoreCAM(Transformer())(IMAGES)
    assert explanation.layer == "norm", "behind the attention no patch is on the way to the class token"
    assert explanation.maps.shape == (2, 12, 12)
    gradients = captured_at(Transformer(), "norm").gradients
    assert gradients.shape == (1, 2, 10, 8)
    assert float(jnp.abs(gradients[:, :, 1:]).max()) > 0


@pytest.mark.parametrize("targets", [1, [[0, 1]]])
def test_a_layer_of_which_the_class_token_alone_is_read(targets: Any) -> None:
    with pytest.warns(EmptyMapWarning) as caught:
        explanation = GradCAM(Transformer(), "last")(IMAGES[:1], targets)
    told = str(caught[0].message)
    assert "is zero at every patch for image 0" in told
    assert "in front of the last attention" in told
    assert float(jnp.abs(explanation.maps).max()) == 0


class TestParameters:
    def test_trained_further_without_a_new_compilation(self) -> None:
        model = NnxNet()
        runs = []
        run = NnxNet.__call__

        class Counted(NnxNet):
            def __call__(self, images: Any, train: bool = True) -> Any:
                runs.append(1)
                return run(self, images, train)

        model = Counted()
        cam = FusionCAM(model, "conv")
        before = cam(IMAGES, 1)
        traced = len(runs)
        model.head.kernel[...] = 2 * model.head.kernel[...]
        model.head.bias[...] = 2 * model.head.bias[...]
        after = cam(IMAGES, 1)
        assert len(runs) == traced
        np.testing.assert_allclose(after.scores, 2 * np.asarray(before.scores), rtol=1e-5)

    def test_variables_without_parameters(self) -> None:
        module, variables = linen(LinenNet(), train=False)
        with pytest.raises(ValueError, match=r"The variables of LinenNet hold 'Conv_0', .* and no 'params'"):
            GradCAM((module, variables["params"]))

    @pytest.mark.parametrize(
        ("make", "channels"), [(NnxNet, 2), (lambda: linen(LinenNet(), train=False), 5)], ids=["nnx", "linen"]
    )
    def test_inputs_that_do_not_fit(self, make: Any, channels: int) -> None:
        images = np.zeros((1, 12, 12, channels), np.float32)
        with pytest.raises(
            ValueError, match=rf"Net cannot run on inputs of shape \(1, 12, 12, {channels}\) \(float32\)"
        ):
            GradCAM(make())(images)
        with pytest.raises(ValueError, match=r"takes a batch of images with 4 axes \(or 3 for one image\)"):
            GradCAM(make())(images[0, 0])

    def test_half_precision(self) -> None:
        model = NnxNet()
        graphdef, state = nnx.split(model)
        halved = jax.tree.map(lambda each: each.astype(jnp.bfloat16) if each.dtype == jnp.float32 else each, state)
        explanation = FusionCAM(nnx.merge(graphdef, halved))(IMAGES)
        assert explanation.images.dtype == jnp.bfloat16
        assert explanation.maps.dtype == jnp.float32

    def test_one_and_three_axes_of_space(self) -> None:
        class Net(nn.Module):
            axes: int

            @nn.compact
            def __call__(self, images: Any) -> Any:
                values = nn.relu(nn.Conv(4, (3,) * self.axes, kernel_init=nn.initializers.ones)(images))
                return nn.Dense(3, kernel_init=nn.initializers.ones)(values.mean(axis=tuple(range(1, self.axes + 1))))

        for axes in (1, 3):
            images = np.random.default_rng(axes).random((2, *(6,) * axes, 3), dtype=np.float32)
            model = linen(Net(axes), images)
            for given in (images, images[0]):
                assert adapt_model(model).batch_ndim(jnp.asarray(given)) == axes + 2
            assert FusionCAM(model)(images).maps.shape == (2, *(6,) * axes)
