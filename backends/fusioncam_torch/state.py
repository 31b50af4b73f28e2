"""Puts a module into inference, and everything back as it was."""

from __future__ import annotations

import functools
import itertools
import operator
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch

from fusioncam_core.models.told import heard
from fusioncam_torch.buffers import Buffers, put_back_values
from fusioncam_torch.switches import WHOLE_GRAPHS

MAPPINGS = frozenset((dict, OrderedDict))

CONTAINERS = MAPPINGS | {list, set}

_chained = itertools.chain.from_iterable

Touch = Callable[[Callable[[], object]], None]
"""Registers a step back, before what it undoes is done."""


def begin_inference(modules: list[torch.nn.Module], buffers: Buffers, touch: Touch) -> None:
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
    touch(functools.partial(put_back_values, buffers.noted(modules)))
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


def told_of(module: torch.nn.Module) -> list[Any]:
    """What every module goes by beside its tensors, to be compared: of users' modules private attributes as well."""
    found: list[Any] = []
    theirs: dict[type, None] = {}  # in their order
    for part in module.modules():
        own = type(part).__module__.partition(".")[0] == "torch"
        for name, value in vars(part).items():
            if name not in _OF_EVERY_MODULE and not (own and name[0] == "_"):
                found.append((name, heard(value)))
        if not own:
            theirs[type(part)] = None
    return [*found, *(heard(kind.forward) for kind in theirs)]


_OF_EVERY_MODULE = frozenset(vars(torch.nn.Module()))
"""The attributes that PyTorch gives to every module: its mode, its tensors, its parts and its hooks."""


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
    kinds = {kind for kind in set(map(type, modules)) if issubclass(kind, torch.jit.ScriptModule)}
    scripted = [module._buffers for module in modules if type(module) in kinds] if kinds else []
    return _Entries(
        _mappings([*attributes, *itertools.compress(filled, map(MAPPINGS.__contains__, map(type, filled))), *scripted]),
        [(each, each.copy()) for each in filled if type(each) is list],
        [(each, each.copy()) for each in filled if type(each) is set],
        list(itertools.filterfalse(None, containers)),
    )


def _mappings(mappings: list[Any]) -> _Mappings:
    return _Mappings(mappings, list(map(len, mappings)), _names(mappings), list(_values_of(mappings)))


def _names(mappings: list[Any]) -> list[str]:
    iterable = MAPPINGS.issuperset(map(type, mappings))  # TorchScript's have no iterator
    return list(_chained(mappings if iterable else map(operator.methodcaller("keys"), mappings)))


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


def exchange(parameters: dict[str, torch.nn.Parameter], values: dict[str, Any]) -> None:
    """Other tensors in the parameters' place, which are never written to.

    What autocast keeps of them is of no use then.
    """
    for name, value in values.items():
        parameters[name].data = value
    torch.clear_autocast_cache()
