"""What only PyTorch models do: modes, wrappers, in-place layers, layers that run twice."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fusioncam_core import FusionCAM, FusionCamWarning, GradCAM, MemoryWarning, ScoreCAM, adapt_model
from fusioncam_core.models.inputs import prepare
from fusioncam_core.models.outputs import ClassScores

torch = pytest.importorskip("torch")
nn = torch.nn

NHWC = 3e-5
"""oneDNN's channels-last convolutions round otherwise: 2e-5 in case 2, whose signed weights enlarge it."""


@pytest.fixture
def model(shapes_weights: dict[str, Any]) -> Any:
    from torch_models import Shapes

    return Shapes(shapes_weights).eval()


def tiny(*layers: Any, channels: int = 4, classes: int = 3) -> Any:
    """Layers between a first convolution and a pooled linear head, the same numbers every time."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, channels, 3, padding=1),
        *layers,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(channels, classes),
    ).eval()


def image(*shape: int, seed: int = 1) -> Any:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def test_called_under_no_grad_and_inference_mode(model: Any, shapes: dict[str, Any]) -> None:
    cam = GradCAM(model)
    images = torch.from_numpy(shapes["images"])
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            maps = cam(images * 1.0, shapes["target"]).maps
            assert not torch.is_grad_enabled()
        np.testing.assert_allclose(maps.numpy(), shapes["grad_cam"], atol=1e-5)
    assert torch.is_grad_enabled()


def test_gradients_are_off_for_the_trunk(model: Any, shapes: dict[str, Any]) -> None:
    seen = {}
    for name in ("6", "9"):
        module = getattr(model.features, name)
        module.register_forward_hook(lambda m, i, o, name=name: seen.__setitem__(name, o.requires_grad))
    GradCAM(model, "features.8")(shapes["images"][:1])
    assert seen == {"6": False, "9": True}


def test_user_code_that_switches_gradients_off_around_its_forward(shapes: dict[str, Any], model: Any) -> None:
    class Careful(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = model

        @torch.no_grad()
        def forward(self, images: Any) -> Any:
            return self.inner(images)

    maps = GradCAM(Careful(), "inner.features")(shapes["images"], shapes["target"]).numpy().maps
    np.testing.assert_allclose(maps, shapes["grad_cam"], atol=1e-5)


def test_in_place_activation_behind_the_layer() -> None:
    outputs = []
    for inplace in (False, True):
        cam = FusionCAM(tiny(nn.ReLU(inplace=inplace)), "0")
        outputs.append(cam(image(2, 3, 8, 8)))
        activations = cam.adapter.capture(image(2, 3, 8, 8), ["0"], None, None).layers["0"].activations
        assert activations.min() < 0, "what was captured is the convolution's output, before the ReLU"
    torch.testing.assert_close(outputs[0].maps, outputs[1].maps)


class Twice(nn.Module):
    """A convolution and an activation that run twice, and one between the calls that runs once."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.between = nn.Conv2d(3, 3, 1)
        self.act = nn.ReLU()

    def forward(self, images: Any) -> Any:
        first = self.between(self.act(self.conv(images)))
        return self.act(self.conv(first)).mean(dim=(2, 3))


