"""The tensors in what a module returns: alone, in a tuple, in a mapping, or in an object of outputs."""

from __future__ import annotations

import copy
from collections.abc import Mapping, MutableMapping
from typing import Any

import torch
from torch.nn.utils.rnn import PackedSequence

from fusioncam_core.errors import InvalidValueError

HIDDEN = "last_hidden_state"
"""What Hugging Face's models call the activations among their outputs."""


def is_several(output: Any) -> bool:
    """Whether a layer returned named outputs: which of them the rest of the model goes on with is not known."""
    return not isinstance(output, torch.Tensor | tuple | list)


def tensor_of(output: Any) -> torch.Tensor | None:
    """The tensor of a layer's output, of floating-point numbers or quantised ones.

    Of a tuple or list it is the first entry, of a mapping or an object the `last_hidden_state`; of a mapping without
    one the first entry.
    """
    key = _key(output)
    if isinstance(output, tuple | list | Mapping):
        output = None if key is None else output[key]
    elif key is not None:
        output = getattr(output, key)
    return output if isinstance(output, torch.Tensor) and (output.is_floating_point() or output.is_quantized) else None


def packed(output: Any, layer: str, model_name: str) -> InvalidValueError | None:
    """The error for a layer that returned a packed sequence, if it did: its rows are the steps of all images."""
    entries = output if isinstance(output, tuple | list) and not isinstance(output, PackedSequence) else (output,)
    if not any(isinstance(each, PackedSequence) for each in entries):
        return None
    return InvalidValueError(
        f"The layer {layer!r} of {model_name} returned a packed sequence, in whose rows the steps of all images are "
        "mixed. Put torch.nn.utils.rnn.pad_packed_sequence into a module behind it and take that one as layer, or take "
        "a layer before the packing."
    )


def with_tensor(output: Any, tensor: torch.Tensor) -> Any:
    """The same output with another tensor in the place of the one that `tensor_of` finds."""
    before = tensor_of(output)
    if before is not None and before.is_quantized:
        scale, zero = before.q_scale(), before.q_zero_point()
        tensor = torch.quantize_per_tensor(tensor, scale, zero, before.dtype)
    return tensor if isinstance(output, torch.Tensor) else _updated(output, {_key(output): tensor})


def _key(output: Any) -> Any:
    """The position, key or attribute of the tensor that `tensor_of` takes; None if there is none."""
    if isinstance(output, PackedSequence):
        return None
    if isinstance(output, tuple | list):
        return 0 if output else None
    if isinstance(output, Mapping):
        return HIDDEN if HIDDEN in output else next(iter(output), None)
    return HIDDEN if hasattr(output, HIDDEN) else None


def detached(outputs: Any) -> Any:
    """The outputs without a graph, in containers of the same kinds; the ones given keep theirs."""
    if isinstance(outputs, torch.Tensor):
        return outputs.detach()
    if isinstance(outputs, Mapping):
        return _updated(outputs, {key: detached(value) for key, value in outputs.items()})
    if isinstance(outputs, tuple | list):
        return _updated(outputs, {index: detached(value) for index, value in enumerate(outputs)})
    attributes = vars(outputs) if hasattr(outputs, "__dict__") else {}
    kinds = (torch.Tensor, tuple, list, Mapping)
    changed = {name: detached(value) for name, value in attributes.items() if isinstance(value, kinds)}
    return _updated(outputs, changed) if changed else outputs


def _updated(container: Any, changed: Mapping[Any, Any]) -> Any:
    """A copy of the container with other entries."""
    if isinstance(container, tuple | list):
        entries = [changed.get(index, entry) for index, entry in enumerate(container)]
        return container._make(entries) if hasattr(container, "_make") else type(container)(entries)
    if isinstance(container, Mapping) and not isinstance(container, MutableMapping):
        return {**container, **changed}
    copied = copy.copy(container)
    if not isinstance(copied, MutableMapping):
        vars(copied).update(changed)  # past the __setattr__ of a frozen dataclass
        return copied
    for key, value in changed.items():  # Hugging Face's outputs refuse update()
        copied[key] = value
    return copied
