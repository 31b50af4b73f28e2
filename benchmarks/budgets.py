"""How near Score-CAM within a budget or a tolerance comes to the exact map, beside other ways to spend a budget.

    python -m benchmarks.budgets --out bench-out

scores every channel of 20 photographs (foolbox's) at two layers of EfficientNet-Lite0 once, keeps the scores in the
folder, and replays them: what is compared is which channels are run and what is made of the others.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from examples.zoo.efficientnet_lite0_torch import load
from examples.zoo.photographs import foolbox_photographs
from fusioncam_core.approximation.budget import Limits, score_channels
from fusioncam_core.approximation.gaussian_process import GaussianProcess
from fusioncam_core.arrays.words import normalise
from fusioncam_core.data.preprocessing import read_photograph
from fusioncam_core.explainers import ScoreCAM
from fusioncam_core.methods.form import USUAL, finished
from fusioncam_core.methods.score import _score_cam, formula
from fusioncam_core.metrics import rank_correlation
from fusioncam_core.models.batch_size import Batching
from fusioncam_core.models.scoring import Chunk

LAYERS = {"default layer, 1280 channels": "_swish", "last block, 320 channels": "_blocks.15"}
BUDGETS = (32, 64, 128, 256)
TOLERANCES = (0.2, 0.1, 0.05, 0.02)
SIZE = (224, 224)


class Case(NamedTuple):
    """One photograph at one layer: maps (C, h, w), scores (C,) of the top class, the black image's, the exact map."""

    maps: np.ndarray
    scores: np.ndarray
    black: float
    exact: np.ndarray

    @property
    def live(self) -> np.ndarray:
        return np.flatnonzero(np.ptp(self.maps.reshape(len(self.maps), -1), axis=1) > 0)

    def map_of(self, scores: np.ndarray) -> np.ndarray:
        """(224, 224) of the scores (C,)."""
        combined = _score_cam(self.maps[None], scores[None, None].astype(np.float32), xp=np)
        maps: np.ndarray = finished(combined, SIZE, USUAL, xp=np).maps[0, 0]
        return maps


def cases(layer: str, folder: Path) -> Iterator[Case]:
    """Every photograph's case, scored once and then read from the folder."""
    zoo = load()
    for path, _ in foolbox_photographs():
        kept = folder / f"{layer}-{path.stem}.npz"
        if not kept.exists():
            np.savez_compressed(kept, **_scored(zoo, layer, path)._asdict())
        with np.load(kept) as arrays:
            yield Case(**{name: arrays[name] for name in Case._fields})


def _scored(zoo: Any, layer: str, path: Path) -> Case:
    """All scores, taken from the run of the explainer itself."""
    kept: dict[str, Any] = {}

    class Keeping(ScoreCAM):
        def _result(self, maps: Any, found: Any, batch: Any) -> Any:
            kept["maps"], kept["scores"] = batch.activations.numpy()[0], found.scores.numpy()[0, 0]
            kept["black"] = float(batch.masked.black_scores()[0, 0])
            return super()._result(maps, found, batch)

    explanation = Keeping(zoo.model, layer)(zoo.preprocessing(read_photograph(path))[None]).numpy()
    return Case(**kept, exact=explanation.maps[0])


def ours(case: Case, **limits: Any) -> tuple[np.ndarray, int, float]:
    """The map of the library's own choice, the masks it ran, and how far it says the map may still move."""

    def score_maps(maps: np.ndarray, chunk: Chunk) -> np.ndarray:
        return case.scores[chunk.channels][:, None]

    found = score_channels(
        case.maps[None],
        score_maps,
        lambda: np.full((1, 1), case.black, dtype=np.float32),
        limits=Limits(**limits),
        formula=formula("softmax"),
        batching=Batching(16),
        xp=np,
    )
    return case.map_of(found.scores[0, 0]), int(found.masks_run[0]), float(found.uncertainty[0, 0])


def _masks(case: Case) -> np.ndarray:
    return normalise(case.maps[case.live])


def by_area(case: Case, budget: int) -> np.ndarray:
    """The channels of the largest masks; the others are left out."""
    return _alone(case, np.argsort(-_masks(case).mean(axis=(1, 2)), kind="stable")[:budget])