class TestCalls:
    """`x#0`, `x#1`, ... are the calls of a layer, and `x` is the last one."""

    @pytest.fixture
    def twice(self) -> Any:
        return Twice().eval()

    def test_the_last_call_of_a_layer_counts(self, twice: Any) -> None:
        images = image(2, 3, 6, 6)
        with torch.no_grad():
            second = twice.act(twice.conv(twice.between(twice.act(twice.conv(images)))))
        adapter = adapt_model(twice)
        capture = adapter.capture(images, ["act"], ClassScores(), torch.tensor([[1], [1]])).layers["act"]
        torch.testing.assert_close(capture.activations, second)
        expected = torch.zeros_like(second)
        expected[:, 1] = 1 / 36
        torch.testing.assert_close(capture.gradients[0], expected)
        # Replaced activations are those of the last call too: the outputs are their means.
        replaced = adapter.forward_with(images, "act", torch.ones_like(second) * 2)
        torch.testing.assert_close(replaced, torch.full((2, 3), 2.0))

    def test_several_layers_and_calls_in_one_pass(self, twice: Any) -> None:
        images, targets = image(2, 3, 6, 6), torch.tensor([[0, 2], [1, 1]])
        # By hand: the graph is begun anew at the first call, and goes on through the other layers.
        with torch.no_grad():
            first = twice.conv(images)
        first.requires_grad_(True)
        between = twice.between(twice.act(first))
        second = twice.conv(between)
        scores = twice.act(second).mean(dim=(2, 3)).gather(1, targets)
        by_hand = {"conv#0": first, "between": between, "conv#1": second, "conv": second}
        names = ["conv", "between", "conv#0", "conv#1"]
        runs: list[int] = []
        twice.register_forward_hook(lambda module, inputs, outputs: runs.append(1))
        adapter = adapt_model(twice)
        assert [adapter.find(name) for name in names] == names
        capture = adapter.capture(images, names, ClassScores(), targets)
        assert runs == [1]
        assert list(capture.layers) == names
        for name in names:
            layer = capture.layers[name]
            torch.testing.assert_close(layer.activations, by_hand[name].detach(), msg=name)
            assert layer.gradients.shape == (2, *by_hand[name].shape)
            for column in range(2):
                score = scores[:, column].sum()
                (expected,) = torch.autograd.grad(score, by_hand[name], retain_graph=True)
                torch.testing.assert_close(layer.gradients[column], expected, msg=name)
        assert not torch.equal(capture.layers["conv#0"].gradients, capture.layers["conv#1"].gradients)
        for parameter in twice.parameters():
            assert parameter.grad is None

    def test_a_call_is_replaced(self, twice: Any) -> None:
        images = image(2, 3, 6, 6)
        adapter = adapt_model(twice)
        with torch.no_grad():
            expected = twice.act(twice.conv(twice.between(torch.ones(2, 3, 6, 6)))).mean(dim=(2, 3))
        torch.testing.assert_close(adapter.forward_with(images, "act#0", torch.ones(2, 3, 6, 6)), expected)
        twos = torch.full((2, 3, 6, 6), 2.0)
        torch.testing.assert_close(adapter.forward_with(images, "act#1", twos), torch.full((2, 3), 2.0))

    def test_calls_are_counted(self, twice: Any) -> None:
        listed = {layer.name: layer for layer in GradCAM(twice).layers(image(1, 3, 6, 6))}
        assert {name: layer.calls for name, layer in listed.items()} == {"conv": 2, "between": 1, "act": 2}
        assert list(listed) == ["between", "conv", "act"], "a layer stands at the place of its last call"

    def test_an_explainer_takes_a_call(self, twice: Any) -> None:
        images = image(2, 3, 6, 6)
        cam = GradCAM(twice, ["conv#0", "conv"])
        assert cam.layer_names == ("conv#0", "conv")
        explanation = cam(images, 1)
        assert explanation.layer == "conv#0, conv"
        for name in ("conv#0", "conv"):
            torch.testing.assert_close(explanation.parts[name], GradCAM(twice, name)(images, 1).maps)
        assert not torch.equal(explanation.parts["conv#0"], explanation.parts["conv"])

    def test_a_layer_that_runs_more_often_on_larger_images(self) -> None:
        class Pyramid(nn.Module):
            """Its convolution runs once for every halving of the image."""

            def __init__(self) -> None:
                super().__init__()
                self.conv = nn.Conv2d(3, 3, 3, padding=1)

            def forward(self, images: Any) -> Any:
                while images.shape[-1] > 4:
                    images = nn.functional.avg_pool2d(self.conv(images), 2)
                return images.mean(dim=(2, 3))

        adapter = adapt_model(Pyramid().eval())
        large, small = image(1, 3, 16, 16), image(1, 3, 8, 8)
        captured = adapter.capture(large, ["conv"], None, None).layers["conv"]
        assert captured.activations.shape == (1, 3, 8, 8), "the last of two calls"
        for images in (large, small):
            gone = adapter.forward_with(images, "conv", torch.ones(1, 3, 8, 8))
            torch.testing.assert_close(gone, torch.ones(1, 3))
        with pytest.raises(
            ValueError, match="'conv' of Pyramid ran 1 time: expected a call from #0 to #0, got 'conv#1'"
        ):
            adapter.forward_with(small, "conv#1", torch.ones(1, 3, 8, 8))

    def test_a_call_that_there_is_not(self, twice: Any) -> None:
        with pytest.raises(
            ValueError, match="'conv' of Twice ran 2 times: expected a call from #0 to #1, got 'conv#2'"
        ):
            GradCAM(twice, "conv#2")(image(1, 3, 6, 6))


