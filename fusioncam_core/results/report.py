"""Explanations as one page that a browser opens by itself: no network, no other file, nothing of others run."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fusioncam_core.errors import InvalidTypeError, InvalidValueError
from fusioncam_core.extras import require
from fusioncam_core.results.drawable import (
    check_class_names,
    check_drawable,
    check_photographs,
    check_style,
    panels_of,
)
from fusioncam_core.results.files import default_names
from fusioncam_core.results.pictures import method_title, shown_of, signed_panels, titles_of
from fusioncam_core.results.report_contents import drawn_of, origin_of, pictures_of, targets_of
from fusioncam_core.results.report_images import scale_address
from fusioncam_core.results.style import DEFAULT_STYLE, Style
from fusioncam_core.results.writing import Identity, identities, require_free, software, write_files
from fusioncam_core.visible import visible

if TYPE_CHECKING:
    from fusioncam_core.data.preprocessing import Preprocessing
    from fusioncam_core.results.explanation import Explanation

_TEMPLATE = "report_template"

_TO_SCRIPT = ("label", "value", "p", "c", "notes", "meanings", "muted")
"""Of a target, what cards are sorted, filtered and labelled by."""


@dataclass
class _Contents:
    """What the page shows.

    Attributes:
        images: of each image what the template writes down.
        origins: how the explanations came to be, each once.
        left_out: images that are not in it, and why.
        signed: of the maps there are, whether they have values below 0.
        stages: all that were drawn, by name, with their titles.
        inputs: files that are not to be replaced.
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
        self._style = replace(style, dpi=DEFAULT_STYLE.dpi)
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
            drawn = drawn_of(explanation, index, self._style, signed)
            targets = targets_of(explanation, index, class_names, drawn)
            shown = shown_of(explanation, index, photograph, preprocessing, self._style)
            self._contents.images.append(
                {
                    "name": visible(name),
                    "method": visible(method_title(explanation)),
                    "origin": origin,
                    "stages": stages,
                    "targets": targets,
                    "pictures": pictures_of(shown, drawn, targets, self._style, signed),
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
        own = origin_of(explanation)
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
    three stages of Fusion-CAM. Photographs go into it at up to 640 pixels and without the data of their files, such as
    places and names of cameras; of their paths it has the images' names alone.

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

    Examples:
        >>> import torch
        >>> from fusioncam_core import GradCAM, write_report
        >>> model = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        >>> strip = torch.tensor([[[[4.0, 2, 0, 0]], [[0, 0, 0, 8]]]])  # red on the left, green on the right
        >>> import tempfile
        >>> import numpy as np
        >>> explanation, photograph = GradCAM(model, "0")(strip, 0), np.zeros((1, 4, 3), np.uint8)
        >>> folder = tempfile.TemporaryDirectory()
        >>> write_report(folder.name + "/maps.html", explanation, [photograph], title="A strip").name
        'maps.html'
        >>> folder.cleanup()
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
