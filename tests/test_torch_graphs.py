"""PyTorch models that save memory or time in ways that cut a graph: checkpoints, no_grad, inference mode, compiling."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from fusioncam_core import EigenCAM, FusionCAM, GradCAM, ScoreCAM, adapt_model
from fusioncam_core.models.outputs import ClassScores

torch = pytest.importorskip("torch")
nn = torch.nn

from torch.utils.checkpoint import checkpoint, checkpoint_sequential  # noqa: E402

from interrupts import interrupted, lines_of  # noqa: E402
from torch_by_hand import block, grad_cam, head, image, seeded, tapped  # noqa: E402
from torch_models import module_state  # noqa: E402

SIZE = (24, 24)

pytestmark = pytest.mark.filterwarnings("ignore::fusioncam_core.errors.EmptyMapWarning")


def assert_captured(model: Any, plain: Any, layers: Sequence[str], images: Any) -> None:
    """The layers of a model, alone and together, against plain autograd's of the same without what is special in it."""
    adapter, targets = adapt_model(model), torch.full((len(images), 1), 1)
    expected = {layer: tapped(plain, plain.get_submodule(layer), images, 1) for layer in layers}
    for asked in (*([layer] for layer in layers), list(layers)):
        captured = adapter.capture(images, asked, ClassScores(), targets).layers
        for layer in asked:
            close(captured[layer].activations, expected[layer][0])
            close(captured[layer].gradients[0], expected[layer][1])


def what_is_switched() -> list[Any]:
    """What of PyTorch's an explanation has others in the place of."""
    names = ("CheckpointFunction", "_checkpoint_without_reentrant_generator")
    checkpoints = [getattr(torch.utils.checkpoint, name) for name in names]
    return [*checkpoints, torch._C._InferenceMode, torch._C._set_grad_enabled]


def close(actual: Any, expected: Any) -> None:
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=0)


class Stages(nn.Module):
    """Three blocks of one shape, that run through `around`."""

    def __init__(self, around: Callable[[Any, Any], Any] = lambda part, values: part(values)) -> None:
        super().__init__()
        self.a, self.b, self.c, self.fc = block(3, 8), block(8, 8), block(8, 8), head(8, 4)
        self.around = around

    def forward(self, images: Any) -> Any:
        for part in (self.a, self.b, self.c):
            images = self.around(part, images)
        return self.fc(images.mean(dim=(2, 3)))


class Sequential(Stages):
    def forward(self, images: Any) -> Any:
        parts = nn.Sequential(self.a, self.b, self.c)
        return self.fc(checkpoint_sequential(parts, 2, images, use_reentrant=True).mean(dim=(2, 3)))


KINDS: dict[str, Callable[[], Any]] = {
    "reentrant": lambda: Stages(lambda part, values: checkpoint(part, values, use_reentrant=True)),
    "not reentrant": lambda: Stages(lambda part, values: checkpoint(part, values, use_reentrant=False)),
    "in one another": lambda: Stages(
        lambda part, values: checkpoint(lambda x: checkpoint(part, x, use_reentrant=True), values, use_reentrant=False)
    ),
    "sequential": Sequential,
    "through a function of autograd's alone": lambda: Stages(
        lambda part, values: torch.utils.checkpoint.CheckpointFunction.apply(part, True, values)
    ),
}