def test_train_mode_is_explained_as_eval_mode_and_put_back() -> None:
    model = tiny(nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5))
    expected = FusionCAM(model)(image(2, 3, 8, 8))
    model.train()
    model[2].eval()
    statistics = model[1].running_mean.clone()
    maps = FusionCAM(model)(image(2, 3, 8, 8)).maps
    torch.testing.assert_close(maps, expected.maps)
    assert [module.training for module in model] == [True, True, False, True, True, True, True]
    torch.testing.assert_close(model[1].running_mean, statistics, rtol=0, atol=0)
    assert model[1].num_batches_tracked == 0


def test_buffers_that_the_model_itself_counts_up_are_put_back() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))
            self.register_buffer("last", torch.zeros(1))

        def forward(self, values: Any) -> Any:
            self.calls += 1
            self.last = values.mean().reshape(1)
            return values

    model = tiny(Counting())
    last = model[1].last
    FusionCAM(model)(image(1, 3, 6, 6))
    assert model[1].calls == 0
    assert model[1].last is last


def test_channels_last_memory_format(model: Any, shapes: dict[str, Any]) -> None:
    images = torch.from_numpy(shapes["images"]).contiguous(memory_format=torch.channels_last)
    cam = FusionCAM(model.to(memory_format=torch.channels_last), contributions="signed")
    np.testing.assert_allclose(cam(images, shapes["target"]).numpy().maps, shapes["fusion_cam"], atol=NHWC)


def test_inputs_with_channels_last(model: Any, shapes: dict[str, Any]) -> None:
    class Permuting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = model

        def forward(self, images: Any) -> Any:
            return self.inner(images.permute(0, 3, 1, 2))

    cam = FusionCAM(Permuting(), "inner.features", contributions="signed", backend_options={"channels": "last"})
    explanation = cam(np.moveaxis(shapes["images"], 1, -1), shapes["target"]).numpy()
    np.testing.assert_allclose(explanation.maps, shapes["fusion_cam"], atol=NHWC)


@pytest.mark.parametrize(
    "wrap", [torch.nn.DataParallel, lambda model: torch.compile(model, backend="eager")], ids=["parallel", "compiled"]
)
def test_wrapped_models(model: Any, shapes: dict[str, Any], wrap: Callable[[Any], Any]) -> None:
    cam = FusionCAM(wrap(model), "features", contributions="signed")
    explanation = cam(shapes["images"], shapes["target"]).numpy()
    np.testing.assert_allclose(explanation.maps, shapes["fusion_cam"], atol=NHWC)
    assert explanation.model == "Shapes"
    assert FusionCAM(wrap(model), "module.features").layer_names == ("features",)


