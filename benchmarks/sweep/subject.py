"""What the sweep knows of a model before it runs: how it is built, where its layers' channels are, what is expected."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.sweep.layouts import ByLayer

Size = tuple[int, ...]

CANDIDATES = 6
"""How many classes or scores are looked at for one whose map is not empty."""


class NotBuiltError(Exception):
    """A package does not build the model here; the message says why."""


@dataclass(frozen=True)
class Subject:
    """One model.

    Attributes:
        package, name: by which the row is found.
        kind: classification, segmentation, detection or video.
        make: the model for inputs of a spatial size, with whatever random weights it is born with.
        layout: where channels and positions are in its layers, written down by hand.
        sizes: spatial sizes to try, the first that the model takes counts.
        other: a size whose axes differ in length; None if the architecture has none.
        expected: a pattern of the layers that the field names, None if that is not written down.
        shape: of one input of a spatial size, without the batch.
        logits: (n, classes) of the outputs. None for outputs that are that already.
        score: (outputs, number) -> (n,), for models that have no logits (n, classes): what is explained.
        options: of the explainer.
        images: how many.
        variant: which model of the name's family is built, for the table.
    """

    package: str
    name: str
    kind: str
    make: Callable[[Size], Any]
    layout: ByLayer
    sizes: Sequence[Size] = ((96, 96), (128, 128), (224, 224), (256, 256))
    other: Size | None = (96, 128)
    expected: str | None = None
    shape: Callable[[Size], Size] = lambda size: (3, *size)
    logits: Callable[[Any], Any] | None = None
    score: Callable[[Any, int], Any] | None = None
    options: dict[str, Any] = field(default_factory=dict)
    images: int = 2
    variant: str | None = None


def expectation(table: Iterable[tuple[str, str]], name: str) -> str | None:
    """The pattern of layers for the first entry whose pattern of names matches."""
    return next((layers for names, layers in table if re.fullmatch(names, name)), None)
