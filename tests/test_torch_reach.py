"""PyTorch models, parts and objects whose layers hooks do not reach: a map where that is possible, or what to do."""

from __future__ import annotations

import copy
import io
from collections import OrderedDict
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from fusioncam_core import RISE, AblationCAM, EigenCAM, FusionCAM, GradCAM, ScoreCAM, adapt_model

torch = pytest.importorskip("torch")
nn = torch.nn

from torch_by_hand import block, grad_cam, head, image, seeded  # noqa: E402

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*(torch.jit|torch.ao.quantization|reduce_range|is_sequence|deprecated|TypedStorage)",
    "ignore::torch.jit.TracerWarning",
    "ignore::fusioncam_core.errors.EmptyMapWarning",
)


def close(actual: Any, expected: Any, atol: float = 1e-5) -> None:
    torch.testing.assert_close(actual, expected, atol=atol, rtol=0)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.drop, self.fc = nn.Dropout(0.5), head(8, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc(self.drop(self.features(images)).mean(dim=(2, 3)))


def net() -> Any:
    return seeded(Net)


def loaded(scripted: Any) -> Any:
    file = io.BytesIO()
    torch.jit.save(scripted, file)
    file.seek(0)
    return torch.jit.load(file)


SCRIPTED: dict[str, Callable[[], Any]] = {
    "scripted": lambda: torch.jit.script(net()),
    "traced": lambda: torch.jit.trace(net(), image(2, 3, 16, 16)),
    "loaded": lambda: loaded(torch.jit.script(net())),
    "frozen": lambda: torch.jit.freeze(torch.jit.script(net())),
    "in training": lambda: torch.jit.script(net().train()),
}


class TestTorchScript:
    @pytest.mark.parametrize("kind", SCRIPTED)
    def test_a_whole_model(self, kind: str) -> None:
        model, images = SCRIPTED[kind](), image(2, 3, 16, 16)
        before = [(name, values.clone()) for name, values in model.state_dict().items()]
        modes = [getattr(module, "training", None) for module in model.modules()]
        for method in (GradCAM, FusionCAM, ScoreCAM, EigenCAM):
            for layer in (None, "features"):
                with pytest.raises(TypeError, match=r"Net is a TorchScript model, .* original torch.nn.Module.*RISE"):
                    method(model, layer)(images, 1)
        assert GradCAM(model).layers(images) == []
        close(RISE(model, masks=20)(images, 1).maps, RISE(net(), masks=20)(images, 1).maps)
        assert [getattr(module, "training", None) for module in model.modules()] == modes
        for (name, values), (now_name, now) in zip(before, model.state_dict().items(), strict=True):
            assert name == now_name
            assert torch.equal(now, values), name

    @pytest.mark.parametrize(
        "make", [torch.jit.script, lambda part: torch.jit.trace(part, image(2, 3, 16, 16))], ids=["scripted", "traced"]
    )
    def test_a_part(self, make: Callable[[Any], Any]) -> None:
        plain, images = seeded(Outer), image(2, 3, 16, 16)
        model = copy.deepcopy(plain)
        model.backbone = make(model.backbone)
        for layer in ("stem", "backbone", "extra"):
            close(GradCAM(model, layer)(images, 1).maps, grad_cam(plain, plain.get_submodule(layer), images, 1))
            for method in (FusionCAM, AblationCAM):
                close(method(model, layer)(images, 1).maps, method(plain, layer)(images, 1).maps)
        assert GradCAM(model, model.backbone).layer_names == ("backbone",)
        listed = {layer.name: layer.default for layer in GradCAM(model).layers(images)}
        assert list(listed) == ["stem.0", "stem.1", "stem", "backbone", "extra", "fc"]
        assert listed["extra"]
        with pytest.raises(
            TypeError,
            match=r"'backbone\.0' of Outer is inside of 'backbone', which is TorchScript.*Take 'back",
        ):
            GradCAM(model, "backbone.0")
        assert all(not module._forward_hooks for module in model.modules() if module is not model.backbone)


class Outer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.backbone = block(3, 3), nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU())
        self.extra, self.fc = nn.Conv2d(8, 8, 1), head(8, 4)

    def forward(self, images: Any) -> Any:
        return self.fc(self.extra(self.backbone(self.stem(images))).mean(dim=(2, 3)))


def chain() -> Any:
    """A model of which every step is a module."""

    def named() -> Any:
        parts = {"conv": nn.Conv2d(3, 8, 3, padding=1), "relu": nn.ReLU(), "pool": nn.AdaptiveAvgPool2d(1)}
        return nn.Sequential(OrderedDict({**parts, "flat": nn.Flatten(), "fc": head(8, 4)}))

    return seeded(named)