class TestCheckpoints:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("frozen", [False, True])
    def test_layers_in_and_around_them(self, kind: str, frozen: bool) -> None:
        plain, model, images = seeded(Stages), seeded(KINDS[kind]), image(2, 3, *SIZE)
        if frozen:
            model.requires_grad_(False)
        before = module_state(model)
        assert_captured(model, plain, ("a", "b", "c", "a.0", "b.0", "c.1"), images)
        close(GradCAM(model, "b")(images, 1).maps, grad_cam(plain, plain.b, images, 1))
        close(FusionCAM(model)(images, 1).maps, FusionCAM(plain)(images, 1).maps)
        after = module_state(model)
        assert all(np.array_equal(after[name], value) for name, value in before.items())

    def test_afterwards_they_save_memory_again(self) -> None:
        before = what_is_switched()
        model = seeded(KINDS["not reentrant"])
        GradCAM(model, "b")(image(1, 3, *SIZE))
        model.around = _fails
        with pytest.raises(ZeroDivisionError):
            GradCAM(model, "b")(image(1, 3, *SIZE))
        assert what_is_switched() == before

    def test_afterwards_also_if_interrupted_at_any_line(self) -> None:
        before = what_is_switched()
        adapter, images = adapt_model(seeded(UnderNoGrad)), image(1, 3, *SIZE)

        def capture() -> None:
            adapter._frozen.clear()
            adapter.capture(images, ["backbone"], ClassScores(), None)

        capture()
        for line in range(1, lines_of(capture) + 1):
            interrupted(capture, line)
            assert what_is_switched() == before, line
            assert torch.is_grad_enabled(), line

    def test_other_threads_go_on_saving(self) -> None:
        """While one thread is in the middle of an explanation, another one trains with checkpoints."""
        model, images = seeded(KINDS["reentrant"]), image(1, 3, *SIZE)
        runs: list[int] = []
        trained = seeded(KINDS["reentrant"])
        trained.b.register_forward_hook(lambda *_: runs.append(1))
        inference: list[bool] = []

        def train() -> None:
            trained(images.clone().requires_grad_(True)).sum().backward()
            with torch.inference_mode():
                inference.append(torch.ones(1).is_inference())

        def meanwhile(module: Any, inputs: Any, output: Any) -> None:
            other = threading.Thread(target=train)
            other.start()
            other.join()

        handle = model.c.register_forward_hook(meanwhile)
        GradCAM(model, "b")(images, 1)
        handle.remove()
        assert len(runs) == 2, "forwards, and again for the backward pass"
        assert trained.a[0].weight.grad.abs().max() > 0
        assert inference == [True]


def _fails(part: Any, values: Any) -> Any:
    raise ZeroDivisionError


