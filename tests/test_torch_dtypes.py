"""The dtype in which a PyTorch model takes its images, and gradients in half precision."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from fusioncam_core import FusionCAM, GradCAM, LayerCAM, adapt_model
from fusioncam_core.models.outputs import ClassScores

torch = pytest.importorskip("torch")
nn = torch.nn

from torch_by_hand import block, grad_cam, image, layer_cam, seeded  # noqa: E402


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.f, self.fc = block(3, 8), nn.Linear(8, 4)

    def forward(self, images: Any) -> Any:
        return self.fc(self.f(images).mean(dim=(2, 3)))


class TextTowerFirst(Net):
    """A larger tower in half precision, that has nothing to do with the image, is defined before it."""

    def __init__(self) -> None:
        super().__init__()
        text = nn.Sequential(nn.Embedding(100, 8), nn.Linear(8, 64)).half()
        self._modules = {"text": text, **self._modules}


class ScaleFirst(Net):
    """A scale in double precision is the model's first parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones((), dtype=torch.float64))

    def forward(self, images: Any) -> Any:
        return super().forward(images) * self.scale.float()


class StoredInFloat8(Net):
    def __init__(self) -> None:
        super().__init__()
        stored = torch.ones(1000).to(torch.float8_e4m3fn)
        self.stored = nn.Parameter(stored, requires_grad=False)


class FlattenedPatches(nn.Module):
    """No convolution, and a scale in double precision."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(2, dtype=torch.float64))
        self.embed, self.head = nn.Linear(48, 8), nn.Linear(8, 3)

    def forward(self, images: Any) -> Any:
        patches = nn.functional.unfold(images, 4, stride=4).transpose(1, 2)
        return self.head(self.embed(patches).relu().mean(dim=1))


@pytest.mark.parametrize("kind", [TextTowerFirst, ScaleFirst, StoredInFloat8])
def test_the_image_part_decides(kind: type) -> None:
    model, images = seeded(kind), image(2, 3, 16, 16)
    assert next(model.parameters()).dtype != torch.float32
    for given in (images, images.double(), images.numpy()):
        maps = FusionCAM(model, "f")(given, 1).parts["gradient"]
        torch.testing.assert_close(maps, grad_cam(model, model.f, images, 1), atol=1e-5, rtol=0)


def test_without_a_convolution_the_most_numbers_decide() -> None:
    adapter = adapt_model(seeded(FlattenedPatches))
    assert adapter.as_array(image(1, 3, 8, 8).half()).dtype == torch.float32
    assert GradCAM(adapter, "embed", reshape=(2, 2))(image(1, 3, 8, 8), 1).maps.shape == (1, 8, 8)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_of_one_dtype(dtype: Any) -> None:
    adapter = adapt_model(seeded(Net).to(dtype))
    assert adapter.as_array(image(1, 3, 8, 8)).dtype == dtype
    assert adapter.as_array(torch.ones(2, dtype=torch.int64)).dtype == torch.int64


def test_towers_over_different_axes() -> None:
    class Two(Net):
        """Video in half precision, an image in single."""

        def __init__(self) -> None:
            super().__init__()
            self._modules = {"video": nn.Conv3d(3, 4, 3).half(), **self._modules}

    adapter = adapt_model(seeded(Two))
    assert adapter.as_array(image(1, 3, 8, 8)).dtype == torch.float32
    assert adapter.as_array(image(3, 8, 8)).dtype == torch.float32
    assert adapter.as_array(image(1, 3, 4, 8, 8)).dtype == torch.float16


def test_lazy_layers_that_have_not_run() -> None:
    model = nn.Sequential(nn.LazyConv2d(4, 3), nn.Flatten(2))
    with pytest.raises(ValueError, match=r"shapes are not known yet \('0.weight', '0.bias'\). Run it on an image once"):
        GradCAM(model, "0")(image(1, 3, 8, 8))


class Pooled(nn.Module):
    """A mean over large maps, and weights so small that float16 gradients at the maps are hardly or not numbers."""

    def __init__(self, weight: float = 0.02, head: int = 1) -> None:
        super().__init__()
        self.f, self.fc = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.Sigmoid()), nn.Linear(6, 3)
        self.gate, self.head = nn.Conv2d(6, 6, 3, padding=1), head
        with torch.no_grad():
            self.fc.weight.mul_(weight)

    def forward(self, images: Any) -> Any:
        features = self.f(images)
        features = features * torch.sigmoid(self.gate(features))
        return self.fc(features.mean(dim=(2, 3))) * self.head


class TestHalfPrecision:
    @pytest.mark.parametrize("weight", [1.0, 0.02])
    def test_gradients_that_underflow(self, weight: float) -> None:
        images = image(1, 3, 224, 224)
        half = seeded(lambda: Pooled(weight)).half()
        single = copy.deepcopy(half).float()
        images = images.half().float()
        exact = layer_cam(single, single.f, images, 1)
        explanation = LayerCAM(half, "f")(images, 1)
        assert (explanation.maps - exact).abs().max() < 0.01
        unscaled = layer_cam(half, half.f, images.half(), 1)
        off = (torch.nan_to_num(unscaled) - exact).abs().max()
        assert off > 0.02, "without a scale it is off"

    def test_bfloat16_has_the_range_of_float32(self) -> None:
        model = seeded(Pooled).to(torch.bfloat16)
        adapter, images = adapt_model(model), image(1, 3, 32, 32)
        seen = []
        model.fc.register_full_backward_hook(lambda module, inputs, outputs: seen.append(outputs[0].abs().max().item()))
        adapter.capture(adapter.as_array(images), ["f"], ClassScores(), torch.tensor([[1]]))
        assert seen == [1.0], "the score's own gradient, unscaled"

    def test_a_scale_that_overflows_is_made_smaller(self) -> None:
        half = seeded(lambda: Pooled(1.0, head=1000)).half()
        single = copy.deepcopy(half).float()
        images = image(1, 3, 64, 64).half().float()
        explanation = LayerCAM(half, "f")(images, 1)
        assert (explanation.maps - layer_cam(single, single.f, images, 1)).abs().max() < 0.01

    def test_gradients_are_those_of_the_score(self) -> None:
        """What the score was multiplied by is divided out again, in float32."""
        half = seeded(Pooled).half()
        single = copy.deepcopy(half).float()
        images = image(1, 3, 64, 64).half().float()
        targets = torch.tensor([[0, 2]])
        narrow, wide = (
            adapt_model(model).capture(images.to(dtype), ["f"], ClassScores(), targets).layers["f"].gradients
            for model, dtype in ((half, torch.float16), (single, torch.float32))
        )
        assert narrow.dtype == torch.float32
        torch.testing.assert_close(narrow, wide, atol=0.01 * wide.abs().max().item(), rtol=0)

    def test_under_a_users_autocast(self) -> None:
        """The layer is in float32, and what lies behind it in float16."""
        model, images = seeded(Pooled), image(1, 3, 224, 224)
        exact = layer_cam(model, model.f, images, 1)
        with torch.autocast("cpu", torch.float16):
            explanation = LayerCAM(model, "f.1")(images, 1)
        assert (explanation.maps - exact).abs().max() < 0.01
