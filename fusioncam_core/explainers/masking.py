"""Explainers that mask images, and may leave that to an engine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Unpack

from fusioncam_core.explainers.base import Explainer
from fusioncam_core.explainers.options import ENGINE_DEFAULTS, EngineOptions, engine_of
from fusioncam_core.models.engine_choice import Choice
from fusioncam_core.models.engines import AUTO
from fusioncam_core.plugins.engines import find_engine


class Masking(Explainer):
    """A method that runs the model on masked images.

    Args:
        model, layer, **options: as for `Explainer`.
        engine: what runs the masked images: None, the model's framework; "openvino" or "onnxruntime", of the extras of
            those names, which take less time on a processor, after some seconds for the conversion of the model; or
            "auto", an engine that is installed where so many images are explained that it pays. Its outputs are
            compared with the framework's before it is used: docs/engines.md. Activations and gradients come from the
            framework.
        engine_precision: "float32", or "bfloat16", in which an engine takes less again on processors that have it, and
            maps move by hundredths, within a small budget by up to .22; those of a regression by more.

    Raises:
        MissingExtra: if the engine is not installed.
        TypeError, ValueError: as `Explainer`, and if there is no such engine. When images are explained, also if the
            engine cannot run the model, or not as the framework does.
    """

    takes_engine = True

    def __init__(self, model: Any, layer: Any = None, **options: Unpack[EngineOptions]):
        self.engine, left = engine_of(type(self), options)
        super().__init__(model, layer, **left)

    def _choose(self) -> Choice:
        if self.engine.name is None:
            return Choice()
        return Choice(find_engine(self.engine.name), self.engine.precision, auto=self.engine.name == AUTO)

    def _options(self) -> Mapping[str, Any]:
        return {**super()._options(), **ENGINE_DEFAULTS}
