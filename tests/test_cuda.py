"""PyTorch on a GPU beside the same on the processor: every method, memory that runs out, and what stays where."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from fusioncam_core import FusionCAM, GradCAM, MemoryWarning, ScoreCAM
from libraries import framework
from test_conformance import EARLY, METHODS, ROUNDING

torch = framework("torch")

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"),
    pytest.mark.filterwarnings("ignore:The .* map is zero everywhere"),
    pytest.mark.filterwarnings("ignore:The gradient .* is zero everywhere"),
]

MiB = 1 << 20


@pytest.fixture(autouse=True)
def whole_precision() -> Iterator[None]:
    """Convolutions in float32: by default a GPU rounds their inputs to ten bits, and maps move by a hundredth."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


def network(weights: dict[str, Any], device: str) -> Any:
    from torch_models import Shapes

    return Shapes(weights).eval().to(device)


@pytest.mark.parametrize("name", list(METHODS))
@pytest.mark.parametrize("layer", [EARLY, None])
def test_every_method_agrees_with_the_processor(
    name: str, layer: str | None, shapes: dict[str, Any], shapes_weights: dict[str, Any]
) -> None:
    kind, options = METHODS[name]
    found = {}
    for device in ("cpu", "cuda"):
        explainer = kind(network(shapes_weights, device), layer, batch_size=16, **options)
        found[device] = explainer(shapes["images"][:3], shapes["target"][:3])
    assert found["cuda"].maps.is_cuda
    assert found["cuda"].layer == found["cpu"].layer
    # Ablation-CAM and regressions weigh by small differences of logits.
    bound = max(1e-3 if name == "ablation-cam" else 1e-4, 10 * ROUNDING.get(name, 0))
    np.testing.assert_allclose(found["cuda"].numpy().maps, found["cpu"].numpy().maps, atol=bound)


def test_layers_are_measured_alike(shapes: dict[str, Any], shapes_weights: dict[str, Any]) -> None:
    listed = {
        device: GradCAM(network(shapes_weights, device)).layers(shapes["images"][:1]) for device in ("cpu", "cuda")
    }
    for here, there in zip(listed["cpu"], listed["cuda"], strict=True):
        assert (here.name, here.spatial, here.default) == (there.name, there.spatial, there.default)


def test_memory_that_runs_out_halves_the_batch() -> None:
    """A network whose activations of a whole batch are larger than the share of memory that the process may take."""
    nn = torch.nn
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model = nn.Sequential(*model, nn.Linear(64, 5)).eval()
    images = np.random.Generator(np.random.PCG64(0)).random((1, 3, 256, 256), dtype=np.float32)
    expected = ScoreCAM(model, "1", batch_size=64)(images, 2).numpy().maps
    model.cuda()
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(400 * MiB / total)
    try:
        explainer = ScoreCAM(model, "1", batch_size=64)  # 64 maps of 16 MiB, and their ReLUs
        with pytest.warns(MemoryWarning, match="does not hold 64 images"):
            found = explainer(images, 2)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()
    np.testing.assert_allclose(found.numpy().maps, expected, atol=1e-4)


def test_nothing_stays_on_the_device(shapes: dict[str, Any], shapes_weights: dict[str, Any]) -> None:
    model = network(shapes_weights, "cuda")
    FusionCAM(model)(shapes["images"][:2], 1)
    before = torch.cuda.memory_allocated()
    for _ in range(20):
        FusionCAM(model)(shapes["images"][:2], 1)
        GradCAM(model)(shapes["images"][:2], 1)
    assert torch.cuda.memory_allocated() - before < MiB


def test_autocast_is_the_users(shapes: dict[str, Any], shapes_weights: dict[str, Any]) -> None:
    model = network(shapes_weights, "cuda")
    expected = GradCAM(model)(shapes["images"][:2], 1).numpy().maps
    with torch.autocast("cuda", torch.bfloat16):
        found = GradCAM(model)(shapes["images"][:2], 1).numpy().maps
    np.testing.assert_allclose(found, expected, atol=0.05)
