"""Score-CAM with fewer passes: the channels that tell most are run, and what the others would score is predicted."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from fusioncam_core.approximation.design import SMALLEST, Slopes, most_telling, relative
from fusioncam_core.approximation.gaussian_process import TREND, GaussianProcess, Indices, Prediction, Values
from fusioncam_core.arrays.checks import require_count, require_finite
from fusioncam_core.arrays.namespaces import Array, Namespace, array_namespace, constant_like, to_numpy
from fusioncam_core.arrays.one_thread import in_one_thread
from fusioncam_core.arrays.words import _normalise, _resize
from fusioncam_core.errors import InvalidValueError
from fusioncam_core.models.batch_size import Batching
from fusioncam_core.models.scoring import ScoreMaps, channel_scores, gathered, live_channels, scored

FIRST = 0.25
"""This share of a budget is spent before anything is predicted, on masks of large area and range."""

ROUNDS = 3
"""The rest goes in as many rounds, each on the masks that tell most of the map by what is known so far. They are as
large as the first share, so that a compiler sees one shape; more of them do not make maps clearly nearer.
"""

LEAST = 4
"""No round is smaller, and the first one has twice as many."""

GROWTH = 0.25
"""Without a budget a round has this share of what was run before it."""

OPTIMISM = 1.0
"""A mask matters as much as it would with so many standard deviations more than the expected score."""

CANDIDATES = 1000
"""So many of the masks not run, those that matter most, are compared by what they tell of the map. Matrices of a power
of two, whose columns meet in the processor's caches, took up to three times as long as others.
"""

FINEST = 14
"""Masks are compared at no more than so many positions along an axis."""

DRAWS = 16
"""As many times the scores that were not run are drawn to see how far the map would move."""

MOVING = 448
"""So many of the masks not run, those that matter most, are drawn together; the others keep their expected scores. No
power of two either.
"""


class Limits(NamedTuple):
    """How far Score-CAM goes.

    Attributes:
        budget: at most so many masks an image are run; None for no such limit.
        tolerance: an image is done when its map is not expected to move more than this at any pixel; None likewise.
    """

    budget: int | None = None
    tolerance: float | None = None

    @property
    def none(self) -> bool:
        """Whether every channel is run."""
        return self.budget is None and self.tolerance is None


NO_LIMITS = Limits()


class Formula(NamedTuple):
    """What a method makes of the scores of channels, with NumPy's arrays on the host.

    Attributes:
        shares: of scores (..., C), what each channel is weighed with (..., C).
        maps: of channels (1, C, *spatial) and scores (1, K, C), the maps (1, K, *spatial) at the layer's resolution.
        slopes: how those maps move with each score, before they are cut and normalised.
        process: of masks, and of what scores are counted from, the process that predicts scores.
    """

    shares: Callable[[Values], Values]
    maps: Callable[[Values, Values], Values]
    slopes: Slopes
    process: Callable[[Values, Values | None], GaussianProcess]


def require_limits(budget: int | None, tolerance: float | None) -> Limits:
    """Both limits.

    Raises:
        ValueError: if the budget is no positive whole number or the tolerance does not lie between 0 and 1.
    """
    if budget is not None:
        budget = require_count(budget, "budget")
    if tolerance is not None and not 0 < tolerance < 1:
        raise InvalidValueError(f"tolerance is a map's largest change, between 0 and 1: got {tolerance!r}.")
    return Limits(budget, tolerance)


@dataclass(frozen=True)
class Scored:
    """The scores of all channels, run or predicted.

    Attributes:
        scores: (B, C), or (B, K, C) if the scores of a mask were (K,).
        masks_run: (B,) how many masks of each image were run.
        uncertainty: (B, K) how far each map may still move; 0 where all masks were run.
    """

    scores: Array
    masks_run: np.ndarray[Any, Any]
    uncertainty: np.ndarray[Any, Any]


def score_channels(
    maps: Array,
    score_maps: ScoreMaps,
    black_scores: Callable[[], Array],
    *,
    limits: Limits,
    formula: Formula,
    batching: Batching,
    xp: Namespace,
    advance: Callable[[int], object] = lambda masks: None,
    origin: Array | None = None,
) -> Scored:
    """Every channel's score, run within the limits and predicted beyond them.

    Args:
        maps: (B, C, *spatial), finite: what is made masks of, and weighed and summed.
        score_maps, black_scores, batching, xp, advance: as for `channel_scores`.
        limits: how far to go.
        formula: what becomes of the scores.
        origin: (B,) or (B, K) what was taken off the scores of each image, such as those of its black mask.
    """
    live = live_channels(maps, xp=xp)
    if limits.none:
        scores = channel_scores(maps, live, score_maps, black_scores, batching=batching, xp=xp, advance=advance)
        several = int(scores.shape[1]) if scores.ndim == 3 else 1
        return Scored(scores, live.sum(axis=1), np.zeros((len(live), several)))
    return _limited(maps, live, score_maps, black_scores, limits, formula, batching, xp, advance, origin)


def _limited(
    maps: Array,
    live: np.ndarray[Any, Any],
    score_maps: ScoreMaps,
    black_scores: Callable[[], Array],
    limits: Limits,
    formula: Formula,
    batching: Batching,
    xp: Namespace,
    advance: Callable[[int], object],
    origin: Array | None,
) -> Scored:
    on_host = to_numpy(maps)
    origins = None if origin is None else _columns(to_numpy(origin))
    black = None if live.all() else to_numpy(black_scores())
    several = black is not None and black.ndim == 2
    with in_one_thread():
        images = [
            _Image(
                on_host[row],
                live[row],
                None if black is None else _columns(black)[row],
                limits,
                formula,
                None if origins is None else origins[row],
            )
            for row in range(len(live))
        ]
    while sum(len(image.asked) for image in images):
        owners = np.repeat(np.arange(len(images)), [len(image.asked) for image in images])
        channels = np.concatenate([image.asked_channels for image in images])
        rows = scored(maps, owners, channels, score_maps, batching=batching, xp=xp, advance=advance)
        scores = gathered(rows, xp=xp)
        require_finite(scores, "scores of the masked images", array_namespace(scores))
        several = scores.ndim == 2
        with in_one_thread():
            for row, image in enumerate(images):
                if len(image.asked):
                    image.learn(_columns(scores)[owners == row])
    found = np.stack([image.all_scores() for image in images])
    return Scored(
        scores=constant_like(found if several else found[:, 0], maps, xp),
        masks_run=np.asarray([len(image.run) for image in images]),
        uncertainty=np.stack([image.moves for image in images]),
    )


def _columns(scores: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """(n, K) of (n,) or (n, K)."""
    return scores if scores.ndim == 2 else scores[:, None]


class _Image:
    """One image's channels that are not constant, of which more and more are run.

    Args:
        maps: (C, *spatial) of all channels, on the host.
        live: (C,) which of them are not constant.
        black: (K,) the scores of the others, if there are any.
        limits: how far to go.
        formula: what becomes of the scores.
        origin: (K,) what was taken off the scores, if anything was.

    Attributes:
        run: the places, among the live channels, of those whose scores are known.
        asked: those that are to be run next; none when the image is done.
        moves: (K,) how far each map may still move.
    """

    def __init__(
        self,
        maps: np.ndarray[Any, Any],
        live: np.ndarray[Any, Any],
        black: np.ndarray[Any, Any] | None,
        limits: Limits,
        formula: Formula,
        origin: np.ndarray[Any, Any] | None,
    ):
        self.run: Indices = np.zeros(0, dtype=np.intp)
        self.moves: Values = np.zeros(1 if black is None else len(black))
        self._maps = maps.astype(np.float64)
        self._channels = np.flatnonzero(live)
        self._black = black
        self._limits = limits
        self._formula = formula
        self._origin = origin
        number = len(self._channels)
        self._most = number if limits.budget is None else min(limits.budget, number)
        self._ranges = np.ptp(_flat(self._maps[self._channels]), axis=1)
        self._scores: Values | None = None
        self._expected: Values | None = None
        self._masks = _flat(_coarse(_normalised(self._maps[self._channels])))
        self.asked = self._first()

    @property
    def asked_channels(self) -> Indices:
        """The channels' own numbers of those that are to be run next."""
        return self._channels[self.asked]

    @functools.cached_property
    def _process(self) -> GaussianProcess:
        return self._formula.process(self._masks, self._origin)

    def _first(self) -> Indices:
        """Masks of large area and range, or all that there are."""
        if self._limits.tolerance is None and self._most == len(self._channels):
            return np.arange(self._most)
        size = 0 if self._limits.budget is None else math.ceil(FIRST * self._most)
        order = np.argsort(-self._masks.mean(axis=1) * np.sqrt(self._ranges), kind="stable")
        return order[: min(max(size, 2 * LEAST), self._most)]

    def learn(self, scores: np.ndarray[Any, Any]) -> None:
        """The scores (n, K) of the masks asked for: say what the others should score, and what to run next."""
        self.run = np.concatenate([self.run, self.asked])
        self._scores = scores if self._scores is None else np.concatenate([self._scores, scores])
        self.asked = self.run[:0]
        self.moves = np.zeros(scores.shape[1])
        self._expected = None
        if len(self.run) == len(self._channels):
            return
        prediction = self._process.prediction(self.run, self._scores)
        self._expected = prediction.mean
        importance = self._importance(prediction)
        spent = len(self.run) == self._most
        if spent or self._limits.tolerance is not None:
            self.moves = self._movement(prediction, importance)
        if not spent and not self._is_settled:
            self.asked = self._telling(prediction, importance)

    @property
    def _is_settled(self) -> bool:
        return self._limits.tolerance is not None and bool((self.moves <= self._limits.tolerance).all())

    @property
    def _round(self) -> int:
        budget = self._limits.budget
        size = GROWTH * len(self.run) if budget is None else (1 - FIRST) * self._most / ROUNDS
        return max(LEAST, math.ceil(size))

    def _telling(self, prediction: Prediction, importance: Values) -> Indices:
        """The masks of the next round: of those that matter, the ones that tell most of the map."""
        candidates = np.argsort(-importance, kind="stable")[: min(CANDIDATES, len(importance) - len(self.run))]
        scores = self._with_black(prediction.mean.T)
        slopes = self._formula.slopes(self._coarse_maps, scores)
        slopes = relative(slopes, _flat(_coarse(self._map(prediction.mean.T))))[:, self._channels[candidates]]
        # Targets differ in their variances alone: side by side, each counts by its own.
        spreads = (np.sqrt(prediction.scale) * prediction.steepness[candidates]).T
        together = np.moveaxis(slopes * spreads[:, :, None], 0, 1).reshape(len(candidates), -1)
        together /= np.abs(together).max(initial=SMALLEST)  # so that no square is lost in float32
        number = min(self._round, self._most - len(self.run))
        covariance = prediction.covariance(candidates, np.float32)
        return candidates[most_telling(covariance, together.astype(np.float32), number)]

    @functools.cached_property
    def _coarse_maps(self) -> Values:
        return _flat(_coarse(self._maps))

    def _importance(self, prediction: Prediction) -> Values:
        """(n,) how much each mask may weigh in the map of any target; -1 for those that were run."""
        optimistic = prediction.mean + OPTIMISM * prediction.deviation
        weights = np.abs(self._formula.shares(optimistic.T)) * self._ranges
        totals = weights.sum(axis=1, keepdims=True)
        importance: Values = (weights / np.where(totals > 0, totals, 1)).max(axis=0)
        importance[self.run] = -1
        return importance

    def _movement(self, prediction: Prediction, importance: Values) -> Values:
        """(K,) the largest change of each map, at the layer's resolution, over draws of the scores not run."""
        if len(self.run) <= len(TREND):
            return np.ones(len(self.moves))
        moving = np.argsort(-importance, kind="stable")[: min(MOVING, len(importance) - len(self.run))]
        noise = np.random.default_rng(0).standard_normal((DRAWS, len(moving), len(self.moves)))
        drawn = self._map(np.moveaxis(prediction.draws(moving, noise), 1, 2))
        changes = np.abs(drawn - self._map(prediction.mean.T)).reshape(DRAWS, len(self.moves), -1)
        largest: Values = changes.max(axis=(0, 2))
        return largest

    def _map(self, scores: Values) -> Values:
        """(..., K, *spatial) the maps of live channels' scores (..., K, n)."""
        every = self._with_black(scores)
        flat = every.reshape(1, -1, every.shape[-1])
        size = self._maps.shape[1:]
        maps: Values = self._formula.maps(self._maps[None], flat)
        return maps.reshape(*every.shape[:-1], *size)

    def all_scores(self) -> np.ndarray[Any, Any]:
        """(K, C) of all channels: as run, as predicted, or those of the black image."""
        if self._scores is None:
            return self._with_black(np.zeros((len(self.moves), 0)))
        known = self._scores[np.argsort(self.run)] if self._expected is None else self._expected
        return self._with_black(known.T)

    def _with_black(self, scores: Values) -> Values:
        """(..., K, C) of all channels, of scores (..., K, n) of the live ones."""
        every = np.zeros((*scores.shape[:-1], len(self._maps)))
        if self._black is not None:
            every += self._black[:, None]
        every[..., self._channels] = scores
        return every


def _normalised(maps: Values) -> Values:
    """(n, *spatial) in [0, 1]: the masks that maps (n, *spatial) make."""
    masks: Values = _normalise(maps, maps.ndim - 1, xp=array_namespace(maps))
    return masks


def _coarse(maps: Values) -> Values:
    """(n, *spatial) at few enough positions to compare them all."""
    size = tuple(min(length, FINEST) for length in maps.shape[1:])
    coarse: Values = _resize(maps, size, xp=array_namespace(maps))
    return coarse


def _flat(maps: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """(n, pixels) of (n, *spatial), also if n is 0."""
    return maps.reshape(len(maps), math.prod(maps.shape[1:]))