class TestGraphs:
    @pytest.fixture(scope="class")
    def exported(self) -> Any:
        sizes = ({0: torch.export.Dim("batch", min=1, max=512)},)
        return torch.export.export(chain(), (image(2, 3, 16, 16),), dynamic_shapes=sizes)

    def test_without_layers(self, exported: Any) -> None:
        model, images = exported.module(), image(2, 3, 16, 16)
        for method in (GradCAM, EigenCAM, FusionCAM):
            for layer in (None, "conv"):
                with pytest.raises(TypeError, match=r"has no layers. Give torch.export.unflatten.*such as RISE"):
                    method(model, layer)(images, 1)
        assert GradCAM(model).layers(images) == []
        plain = RISE(chain(), masks=20, batch_size=8)(images, 1)
        close(RISE(model, masks=20, batch_size=8)(images, 1).maps, plain.maps)

    def test_the_program_itself(self, exported: Any) -> None:
        with pytest.raises(TypeError, match=r"This ExportedProgram is no module. Give torch.export.unflatten\(it\)"):
            GradCAM(exported)

    def test_what_the_sentence_advises(self, exported: Any) -> None:
        plain, images = chain(), image(2, 3, 16, 16)
        for model in (torch.export.unflatten(exported), torch.fx.symbolic_trace(plain)):
            explanation = GradCAM(model)(images, 1)
            assert explanation.layer == "relu"
            close(explanation.maps, grad_cam(plain, plain.relu, images, 1))


class TestQuantised:
    @pytest.fixture(scope="class")
    def static(self) -> Any:
        from torch.ao.quantization import get_default_qconfig_mapping
        from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

        images = image(2, 3, 16, 16)
        prepared = prepare_fx(chain(), get_default_qconfig_mapping("x86"), (images,))
        prepared(images)
        return convert_fx(prepared)

    @pytest.fixture(scope="class")
    def dynamic(self) -> Any:
        return torch.ao.quantization.quantize_dynamic(chain(), {nn.Linear})

    def test_dynamic(self, dynamic: Any) -> None:
        plain, images = chain(), image(2, 3, 16, 16)
        for method in (GradCAM, FusionCAM):
            with pytest.raises(TypeError, match=r"has quantised layers \('fc'\), .* such as ScoreCAM"):
                method(dynamic, "relu")(images, 1)
        close(EigenCAM(dynamic, "relu")(images, 1).maps, EigenCAM(plain, "relu")(images, 1).maps)
        for method in (ScoreCAM, AblationCAM):
            close(method(dynamic, "relu")(images, 1).maps, method(plain, "relu")(images, 1).maps, atol=0.05)
        assert RISE(dynamic, masks=20)(images, 1).maps.shape == (2, 16, 16)

    def test_static(self, static: Any) -> None:
        plain, images = chain(), image(2, 3, 16, 16)
        for layer in (None, "conv", ["conv", "pool"]):
            with pytest.raises(TypeError, match=r"quantised .* such as ScoreCAM, EigenCAM or RISE"):
                GradCAM(static, layer)(images, 1)
        # Convolution and activation are one layer now.
        explanation = EigenCAM(static)(images, 1)
        assert explanation.layer == "conv"
        close(explanation.maps, EigenCAM(plain, "relu")(images, 1).maps, atol=0.05)
        close(ScoreCAM(static)(images, 1).maps, ScoreCAM(plain, "relu")(images, 1).maps, atol=0.1)
        close(AblationCAM(static)(images, 1).maps, AblationCAM(plain, "relu")(images, 1).maps, atol=0.1)
        assert RISE(static, masks=20)(images, 1).maps.shape == (2, 16, 16)

    def test_replaced_activations_are_quantised_alike(self, static: Any) -> None:
        adapter, images = adapt_model(static), image(2, 3, 16, 16)
        activations = adapter.capture(images, ["conv"], None, None).layers["conv"].activations
        assert activations.dtype == torch.float32
        close(adapter.forward_with(images, "conv", activations), adapter.forward(images), atol=0)


class Containers(nn.Module):
    """Its blocks are in a list and its heads in a dictionary; a sequence is packed on its way."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([block(3, 4), block(4, 4)])
        self.heads = nn.ModuleDict({"main": head(4, 3), "spare": None})
        self.none = nn.ModuleList()

    def forward(self, images: Any) -> Any:
        for part in self.blocks:
            images = part(images)
        return self.heads["main"](images.mean(dim=(2, 3)))


class TestContainers:
    def test_the_last_of_them_is_named(self) -> None:
        model, images = seeded(Containers), image(2, 3, 8, 8)
        for layer in ("blocks", model.blocks, "blocks#0"):
            with pytest.raises(ValueError, match=r"'blocks' of Containers is a ModuleList: .* the last, 'blocks.1'"):
                GradCAM(model, layer)
        with pytest.raises(ValueError, match=r"'heads' of Containers is a ModuleDict: .* the last, 'heads.main'"):
            GradCAM(model, model.heads)
        with pytest.raises(ValueError, match=r"'none' of Containers is a ModuleList: .* Take a layer that runs"):
            GradCAM(model, "none")
        close(GradCAM(model, "blocks.1")(images, 1).maps, grad_cam(model, model.blocks[1], images, 1))


def test_a_part_that_knows_what_it_is_a_part_of() -> None:
    model, images = seeded(Outer), image(2, 3, 8, 8)
    expected = FusionCAM(model, "backbone")(images, 1)
    model.backbone.add_module("whole", model)
    model.backbone.forward = lambda values: model.backbone[1](model.backbone[0](values))
    close(FusionCAM(model, "backbone")(images, 1).maps, expected.maps)
    assert "backbone.whole" not in [layer.name for layer in GradCAM(model).layers(images)]


class Packed(nn.Module):
    """A signal's steps through a recurrent layer, packed."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.pack = nn.Conv1d(2, 4, 3, padding=1), Packs()
        self.lstm, self.fc = nn.LSTM(4, 5, batch_first=True), nn.Linear(5, 3)

    def forward(self, signals: Any) -> Any:
        packed = self.pack(self.conv(signals).transpose(1, 2))
        outputs, _ = self.lstm(packed)
        return self.fc(nn.utils.rnn.pad_packed_sequence(outputs, batch_first=True)[0][:, -1])


