"""Puts a module into inference, and everything back as it was."""

from __future__ import annotations

import functools
import itertools
import operator
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch

from fusioncam_torch.switches import WHOLE_GRAPHS

CONTAINERS = frozenset((dict, OrderedDict, list, set))

_chained = itertools.chain.from_iterable

SMALL = 1 << 16
"""Buffers of no more numbers are copied, and compared, as one array: most models have a hundred of a few."""

Touch = Callable[[Callable[[], object]], None]
"""Registers a step back, before what it undoes is done."""


class _Buffer(NamedTuple):
    """A buffer, and what it was like before.

    Attributes:
        lying: the same memory, as it lay: a model may resize its buffer, or give it other memory.
        copy: its values; None if it has none, on the meta device.
        version: how often it had been written to, if PyTorch counts that.
    """

    tensor: torch.Tensor
    lying: torch.Tensor
    copy: torch.Tensor | None
    version: int | None


class _Pool(NamedTuple):
    """Small buffers of one dtype and as many axes on one device.

    Attributes:
        tensors, lying: as of one buffer.
        copy: the values of all, one behind the other.
    """

    tensors: list[torch.Tensor]
    lying: list[torch.Tensor]
    copy: torch.Tensor


class _Buffers(NamedTuple):
    """All buffers."""

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


class _Mappings(NamedTuple):
    """Mappings, and the names and values in all of them, one behind the other."""

    mappings: list[Any]
    sizes: list[int]
    names: list[str]
    values: list[Any]


class _Entries(NamedTuple):
    """What the modules hold: attributes, and the containers among them (of parts, parameters, buffers, hooks, others).

    Attributes:
        mappings: those in which something is.
        lists, sets: likewise, and copies of them.
        empty: containers in which nothing was, as in most.
    """

    mappings: _Mappings
    lists: list[tuple[list[Any], list[Any]]]
    sets: list[tuple[set[Any], set[Any]]]
    empty: list[Any]


def _entries(modules: list[torch.nn.Module]) -> _Entries:
    """Of all modules at once: of some thousand attributes a loop over them would take most of what we add to a call."""
    attributes = list(map(vars, modules))
    values = list(_chained(map(dict.values, attributes)))
    containers = list(itertools.compress(values, map(CONTAINERS.__contains__, map(type, values))))
    filled = list(filter(None, containers))
    # Of TorchScript's modules, whose buffers are no attribute.
    scripted = [module._buffers for module in modules if isinstance(module, torch.jit.ScriptModule)]
    return _Entries(
        _mappings([*attributes, *(each for each in filled if isinstance(each, dict)), *scripted]),
        [(each, each.copy()) for each in filled if type(each) is list],
        [(each, each.copy()) for each in filled if type(each) is set],
        list(itertools.filterfalse(None, containers)),
    )


def _mappings(mappings: list[Any]) -> _Mappings:
    return _Mappings(mappings, list(map(len, mappings)), _names(mappings), list(_values_of(mappings)))


def _names(mappings: list[Any]) -> list[str]:
    return list(_chained(map(operator.methodcaller("keys"), mappings)))


def _values_of(mappings: list[Any]) -> Iterator[Any]:
    return _chained(map(operator.methodcaller("values"), mappings))


def _put_back_entries(entries: _Entries) -> None:
    for now in filter(None, entries.empty):
        now.clear()
    if not _hold_the_same(entries.mappings):
        _put_back_mappings(entries.mappings)
    for row, before in entries.lists:
        if len(row) != len(before) or not all(map(operator.is_, row, before)):
            row[:] = before
    for members, copy in entries.sets:
        members.intersection_update(copy)
        members.update(copy)


def _hold_the_same(before: _Mappings) -> bool:
    """Whether the mappings hold the very objects that they held before, in their order."""
    return (
        list(map(len, before.mappings)) == before.sizes
        and all(map(operator.is_, _values_of(before.mappings), before.values))
        and _names(before.mappings) == before.names
    )


def _put_back_mappings(before: _Mappings) -> None:
    names, values = iter(before.names), iter(before.values)
    for mapping, size in zip(before.mappings, before.sizes, strict=True):
        entries = dict(zip(itertools.islice(names, size), itertools.islice(values, size), strict=True))
        if not _hold_the_same(_Mappings([mapping], [size], list(entries), list(entries.values()))):
            _put_back_mapping(mapping, entries)


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
    pooled: dict[Any, list[torch.Tensor]] = {}
    for each in {id(tensor): tensor for tensor in tensors}.values():
        if not _is_plain(each):
            single.append(_Buffer(each, each, *_values(each)))
        elif each.numel() > SMALL or each.is_inference() or each.is_complex():
            single.append(_Buffer(each, each.detach(), *_values(each)))
        else:
            pooled.setdefault((each.dtype, each.device, each.ndim), []).append(each)
    return _Buffers(single, list(map(_pool, pooled.values())))


def _pool(tensors: list[torch.Tensor]) -> _Pool:
    lying = [each.detach() for each in tensors]
    return _Pool(tensors, lying, _joined(lying))


def _values(tensor: torch.Tensor) -> tuple[torch.Tensor | None, int | None]:
    """None of them on the meta device."""
    copy = None if tensor.is_meta else tensor.detach().clone()
    return copy, None if tensor.is_inference() else tensor._version


def _joined(tensors: list[torch.Tensor]) -> torch.Tensor:
    """Of tensors of as many axes. Most are rows or single numbers, which need not be reshaped one by one."""
    axes = tensors[0].ndim
    return (
        torch.stack(tensors)
        if axes == 0
        else torch.cat([each.reshape(-1) for each in tensors] if axes > 1 else tensors)
    )


def _put_back_values(buffers: _Buffers) -> None:
    """The same tensor objects with the same values; untouched if they never changed."""
    for pool in buffers.pools:
        moved = not all(map(torch.Tensor.is_set_to, pool.tensors, pool.lying))
        if moved or _differ(_joined(pool.lying), pool.copy):
            copies = pool.copy.split([each.numel() for each in pool.lying])
            for tensor, lying, copy in zip(pool.tensors, pool.lying, copies, strict=True):
                _put_back_buffer(_Buffer(tensor, lying, copy.view(lying.shape), None))
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
