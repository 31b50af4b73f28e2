"""What people hold in place of a model: pipelines and image processors of transformers, data configurations of timm."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from fusioncam_core.data.processors import located
from fusioncam_core.errors import InvalidTypeError, InvalidValueError
from fusioncam_core.models.outputs import Task
from fusioncam_core.plugins.loaded_model import LoadedModel

PIPELINE = "transformers.pipelines.image_classification"
PROCESSORS = "transformers.image_processing_base"
BOTH = "transformers.processing_utils"
MODELS = "transformers.modeling_utils"


def complete(loaded: LoadedModel) -> LoadedModel | None:
    """The model in a pipeline, the preprocessing in a processor or a data configuration; None if it is none of them.

    Raises:
        TypeError: the pipeline's model is none of PyTorch.
        ValueError: a processor does not make one array of an image, or does not run.
    """
    model, preprocessing, task = loaded.model, loaded.preprocessing, loaded.task
    if _is_a(model, PIPELINE, "ImageClassificationPipeline"):
        preprocessing = preprocessing if preprocessing is not None else model.image_processor
        task = task_of(model) if task == "multiclass" else task
        model = inside(model)
    if not isinstance(model, torch.nn.Module):
        return None
    preprocessing = _preprocessing(model, preprocessing)
    names = loaded.class_names if loaded.class_names is not None else _class_names(model)
    given = (loaded.model, loaded.preprocessing, loaded.class_names)
    if all(mine is theirs for mine, theirs in zip((model, preprocessing, names), given, strict=True)):
        return None
    return replace(loaded, model=model, preprocessing=preprocessing, class_names=names, task=task)


def in_pipeline(given: Any) -> Any:
    """The model that a pipeline classifies images with; what is no such pipeline, as it is.

    Raises:
        TypeError: the pipeline does not make probabilities of its scores as explainers do by default.
    """
    if not _is_a(given, PIPELINE, "ImageClassificationPipeline"):
        return given
    task = task_of(given)
    if task != "multiclass":
        raise InvalidTypeError(
            f"This {type(given).__name__} takes the sigmoid of its model's scores, and explainers take the softmax "
            f"unless they are told: give the .model of it, and task={task!r}."
        )
    return inside(given)


def inside(pipeline: Any) -> torch.nn.Module:
    """A pipeline's model.

    Raises:
        TypeError: it is none of PyTorch.
    """
    model = pipeline.model
    if not isinstance(model, torch.nn.Module):
        raise InvalidTypeError(f"expected a pipeline with a model of PyTorch, got one with a {type(model).__name__}.")
    return model


def task_of(pipeline: Any) -> Task:
    """What a pipeline makes of its model's scores: its own rule, for what it was told and what the model says."""
    config = pipeline.model.config
    function = getattr(pipeline, "_postprocess_params", {}).get("function_to_apply")
    if function is not None:
        one_each = str(getattr(function, "value", function)) == "sigmoid"
    elif config.problem_type is not None:
        one_each = config.problem_type == "multi_label_classification"
    else:
        one_each = config.num_labels == 1
    if not one_each:
        return "multiclass"
    return "binary" if config.num_labels == 1 else "multilabel"


def _is_a(value: Any, module: str, name: str) -> bool:
    """Whether it is of a class of a module that was imported: what was not has no objects."""
    kind = getattr(sys.modules.get(module), name, None)
    return kind is not None and isinstance(value, kind)


def _preprocessing(model: torch.nn.Module, given: Any) -> Any:
    if _is_a(given, BOTH, "ProcessorMixin"):  # of images and text
        given = getattr(given, "image_processor", given)
    if _is_a(given, PROCESSORS, "ImageProcessingMixin"):
        return located(_of_one_image(given), _scale(given), _fractions(given))
    timm = sys.modules.get("timm")
    if timm is None or not hasattr(model, "pretrained_cfg"):
        return given
    if given is not None and not isinstance(given, Mapping):
        return given
    from fusioncam_torch.loading import timm_preprocessing

    # What timm's scripts pass on: the arguments of a command line, or what another model's configuration resolved to.
    return timm_preprocessing(timm, timm.data.resolve_data_config(dict(given or {}), model=model))


def _of_one_image(processor: Any) -> Callable[[Any], Any]:
    return _Called(processor)


class _Called:
    """Calls an image processor with one photograph, and takes the one array out of what it gives."""

    def __init__(self, processor: Any) -> None:
        self._processor = processor

    def __call__(self, photograph: Any) -> Any:
        made = self._processor(images=photograph, return_tensors="np")
        if set(made) != {"pixel_values"} or len(made["pixel_values"]) != 1:
            raise InvalidValueError(
                f"expected pixel_values alone, one array an image, got {', '.join(sorted(made))} from "
                f"{type(self._processor).__name__}. Give a function from a Pillow image to one input as preprocessing."
            )
        return made["pixel_values"][0]

    def __repr__(self) -> str:
        return repr(self._processor)


def _scale(processor: Any) -> tuple[Any, Any]:
    """What is subtracted from values 0..255 and what divides them: of `(value * factor - mean) / std`."""
    factor = processor.rescale_factor if getattr(processor, "do_rescale", False) else 1.0
    normalised = getattr(processor, "do_normalize", False)
    mean, std = (processor.image_mean, processor.image_std) if normalised else (0.0, 1.0)
    return _scaled(mean, factor), _scaled(std, factor)


def _scaled(values: Any, factor: float) -> float | tuple[float, ...]:
    scaled = np.asarray(values, dtype=float) / factor
    return float(scaled) if scaled.ndim == 0 else tuple(float(value) for value in scaled)


def _fractions(processor: Any) -> Iterator[float | None]:
    """Which part of a photograph the settings may mean: all of it, squashed, or a window in its middle."""
    yield None
    yield 1.0
    size, cropped = getattr(processor, "size", None) or {}, getattr(processor, "crop_size", None) or {}
    edges = (_length(size, "shortest_edge"), _length(size, "height"))
    yield from (_length(cropped, "height") / edge for edge in edges if edge > _length(cropped, "height") > 0)
    share = getattr(processor, "crop_pct", None)
    if share is not None and 0 < share <= 1:
        yield share


def _length(size: Any, name: str) -> int:
    """Settings are mappings or objects, by the version of the library; 0 for what is not set."""
    value = size.get(name) if isinstance(size, Mapping) else getattr(size, name, None)
    return value or 0


def _class_names(model: torch.nn.Module) -> Sequence[str] | None:
    """The names that a model has for its classes; None for those that a library makes up of numbers."""
    if _is_a(model, MODELS, "PreTrainedModel"):
        named = getattr(model.config, "id2label", None) or {}
        names = [named.get(index) for index in range(len(named))]
        made_up = all(name == f"LABEL_{index}" for index, name in enumerate(names))
        return None if made_up or not all(isinstance(name, str) for name in names) else [str(name) for name in names]
    names = (getattr(model, "pretrained_cfg", None) or {}).get("label_names")
    return names if names is not None and len(names) == getattr(model, "num_classes", None) else None