def test_layer_as_a_module(model: Any, shapes: dict[str, Any]) -> None:
    cam = GradCAM(model, model.features[9])
    assert cam.layer_names == ("features.9",)
    with pytest.raises(ValueError, match="The Conv2d given as layer is not a part of Shapes"):
        GradCAM(model, nn.Conv2d(3, 3, 3))


def test_half_precision_gives_float32_maps() -> None:
    model = tiny(nn.ReLU()).to(torch.bfloat16)
    explanation = FusionCAM(model)(image(1, 3, 8, 8))
    assert explanation.maps.dtype == torch.float32
    assert explanation.images.dtype == torch.bfloat16


def test_cut_gradient_is_an_error() -> None:
    class Cuts(nn.Module):
        def forward(self, values: Any) -> Any:
            return values.detach()

    with pytest.raises(ValueError, match="the model cuts the gradient behind it"):
        GradCAM(tiny(Cuts()), "0")(image(1, 3, 6, 6))


def test_zero_gradient_warns_and_gives_zeros() -> None:
    model = tiny(nn.ReLU())
    with torch.no_grad():
        model[-1].weight[1] = 0
    with pytest.warns(FusionCamWarning) as caught:
        explanation = GradCAM(model)(image(2, 3, 6, 6), [[0, 1], [0, 1]])
    messages = [str(each.message) for each in caught]
    assert "zero everywhere for image 0, target number 1; image 1, target number 1" in messages[0]
    assert explanation.maps[:, 1].abs().max() == 0


def test_model_that_cannot_take_the_images_says_so() -> None:
    with pytest.raises(ValueError, match=r"Sequential cannot run on inputs of shape \(1, 5, 8, 8\)"):
        GradCAM(tiny(nn.ReLU()))(image(1, 5, 8, 8))


def test_layer_that_does_not_run() -> None:
    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used = nn.Conv2d(3, 2, 1)
            self.spare = nn.Conv2d(3, 2, 1)

        def forward(self, images: Any) -> Any:
            return self.used(images).mean(dim=(2, 3))

    with pytest.raises(ValueError, match="'spare' of Unused did not run"):
        GradCAM(Unused(), "spare")(image(1, 3, 4, 4))


def test_nothing_spatial() -> None:
    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 2, 4)
            self.head = nn.Linear(2, 2)

        def forward(self, images: Any) -> Any:
            return self.head(self.conv(images).flatten(1))

    with pytest.raises(ValueError, match="No layer of Flat has an output with channels"):
        GradCAM(Flat())(image(1, 3, 4, 4))


def test_layer_of_one_position_warns_and_gives_zeros() -> None:
    with pytest.warns(FusionCamWarning, match="zero everywhere"):
        explanation = FusionCAM(tiny(nn.ReLU()), "2")(image(1, 3, 8, 8))
    assert explanation.maps.shape == (1, 8, 8)
    assert explanation.maps.abs().max() == 0


def test_not_finite_activations_name_the_layer() -> None:
    model = tiny(nn.ReLU())
    with torch.no_grad():
        model[0].weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match="NaN or infinity in the model's outputs"):
        GradCAM(model)(image(1, 3, 8, 8))

    class Hides(nn.Module):
        def forward(self, values: Any) -> Any:
            return torch.nan_to_num(values)

    model.insert(1, Hides())
    with pytest.raises(ValueError, match="NaN or infinity in the activations at layer '0' of Sequential"):
        ScoreCAM(model, "0")(image(1, 3, 8, 8))


