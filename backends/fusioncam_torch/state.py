"""Puts a module into inference, and everything back as it was."""

from __future__ import annotations

import functools
import operator
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from fusioncam_torch.switches import WHOLE_GRAPHS

CONTAINERS = frozenset((dict, OrderedDict, list, set))

SMALL = 1 << 16
"""Buffers of no more numbers are copied, and compared, as one array: most models have a hundred of a few."""

Touch = Callable[[Callable[[], object]], None]
"""Registers a step back, before what it undoes is done."""


class _Buffer(NamedTuple):
    """A buffer, and what it was like before.

    Attributes:
        lying: the same memory, as it lay: a model may resize its buffer, or give it other memory.
        copy: its values, if they were copied alone.
        version: how often it had been written to, if PyTorch counts that.
    """

    tensor: torch.Tensor
    lying: torch.Tensor
    copy: torch.Tensor | None
    version: int | None


class _Pool(NamedTuple):
    """Buffers of one dtype on one device, and their values one behind the other."""

    buffers: list[_Buffer]
    copy: torch.Tensor


class _Buffers(NamedTuple):
    """All buffers; of those that are in no pool and have values, each has its own copy."""

    single: list[_Buffer]
    pools: list[_Pool]


def begin_inference(modules: list[torch.nn.Module], touch: Touch) -> None:
    """The modules are in eval mode from now on; modes, buffers and attributes are put back by what `touch` is told.

    Modes are set as attributes because a model may override `train`, for example to keep some layers frozen. The
    thread's own modes come back as well, should an interrupt keep a context from doing so. What a model keeps of a call
    in attributes comes back together with its buffers and hooks, which it may tell something about: how many positions
    a buffer has room for, whether hooks are installed. Checkpoints and inference mode inside of the modules cut no
    graph meanwhile.
    """
    who = object()
    touch(functools.partial(WHOLE_GRAPHS.done, who))
    WHOLE_GRAPHS.need(who)
    touch(functools.partial(torch.set_grad_enabled, torch.is_grad_enabled()))
    touch(functools.partial(_put_back_values, _buffers(modules)))
    touch(functools.partial(_put_back_entries, _entries(modules)))
    _stop_observing(modules)
    training = [module for module in modules if getattr(module, "training", False)]  # TorchScript's may have no mode
    touch(functools.partial(_set_training, training, True))
    _set_training(training, False)


def plain_attributes(module: torch.nn.Module) -> dict[str, Any]:
    """Of every module its class, and its attributes that are numbers, words or tuples of them: strides, temperatures.

    Of a recorded module its code, which holds what were attributes. Modes and private attributes are left out.
    """
    found: dict[str, Any] = {}
    for name, part in module.named_modules():
        found[f"{name}:"] = type(part).__qualname__
        if isinstance(part, torch.jit.ScriptModule | torch.fx.GraphModule):
            found[f"{name}:code"] = getattr(part, "code", "")  # which scripted containers do not have
        for attribute, value in vars(part).items():
            if attribute != "training" and not attribute.startswith("_") and _is_told(value):
                found[f"{name}:{attribute}"] = value
    return found


