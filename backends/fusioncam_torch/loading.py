"""Pretrained models by name: `timm:NAME` and `torchvision:NAME`, with the preprocessing they were trained with."""

from __future__ import annotations

import difflib
import importlib
import math
from collections.abc import Callable, Iterable, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from fusioncam_core.data.preprocessing import Preprocessing
from fusioncam_core.errors import InvalidValueError
from fusioncam_core.plugins.foreign import foreign_code
from fusioncam_core.plugins.loaded_model import LoadedModel


def load(library: str, name: str) -> LoadedModel:
    """A pretrained model of a library, its preprocessing and, where the library has them, its class names.

    Args:
        library: "timm" or "torchvision".
        name: such as `resnet18.a1_in1k` or `hf-hub:OWNER/NAME` of timm, `resnet50` of torchvision. The weights are
            those that the library takes as pretrained; it downloads what is not in its cache.

    Raises:
        ValueError: in one sentence, if the library is not installed, has no such model, or cannot get its weights.
    """
    spec = f"{library}:{name}"
    with foreign_code(repr(spec)):
        return _LOADERS[library](_library(library, spec), name, spec)


def _library(name: str, spec: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = (error.name or name).partition(".")[0]
        raise InvalidValueError(f"{spec!r} needs {missing}, which is not installed: pip install {missing}") from error
    except (ImportError, RuntimeError) as error:  # torchvision does not find its operators in another PyTorch
        raise InvalidValueError(f"{spec!r}: {name} does not import: {_gist(error)}") from error


def _load_timm(timm: Any, name: str, spec: str) -> LoadedModel:
    if ":" not in name and not timm.is_model(name):
        raise _unknown(spec, name, {*timm.list_models(), *timm.list_pretrained()})
    model = _with_weights(lambda: timm.create_model(name, pretrained=True), spec)
    config = timm.data.resolve_model_data_config(model)
    return LoadedModel(model.eval(), timm_preprocessing(timm, config), _timm_names(timm, model), name=name)


def timm_preprocessing(timm: Any, config: dict[str, Any]) -> Callable[[Any], Any]:
    """The preprocessing of a data configuration that timm has resolved. It resizes first and crops then; the window is
    the same.
    """
    _, height, width = config["input_size"]
    squashed = config["crop_mode"] == "squash"
    if config["crop_mode"] == "border" or (squashed and config["crop_pct"] != 1):
        transform = timm.data.create_transform(**config)
        return lambda image: transform(image.convert("RGB")).numpy()
    resized = math.floor(min(height, width) / config["crop_pct"])
    return Preprocessing(
        size=(height, width),
        crop_fraction=None if squashed else min(height, width) / resized,
        interpolation=config["interpolation"],
        mean=_in_bytes(config["mean"]),
        std=_in_bytes(config["std"]),
    )


def _timm_names(timm: Any, model: Any) -> Sequence[str] | None:
    """The names that came with the weights, or those of the ImageNet with as many classes."""
    names = model.pretrained_cfg.get("label_names")
    subset = timm.data.infer_imagenet_subset(model)
    if names is None and subset is not None:
        names = timm.data.ImageNetInfo(subset).label_descriptions()
    return names


def _load_torchvision(torchvision: Any, name: str, spec: str) -> LoadedModel:
    models = torchvision.models
    if name not in models.list_models(module=models):
        raise _unknown(spec, name, models.list_models(module=models))
    weights = models.get_model_weights(name).DEFAULT
    model = _with_weights(lambda: models.get_model(name, weights=weights), spec)
    transforms = weights.transforms()
    side = transforms.crop_size[0]
    preprocessing = Preprocessing(
        size=(side, side),
        crop_fraction=side / transforms.resize_size[0],
        interpolation=transforms.interpolation.value,
        mean=_in_bytes(transforms.mean),
        std=_in_bytes(transforms.std),
    )
    return LoadedModel(model.eval(), preprocessing, weights.meta.get("categories"), name=name)


_LOADERS: dict[str, Callable[[Any, str, str], LoadedModel]] = {"timm": _load_timm, "torchvision": _load_torchvision}


def _with_weights(create: Callable[[], Any], spec: str) -> Any:
    """The model that `create` makes; what its weights fail of becomes one sentence."""
    try:
        return create()
    except (OSError, RuntimeError) as error:  # no network, a damaged file; no weights of this name or for this tag
        raise InvalidValueError(f"{spec!r} cannot be had with pretrained weights: {_gist(error)}") from error


def _unknown(spec: str, name: str, known: Iterable[str]) -> ValueError:
    library = spec.partition(":")[0]
    near = difflib.get_close_matches(name, sorted(known), n=3, cutoff=0.4)
    nearest = f" Nearest names: {', '.join(map(repr, near))}." if near else ""
    return InvalidValueError(f"{library} has no model {name!r}.{nearest} {library}.list_models() lists all of them.")


def _gist(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def _in_bytes(fractions: Sequence[float]) -> tuple[float, ...]:
    """Values of a scale from 0 to 1 on the scale of pixels."""
    return tuple(float(value) for value in 255 * np.asarray(fractions))
