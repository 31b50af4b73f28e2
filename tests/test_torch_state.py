"""A PyTorch model's buffers, of every kind, and its attributes are as before."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from fusioncam_core import FusionCAM, GradCAM, ScoreCAM, adapt_model

torch = pytest.importorskip("torch")
nn = torch.nn

from fusioncam_torch import switches  # noqa: E402
from torch_by_hand import grad_cam, image, seeded  # noqa: E402


class Net(nn.Module):
    """A small classifier that does something with a buffer when it runs."""

    def __init__(self, extra: Any = None, use: Callable[[Any], object] = lambda module: None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.fc = nn.Linear(4, 3)
        self.register_buffer("extra", extra)
        self.use = use

    def forward(self, images: Any) -> Any:
        self.use(self)
        return self.fc(self.conv(images).relu().mean(dim=(2, 3)))


def net(extra: Any, use: Callable[[Any], object] = lambda module: None) -> Any:
    return seeded(lambda: Net(extra, use))


BUFFERS: dict[str, Callable[[], Any]] = {
    "NaN": lambda: torch.tensor([math.nan, 1.0, -0.0]),
    "complex": lambda: torch.tensor([1 + 2j, complex(math.nan, 0)]),
    "complex double": lambda: torch.ones(3, dtype=torch.complex128),
    "conjugated": lambda: torch.ones(3, dtype=torch.complex64).conj(),
    "complex half": lambda: torch.ones(3, dtype=torch.complex64).to(torch.complex32),
    "float8": lambda: torch.ones(3).to(torch.float8_e4m3fn),
    "other float8": lambda: torch.ones(3).to(torch.float8_e5m2),
    "bfloat16": lambda: torch.ones(3, dtype=torch.bfloat16),
    "uint16": lambda: torch.ones(3, dtype=torch.uint16),
    "boolean": lambda: torch.tensor([True, False]),
    "scalar": lambda: torch.tensor(3),
    "empty": lambda: torch.zeros(0, 3),
    "transposed": lambda: torch.arange(6.0).reshape(2, 3).T,
    "expanded": lambda: torch.ones(1, 3).expand(2, 3),
    "sparse": lambda: torch.eye(4).to_sparse(),
    "compressed rows": lambda: torch.eye(4).to_sparse_csr(),
    "compressed columns": lambda: torch.eye(4).to_sparse_csc(),
    "compressed blocks": lambda: torch.eye(4).to_sparse_bsr((2, 2)),
    "nested": lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
    "jagged": lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged),
    "quantised": lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),
    "quantised by channels": lambda: torch.quantize_per_channel(
        torch.ones(2, 3), torch.tensor([0.1, 0.2]), torch.tensor([0, 0]), 0, torch.quint8
    ),
    "meta": lambda: torch.empty(3, device="meta"),
}


@pytest.mark.filterwarnings("ignore:.*(nested tensors|Sparse|sparse|ComplexHalf|TypedStorage|deprecated)")
class TestBuffers:
    @pytest.mark.parametrize("kind", BUFFERS)
    def test_of_every_kind(self, kind: str) -> None:
        extra = BUFFERS[kind]()
        model, plain, images = net(extra), net(None), image(2, 3, 8, 8)
        version = extra._version
        explanation = FusionCAM(model, "conv")(images, 1)
        torch.testing.assert_close(
            explanation.parts["gradient"], grad_cam(plain, plain.conv, images, 1), atol=1e-5, rtol=0
        )
        assert model.extra is extra
        assert extra._version == version, "nothing was written to it"

    @pytest.mark.parametrize("kind", ["NaN", "complex", "transposed", "boolean", "float8"])
    def test_written_to_by_the_model(self, kind: str) -> None:
        extra = BUFFERS[kind]()
        before = extra.clone().view(torch.int8) if extra.is_contiguous() else extra.clone()
        model = net(extra, lambda module: module.extra.zero_())
        GradCAM(model, "conv")(image(1, 3, 8, 8))
        after = extra.view(torch.int8) if extra.is_contiguous() else extra
        assert torch.equal(after, before)

    def test_written_to_past_the_count(self) -> None:
        model = net(torch.arange(3.0), lambda module: module.extra.data.add_(1))
        GradCAM(model, "conv")(image(1, 3, 8, 8))
        assert model.extra.tolist() == [0, 1, 2]

    @pytest.mark.parametrize("kind", ["sparse", "compressed rows", "quantised", "nested"])
    def test_of_no_plain_kind_written_to(self, kind: str) -> None:
        extra = BUFFERS[kind]()
        before = extra.clone()
        change = (lambda module: module.extra.copy_(module.extra * 0)) if kind != "quantised" else _to_zero
        model = net(extra, change)
        GradCAM(model, "conv")(image(1, 3, 8, 8))
        assert model.extra is extra
        assert torch.equal(_dense(extra), _dense(before))

    def test_grown_by_the_model(self) -> None:
        extra = torch.arange(3.0)

        def grow(module: Any) -> None:
            module.extra.resize_(100).fill_(7)

        GradCAM(net(extra, grow), "conv")(image(1, 3, 8, 8))
        assert extra.tolist() == [0, 1, 2]
        assert extra.shape == (3,)

    def test_given_other_memory_by_the_model(self) -> None:
        extra = torch.arange(3.0)
        pointer = extra.data_ptr()

        def exchange(module: Any) -> None:
            module.extra.data = torch.zeros(2, 2, dtype=torch.float64)

        GradCAM(net(extra, exchange), "conv")(image(1, 3, 8, 8))
        assert extra.tolist() == [0, 1, 2]
        assert extra.dtype == torch.float32
        assert extra.data_ptr() == pointer

    def test_made_in_inference_mode(self) -> None:
        with torch.inference_mode():
            extra = torch.tensor([math.nan, 1.0])
        model = net(extra, lambda module: None)
        GradCAM(model, "conv")(image(1, 3, 8, 8))
        assert model.extra[1] == 1

    def test_that_the_model_registers_or_fills_or_deletes(self) -> None:
        model = net(None)

        def change(module: Any) -> None:
            module.extra = torch.zeros(2)
            if not hasattr(module, "more"):
                module.register_buffer("more", torch.ones(2))

        model.use = change
        before = list(model.state_dict())
        GradCAM(model, "conv")(image(1, 3, 8, 8))
        assert model.extra is None
        assert list(model.state_dict()) == before

        model = net(torch.ones(1), lambda module: module._buffers.pop("extra", None))
        GradCAM(model, "conv")(image(1, 3, 8, 8))
        assert model.extra == 1


def _to_zero(module: Any) -> None:
    module.extra.copy_(torch.quantize_per_tensor(torch.zeros(3), 0.1, 0, torch.qint8))


def _dense(values: Any) -> Any:
    if values.is_nested:
        return torch.cat([each.flatten() for each in values.unbind()])
    return values.dequantize() if values.is_quantized else values.to_dense()


class Table(nn.Module):
    """A classifier with a table of positions that grows with the image, and an attribute that says how long it is."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 3)
        self.length, self.last = 4, None
        self.register_buffer("table", torch.linspace(0, 1, 4), persistent=False)

    def forward(self, images: Any) -> Any:
        if images.shape[-1] > self.length:
            self.length = images.shape[-1]
            self.table = torch.linspace(0, 1, self.length)
        self.last = self.conv(images) + self.table[: images.shape[-1]]
        return self.fc(self.last.relu().mean(dim=(2, 3)))


