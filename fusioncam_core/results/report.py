"""Explanations as one page that a browser opens by itself: no network, no other file, nothing of others run."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fusioncam_core.errors import InvalidTypeError, InvalidValueError
from fusioncam_core.extras import require
from fusioncam_core.results.digits import probability_text, value_text
from fusioncam_core.results.drawable import (
    check_class_names,
    check_drawable,
    check_photographs,
    check_style,
    panels_of,
)
from fusioncam_core.results.files import default_names
from fusioncam_core.results.overlay import Map
from fusioncam_core.results.pictures import (
    Shown,
    Signs,
    contribution_of,
    method_title,
    middle_of,
    note_of,
    shown_of,
    signed_panels,
    titles_of,
)
from fusioncam_core.results.report_images import THUMBNAIL, map_address, photograph_address, scale_address
from fusioncam_core.results.scaling import scaled
from fusioncam_core.results.style import DEFAULT_STYLE, Style
from fusioncam_core.results.terminal import target_numbers
from fusioncam_core.results.writing import Identity, identities, require_free, software, write_files
from fusioncam_core.visible import visible

if TYPE_CHECKING:
    from fusioncam_core.data.preprocessing import Preprocessing
    from fusioncam_core.results.explanation import Explanation

_TEMPLATE = "report_template"

_MEASURED = {
    "probability_": "Probability",
    "contribution_": "Contribution",
    "weight_": "Union weight",
    "fusion_weight_": "Fusion weight",
}
"""Columns of the table of a target, by the beginnings of the weights' names; their ends are the stages."""

_TO_SCRIPT = ("label", "value", "p", "c", "notes", "meanings", "muted")
"""Of a target, what cards are sorted, filtered and labelled by."""

_ROWS = ("baseline", "gradient", "denoised", "region", "union")