def test_several_inputs_and_outputs() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.conv = nn.Conv2d(3, 4, 3, padding=1)
            self.head = nn.Linear(4, 3)

        def forward(self, scale: Any, image: Any) -> Any:
            features = torch.relu(self.conv(image))
            logits = self.head(features.mean(dim=(2, 3)) * scale)
            return {"auxiliary": logits * 0, "main": logits}

    model, scale, images = Two().eval(), torch.tensor([[1.0], [2.0], [0.5]]), image(3, 3, 8, 8)
    cam = FusionCAM(model, "conv", masked_input="image", output="main", batch_size=4)
    together = cam({"image": images, "scale": scale})
    for row in range(3):
        alone = cam({"image": images[row : row + 1], "scale": scale[row : row + 1]})
        torch.testing.assert_close(together.maps[row], alone.maps[0], atol=1e-6, rtol=0)
    by_position = FusionCAM(model, "conv", masked_input=1, output="main")((scale, images))
    torch.testing.assert_close(by_position.maps, together.maps, atol=1e-6, rtol=0)
    with pytest.raises(ValueError, match="not among the inputs 'image', 'scale'"):
        FusionCAM(model, "conv", masked_input="photo", output="main")({"image": images, "scale": scale})
    with pytest.raises(TypeError, match="'auxiliary', 'main', and none is called 'logits'"):
        FusionCAM(model, "conv", masked_input=1)((scale, images))
    with pytest.raises(ValueError, match="no output 'mian'"):
        FusionCAM(model, "conv", masked_input=1, output="mian")((scale, images))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_a_gpu(model: Any, shapes: dict[str, Any]) -> None:
    explanation = FusionCAM(model.cuda(), contributions="signed")(shapes["images"], shapes["target"])
    assert explanation.maps.is_cuda
    np.testing.assert_allclose(explanation.numpy().maps, shapes["fusion_cam"], atol=1e-4)


def test_prepare_keeps_integers_of_other_inputs(model: Any) -> None:
    adapter = adapt_model(model)
    inputs = prepare(adapter, (image(2, 3, 48, 48), np.array([1, 2])), 0)
    assert inputs[1].dtype == torch.int64