class Packs(nn.Module):
    def forward(self, steps: Any) -> Any:
        return nn.utils.rnn.pack_padded_sequence(steps, torch.full((len(steps),), steps.shape[1]), batch_first=True)


def test_packed_sequences() -> None:
    model, signals = seeded(Packed), image(2, 2, 12)
    for layer in ("pack", "lstm"):
        for method in (GradCAM, ScoreCAM, EigenCAM):
            with pytest.raises(ValueError, match=rf"'{layer}' of Packed returned a packed sequence.*pad_packed"):
                method(model, layer)(signals, 1)
    listed = [layer.name for layer in GradCAM(model).layers(signals)]
    assert listed == ["conv", "fc"]
    assert GradCAM(model, "conv")(signals, 1).maps.shape == (2, 12)


class Predicts(nn.Module):
    """An object as ultralytics' YOLO is one: calling it predicts."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        return self.predict(*arguments, **keywords)

    def predict(self, source: Any) -> list[Any]:
        return [self.model(source)]


class TestWrappers:
    def test_a_module_whose_call_predicts(self) -> None:
        for method in (GradCAM, RISE):
            with pytest.raises(TypeError, match=r"Calling this Predicts predicts.* Its .model is the network, a Net"):
                method(Predicts(net()))

    def test_a_model_that_has_another_is_none_of_them(self) -> None:
        class Lightning(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.model = net()

            def predict(self, images: Any) -> Any:
                return self.model(images).argmax(dim=1)

            def forward(self, images: Any) -> Any:
                return self.model(images)

        images = image(1, 3, 8, 8)
        close(GradCAM(Lightning().eval(), "model.features")(images, 1).maps, GradCAM(net(), "features")(images, 1).maps)

    @pytest.mark.parametrize("name", ["model", "module"])
    def test_an_object_that_holds_a_model(self, name: str) -> None:
        with pytest.raises(TypeError, match=rf"The \.{name} of this SimpleNamespace is a .*Net, which can"):
            GradCAM(SimpleNamespace(**{name: net()}))

    def test_an_object_that_holds_none(self) -> None:
        with pytest.raises(TypeError, match=r"No plugin adapts a model of type types\.SimpleNamespace") as caught:
            GradCAM(SimpleNamespace(model="resnet18", module=None))
        assert "give that" not in str(caught.value)


@pytest.mark.parametrize("word", ["target_layers", "target_layer", "layers"])
def test_what_others_call_the_layer(word: str) -> None:
    with pytest.raises(TypeError, match=f"GradCAM has no option '{word}'; did you mean 'layer'"):
        GradCAM(net(), **{word: ["features"]})


class TestRecurrentLayersOnAGpu:
    """cuDNN's have no backward pass at inference; here there is none, and the switch is all that can be seen."""

    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.lstm, self.fc = nn.Conv1d(2, 4, 3, padding=1), nn.LSTM(4, 5, batch_first=True), head(5, 3)

        def forward(self, signals: Any) -> Any:
            return self.fc(self.lstm(self.conv(signals).transpose(1, 2))[0].mean(dim=1))

    def test_cudnn_is_off_where_gradients_are_taken(self) -> None:
        model, signals = seeded(self.Recurrent), image(1, 2, 12)
        adapter, seen = adapt_model(model), []
        model.register_forward_hook(lambda *_: seen.append(torch.backends.cudnn.enabled))
        before = torch.backends.cudnn.enabled
        for device, expected in (("cpu", before), ("cuda", False)):
            adapter._device = device
            FusionCAM(adapter, "conv")(signals, 1)
            assert seen.pop(0) is expected
            assert set(seen) == {before}
            seen.clear()
        assert torch.backends.cudnn.enabled is before

    def test_not_for_other_models(self) -> None:
        model, seen = net(), []
        adapter = adapt_model(model)
        adapter._device = "cuda"
        model.register_forward_hook(lambda *_: seen.append(torch.backends.cudnn.enabled))
        GradCAM(adapter, "features")(image(1, 3, 8, 8), 1)
        assert seen == [torch.backends.cudnn.enabled]

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
    def test_on_one(self) -> None:
        model, signals = seeded(self.Recurrent), image(1, 2, 12)
        expected = GradCAM(model, "conv")(signals, 1).maps
        close(GradCAM(model.cuda(), "conv")(signals, 1).maps.cpu(), expected, atol=1e-4)