class Installs(nn.Module):
    """A classifier that, when it first runs, hooks onto a part of itself, makes another and notes that it has."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 3)
        self.installed, self.seen, self.log, self.kinds = False, [], {}, set()

    def forward(self, images: Any) -> Any:
        if not self.installed:
            self.conv.register_forward_hook(lambda module, inputs, output: self.seen.append(output))
            self.conv.register_forward_pre_hook(lambda module, inputs, keywords: None, with_kwargs=True)
            self.scale = nn.Parameter(torch.ones(()))
            self.more = nn.Identity()
            self.installed = True
        self.seen.clear()
        features = self.more(self.conv(images))
        assert len(self.seen) == 1, "hooked once"
        self.log["last"], self.kinds = features, self.kinds | {features.dtype}
        return self.fc(features.relu().mean(dim=(2, 3)) * self.scale)


def test_hooks_and_parts_that_the_model_makes_go_again_together_with_its_note_of_them() -> None:
    model = seeded(Installs)
    seen, log, before = model.seen, model.log, list(model.state_dict())
    for _ in range(2):
        FusionCAM(model, "conv")(image(1, 3, 8, 8))
        assert not model.conv._forward_hooks
        assert not model.conv._forward_pre_hooks
        assert not model.conv._forward_pre_hooks_with_kwargs
        assert list(model.state_dict()) == before
        assert [name for name, _ in model.named_children()] == ["conv", "fc"]
        assert (model.installed, model.seen, model.log, model.kinds) == (False, [], {}, set())
        assert model.seen is seen
        assert model.log is log
    model(image(1, 3, 8, 8))
    FusionCAM(model, "conv")(image(1, 3, 8, 8))
    assert model.installed
    assert len(model.conv._forward_hooks) == 1
    assert len(model.seen) == 1


def test_attributes_come_back_together_with_the_buffers_they_tell_about() -> None:
    model = seeded(Table)
    GradCAM(model, "conv")(image(1, 3, 8, 8))
    assert (model.length, len(model.table), model.last) == (4, 4, None)
    with torch.no_grad():
        assert model(image(1, 3, 8, 8)).shape == (1, 3)


@pytest.mark.filterwarnings("ignore:.*(torch.ao.quantization|reduce_range|is_sequence)")
def test_observers_keep_their_statistics() -> None:
    from torch.ao.quantization import get_default_qconfig_mapping
    from torch.ao.quantization.quantize_fx import prepare_fx

    plain = seeded(lambda: nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(2)))
    model = prepare_fx(plain, get_default_qconfig_mapping("x86"), (image(1, 3, 8, 8),))
    for seen in (False, True):
        if seen:
            model(image(2, 3, 8, 8))
        before = {name: (buffer, buffer.clone()) for name, buffer in model.named_buffers()}
        GradCAM(model, "0", output=None)(image(1, 3, 8, 8) * 5, lambda outputs: outputs[:, 1].mean(dim=1))
        for name, (buffer, values) in before.items():
            assert model.get_buffer(name) is buffer, name
            np.testing.assert_array_equal(buffer.numpy(), values.numpy(), err_msg=name)


@pytest.mark.filterwarnings("ignore:.*(torch.ao.quantization|reduce_range|is_sequence)")
def test_a_faked_quantisation_has_the_range_seen_in_training() -> None:
    """However many masked images run at once, and whatever ran before; and it goes on observing afterwards."""
    from torch.ao.quantization import get_default_qat_qconfig_mapping
    from torch.ao.quantization.quantize_fx import prepare_qat_fx

    plain = seeded(
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    )
    model = prepare_qat_fx(plain.train(), get_default_qat_qconfig_mapping("x86"), (image(1, 3, 8, 8),))
    for _ in range(3):
        model(image(4, 3, 8, 8))
    before = {name: values.clone() for name, values in model.state_dict().items()}
    images = image(2, 3, 8, 8) * 3
    first = ScoreCAM(model, "0", batch_size=8)(images, 1)
    ScoreCAM(model, "0", batch_size=2)(images * 10, 1)
    again = ScoreCAM(model, "0", batch_size=1)(images, 1)
    torch.testing.assert_close(again.maps, first.maps, atol=1e-5, rtol=0)
    assert GradCAM(model, "0")(images, 1).maps.max() == 1
    assert all(torch.equal(values, before[name]) for name, values in model.state_dict().items())
    assert model.training
    model(images)
    assert not all(torch.equal(values, before[name]) for name, values in model.state_dict().items())


def test_of_many_buffers_the_written_one_comes_back() -> None:
    """Small ones are copied and compared as one array; each has its own place in it."""

    def use(module: Any) -> None:
        module.second.add_(1)
        module.third.data = torch.full((4,), 9.0)

    model = net(torch.tensor([0.5, math.nan]), use)
    model.register_buffer("second", torch.arange(6.0).reshape(2, 3))
    model.register_buffer("third", torch.tensor([7.0, 8.0]))
    model.register_buffer("count", torch.tensor(3))
    model.register_buffer("large", torch.ones(1 << 17))
    memory = model.third.data_ptr()
    GradCAM(model.eval(), "conv")(image(1, 3, 8, 8), 1)
    torch.testing.assert_close(model.extra, torch.tensor([0.5, math.nan]), equal_nan=True)
    assert model.second.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert (model.third.tolist(), model.third.data_ptr()) == ([7, 8], memory)
    assert (int(model.count), float(model.large.sum())) == (3, 1 << 17)


def test_a_model_whose_parts_change_between_two_calls_is_walked_anew() -> None:
    """A part, a parameter or a buffer that came later is in inference, put back and read like the others."""
    model = net(torch.ones(2)).train()
    cam = GradCAM(model, "conv")
    images = image(1, 3, 8, 8)
    cam(images, 1)
    model.fc = seeded(lambda: nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 3)))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    expected = grad_cam(model.eval(), model.conv, images, 1).detach()
    model.train()
    torch.testing.assert_close(cam(images, 1).maps, expected, atol=1e-6, rtol=0)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(module.training for module in model.modules())
    model.double()
    assert cam(images, 1).maps.dtype == torch.float64


def test_an_attribute_under_another_name_comes_back_under_its_own() -> None:
    def use(module: Any) -> None:
        module.renamed = module.__dict__.pop("noted", None)

    model = net(torch.ones(2), use)
    model.noted = "a value"
    GradCAM(model.eval(), "conv")(image(1, 3, 8, 8), 1)
    assert (model.noted, hasattr(model, "renamed")) == ("a value", False)


def test_a_lock_that_an_interrupt_left_does_not_keep_others_waiting() -> None:
    switch = switches.Switch(lambda mine, steps_back: None)
    switch.need("interrupted")
    switch._lock.acquire()  # as on the way out of a `with` that was interrupted
    switch.done("interrupted")
    with ThreadPoolExecutor(1) as other:
        assert other.submit(switch._lock.acquire, timeout=5).result()


def test_capture_runs_again_only_where_a_model_switched_gradients_off() -> None:
    """A layer without a gradient may lie in front of a no_grad; a dead end is not worth a second pass."""

    class DeadEnd(nn.Module):
        def __init__(self, *, frozen: bool) -> None:
            super().__init__()
            self.conv, self.side, self.fc = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1), nn.Linear(4, 3)
            self.frozen = frozen

        def forward(self, images: Any) -> Any:
            with torch.no_grad() if self.frozen else contextlib.nullcontext():
                features = self.conv(images)
            self.side(features)
            return self.fc(features.mean(dim=(2, 3)))

    def one_class(outputs: Any, targets: Any) -> Any:
        return outputs[:, 1:2]

    for frozen, passes in ((False, 1), (True, 2)):
        model = seeded(lambda frozen=frozen: DeadEnd(frozen=frozen))
        adapter = adapt_model(model)
        counted: list[int] = []
        model.register_forward_pre_hook(lambda *_, counted=counted: counted.append(1))
        layers = adapter.capture(image(1, 3, 8, 8), ["conv", "side"], one_class, None).layers
        assert len(counted) == passes
        assert layers["side"].gradients is None
        # The mean over 6 x 6 positions of the weights of class 1.
        expected = (model.fc.weight[1] / 36).reshape(1, 4, 1, 1).expand(1, 4, 6, 6)
        torch.testing.assert_close(layers["conv"].gradients[0], expected)
