"""What the study sees of one image: its layer, its gradients, and the network under masks, each run once."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmarks.study.networks import AT_ONCE, Network
from fusioncam_core import BlackBox, GradCAM, resize, softmax
from fusioncam_core.arrays.namespaces import to_numpy
from fusioncam_core.arrays.words import _normalise
from fusioncam_core.models.scoring import live_channels
from fusioncam_core.models.targets import Targets


class Answers:
    """A network whose answers about the same image are remembered: methods and metrics ask many things twice.

    Args:
        network: that is asked.

    Attributes:
        runs: how many images it was run on.
    """

    def __init__(self, network: Network):
        self._run = network.run
        self._known: dict[int, np.ndarray] = {}
        self.runs = 0

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Images (n, C, h, w) -> logits (n, classes)."""
        images = np.ascontiguousarray(images, dtype=np.float32)
        names = [hash(image.tobytes()) for image in images]
        new = {name: place for place, name in enumerate(names) if name not in self._known}
        if new:
            self._known.update(zip(new, self._run(images[list(new.values())]), strict=True))
            self.runs += len(new)
        return np.stack([self._known[name] for name in names])

    def black_box(self) -> BlackBox:
        """The same as the library's metrics ask it: PyTorch's arrays, of which ranks and imputations are soon made."""

        def answers(images: torch.Tensor) -> torch.Tensor:
            return torch.from_numpy(self(images.numpy()))

        return BlackBox(answers, like=torch.zeros(()))


class ChannelScores(NamedTuple):
    """What the network says of an image under each channel's mask: logits and probabilities (K, C) of its targets."""

    logits: np.ndarray
    probabilities: np.ndarray


class View:
    """One image and its explained classes.

    Args:
        network: that is explained.
        image: (C, h, w).
        targets: the explained classes; None for the top one.
        layer: of the model; None for the default one.
        erased: what is seen where a mask is 0, (C, h, w); None for the network's own.
        kept: a file for the channels' scores, which take most of the time.

    Attributes:
        targets: (K,).
        plain: (classes,) logits.
        activations: (1, C, *spatial).
        gradients: (1, K, C, *spatial).
        made: maps by name, each (1, K, h, w).
    """

    def __init__(
        self,
        network: Network,
        image: np.ndarray,
        targets: Sequence[int] | None = None,
        *,
        layer: str | None = None,
        erased: np.ndarray | None = None,
        kept: Path | None = None,
    ):
        self.network, self.image, self._kept = network, image, kept
        self.size = image.shape[1:]
        self.erased = np.full_like(image, network.erased) if erased is None else erased
        self.answers = Answers(network)
        self.plain = self.answers(image[None])[0]
        self.targets = np.asarray([self.plain.argmax()] if targets is None else targets)
        self.activations, self.gradients = _captured(network, image, self.targets, layer)
        self.made: dict[Any, np.ndarray] = {}

    def map(self, name: Any, make: Callable[[], np.ndarray]) -> np.ndarray:
        """A map (1, K, h, w), made once."""
        if name not in self.made:
            self.made[name] = np.asarray(make())
        return self.made[name]

    def under(self, masks: np.ndarray, erased: np.ndarray | None = None) -> np.ndarray:
        """The logits (n, classes) of the image under masks (n, h, w)."""
        base = self.erased if erased is None else erased
        return np.concatenate(
            [self.answers(_masked(self.image, base, masks[start : start + AT_ONCE])) for start in _starts(len(masks))]
        )

    def of_targets(self, logits: np.ndarray) -> np.ndarray:
        """The targets' probabilities (n, K) of logits (n, classes)."""
        return np.asarray(softmax(logits))[:, self.targets]

    def probability(self, masks: np.ndarray) -> np.ndarray:
        """Each target's probability (1, K) under its own mask (1, K, h, w)."""
        return np.diagonal(self.of_targets(self.under(masks[0])))[None].copy()

    @functools.cached_property
    def black(self) -> np.ndarray:
        """(classes,) logits of the wholly erased image."""
        return self.answers(self.erased[None])[0]

    @functools.cached_property
    def black_probability(self) -> np.ndarray:
        """(1, K)."""
        return self.of_targets(self.black[None])

    @functools.cached_property
    def scores(self) -> ChannelScores:
        """Of all channels; a constant one has a black mask."""
        if self._kept is not None and self._kept.exists():
            with np.load(self._kept) as file:
                return ChannelScores(file["logits"], file["probabilities"])
        found = self._channel_scores()
        if self._kept is not None:
            self._kept.parent.mkdir(parents=True, exist_ok=True)
            unfinished = self._kept.with_suffix(".part.npz")
            np.savez(unfinished, **found._asdict())
            unfinished.replace(self._kept)
        return found

    def _channel_scores(self) -> ChannelScores:
        live = np.flatnonzero(live_channels(self.activations, xp=np)[0])
        logits = np.repeat(self.black[None], self.activations.shape[1], axis=0)
        for start in _starts(len(live)):
            chosen = live[start : start + AT_ONCE]
            masks = _normalise(resize(self.activations[0, chosen], self.size), 2, xp=np)
            # Nobody asks for these again: they are not remembered.
            logits[chosen] = self.network.run(_masked(self.image, self.erased, masks))
        return ChannelScores(logits[:, self.targets].T.copy(), self.of_targets(logits).T.copy())


def _starts(count: int) -> range:
    return range(0, count, AT_ONCE)


def _masked(image: np.ndarray, erased: np.ndarray, masks: np.ndarray) -> np.ndarray:
    if not erased.any():
        return image * masks[:, None]
    return image * masks[:, None] + erased * (1 - masks[:, None])


def _captured(
    network: Network, image: np.ndarray, targets: np.ndarray, layer: str | None
) -> tuple[np.ndarray, np.ndarray]:
    """The layer's activations and the gradients of the targets' logits, as the library's explainers see them."""
    explainer = GradCAM(network.model, layer)
    inputs = explainer.prepared(image[None])
    with explainer.session():
        (batch,) = explainer.see(inputs, Targets(targets[None], several=True))
    return to_numpy(batch.activations), to_numpy(batch.required_gradients)
