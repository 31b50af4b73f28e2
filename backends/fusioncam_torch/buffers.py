"""The buffers of a module: what they held before we ran it, and put back as it was."""

from __future__ import annotations

import operator
from typing import Any, NamedTuple

import torch

SMALL = 1 << 16
"""Buffers of no more numbers are copied, and compared, as one array: most models have a hundred of a few."""


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


class Noted(NamedTuple):
    """All buffers."""

    single: list[_Buffer]
    pools: list[_Pool]


class Buffers:
    """Notes all buffers of a model, to be put back.

    What was small and plain the last time still is as long as it is the same tensors in the same memory: to find that
    out anew took as long as to copy their values.
    """

    def __init__(self) -> None:
        self._small: list[torch.Tensor] = []
        self._dtypes: list[torch.dtype] = []
        self._pools: list[_Pool] = []

    def noted(self, modules: list[torch.nn.Module]) -> Noted:
        """All buffers of the modules, with their values now."""
        found = [tensor for module in modules for tensor in module._buffers.values() if tensor is not None]
        if self._still_pooled(found):
            self._pools = [pool._replace(copy=_joined(pool.lying)) for pool in self._pools]
            return Noted([], self._pools)
        self._small = []
        distinct = list({id(tensor): tensor for tensor in found}.values())
        small = [each for each in distinct if _is_small(each)]
        pooled: dict[Any, list[torch.Tensor]] = {}
        for each in small:
            pooled.setdefault((each.dtype, each.device, each.ndim), []).append(each)
        self._pools = list(map(_pool, pooled.values()))
        self._small = found if len(small) == len(distinct) else []
        self._dtypes = [each.dtype for each in self._small]
        return Noted([_single(each) for each in distinct if not _is_small(each)], self._pools)

    def _still_pooled(self, found: list[torch.Tensor]) -> bool:
        return (
            bool(found)
            and len(found) == len(self._small)
            and all(map(operator.is_, found, self._small))
            and [each.dtype for each in found] == self._dtypes
            and all(all(map(torch.Tensor.is_set_to, pool.tensors, pool.lying)) for pool in self._pools)
        )


def _is_small(tensor: torch.Tensor) -> bool:
    return _is_plain(tensor) and tensor.numel() <= SMALL and not (tensor.is_inference() or tensor.is_complex())


def _single(tensor: torch.Tensor) -> _Buffer:
    return _Buffer(tensor, tensor.detach() if _is_plain(tensor) else tensor, *_values(tensor))


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


def put_back_values(buffers: Noted) -> None:
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