@dataclass
class _Contents:
    """What the page shows.

    Attributes:
        images: of each image what the template writes down.
        origins: how the explanations came to be, each once.
        left_out: images that are not in it, and why.
        signed: of the maps there are, whether they have values below 0.
        stages: all that were drawn, by name, with their titles.
    """

    images: list[dict[str, Any]] = field(default_factory=list)
    origins: list[dict[str, Any]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    signed: set[bool] = field(default_factory=set)
    stages: dict[str, str] = field(default_factory=dict)
    inputs: set[Identity] = field(default_factory=set)


class Report:
    """A report that explanations are added to one by one, so that many need not be held at once.

    Args:
        path: of the file, which ends in `.html`; folders are made when it is written.
        title: None says by which method.
        style: how maps are drawn; contours and dots per inch are not of a report.
        overwrite: True replaces an earlier report there. Other files are never replaced.
        inputs: `identities` of files that are not to be replaced.

    Raises:
        TypeError: the path or the title is none.
        ValueError: the path has another ending, or a file is in the way.
        MissingExtra: Jinja2, Pillow or matplotlib is not installed.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        title: str | None = None,
        style: Style = DEFAULT_STYLE,
        overwrite: bool = False,
        inputs: AbstractSet[Identity] = frozenset(),
    ):
        self.path = _html_path(path)
        if title is not None and not isinstance(title, str):
            raise InvalidTypeError(f"Expected the title of a report as text, or None, got {title!r}.")
        require("jinja2", "Writing a report", "report")  # before the long work, not after it
        require("PIL.Image", "Writing a report")
        require("matplotlib", "Writing a report")
        self._title = title
        self._style = style
        self._overwrite = overwrite
        self._contents = _Contents(inputs=set(inputs))
        require_free([self.path], "explanation", overwrite=overwrite, inputs=inputs)

    def add(
        self,
        explanation: Explanation,
        photographs: Sequence[Any] | None = None,
        class_names: Sequence[str] | None = None,
        *,
        names: Sequence[str] | None = None,
        preprocessing: Preprocessing | None = None,
    ) -> None:
        """Take in the images of an explanation.

        Args:
            explanation: of any library's arrays.
            photographs: one an image, Pillow images or (H, W, 3) uint8; None takes the inputs.
            class_names: one per class, in the order of the model's outputs.
            names: one an image; None takes the images' own.
            preprocessing: of the photographs, which are then shown whole, the map where the input was cut from.

        Raises:
            ValueError: there are not as many photographs or names as images or classes, or the maps cannot be drawn.
        """
        explanation = explanation.numpy()
        names = default_names(explanation) if names is None else names
        if len(names) != len(explanation):
            raise InvalidValueError(f"There are {len(explanation)} images, but {len(names)} names.")
        check_drawable(explanation)
        check_class_names(explanation, class_names)
        check_photographs(explanation, photographs, preprocessing)
        check_style(explanation, self._style)
        signed = signed_panels(explanation, self._style)
        self._contents.signed |= set(signed.values())
        self._contents.inputs |= identities(explanation.files)
        panels = panels_of(explanation, self._style)
        stages = dict(zip(map(visible, panels), map(visible, titles_of(explanation, panels)), strict=True))
        self._contents.stages |= stages
        origin = self._origin_of(explanation)
        for index, name in enumerate(names):
            photograph = None if photographs is None else photographs[index]
            drawn = _drawn(explanation, index, self._style, signed)
            targets = _targets(explanation, index, class_names, drawn)
            shown = shown_of(explanation, index, photograph, preprocessing, self._style)
            self._contents.images.append(
                {
                    "name": visible(name),
                    "method": visible(method_title(explanation)),
                    "origin": origin,
                    "stages": stages,
                    "targets": targets,
                    "pictures": _pictures(shown, drawn, targets, self._style, signed),
                }
            )

    def leave_out(self, reason: str) -> None:
        """Say in the report that an image is missing, and why: in a sentence with its name."""
        self._contents.left_out.append(visible(reason))

    def write(self) -> Path:
        """Write the file.

        Raises:
            ValueError: there is no image in it, or a file is in the way by now.
            OSError: it cannot be written; the error names it.
        """
        if not self._contents.images:
            raise InvalidValueError("Expected at least one explanation in a report, got none.")
        page = _page(self._contents, self._title, self._style).encode()
        inputs = frozenset(self._contents.inputs)
        return write_files({self.path: page}, "explanation", overwrite=self._overwrite, inputs=inputs)[0]

    def _origin_of(self, explanation: Explanation) -> int:
        """The number, from 0, of how the explanation came to be."""
        own = _origin(explanation)
        if own not in self._contents.origins:
            self._contents.origins.append(own)
        return self._contents.origins.index(own)


def write_report(
    path: str | Path,
    explanations: Explanation | Iterable[Explanation],
    photographs: Sequence[Any] | None = None,
    class_names: Sequence[str] | None = None,
    *,
    preprocessing: Preprocessing | None = None,
    panels: Sequence[str] | None = None,
    title: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Write one HTML file with the maps of many explanations over their photographs; docs/report.md shows one.

    It opens in any browser of today without a network, and holds all that it shows: some 160 kB a photograph with the
    three stages of Fusion-CAM. Photographs go into it at 640 pixels and without the data of their files, such as places and
    names of cameras; of their paths it has the images' names alone.

    Args:
        path: of the file, which ends in `.html`; folders are made.
        explanations: one, or several, such as `explain_many` gives: of other methods and models too. They are taken
            one after the other, and not kept.
        photographs: one for every image of all the explanations, Pillow images or (H, W, 3) uint8; None takes the
            inputs. The maps cover the whole of each, unless `preprocessing` says where in it the input lies.
        class_names: one per class, in the order of the model's outputs.
        preprocessing: of the photographs, which are then shown whole, the map where the input was cut from.
        panels: which stages are in it, names of `parts` and "maps"; None takes those of `titles`.
        title: of the page; None says by which method.
        overwrite: True replaces an earlier report of that name. Other files are never replaced.

    Returns:
        The path of the file.

    Raises:
        TypeError: one of them is no explanation, or an argument is of a wrong type.
        ValueError: the path does not end in `.html`, a file is in the way, there is no explanation, there are not as
            many photographs as images or names as classes, or maps are neither 2-D nor, as of clips and volumes, 3-D.
        OSError: the file cannot be written; the error names it.
        MissingExtra: Jinja2, Pillow or matplotlib is not installed: `pip install "fusioncam[report]"`.
    """
    report = Report(path, title=title, style=Style(panels=panels), overwrite=overwrite)
    first = 0
    for explanation in _each(explanations):
        if not _is_explanation(explanation):
            raise InvalidTypeError(f"Expected explanations in a report, got one of type {type(explanation).__name__}.")
        last = first + len(explanation)
        own = None if photographs is None else photographs[first:last]
        report.add(explanation, own, class_names, preprocessing=preprocessing)
        first = last
    if photographs is not None and len(photographs) != first:
        raise InvalidValueError(f"There are {first} images, but {len(photographs)} photographs.")
    return report.write()


def _each(explanations: Any) -> Iterable[Explanation]:
    """Those that are to be reported: one is not taken apart, since what has no sign is looked for in all its images."""
    if _is_explanation(explanations):
        return [explanations]
    if not isinstance(explanations, Iterable):
        raise InvalidTypeError(f"Expected an explanation or several, got one of type {type(explanations).__name__}.")
    return explanations


def _is_explanation(value: Any) -> bool:
    return all(hasattr(value, name) for name in ("maps", "targets", "class_probabilities", "titles"))


def _html_path(path: Any) -> Path:
    if not isinstance(path, str | Path):
        raise InvalidTypeError(f"Expected the path of a report, got {path!r}.")
    if Path(path).suffix != ".html":
        raise InvalidValueError(f"Expected the path of a report to end in .html, got {str(path)!r}.")
    return Path(path)


def _targets(
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


def _drawn(explanation: Explanation, index: int, style: Style, signed: Signs) -> dict[str, list[Map]]:
    """The maps (h, w) of every stage, one a target, as they are drawn.

    Raises:
        ValueError: one is not finite.
    """
    for name in signed:
        if not np.isfinite(explanation.maps[index] if name == "maps" else explanation.parts[name][index]).all():
            raise InvalidValueError(f"Expected maps of finite numbers in a report, got NaN or infinity in {name!r}.")
    stages = {name: scaled(explanation, name, index, style.scale, signed=below) for name, below in signed.items()}
    return {name: [middle_of(each) for each in maps] for name, maps in stages.items()}


def _pictures(
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


def _origin(explanation: Explanation) -> dict[str, Any]:
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


def _page(contents: _Contents, title: str | None, style: Style) -> str:
    jinja2 = require("jinja2", "Writing a report", "report")
    markup = require("markupsafe", "Writing a report", "report").Markup
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_file), autoescape=True, trim_blocks=True, lstrip_blocks=True, auto_reload=False
    )
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False}  # and stages in their order
    css, script = _file("report.css"), _file("report.js")
    methods = list(dict.fromkeys(image["method"] for image in contents.images))
    index = [
        {name: image[name] for name in ("name", "stages")}
        | {"targets": [{name: each[name] for name in _TO_SCRIPT} for each in image["targets"]]}
        for image in contents.images
    ]
    page: str = environment.get_template("report.html.jinja").render(
        title=visible(title or f"Explanations by {', '.join(methods)}"),
        generator=software("explanation"),
        policy=f"default-src 'none'; img-src data:; style-src {_hashed(css)}; script-src {_hashed(script)}; "
        "base-uri 'none'; form-action 'none'",
        css=markup(css),
        script=markup(script),
        images=contents.images,
        index={"images": index, "stages": contents.stages},
        stages=contents.stages,
        methods=methods,
        classes=sorted({each["label"] for image in contents.images for each in image["targets"]}),
        contributions=any(each["c"] is not None for image in contents.images for each in image["targets"]),
        origins=contents.origins,
        left_out=contents.left_out,
        scales=[(scale_address(style.colour_map, signed=signed), signed) for signed in sorted(contents.signed)],
        scale=style.scale,
        threshold=style.threshold,
        strength=round(style.alpha * 100),
    )
    return page


def _file(name: str) -> str:
    return files("fusioncam_core.results").joinpath(_TEMPLATE, name).read_text(encoding="utf-8")


def _hashed(source: str) -> str:
    """What the policy of the page calls a style or script by, so that no other is obeyed."""
    digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode("ascii")
    return f"'sha256-{digest}'"