def _is_told(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(map(_is_told, value))
    return isinstance(value, bool | int | float | str | None)


def _stop_observing(modules: list[torch.nn.Module]) -> None:
    """Modules that fake a quantisation keep the range that they have seen so far, by a buffer of theirs that says so.

    With each batch they would take a little of its range into their own: maps would depend on what ran before.
    """
    for module in modules:
        if "observer_enabled" in module._buffers:
            seen = getattr(getattr(module, "activation_post_process", None), "min_val", None)
            if seen is not None and bool(seen.isfinite().all()):
                with torch.no_grad():
                    module._buffers["observer_enabled"].zero_()


def _set_training(modules: list[torch.nn.Module], training: bool) -> None:
    for module in modules:
        module.training = training


class _Entries(NamedTuple):
    """What the modules hold: attributes, and the containers among them (of parts, parameters, buffers, hooks, others).

    Attributes:
        filled: containers, and what was in them.
        empty: containers in which nothing was, as in most.
    """

    filled: list[tuple[Any, Any]]
    empty: list[Any]


def _entries(modules: list[torch.nn.Module]) -> _Entries:
    entries = _Entries([], [])
    for module in modules:
        attributes = vars(module)
        containers = [value for value in attributes.values() if type(value) in CONTAINERS]
        entries.filled.append((attributes, attributes.copy()))
        entries.filled.extend([(value, value.copy()) for value in containers if value])
        entries.empty.extend([value for value in containers if not value])
        if isinstance(module, torch.jit.ScriptModule):
            entries.filled.append((module._buffers, dict(module._buffers)))
    return entries


def _put_back_entries(entries: _Entries) -> None:
    for now in filter(None, entries.empty):
        now.clear()
    for now, before in entries.filled:
        if isinstance(now, list):
            if len(now) != len(before) or not all(map(operator.is_, now, before)):
                now[:] = before
        elif isinstance(now, set):
            now.intersection_update(before)
            now.update(before)
        elif len(now) != len(before) or not all(map(operator.is_, now.values(), before.values())):
            _put_back_mapping(now, before)


def _put_back_mapping(now: Any, before: dict[Any, Any]) -> None:
    """Entry by entry: other threads look at them meanwhile."""
    for name, value in before.items():
        if name not in now or now[name] is not value:
            now[name] = value
    for name in [name for name in list(now.keys()) if name not in before]:  # TorchScript's have no iterator
        now.pop(name, None)
    if list(now.keys()) != list(before):
        now.clear()
        now.update(before)


def _buffers(modules: list[torch.nn.Module]) -> _Buffers:
    tensors = [tensor for module in modules for tensor in module._buffers.values() if tensor is not None]
    single: list[_Buffer] = []
    pooled: dict[Any, list[_Buffer]] = {}
    for each in {id(tensor): tensor for tensor in tensors}.values():
        if not _is_plain(each):
            single.append(_Buffer(each, each, *_values(each)))
        elif each.numel() > SMALL or each.is_inference() or each.is_complex():
            single.append(_Buffer(each, each.detach(), *_values(each)))
        else:
            pooled.setdefault((each.dtype, each.device), []).append(_Buffer(each, each.detach(), None, None))
    return _Buffers(single, [_Pool(each, _joined(each)) for each in pooled.values()])


def _values(tensor: torch.Tensor) -> tuple[torch.Tensor | None, int | None]:
    """None of them on the meta device."""
    copy = None if tensor.is_meta else tensor.detach().clone()
    return copy, None if tensor.is_inference() else tensor._version


def _joined(buffers: list[_Buffer]) -> torch.Tensor:
    return torch.cat([each.lying.reshape(-1) for each in buffers])


def _put_back_values(buffers: _Buffers) -> None:
    """The same tensor objects with the same values; untouched if they never changed."""
    for pool in buffers.pools:
        alone = pool.buffers
        if _differ(_joined(pool.buffers), pool.copy):
            copies = pool.copy.split([each.lying.numel() for each in pool.buffers])
            alone = [
                each._replace(copy=copy.view(each.lying.shape)) for each, copy in zip(pool.buffers, copies, strict=True)
            ]
        for each in alone:
            _put_back_buffer(each)
    for each in buffers.single:
        if each.copy is not None:
            _put_back_buffer(each)


def _put_back_buffer(buffer: _Buffer) -> None:
    if buffer.copy is not None and _was_written_to(buffer, buffer.copy):
        with torch.inference_mode():  # in which tensors that were made in it may be written to
            buffer.lying.copy_(buffer.copy)
    if _lies_elsewhere(buffer.tensor, buffer.lying):
        buffer.tensor.data = buffer.lying


def _was_written_to(buffer: _Buffer, before: torch.Tensor) -> bool:
    """By the values, which show what was written through `.data`, too; of what has no plain ones by PyTorch's count."""
    if _is_plain(buffer.lying):
        return _differ(buffer.lying, before)
    return buffer.version is None or buffer.tensor._version != buffer.version


def _differ(now: torch.Tensor, before: torch.Tensor) -> bool:
    quick = now.dtype in COMPARED and torch.equal(now, before)
    return not quick and not torch.equal(_bits(now), _bits(before))


def _lies_elsewhere(tensor: torch.Tensor, before: torch.Tensor) -> bool:
    return tensor is not before and (
        tensor.shape != before.shape or tensor.stride() != before.stride() or tensor.data_ptr() != before.data_ptr()
    )


COMPARED = (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.bool)

_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def _is_plain(tensor: torch.Tensor) -> bool:
    """Whether it is one block of numbers: not sparse, nested, quantised, or of a class with a meaning of its own."""
    common = type(tensor) in (torch.Tensor, torch.nn.Parameter) and tensor.layout is torch.strided
    return common and not (tensor.is_quantized or tensor.is_nested or tensor.is_meta)


def _bits(tensor: Any) -> torch.Tensor:
    """Values as integers: NaN equals itself, and there are no dtypes that cannot be compared."""
    parts = torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor
    return parts.resolve_neg().view(_INTEGERS[parts.element_size()])


def exchange(parameters: dict[str, torch.nn.Parameter], values: dict[str, Any]) -> None:
    """Other tensors in the parameters' place, which are never written to.

    What autocast keeps of them is of no use then.
    """
    for name, value in values.items():
        parameters[name].data = value
    torch.clear_autocast_cache()