class Frozen(nn.Module):
    """A backbone of two blocks and a head that can be trained."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.backbone = block(3, 8), nn.Sequential(block(8, 8), block(8, 8))
        self.conv, self.fc = nn.Conv2d(8, 8, 1), head(8, 4)

    def classify(self, features: Any) -> Any:
        return self.fc(self.conv(features).relu().mean(dim=(2, 3)))

    def forward(self, images: Any) -> Any:
        return self.classify(self.backbone(self.stem(images)))


class UnderNoGrad(Frozen):
    def forward(self, images: Any) -> Any:
        features = self.stem(images)
        with torch.no_grad():
            features = self.backbone(features)
        return self.classify(features)


class InTwoSteps(Frozen):
    def forward(self, images: Any) -> Any:
        features = self.stem(images)
        with torch.no_grad():
            features = self.backbone[0](features)
        with torch.no_grad():
            features = self.backbone[1](features)
        return self.classify(features)


class SwitchedOffAndOn(Frozen):
    def forward(self, images: Any) -> Any:
        torch.set_grad_enabled(False)
        features = self.backbone(self.stem(images))
        torch.set_grad_enabled(True)
        return self.classify(features)


class Decorated(Frozen):
    @torch.no_grad()
    def features(self, images: Any) -> Any:
        return self.backbone(self.stem(images))

    def forward(self, images: Any) -> Any:
        return self.classify(self.features(images))


class DecoratedForward(Frozen):
    @torch.no_grad()
    def forward(self, images: Any) -> Any:
        return super().forward(images)


class UnderInferenceMode(Frozen):
    def forward(self, images: Any) -> Any:
        with torch.inference_mode():
            features = self.backbone(self.stem(images))
        return self.classify(features.clone())


class UnderInferenceModeWithoutAClone(Frozen):
    def forward(self, images: Any) -> Any:
        with torch.inference_mode():
            features = self.backbone(self.stem(images))
        return self.classify(features)


class DecoratedInference(Frozen):
    @torch.inference_mode()
    def forward(self, images: Any) -> Any:
        return super().forward(images)


FROZEN = (
    UnderNoGrad,
    InTwoSteps,
    SwitchedOffAndOn,
    Decorated,
    DecoratedForward,
    UnderInferenceMode,
    UnderInferenceModeWithoutAClone,
    DecoratedInference,
)


class TestFrozenParts:
    @pytest.mark.parametrize("kind", FROZEN)
    def test_the_gradient_is_that_of_what_is_computed(self, kind: type) -> None:
        plain, model, images = seeded(Frozen), seeded(kind), image(2, 3, *SIZE)
        assert_captured(model, plain, ("stem", "backbone.0", "backbone.0.0", "backbone.1", "conv"), images)
        close(GradCAM(model, "backbone.0")(images, 1).maps, grad_cam(plain, plain.backbone[0], images, 1))
        for method in (FusionCAM, ScoreCAM, EigenCAM):
            close(method(model, "backbone.1")(images, 1).maps, method(plain, "backbone.1")(images, 1).maps)
        assert GradCAM(model)(images, 1).layer == GradCAM(plain)(images, 1).layer
        assert torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()

    @pytest.mark.parametrize("kind", FROZEN)
    def test_modes_of_the_caller_come_back(self, kind: type) -> None:
        cam = GradCAM(seeded(kind), "backbone.1")
        with torch.no_grad():
            cam(image(1, 3, *SIZE))
            assert not torch.is_grad_enabled()
        with torch.inference_mode():
            cam(image(1, 3, *SIZE))
            assert torch.is_inference_mode_enabled()
        assert torch.is_grad_enabled()

    def test_it_is_tried_once(self) -> None:
        model, runs = seeded(UnderNoGrad), []
        model.stem.register_forward_hook(lambda *_: runs.append(1))
        cam = GradCAM(model, "backbone")
        cam(image(1, 3, *SIZE))
        assert len(runs) == 2
        cam(image(1, 3, *SIZE))
        assert len(runs) == 3

    def test_what_is_meant_to_be_constant_stays_so(self) -> None:
        """A factor computed under no_grad: where the score has a gradient anyway, it is that of plain autograd."""

        class Scaled(Frozen):
            def forward(self, images: Any) -> Any:
                features = self.backbone(self.stem(images))
                with torch.no_grad():
                    scale = features.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
                return self.classify(features / scale)

        model, images = seeded(Scaled), image(2, 3, *SIZE)
        kept = []
        handle = model.backbone.register_forward_hook(lambda *given: kept.append(given[2]))
        (expected,) = torch.autograd.grad(model(images)[:, 1].sum(), kept[0])
        handle.remove()
        capture = adapt_model(model).capture(images, ["backbone"], ClassScores(), torch.tensor([[1], [1]]))
        close(capture.layers["backbone"].gradients[0], expected)

    def test_detached(self) -> None:
        class Detached(Frozen):
            def forward(self, images: Any) -> Any:
                return self.classify(self.backbone(self.stem(images)).detach())

        plain, model, images = seeded(Frozen), seeded(Detached), image(1, 3, *SIZE)
        with pytest.raises(ValueError, match=r"the model cuts the gradient behind it \(detach, .*such as ScoreCAM"):
            GradCAM(model, "backbone")(images, 1)
        close(ScoreCAM(model, "backbone")(images, 1).maps, ScoreCAM(plain, "backbone")(images, 1).maps)
        close(GradCAM(model, "conv")(images, 1).maps, grad_cam(plain, plain.conv, images, 1))

    def test_weights_made_in_inference_mode(self) -> None:
        with torch.inference_mode():
            model = seeded(Frozen)
        images = image(1, 3, *SIZE)
        with pytest.raises(TypeError, match=r"made in torch.inference_mode\(\) \('stem.0.weight', .*outside of it"):
            GradCAM(model, "backbone")(images, 1)
        close(ScoreCAM(model, "backbone")(images, 1).maps, ScoreCAM(seeded(Frozen), "backbone")(images, 1).maps)


def compiled_part(model: Any) -> Any:
    model.backbone = torch.compile(model.backbone, backend="eager")
    return model


def compiled_parts(model: Any) -> Any:
    model.backbone[1] = torch.compile(model.backbone[1], backend="eager")
    return compiled_part(model)


def compiled_in_place(model: Any) -> Any:
    model.backbone.compile(backend="eager")
    return model


def all_compiled_in_place(model: Any) -> Any:
    model.compile(backend="eager")
    return model


def compiled_forward(model: Any) -> Any:
    model.forward = torch.compile(model.forward, backend="eager")
    return model


def compiled_wholly(model: Any) -> Any:
    return torch.compile(model, backend="eager")


class CompiledMethod(Frozen):
    @torch.compile(backend="eager")
    def features(self, images: Any) -> Any:
        return self.backbone(self.stem(images))

    def forward(self, images: Any) -> Any:
        return self.classify(self.features(images))


COMPILED: tuple[Callable[[Any], Any], ...] = (
    compiled_part,
    compiled_parts,
    compiled_in_place,
    all_compiled_in_place,
    compiled_forward,
    compiled_wholly,
)


class TestCompiledParts:
    @pytest.fixture(autouse=True)
    def fresh(self) -> None:
        torch._dynamo.reset()

    @pytest.mark.parametrize("change", COMPILED)
    @pytest.mark.parametrize("warm", [False, True])
    def test_maps_and_names(self, change: Callable[[Any], Any], warm: bool) -> None:
        plain, model, images = seeded(Frozen), change(seeded(Frozen)), image(2, 3, *SIZE)
        with torch.set_grad_enabled(False):
            if warm:
                model(images)
        stance = torch._dynamo.eval_frame._stance
        layers = ("stem", "backbone", "backbone.0", "backbone.1.0", "conv")
        assert_captured(model, plain, layers, images)
        for layer in layers:
            close(EigenCAM(model, layer)(images, 1).maps, EigenCAM(plain, layer)(images, 1).maps)
        close(FusionCAM(model, "backbone")(images, 1).maps, FusionCAM(plain, "backbone")(images, 1).maps)
        listed = [layer.name for layer in GradCAM(model).layers(images)]
        assert listed == [layer.name for layer in GradCAM(plain).layers(images)]
        assert list(adapt_model(model).weights()) == list(adapt_model(plain).weights())
        assert torch._dynamo.eval_frame._stance is stance
        with torch.no_grad():
            close(model(images), plain(images))

    def test_a_compiled_method(self) -> None:
        plain, model, images = seeded(Frozen), seeded(CompiledMethod), image(2, 3, *SIZE)
        model(images)
        close(GradCAM(model, "backbone.0")(images, 1).maps, grad_cam(plain, plain.backbone[0], images, 1))

    def test_ways_to_name_a_layer_in_a_compiled_part(self) -> None:
        model = compiled_part(seeded(Frozen))
        for layer in ("backbone.1", "backbone._orig_mod.1", model.backbone._orig_mod[1]):
            assert GradCAM(model, layer).layer_names == ("backbone.1",)
        for layer in (model.backbone, model.backbone._orig_mod, "backbone._orig_mod"):
            assert GradCAM(model, layer).layer_names == ("backbone",)

    def test_masked_images_run_compiled(self) -> None:
        ran: list[int] = []

        def backend(graph: Any, examples: Any) -> Any:
            def run(*values: Any) -> Any:
                ran.append(1)
                return graph.forward(*values)

            return run

        model = seeded(Frozen)
        model.backbone = torch.compile(model.backbone, backend=backend)
        explanation = ScoreCAM(model, "backbone", batch_size=4)(image(1, 3, *SIZE), 1)
        assert explanation.evaluations > len(ran) > 0

    def test_the_model_is_left_compiled(self) -> None:
        model = compiled_in_place(compiled_parts(seeded(Frozen)))
        part, call, forward = model.backbone, model.backbone._compiled_call_impl, vars(model.backbone)["forward"]
        before = module_state(model)
        FusionCAM(model, "backbone.0")(image(1, 3, *SIZE), 1)
        assert model.backbone is part
        assert part._compiled_call_impl is call
        assert vars(part)["forward"] is forward
        after = module_state(model)
        assert all(np.array_equal(after[name], value) for name, value in before.items())
