"""What the public pure functions are asked in test_pure_functions.py: each with its arrays, and what must hold."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import fusioncam_core as core
from fusioncam_core.arrays.namespaces import array_namespace, to_numpy

Arrays = dict[str, Any]


@dataclass(frozen=True)
class Shape:
    """The lengths of a case's axes."""

    batch: int
    channels: int
    targets: int | None
    space: tuple[int, ...]
    size: tuple[int, ...] | None
    channel_axis: int

    @property
    def ndim(self) -> int:
        return len(self.space)

    def activations(self) -> tuple[int, ...]:
        return self._placed((self.batch,))

    def gradients(self) -> tuple[int, ...]:
        return self._placed((self.batch,) if self.targets is None else (self.batch, self.targets))

    def _placed(self, lead: tuple[int, ...]) -> tuple[int, ...]:
        return (*lead, self.channels, *self.space) if self.channel_axis == 1 else (*lead, *self.space, self.channels)


@dataclass(frozen=True)
class Function:
    """One public function.

    Attributes:
        shapes: of its arrays, each with a row an image.
        call: the results, each with a row an image.
        unit: whether its arrays are maps in [0, 1].
        bounds: of the results; "own" is each map's own range, None is none.
        holds: numbers that are not finite and that it takes.
        looks_at: the arrays in which it must refuse others.
        expected: the first result by the formula, of arrays in NumPy's longdouble; None where others check it.
    """

    shapes: Callable[[Shape], dict[str, tuple[int, ...]]]
    call: Callable[[Arrays, Shape], list[Any]]
    unit: bool = False
    bounds: Any = (0, 1)
    holds: tuple[float, ...] = ()
    looks_at: tuple[str, ...] = field(default=())
    expected: Callable[[Arrays, Shape], np.ndarray | None] | None = None


def of_maps(*names: str) -> Callable[[Shape], dict[str, tuple[int, ...]]]:
    return lambda shape: dict.fromkeys(names, (shape.batch, *shape.space))


def of_pair(shape: Shape) -> dict[str, tuple[int, ...]]:
    return {"activations": shape.activations(), "gradients": shape.gradients()}


def of_activations(shape: Shape) -> dict[str, tuple[int, ...]]:
    return {"activations": shape.activations()}


def like(values: np.ndarray, array: Any) -> Any:
    """NumPy values as an array of the other's library and dtype."""
    xp = array_namespace(array)
    return values.astype(array.dtype) if isinstance(array, np.ndarray) else xp.asarray(values).to(array.dtype)


def probability(masks: Any) -> Any:
    """How much of each mask is open, the later pixels counting more: in [0, 1], whatever the mask's values are."""
    values = to_numpy(masks).astype(np.float64)
    flat = np.clip(values.reshape(len(values), -1), 0, 1)
    return like(flat @ np.linspace(1, 2, flat.shape[1]) / (2 * flat.shape[1]), masks)


def scorer(masks: Any, images: Any) -> Any:
    return probability(masks)


def scaled(maps: np.ndarray, ndim: int) -> np.ndarray:
    axes = tuple(range(-ndim, 0))
    low, high = maps.min(axis=axes, keepdims=True), maps.max(axis=axes, keepdims=True)
    eps = np.finfo(np.float32).eps
    flat = high - low <= 8 * eps * np.maximum(abs(low), abs(high))
    return np.where(flat, 0, (maps - low) / np.where(flat, 1, high - low))


def exponentials(values: np.ndarray) -> np.ndarray:
    found = np.exp(values - values.max(axis=-1, keepdims=True))
    return found / found.sum(axis=-1, keepdims=True)


def channels_first(arrays: Arrays, shape: Shape) -> tuple[np.ndarray, np.ndarray]:
    """Activations (B, 1 or K, C, *space) and gradients of the same axes."""
    activations, gradients = arrays["activations"], arrays["gradients"]
    if shape.channel_axis == -1:
        activations = np.moveaxis(activations, -1, 1)
        gradients = np.moveaxis(gradients, -1, 1 if shape.targets is None else 2)
    activations = activations[:, None]
    return activations, gradients if shape.targets is not None else gradients[:, None]


def weighed(arrays: Arrays, shape: Shape, weights: Callable[[np.ndarray], np.ndarray]) -> np.ndarray | None:
    """`N(relu(sum_k weights(g_k) A_k))`; None of a resized map, whose resize has tests of its own."""
    if shape.size is not None:
        return None
    activations, gradients = channels_first(arrays, shape)
    maps = scaled(np.maximum((weights(gradients) * activations).sum(axis=2), 0), shape.ndim)
    return maps if shape.targets is not None else maps[:, 0]