def by_area_and_range(case: Case, budget: int) -> np.ndarray:
    """The channels of large masks and ranges; the others are left out."""
    return _alone(case, _foremost(case)[:budget])


def by_area_and_range_predicted(case: Case, budget: int) -> np.ndarray:
    """The same channels, and the Gaussian process for the others: without rounds."""
    run = _foremost(case)[:budget]
    prediction = GaussianProcess(_masks(case).reshape(len(case.live), -1)).prediction(
        run, case.scores[case.live][run][:, None]
    )
    scores = np.full(len(case.maps), case.black)
    scores[case.live] = prediction.mean[:, 0]
    return case.map_of(scores)


def by_their_true_weights(case: Case, budget: int) -> np.ndarray:
    """The channels that weigh most in the exact map, which nobody knows beforehand; the others are left out."""
    ranges = np.ptp(case.maps[case.live].reshape(len(case.live), -1), axis=1)
    return _alone(case, np.argsort(-(case.scores[case.live] + np.log(ranges)), kind="stable")[:budget])


def _foremost(case: Case) -> np.ndarray:
    ranges = np.ptp(case.maps[case.live].reshape(len(case.live), -1), axis=1)
    return np.argsort(-_masks(case).mean(axis=(1, 2)) * np.sqrt(ranges), kind="stable")


def _alone(case: Case, run: np.ndarray) -> np.ndarray:
    """The map of some live channels by themselves."""
    scores = np.full(len(case.maps), -np.inf, dtype=np.float32)
    scores[case.live[run]] = case.scores[case.live[run]]
    return case.map_of(scores)


STRATEGIES: dict[str, Callable[[Case, int], np.ndarray]] = {
    "largest area": by_area,
    "largest area × √range": by_area_and_range,
    "the same, others predicted": by_area_and_range_predicted,
    "in rounds, others predicted (fusioncam)": lambda case, budget: ours(case, budget=budget)[0],
    "by true weights (an oracle)": by_their_true_weights,
}


def compared(found: Sequence[Case]) -> list[dict[str, Any]]:
    """A row for each strategy and budget."""
    rows = []
    for name, strategy in STRATEGIES.items():
        for budget in BUDGETS:
            maps = [strategy(case, budget) for case in found]
            likenesses = [rank_correlation(each, case.exact) for each, case in zip(maps, found, strict=True)]
            errors = [np.abs(each - case.exact) for each, case in zip(maps, found, strict=True)]
            rows.append(
                {
                    "strategy": name,
                    "budget": budget,
                    "spearman_mean": float(np.mean(likenesses)),
                    "spearman_worst": float(np.min(likenesses)),
                    "largest_change_mean": float(np.mean([each.max() for each in errors])),
                    "mean_change": float(np.mean([each.mean() for each in errors])),
                }
            )
    return rows


def stopped(found: Sequence[Case]) -> list[dict[str, Any]]:
    """A row for each tolerance: what it took, and whether the map was as near as said."""
    rows = []
    for tolerance in TOLERANCES:
        results = [ours(case, tolerance=tolerance) for case in found]
        errors = [float(np.abs(each[0] - case.exact).max()) for each, case in zip(results, found, strict=True)]
        rows.append(
            {
                "tolerance": tolerance,
                "masks_run_mean": float(np.mean([each[1] for each in results])),
                "masks_run_most": max(each[1] for each in results),
                "uncertainty_mean": float(np.mean([each[2] for each in results])),
                "change_mean": float(np.mean(errors)),
                "change_largest": max(errors),
                "share_within": float(np.mean([error <= tolerance for error in errors])),
            }
        )
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes budgets.json."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.budgets")
    parser.add_argument("--out", type=Path, default=Path("bench-out"), metavar="DIR")
    options = parser.parse_args(arguments)
    folder = options.out / "scores"
    folder.mkdir(parents=True, exist_ok=True)
    layers = {}
    for title, layer in LAYERS.items():
        # A photograph for which nothing speaks at a layer has an exact map of zeros, which resembles nothing.
        found = [case for case in cases(layer, folder) if case.exact.max() > 0]
        live = [len(case.live) for case in found]
        layers[title] = {
            "photographs": len(found),
            "live": [min(live), math.floor(np.mean(live)), max(live)],
            "budgets": compared(found),
            "tolerances": stopped(found),
        }
    (options.out / "budgets.json").write_text(json.dumps(layers, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
