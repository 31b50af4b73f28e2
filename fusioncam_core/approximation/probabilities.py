"""What masks not yet run would score where scores are probabilities: a Gaussian process of their logits.

Probabilities lie at their ends: most masks leave nothing of a class, some leave all of it. No Gaussian of the masks
does so, but one of the logits does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fusioncam_core.approximation.gaussian_process import (
    LOWEST_TENTH,
    GaussianProcess,
    Indices,
    Prediction,
    Values,
)

ALIKE = 1e-3
"""Probabilities nearer than this to 0 or to 1 are as good as that."""

QUANTILES = np.array([LOWEST_TENTH, -0.5244005127080407, 0.0, 0.5244005127080407, -LOWEST_TENTH])
"""Of the standard normal distribution, in the middle of each fifth of it."""


@dataclass(frozen=True)
class ProbabilityPrediction(Prediction):
    """Of probabilities less those of their origin.

    Attributes:
        logits: the prediction of the logits.
        origin: (K,) what the scores are counted from.
    """

    logits: Prediction
    origin: Values

    def draws(self, chosen: Indices, noise: Values) -> Values:
        """Likewise; the logits are drawn."""
        drawn = np.repeat(self.mean[None], len(noise), axis=0)
        drawn[:, chosen] = _probabilities(self.logits.draws(chosen, noise)[:, chosen]) - self.origin
        return drawn


class ProbabilityProcess(GaussianProcess):
    """A Gaussian process from masks to the logits of what they leave of a class.

    Args:
        masks: (n, pixels) in [0, 1], not constant.
        origin: (K,) probabilities that are taken off all scores, such as the black mask's; None for none.
    """

    def __init__(self, masks: npt.NDArray[np.floating], origin: Values | None = None):
        super().__init__(masks)
        self._origin = np.zeros(1) if origin is None else origin.astype(np.float64)

    def prediction(self, run: Indices, scores: npt.NDArray[np.floating]) -> Prediction:
        """The scores of all masks, given those (len(run), K) of the masks `run`."""
        logits = super().prediction(run, _logits(scores + self._origin))
        likely = _probabilities(logits.mean + QUANTILES[:, None, None] * logits.deviation)
        mean = likely.mean(axis=0) - self._origin
        mean[run] = scores
        steepness = _steepness(likely).mean(axis=0)
        deviation = np.where(logits.deviation > 0, likely.std(axis=0), 0)
        return ProbabilityPrediction(
            mean, deviation, logits.scale, logits.covariance, steepness, logits=logits, origin=self._origin
        )


def _logits(probabilities: Values) -> Values:
    """Finite ones of probabilities in [0, 1]; what rounding left beside them counts as the end."""
    inside = (np.clip(probabilities, 0, 1) + ALIKE) / (1 + 2 * ALIKE)
    logits: Values = np.log(inside / (1 - inside))
    return logits


def _probabilities(logits: Values) -> Values:
    """The inverse, within [0, 1]."""
    inside = 1 / (1 + np.exp(-np.clip(logits, -50, 50)))
    probabilities: Values = np.clip(inside * (1 + 2 * ALIKE) - ALIKE, 0, 1)
    return probabilities


def _steepness(probabilities: Values) -> Values:
    """How much a probability rises with its logit."""
    inside = (probabilities + ALIKE) / (1 + 2 * ALIKE)
    steepness: Values = inside * (1 - inside) * (1 + 2 * ALIKE)
    return steepness
