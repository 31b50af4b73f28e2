"""What a model's forward pass takes, for those who gave it too little."""

from __future__ import annotations

import inspect
import re
from typing import Any

import torch

from fusioncam_core.models.inputs import Inputs, call_with

IMAGES = "pixel_values"
"""What Hugging Face's models call their images, wherever in the row of inputs they are."""

AT_MOST = 8
"""How many inputs are named."""


def about_inputs(model: torch.nn.Module, inputs: Inputs, error: Exception) -> str | None:
    """What to say if the model failed because it got too few of its inputs; None if nothing speaks for that.

    What speaks for it: the call does not fit the signature; or there are inputs that it was not given, and the error is
    about None, or about one of them, or one of them is where images belong.
    """
    try:
        signature = inspect.signature(model.forward)
    except (TypeError, ValueError):  # TorchScript's have none
        return None
    taken = [each.name for each in signature.parameters.values() if each.kind not in _COLLECTING]
    try:
        given = call_with(signature.bind, inputs).arguments
    except TypeError:
        return _words(taken)
    left = [name for name in taken if name not in given]
    said = set(re.findall(r"\w+", str(error)))
    return _words(taken) if left and (IMAGES in left or said & {"None", "NoneType", *left}) else None


_COLLECTING = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def _words(taken: list[str]) -> str:
    listed = ", ".join(taken[:AT_MOST]) + (", ..." if len(taken) > AT_MOST else "")
    return (
        f"Its forward takes {listed}. Give those that it needs by name and say which of them holds the images, as in "
        f"Explainer(model, masked_input={_images(taken)!r})({{{_images(taken)!r}: images, ...}})."
    )


def _images(taken: list[str]) -> Any:
    return IMAGES if IMAGES in taken else next(iter(taken), None)
