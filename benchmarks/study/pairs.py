"""Every gradient method with every region method, united without the third step, on networks that are small enough."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import numpy as np

from benchmarks.study import attention
from benchmarks.study.measuring import STEPS, Values, measured
from benchmarks.study.methods import Form
from benchmarks.study.networks import BLACK, small
from benchmarks.study.small import explainer, images_of
from benchmarks.study.views import View
from fusioncam_core.metrics import Deletion, Insertion

FIRST = (
    "grad-cam",
    "grad-cam++",
    "xgrad-cam",
    "layer-cam",
    "hires-cam",
    "eigengrad-cam",
    "eigen-cam",
    "smooth-grad-cam++",
)
"""What takes the gradient map's place."""

REGIONS = ("score-cam", "score-cam by regression", "group-cam", "ablation-cam", "ss-cam", "is-cam", "rise")
"""What takes the region map's place."""

ATTENTION = {"attention": False, "attention by gradient": True}
"""First maps that the tiny ViT has besides: whether they are weighed by gradients."""

COUNT = 100
"""So many images of the training part, none of which is reported elsewhere but in what a form was chosen by."""


def pairs(network: str) -> Iterator[tuple[str, Callable[[], Values]]]:
    """Each image's values of every pair, and of each map alone."""
    given, own = images_of("train", COUNT), small(network)
    explainers = {name: explainer(name, own.model, progress=False) for name in (*FIRST, *REGIONS)}
    metrics = [Insertion(steps=STEPS, baseline=BLACK), Deletion(steps=STEPS, baseline=BLACK)]

    def measure(image: np.ndarray) -> Values:
        view = View(own, image)
        maps = {name: np.asarray(each(image[None]).numpy().maps)[:, None] for name, each in explainers.items()}
        first = {name: maps[name] for name in FIRST}
        if network == "tiny_vit":
            first |= {name: attention.attention_map(view, by_gradient=weighed) for name, weighed in ATTENTION.items()}
        for region in REGIONS:
            view.map(region, functools.partial(maps.__getitem__, region))
        found = {f"{name} alone": each for name, each in {**first, **{name: maps[name] for name in REGIONS}}.items()}
        for region in REGIONS:
            form = Form(region=region, step=False)
            found |= {f"{name} + {region}": form.of(view, each) for name, each in first.items()}
        return measured(view, {name: each[0, 0] for name, each in found.items()}, metrics)

    for name, image in zip(given.names, given.images, strict=True):
        yield name, functools.partial(measure, image)
