"""Layers and models of PyTorch that return more than one tensor."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType, SimpleNamespace
from typing import Any, NamedTuple

import pytest

from fusioncam_core import EXPLAINERS, FusionCAM, GradCAM, adapt_model

torch = pytest.importorskip("torch")

from fusioncam_torch.containers import detached, tensor_of, with_tensor  # noqa: E402 - PyTorch's


class Pair(NamedTuple):
    features: Any
    extra: Any


@dataclass(frozen=True)
class Frozen:
    last_hidden_state: Any
    extra: Any = None


class Answer(dict):
    """A dictionary with attributes, as several libraries return it."""


CONTAINERS = {
    "tensor": lambda features, extra: features,
    "tuple": lambda features, extra: (features, extra),
    "list": lambda features, extra: [features, extra],
    "named tuple": Pair,
    "dictionary": lambda features, extra: {"features": features, "extra": extra},
    "own dictionary": lambda features, extra: Answer(extra=extra, last_hidden_state=features),
    "read-only mapping": lambda features, extra: MappingProxyType({"features": features, "extra": extra}),
    "dataclass": Frozen,
    "object": lambda features, extra: SimpleNamespace(extra=extra, last_hidden_state=features),
}


def entries(output: Any) -> list[Any]:
    if isinstance(output, torch.Tensor):
        return [output]
    if isinstance(output, tuple | list):
        return list(output)
    return list(output.values()) if hasattr(output, "values") else list(vars(output).values())


@pytest.mark.parametrize("kind", list(CONTAINERS))
def test_the_tensor_is_found_and_replaced(kind: str) -> None:
    features, extra, other = torch.ones(1, 2), torch.zeros(3), torch.full((1, 2), 5.0)
    output = CONTAINERS[kind](features, extra)
    assert tensor_of(output) is features
    replaced = with_tensor(output, other)
    assert tensor_of(replaced) is other
    assert tensor_of(output) is features, "what the layer returned stays as it was"
    if kind != "read-only mapping":
        assert type(replaced) is type(output)
    assert [each for each in entries(replaced) if each is not other] == ([] if kind == "tensor" else [extra])


@pytest.mark.parametrize("kind", list(CONTAINERS))
def test_detached_outputs_are_of_the_same_kind(kind: str) -> None:
    features = torch.ones(1, 2, requires_grad=True) * 2
    output = CONTAINERS[kind](features, "text")
    freed = detached(output)
    assert not tensor_of(freed).requires_grad
    assert tensor_of(output) is features
    if kind != "read-only mapping":
        assert type(freed) is type(output)
    assert "text" in entries(freed) or kind == "tensor"


@pytest.mark.parametrize("output", [(), [], {}, None, "text", torch.ones(2, dtype=torch.int64), (None, torch.ones(2))])
def test_no_tensor_to_be_found(output: Any) -> None:
    assert tensor_of(output) is None


class Returns(torch.nn.Module):
    """A convolution whose output is in a container, and the rest of a classifier."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.conv = torch.nn.Conv2d(3, 4, 3, padding=1)
            self.wrap = Wrap(kind)
            self.head = torch.nn.Linear(4, 3)

    def forward(self, images: Any) -> Any:
        return self.head(tensor_of(self.wrap(self.conv(images))).mean(dim=(2, 3)))


class Wrap(torch.nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, values: Any) -> Any:
        return CONTAINERS[self.kind](values, torch.zeros(1))


@pytest.mark.parametrize("kind", list(CONTAINERS))
def test_every_kind_is_explained_alike(kind: str) -> None:
    model = Returns(kind).eval()
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    for method in ("fusion-cam", "ablation-cam"):
        maps = [EXPLAINERS[method](model, layer)(images, [0, 1]).maps for layer in ("conv", "wrap")]
        torch.testing.assert_close(*maps)
    gone = adapt_model(model).forward_with(images, "wrap", torch.zeros(2, 4, 8, 8))
    torch.testing.assert_close(gone, model.head.bias.detach().expand(2, 3))


def test_named_outputs_are_no_default_layer() -> None:
    images = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    defaults = {kind: GradCAM(Returns(kind).eval())(images, [[0, 1]]).layer for kind in ("tuple", "dictionary")}
    assert defaults == {"tuple": "wrap", "dictionary": "conv"}


def test_an_object_with_logits() -> None:
    class Classifier(Returns):
        def forward(self, images: Any) -> Any:
            logits = super().forward(images)
            return SimpleNamespace(logits=logits, steps=7)

    model, plain = Classifier("tensor").eval(), Returns("tensor").eval()
    plain.load_state_dict(model.state_dict())
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    expected = FusionCAM(plain, "conv")(images, 1).maps
    torch.testing.assert_close(FusionCAM(model, "conv")(images, 1).maps, expected)
    by_function = GradCAM(model, "conv")(images, lambda outputs: outputs.logits[:, 1] * (outputs.steps == 7)).maps
    torch.testing.assert_close(by_function, GradCAM(plain, "conv")(images, 1).maps)