def means(gradients: np.ndarray) -> np.ndarray:
    return gradients.mean(axis=tuple(range(3, gradients.ndim)), keepdims=True)


WEIGHTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "grad_cam": means,
    "layer_cam": lambda gradients: np.maximum(gradients, 0),
    "hires_cam": lambda gradients: gradients,
}


def gradient_method(name: str) -> Function:
    method = getattr(core, name)
    expected = functools.partial(weighed, weights=WEIGHTS[name]) if name in WEIGHTS else None

    def call(arrays: Arrays, shape: Shape) -> list[Any]:
        return [method(**arrays, size=shape.size, channel_axis=shape.channel_axis)]

    return Function(of_pair, call, looks_at=("activations", "gradients"), expected=expected)


def region_method(name: str, **options: Any) -> Function:
    method = functools.partial(getattr(core, name), **options)

    def call(arrays: Arrays, shape: Shape) -> list[Any]:
        return [method(arrays["activations"], scorer, size=shape.size, channel_axis=shape.channel_axis)]

    return Function(of_activations, call, looks_at=("activations",))


def group_cam(arrays: Arrays, shape: Shape, grouping: Any) -> list[Any]:
    def increases(masks: Any, images: Any) -> Any:
        found = probability(masks)
        return found if shape.targets is None else array_namespace(found).stack([found] * shape.targets, axis=1)

    options = {"groups": 2, "grouping": grouping, "size": shape.size, "channel_axis": shape.channel_axis}
    return [core.group_cam(**arrays, scorer=increases, **options)]


def smooth(arrays: Arrays, shape: Shape) -> list[Any]:
    copies = [arrays["gradients"], arrays["others"]]
    options = {"size": shape.size, "channel_axis": shape.channel_axis}
    return [core.smooth_grad_cam_plus_plus(arrays["activations"], copies, **options)]


def ablation(arrays: Arrays, shape: Shape) -> list[Any]:
    return [core.ablation_cam(**arrays, size=shape.size, channel_axis=shape.channel_axis)]


def of_ablation(shape: Shape) -> dict[str, tuple[int, ...]]:
    scores = (shape.batch,) if shape.targets is None else (shape.batch, shape.targets)
    return {"activations": shape.activations(), "scores": scores, "ablated": (*scores, shape.channels)}


def fusion(found: core.Fusion) -> list[Any]:
    return [found.maps, *found.parts.values()]


def everything(found: core.Fusion) -> list[Any]:
    return [*fusion(found), *found.weights.values()]


def fuse(arrays: Arrays, shape: Shape) -> list[Any]:
    return [core.fuse(arrays["first"], arrays["second"], spatial_ndim=shape.ndim)]


def weighted_fuse(arrays: Arrays, shape: Shape) -> list[Any]:
    ones = [like(np.full(shape.batch, factor), arrays["first"]) for factor in (0.25, 0.75)]
    return [core.fuse(arrays["first"], arrays["second"], weights=tuple(ones), spatial_ndim=shape.ndim)]


def fusion_cam(arrays: Arrays, shape: Shape, contributions: Any, variant: Any = "published") -> list[Any]:
    options = {"contributions": contributions, "variant": variant, "spatial_ndim": shape.ndim}
    return fusion(core.fusion_cam(**arrays, probability=probability, **options))


def union_cam(arrays: Arrays, shape: Shape, contributions: Any) -> list[Any]:
    found = core.union_cam(**arrays, probability=probability, contributions=contributions, spatial_ndim=shape.ndim)
    return fusion(found)


def contributions(mode: Any, bounds: Any) -> Function:
    def call(arrays: Arrays, shape: Shape) -> list[Any]:
        return list(core.contribution_weights(**arrays, contributions=mode))

    names = ("first", "second")
    return Function(lambda shape: dict.fromkeys(names, (shape.batch,)), call, bounds=bounds, looks_at=names)


def rise(arrays: Arrays, shape: Shape) -> list[Any]:
    """Which looks at no value of the images."""
    return [core.rise(arrays["images"], scorer, masks=8, cells=2, channel_axis=shape.channel_axis)]


BOTH = ("first", "second")
FUSED = ("gradient", "region")
UNITED = ("denoised", "region")

