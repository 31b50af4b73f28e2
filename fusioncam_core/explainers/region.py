"""Explainers that run the model on masked images."""

from __future__ import annotations

from fusioncam_core.cams.region import _score_cam, channel_scores
from fusioncam_core.explainers.base import Explainer, Result
from fusioncam_core.explainers.batch import Batch


class ScoreCAM(Explainer):
    """Score-CAM (arXiv 1910.01279): channels weighed by the logit of the image masked with them.

    One evaluation of the model for each channel that is not constant, whatever the number of targets.
    """

    name = "score-cam"
    title = "Score-CAM"
    needs_masks = True

    def explain(self, batch: Batch) -> Result:
        """`N(relu(U(sum_k softmax(s)_k A_k)))`."""
        scores = channel_scores(
            batch.activations,
            batch.masked.score_maps,
            batch.masked.black_scores,
            batch_size=batch.masked.batch_size,
            xp=batch.xp,
            fixed_chunks=batch.adapter.fixed_chunks,
            advance=batch.advance,
        )
        return Result(_score_cam(batch.activations, scores, batch.size, xp=batch.xp))