class TestMemoryFormats:
    def test_inputs_are_laid_out_for_convolutions(self, model: Any, shapes: dict[str, Any]) -> None:
        seen = []
        model.register_forward_pre_hook(
            lambda module, inputs: seen.append(inputs[0].is_contiguous(memory_format=torch.channels_last))
        )
        adapter = adapt_model(model)
        assert adapter.execution.memory_formats == ("contiguous", "channels last")
        images = torch.from_numpy(shapes["images"])
        plain = adapter.forward(images)
        with adapter.memory_format("channels last"):
            last = adapter.forward(images)
        adapter.forward(images)
        assert seen == [False, True, False]
        torch.testing.assert_close(last, plain, atol=NHWC, rtol=0)

    def test_a_model_that_views_its_features(self) -> None:
        class Views(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(144, 5)

            def forward(self, images: Any) -> Any:
                return self.head(self.conv(images).view(len(images), -1))

        adapter = adapt_model(Views())
        images = torch.rand(2, 3, 8, 8)
        with adapter.memory_format("channels last"):
            torch.testing.assert_close(adapter.forward(images), adapter.forward(images))
            with pytest.raises(ValueError, match=r"size of tensor|shapes cannot be multiplied"):
                adapter.forward(torch.rand(2, 3, 9, 9))
        assert ScoreCAM(Views(), "conv")(images).maps.shape == (2, 8, 8)

    def test_no_convolutions_no_choice(self) -> None:
        for convolution, formats in (
            (nn.Conv1d(3, 4, 3), ("contiguous",)),
            (nn.Conv3d(3, 4, 3), ("contiguous", "channels last")),
        ):
            assert adapt_model(nn.Sequential(convolution)).execution.memory_formats == formats


class TestMemory:
    def test_a_batch_that_does_not_fit_is_halved(self, model: Any, shapes: dict[str, Any]) -> None:
        def check(module: Any, inputs: Any) -> None:
            if len(inputs[0]) > 3:
                raise torch.OutOfMemoryError("out of memory")

        expected = FusionCAM(model, "features", batch_size=2)(shapes["images"][:2], 1)
        sizes = []
        model.register_forward_pre_hook(check)
        model.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
        with pytest.warns(MemoryWarning, match="does not hold 8 images at once in Shapes: going on with 4") as said:
            explanation = FusionCAM(model, "features", batch_size=8)(shapes["images"][:2], 1)
        assert len(said) == 1
        torch.testing.assert_close(explanation.maps, expected.maps, atol=1e-5, rtol=0)
        assert explanation.evaluations == sum(sizes)
        assert max(sizes) == 2

    def test_images_that_do_not_fit_together_are_seen_apart(self, model: Any, shapes: dict[str, Any]) -> None:
        expected = GradCAM(model)(shapes["images"], 1)

        def check(module: Any, inputs: Any) -> None:
            if len(inputs[0]) > 3:
                raise torch.OutOfMemoryError("out of memory")

        model.register_forward_pre_hook(check)
        with pytest.warns(MemoryWarning, match="does not hold 8 images"):
            explanation = GradCAM(model, "features", batch_size=8)(shapes["images"], 1)
        torch.testing.assert_close(explanation.maps, expected.maps, atol=1e-5, rtol=0)
        assert explanation.evaluations == 8


class TestFasterPasses:
    """`compile` and `autocast` change how masked images run, and nothing else."""

    def test_compiled(self, model: Any, shapes: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
        compiled: list[tuple[int, ...]] = []

        def backend(graph: Any, examples: Any) -> Any:
            compiled.append(tuple(examples[-1].shape))
            return graph.forward

        from torch_models import module_state

        monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
        expected = FusionCAM(model, "features", batch_size=8)(shapes["images"], shapes["target"])
        before = module_state(model)
        cam = FusionCAM(model, "features", batch_size=8, backend_options={"compile": True})
        for _ in range(2):
            explanation = cam(shapes["images"], shapes["target"])
        torch.testing.assert_close(explanation.maps, expected.maps, atol=1e-5, rtol=0)
        assert explanation.evaluations == expected.evaluations
        assert len(compiled) == 2, "the chunk of eight, and the one black image"
        after = module_state(model)
        assert all(np.array_equal(after[name], value) for name, value in before.items())

    def test_in_half_precision(self, model: Any, shapes: dict[str, Any]) -> None:
        exact = FusionCAM(model, "features")(shapes["images"], shapes["target"])
        half = FusionCAM(model, "features", backend_options={"autocast": "bfloat16"})(
            shapes["images"], shapes["target"]
        )
        assert half.maps.dtype == torch.float32
        torch.testing.assert_close(half.scores, exact.scores, atol=0, rtol=0)
        torch.testing.assert_close(half.parts["gradient"], exact.parts["gradient"], atol=0, rtol=0)
        difference = (half.parts["region"] - exact.parts["region"]).abs()
        assert 0 < difference.max() < 0.05
        assert difference.mean() < 0.005

    @pytest.mark.parametrize(
        ("option", "message"),
        [
            ({"autocast": "int8"}, "autocast is 'bfloat16' or 'float16': got 'int8'"),
            ({"compile": "fast"}, "compile is True or one of 'default', .*: got 'fast'"),
        ],
    )
    def test_unknown(self, model: Any, option: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            FusionCAM(model, backend_options=option)
        (name,) = option
        with pytest.raises(TypeError, match=rf"FusionCAM has no option '{name}'.* goes into backend_options=\{{"):
            FusionCAM(model, **option)


def test_other_weights_under_a_users_autocast() -> None:
    """Autocast keeps casts of the weights that it has seen; they are of no use while others are in their place."""
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(4 * 36, 2))
    adapter = adapt_model(model)
    images = torch.rand(1, 3, 8, 8)
    zeros = {name: torch.zeros_like(values) for name, values in adapter.weights().items()}
    with torch.autocast("cpu", torch.bfloat16):
        before = model(images)
        with adapter.with_weights(zeros):
            assert not model(images).any()
        torch.testing.assert_close(model(images), before, atol=0, rtol=0)
