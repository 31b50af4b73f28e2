"""What a report says and shows of one image: its targets, its numbers in words, its pictures, and its origin."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fusioncam_core.errors import InvalidValueError
from fusioncam_core.results.digits import probability_text, value_text
from fusioncam_core.results.overlay import Map
from fusioncam_core.results.pictures import (
    Shown,
    Signs,
    contribution_of,
    method_title,
    middle_of,
    note_of,
    titles_of,
)
from fusioncam_core.results.report_images import THUMBNAIL, map_address, photograph_address
from fusioncam_core.results.scaling import scaled
from fusioncam_core.results.style import Style
from fusioncam_core.results.terminal import target_numbers
from fusioncam_core.visible import visible

if TYPE_CHECKING:
    from fusioncam_core.results.explanation import Explanation

_MEASURED = {
    "probability_": "Probability",
    "contribution_": "Contribution",
    "weight_": "Union weight",
    "fusion_weight_": "Fusion weight",
}
"""Columns of the table of a target, by the beginnings of the weights' names; their ends are the stages."""

_ROWS = ("baseline", "gradient", "denoised", "region", "union")


def targets_of(
    explanation: Explanation, index: int, class_names: Sequence[str] | None, drawn: Mapping[str, Sequence[Map]]
) -> list[dict[str, Any]]:
    """Of every target of an image what is written down, and what it is sorted and filtered by."""
    titles = dict(zip(explanation.parts, titles_of(explanation, list(explanation.parts)), strict=True))
    found = []
    for k, numbers in enumerate(target_numbers(explanation, index, class_names)):
        is_class = numbers["class"] is not None
        name = numbers["name"] if numbers["name"] is not None else f"class {numbers['class']}"
        contributions = {stage: contribution_of(stage, numbers["weights"]) for stage in drawn}
        probability, score = numbers["probability"], value_text(numbers["score"])
        found.append(
            {
                "label": visible(name),
                "class": numbers["class"],
                "value": f"p = {probability_text(probability)}" if is_class else f"value {score}",
                "logit": score if is_class else None,
                "p": _finite(probability) if is_class else None,
                "c": _finite(contribution_of("maps", numbers["weights"])),
                "notes": {visible(stage): _noted(own, drawn[stage][k]) for stage, own in contributions.items()},
                "meanings": {visible(stage): _meaning(stage, own) for stage, own in contributions.items()},
                "muted": [visible(stage) for stage, own in contributions.items() if own is not None and own <= 0],
                "table": _table(numbers["weights"], titles),
            }
        )
    return found


def _noted(contribution: float | None, saliency: Map) -> str:
    """What stands beside a map: its contribution, and that there is nothing to see, where that is so."""
    return "; ".join(filter(None, [note_of(contribution), "" if saliency.any() else "the map is 0 everywhere"]))


def _finite(value: float | None) -> float | None:
    """A number that JSON has."""
    return value if value is not None and np.isfinite(value) else None


def _meaning(stage: str, contribution: float | None) -> str:
    """What a contribution says, in a sentence."""
    if contribution is None:
        return ""
    kept = "the union this map is made of shows" if stage == "maps" else "the map shows"
    if contribution <= 0:
        return f"What {kept}, kept alone, gives the class no more probability than the baseline: no evidence for it."
    return f"What {kept}, kept alone, gives the class {value_text(contribution)} more probability than the baseline."


def _table(weights: Mapping[str, float], titles: Mapping[str, str]) -> dict[str, Any]:
    """The rows of stages and the columns of what was measured of them, without those that are empty."""
    columns = [each for each in _MEASURED if any(f"{each}{row}" in weights for row in _ROWS)]
    rows = []
    for row in _ROWS:
        cells = [weights.get(f"{column}{row}") for column in columns]
        if any(cell is not None for cell in cells):
            texts = ["" if cell is None else value_text(cell) for cell in cells]
            rows.append((visible(titles.get(row, row.capitalize())), texts))
    return {"columns": [_MEASURED[each] for each in columns], "rows": rows}


def drawn_of(explanation: Explanation, index: int, style: Style, signed: Signs) -> dict[str, list[Map]]:
    """The maps (h, w) of every stage, one a target, as they are drawn.

    Raises:
        ValueError: one is not finite.
    """
    for name in signed:
        if not np.isfinite(explanation.maps[index] if name == "maps" else explanation.parts[name][index]).all():
            raise InvalidValueError(f"Expected maps of finite numbers in a report, got NaN or infinity in {name!r}.")
    stages = {name: scaled(explanation, name, index, style.scale, signed=below) for name, below in signed.items()}
    return {name: [middle_of(each) for each in maps] for name, maps in stages.items()}


def pictures_of(
    shown: Shown, drawn: Mapping[str, Sequence[Map]], targets: Sequence[Mapping[str, Any]], style: Style, signed: Signs
) -> dict[str, Any]:
    """The addresses of the photograph, of its thumbnail and of the maps, one a target for each stage."""
    maps = {
        visible(name): [
            map_address(
                each,
                style.colour_map,
                threshold=style.threshold,
                signed=signed[name],
                muted=visible(name) in target["muted"],
            )
            for each, target in zip(own, targets, strict=True)
        ]
        for name, own in drawn.items()
    }
    height, width = shown.pixels.shape[:2]
    return {
        "photograph": photograph_address(shown.pixels),
        "thumbnail": photograph_address(shown.pixels, THUMBNAIL),
        "size": [width, height],
        "window": shown.window,
        "maps": maps,
    }


def origin_of(explanation: Explanation) -> dict[str, Any]:
    """How an explanation came to be, as the foot of the page says it."""
    own = explanation.provenance
    facts = {
        "Method": method_title(explanation),
        "Model": explanation.model,
        "Layer": ", ".join(own.layers) if own is not None and own.layers else explanation.layer,
    }
    if own is not None:
        facts |= {
            "fusioncam": own.version,
            "Libraries": ", ".join(f"{name} {version}" for name, version in own.frameworks.items()),
            "Device": own.device,
            "Digest of the weights": own.weights_digest or "not asked for",
            "Seed": "none" if own.seed is None else str(own.seed),
        }
    whole = None if own is None else json.dumps(own.to_json(), indent=2, ensure_ascii=False)
    return {
        "facts": {name: visible(fact) for name, fact in facts.items() if fact},
        "whole": None if whole is None else "\n".join(map(visible, whole.split("\n"))),
    }