FUNCTIONS: dict[str, Function] = {
    "normalise": Function(
        of_maps("maps"),
        lambda a, s: [core.normalise(**a, spatial_ndim=s.ndim)],
        looks_at=("maps",),
        expected=lambda a, s: scaled(a["maps"], s.ndim),
    ),
    "percentile": Function(
        of_maps("maps"),
        lambda a, s: [core.percentile(**a, percentage=37.5, spatial_ndim=s.ndim)],
        bounds="own",
        looks_at=("maps",),
        expected=lambda a, s: np.percentile(a["maps"].reshape(s.batch, -1), 37.5, axis=1),
    ),
    "resize": Function(
        of_maps("maps"), lambda a, s: [core.resize(**a, size=s.size or s.space)], bounds="own", looks_at=("maps",)
    ),
    "blur": Function(
        of_maps("maps"),
        lambda a, s: [core.blur(a["maps"], 1.5, spatial_ndim=s.ndim)],
        bounds="own",
        looks_at=("maps",),
    ),
    "softmax": Function(
        of_maps("values"),
        lambda a, s: [core.softmax(**a)],
        holds=(-np.inf,),
        looks_at=("values",),
        expected=lambda a, s: exponentials(a["values"]),
    ),
    "denoise": Function(
        of_maps("maps"), lambda a, s: [core.denoise(**a, percentile=30, spatial_ndim=s.ndim)], looks_at=("maps",)
    ),
    "similarity": Function(
        of_maps(*BOTH),
        lambda a, s: [core.similarity(**a)],
        looks_at=BOTH,
        expected=lambda a, s: np.clip(1 - abs(a["first"] - a["second"]), 0, 1),
    ),
    "fuse": Function(of_maps(*BOTH), fuse, looks_at=BOTH),
    "fuse, weighted": Function(of_maps(*BOTH), weighted_fuse, unit=True, looks_at=BOTH),
    "contribution_weights": contributions("clipped", (0, 1)),
    "contribution_weights, signed": contributions("signed", None),
    "contribution_weights, unnormalised": contributions("unnormalised", None),
    "fusion_cam": Function(
        of_maps(*FUSED), functools.partial(fusion_cam, contributions="clipped"), unit=True, looks_at=FUSED
    ),
    "fusion_cam, signed": Function(
        of_maps(*FUSED), functools.partial(fusion_cam, contributions="signed"), unit=True, looks_at=FUSED
    ),
    "fusion_cam, calibrated": Function(
        of_maps(*FUSED),
        functools.partial(fusion_cam, contributions="unnormalised", variant="calibrated"),
        unit=True,
        looks_at=FUSED,
    ),
    "union_cam": Function(
        of_maps(*UNITED), functools.partial(union_cam, contributions="clipped"), unit=True, looks_at=UNITED
    ),
    "union_cam, signed": Function(
        of_maps(*UNITED), functools.partial(union_cam, contributions="signed"), unit=True, looks_at=UNITED
    ),
    **{
        name: gradient_method(name)
        for name in (
            "grad_cam",
            "grad_cam_plus_plus",
            "xgrad_cam",
            "layer_cam",
            "hires_cam",
            "eigengrad_cam",
            "denoised_cam",
        )
    },
    "smooth_grad_cam_plus_plus": Function(
        lambda s: {**of_pair(s), "others": s.gradients()}, smooth, looks_at=("activations", "gradients", "others")
    ),
    "eigen_cam": Function(
        of_activations,
        lambda a, s: [core.eigen_cam(**a, size=s.size, channel_axis=s.channel_axis)],
        looks_at=("activations",),
    ),
    "ablation_cam": Function(of_ablation, ablation, looks_at=("activations", "scores", "ablated")),
    "score_cam": region_method("score_cam"),
    "score_cam, probability": region_method("score_cam", channel_weights="probability"),
    "score_cam, regression": region_method("score_cam", channel_weights="regression"),
    "score_cam, budget": region_method("score_cam", budget=2),
    "ss_cam": region_method("ss_cam", samples=2),
    "is_cam": region_method("is_cam", steps=3),
    "group_cam": Function(
        of_pair, functools.partial(group_cam, grouping="order"), looks_at=("activations", "gradients")
    ),
    "group_cam, k-means": Function(
        of_pair, functools.partial(group_cam, grouping="k-means"), looks_at=("activations", "gradients")
    ),
    "rise": Function(lambda s: {"images": s.activations()}, rise),
}
"""By the function's name, with what is particular about the call behind a comma."""
