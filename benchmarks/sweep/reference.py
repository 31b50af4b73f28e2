"""Grad-CAM written by hand from a layer's activations and gradients, apart from the library."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

Values = np.ndarray[Any, Any]

MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}


def raw_map(activations: Values, gradients: Values) -> Values:
    """(B, *spatial): the positive part of the channels' sum, each weighed by its mean gradient."""
    weights = gradients.mean(axis=tuple(range(2, gradients.ndim)), dtype=np.float64)
    return np.maximum(np.einsum("bc,bc...->b...", weights, activations.astype(np.float64)), 0)


def finished_map(raw: Values, size: tuple[int, ...]) -> Values:
    """(B, *size) in [0, 1]; zeros where a map is constant."""
    resized = F.interpolate(torch.from_numpy(raw)[:, None], size=size, mode=MODES[len(size)], align_corners=False)
    maps = resized[:, 0].numpy()
    axes = tuple(range(1, maps.ndim))
    low, high = maps.min(axis=axes, keepdims=True), maps.max(axis=axes, keepdims=True)
    flat = high - low <= 1e-6 * np.maximum(np.abs(high), 1e-30)
    return np.where(flat, 0, (maps - low) / np.where(flat, 1, high - low))


def contrast(raw: Values) -> float:
    """How much of the weakest image's map is not its constant part; 0 for an empty one."""
    flat = raw.reshape(raw.shape[0], -1)
    high = flat.max(axis=1)
    return float(((high - flat.min(axis=1)) / np.where(high > 0, high, 1)).min())


def corners(images: Values, axes: tuple[int, ...], seed: int) -> list[tuple[tuple[int, ...], Values]]:
    """The images with one corner replaced by noise, half of each axis of space; with the corner's ends (0 or 1)."""
    generator = np.random.Generator(np.random.PCG64(seed))
    noise = generator.normal(images.mean(), images.std(), images.shape).astype(images.dtype)
    changed = []
    for ends in itertools.product((0, 1), repeat=len(axes)):
        place: list[Any] = [slice(None)] * images.ndim
        for axis, end in zip(axes, ends, strict=True):
            half = images.shape[axis] // 2
            place[axis] = slice(half, None) if end else slice(half)
        copy = images.copy()
        copy[tuple(place)] = noise[tuple(place)]
        changed.append((ends, copy))
    return changed


def centre_of_change(before: Values, after: Values) -> Values:
    """(axes,) in [0, 1]: the centre of what changed in (B, C, *spatial), along each axis of space."""
    each = np.abs(after.astype(np.float64) - before)
    # What moves everywhere alike (squeeze and excitation, normalisation over positions) says nothing of where.
    change = (each - each.min(axis=tuple(range(2, each.ndim)), keepdims=True)).sum(axis=(0, 1))
    total = change.sum()
    centres = []
    for axis, length in enumerate(change.shape):
        profile = change.sum(axis=tuple(other for other in range(change.ndim) if other != axis))
        places = np.linspace(0, 1, length) if length > 1 else np.array([0.5])
        centres.append(float((profile * places).sum() / total) if total > 0 else 0.5)
    return np.array(centres)


def shifts(centres: dict[tuple[int, ...], Values]) -> list[float]:
    """How far the centre moves along each axis when the changed corner moves from its beginning to its end."""
    axes = len(next(iter(centres)))
    moved = []
    for axis in range(axes):
        ends = {end: [centre[axis] for corner, centre in centres.items() if corner[axis] == end] for end in (0, 1)}
        moved.append(float(np.mean(ends[1]) - np.mean(ends[0])))
    return moved
