"""How near Score-CAM within a budget or a tolerance comes to the exact map, beside other ways to spend a budget.

    python -m benchmarks.budgets --out bench-out

scores every channel of 20 photographs (foolbox's) at three layers of EfficientNet-Lite0 once, keeps the scores in the
folder, and replays them: what is compared is which channels are run and what is made of the others. `--photographs`
takes those of a folder as well; `--engine openvino` scores them faster.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from examples.zoo.efficientnet_lite0_torch import load
from examples.zoo.photographs import foolbox_photographs
from fusioncam_core.approximation.budget import Limits, score_channels
from fusioncam_core.approximation.gaussian_process import GaussianProcess
from fusioncam_core.arrays.namespaces import to_numpy
from fusioncam_core.arrays.words import normalise
from fusioncam_core.data.preprocessing import read_photograph
from fusioncam_core.explainers import ScoreCAM
from fusioncam_core.methods.form import USUAL, finished
from fusioncam_core.methods.score import ChannelWeights, _mask_maps, _score_cam, formula
from fusioncam_core.metrics import rank_correlation
from fusioncam_core.models.batch_size import Batching
from fusioncam_core.models.scoring import Chunk


class Subject(NamedTuple):
    """A layer, and what Score-CAM makes of its scores."""

    layer: str
    channel_weights: ChannelWeights = "softmax"


SUBJECTS = {
    "default layer, 1280 channels": Subject("_swish"),
    "last block, 320 channels": Subject("_blocks.15"),
    "a block before, 112 channels": Subject("_blocks.10"),
    "default layer, regression on the masks": Subject("_swish", "regression"),
}
BUDGETS = (16, 32, 64, 128)
TOLERANCES = (0.2, 0.1, 0.05, 0.02)
SIZE = (224, 224)


class Case(NamedTuple):
    """One photograph at one layer: maps (C, h, w), scores (C,) of the top class, the black image's, the exact map, what
    was taken off the scores, and what makes a map of them.
    """

    maps: np.ndarray
    scores: np.ndarray
    black: float
    exact: np.ndarray
    origin: float = 0.0
    channel_weights: ChannelWeights = "softmax"

    @property
    def live(self) -> np.ndarray:
        return np.flatnonzero(np.ptp(self.maps.reshape(len(self.maps), -1), axis=1) > 0)

    def map_of(self, scores: np.ndarray) -> np.ndarray:
        """(224, 224) of the scores (C,)."""
        combined = _score_cam(self.maps[None], scores[None, None].astype(np.float32), self.channel_weights, xp=np)
        maps: np.ndarray = finished(combined, SIZE, USUAL, xp=np).maps[0, 0]
        return maps


def cases(subject: Subject, paths: Sequence[Path], folder: Path, engine: str | None) -> Iterator[Case]:
    """Every photograph's case, scored once and then read from the folder."""
    cam = _Keeping(zoo().model, subject.layer, channel_weights=subject.channel_weights, engine=engine)
    for path in paths:
        kept = folder / f"{subject.layer}-{subject.channel_weights}-{path.stem}.npz"
        if not kept.exists():
            images = zoo().preprocessing(read_photograph(path))[None]
            exact = cam(images).numpy().maps[0]
            np.savez_compressed(kept, **cam.kept, exact=exact)
        with np.load(kept) as arrays:
            yield Case(**dict(arrays.items()), channel_weights=subject.channel_weights)


zoo = functools.cache(load)


class _Keeping(ScoreCAM):
    """Score-CAM that keeps what it found."""

    kept: dict[str, Any]

    def _result(self, made: Any, found: Any, batch: Any) -> Any:
        self.kept = {
            "maps": to_numpy(_mask_maps(batch.activations, self.channel_weights, xp=batch.xp))[0],
            "scores": to_numpy(found.scores)[0, 0],
            **self._black(batch.masked),
        }
        return super()._result(made, found, batch)

    def _black(self, masked: Any) -> dict[str, float]:
        if self.channel_weights == "regression":
            return {"black": 0.0, "origin": float(masked.black_probabilities()[0, 0])}
        return {"black": float(masked.black_scores()[0, 0])}


def ours(case: Case, **limits: Any) -> tuple[np.ndarray, int, float]:
    """The map of the library's own choice, the masks it ran, and how far it says the map may still move."""

    def score_maps(maps: np.ndarray, chunk: Chunk) -> np.ndarray:
        return case.scores[chunk.channels][:, None]

    found = score_channels(
        case.maps[None],
        score_maps,
        lambda: np.full((1, 1), case.black, dtype=np.float32),
        limits=Limits(**limits),
        formula=formula(case.channel_weights),
        batching=Batching(16),
        xp=np,
        origin=np.full((1, 1), case.origin, dtype=np.float32),
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


Strategy = Callable[[Case, int], np.ndarray]

OURS = "in rounds, others predicted (fusioncam)"

STRATEGIES: dict[str, Strategy] = {
    "largest area": by_area,
    "largest area × √range": by_area_and_range,
    "the same, others predicted": by_area_and_range_predicted,
    OURS: lambda case, budget: ours(case, budget=budget)[0],
    "by true weights (an oracle)": by_their_true_weights,
}


def compared(found: Sequence[Case], strategies: Mapping[str, Strategy]) -> list[dict[str, Any]]:
    """A row for each strategy and budget."""
    rows = []
    for name, strategy in strategies.items():
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
    parser.add_argument("--photographs", type=Path, metavar="DIR", help="a folder of more of them")
    parser.add_argument("--limit", type=int, metavar="N", help="so many of the folder, evenly taken")
    parser.add_argument("--engine", metavar="NAME", help="that scores the masks: openvino, onnxruntime")
    options = parser.parse_args(arguments)
    folder = options.out / "scores"
    folder.mkdir(parents=True, exist_ok=True)
    paths = [path for path, _ in foolbox_photographs()] + _more(options.photographs, options.limit)
    layers = {}
    for title, subject in SUBJECTS.items():
        # A photograph for which nothing speaks at a layer has an exact map of zeros, which resembles nothing.
        found = [case for case in cases(subject, paths, folder, options.engine) if case.exact.max() > 0]
        live = [len(case.live) for case in found]
        own = STRATEGIES if subject.channel_weights == "softmax" else {OURS: STRATEGIES[OURS]}
        layers[title] = {
            "photographs": len(found),
            "live": [min(live), math.floor(np.mean(live)), max(live)],
            "budgets": compared(found, own),
            "tolerances": stopped(found),
        }
    (options.out / "budgets.json").write_text(json.dumps(layers, indent=1))
    return 0


def _more(folder: Path | None, limit: int | None) -> list[Path]:
    """The photographs of a folder, or so many of them."""
    paths = [] if folder is None else sorted(folder.glob("*.jpg"))
    step = 1 if limit is None else max(1, len(paths) // limit)
    return paths[::step][:limit]


if __name__ == "__main__":
    sys.exit(main())
