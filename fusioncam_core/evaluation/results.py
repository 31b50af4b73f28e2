"""What an evaluation found: values of every image, means with intervals, comparisons, tables and pictures."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fusioncam_core.errors import UnknownNameError
from fusioncam_core.evaluation import tables
from fusioncam_core.evaluation.statistics import Comparison, Interval, compare, holm, interval
from fusioncam_core.metrics.metric import Metric
from fusioncam_core.results.writing import MARK, TABLE, identities, require_free, software, write_files

Values = npt.NDArray[np.float64]


_WRITTEN, _DRAWN = ("values.csv", "summary.json", "summary.txt"), ("ranking.png", "differences.png", "curves.png")
"""What the files of an evaluation are called."""


class Problem(NamedTuple):
    """A value that is missing: of which image, method and metric (or all of them, None), and why."""

    image: str
    method: str | None
    metric: str | None
    reason: str


@dataclass(frozen=True)
class Evaluation:
    """Methods on images by metrics.

    Attributes:
        model: the name of the model's class.
        images: (N) names.
        targets: (N,) the explained classes.
        probabilities: (N,) of them, for the plain images.
        methods: (M) names.
        metrics: (L) the metrics, with their options.
        values: (M, L, N) the value of every image; NaN where it is undefined.
        curves: by metric, for those that follow a curve: (M, N, n) the curves at `fractions` (n,). Those of many
            images, more than 16 MiB, are read from the file of values when they are asked for.
        fractions: by metric.
        reference: the method that others are compared with.
        problems: what is missing, and why.
        titles: what methods are called in pictures and documents, such as "Grad-CAM"; those that have none, by their
            name.

    Examples:
        >>> import torch
        >>> from fusioncam_core import evaluate
        >>> model = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        >>> strip = torch.tensor([[[[4.0, 2, 0, 0]], [[0, 0, 0, 8]]]])  # red on the left, green on the right
        >>> strips = torch.cat([strip, strip])
        >>> found = evaluate(model, strips, ["grad-cam", "eigen-cam"], ["complexity"], targets=0, layer="0")
        >>> found.ranking("complexity")  # the best first: the smallest maps
        ['eigen-cam', 'grad-cam']
        >>> found.values.shape  # methods, metrics, images
        (2, 1, 2)
        >>> found.against("eigen-cam", "complexity")
        Comparison(difference=Interval(mean=-0.125, low=-0.125, high=-0.125, n=2), better=2, equal=0, worse=0, p=0.5)
    """

    model: str
    images: tuple[str, ...]
    targets: npt.NDArray[np.int64]
    probabilities: Values
    methods: tuple[str, ...]
    metrics: tuple[Metric, ...]
    values: Values
    curves: Mapping[str, Values]
    fractions: Mapping[str, Values]
    reference: str
    problems: tuple[Problem, ...] = ()
    titles: Mapping[str, str] = field(default_factory=dict)

    def of(self, method: str, metric: str) -> Values:
        """(N,) the values of a method by a metric.

        Raises:
            KeyError: if there is none of that name.
        """
        names = [each.name for each in self.metrics]
        if method not in self.methods or metric not in names:
            raise UnknownNameError(
                f"There is no {metric!r} of {method!r}: methods {self.methods}, metrics {tuple(names)}."
            )
        found: Values = self.values[self.methods.index(method), names.index(metric)]
        return found

    def mean(self, method: str, metric: str) -> Interval:
        """The mean over the images that have a value, with its bootstrap interval of 95 %."""
        return interval(self.of(method, metric))

    def against(self, method: str, metric: str, reference: str | None = None) -> Comparison:
        """A method's values less the reference's, image by image."""
        other = self.of(self.reference if reference is None else reference, metric)
        direction = next(each.better for each in self.metrics if each.name == metric)
        return compare(self.of(method, metric), other, direction)

    def p_values(self) -> dict[tuple[str, str], float]:
        """By method and metric, the p-value of its difference from the reference, corrected for all of these.

        Each is of the paired permutation test of the mean difference; Holm's method corrects them for the number of
        comparisons in this evaluation: methods besides the reference, times metrics. NaN where there is no pair.
        """
        pairs = [(each, metric.name) for metric in self.metrics for each in self.methods if each != self.reference]
        return dict(zip(pairs, holm([self.against(*pair).p for pair in pairs]), strict=True))

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is to be known before the numbers are believed, in sentences."""
        return tuple(tables.few_images(len(self.images)))

    def ranking(self, metric: str) -> list[str]:
        """The methods from the best mean to the worst; those without a value last."""
        direction = next(each.better for each in self.metrics if each.name == metric)
        sign = -1 if direction == "higher" else 1
        means = {method: self.mean(method, metric).mean for method in self.methods}
        return sorted(self.methods, key=lambda method: (math.isnan(means[method]), sign * means[method]))

    def lines(self) -> Iterator[str]:
        """The evaluation as text of at most 80 columns: tables for each metric, notes, and what is missing."""
        yield f"{self.model}: {len(self.images)} images, {len(self.methods)} methods"
        yield from tables.text_lines(self)
        if self.problems:
            yield ""
            yield from problem_lines(self.problems)

    def to_markdown(self) -> str:
        """A table in Markdown: a row for each method, a column for each metric, with what the numbers are below it."""
        return tables.markdown(self)

    def to_latex(self) -> str:
        """The same table in LaTeX, with the rules of its package booktabs."""
        return tables.latex(self)

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def rows(self) -> Iterator[dict[str, Any]]:
        """One row for each image, method and metric."""
        for m, method in enumerate(self.methods):
            for k, metric in enumerate(self.metrics):
                for n, image in enumerate(self.images):
                    value = float(self.values[m, k, n])
                    yield {
                        "image": image,
                        "target": int(self.targets[n]),
                        "probability": float(self.probabilities[n]),
                        "method": method,
                        "metric": metric.name,
                        "value": None if math.isnan(value) else value,
                    }

    def to_csv(self) -> str:
        """`rows` as a table of comma-separated values; an undefined value is empty."""
        return "".join(self._csv_lines())

    def _csv_lines(self) -> Iterator[str]:
        yield f"{','.join(TABLE)}\n"
        line = _Line()
        writer = csv.writer(line, lineterminator="\n")
        for row in self.rows():
            writer.writerow([row[name] for name in TABLE])
            yield line.text

    def to_json(self) -> str:
        """Means, intervals and comparisons by metric and method, and what is missing."""
        p_values = self.p_values()
        summary = {
            metric.name: {
                "title": metric.title,
                "better": metric.better,
                "options": repr(metric),
                "methods": {
                    method: self._numbers(method, metric.name, p_values.get((method, metric.name), math.nan))
                    for method in self.ranking(metric.name)
                },
            }
            for metric in self.metrics
        }
        whole = {
            MARK: "evaluation",  # first, where it is looked for
            "model": self.model,
            "images": len(self.images),
            "reference": self.reference,
            "metrics": summary,
            "warnings": list(self.warnings),
            "problems": [problem._asdict() for problem in self.problems],
        }
        return json.dumps(whole, indent=1, allow_nan=False)

    def _numbers(self, method: str, metric: str, corrected: float) -> dict[str, Any]:
        versus = self.against(method, metric)
        return {
            **_plain(self.mean(method, metric)),
            "less_reference": _plain(versus.difference),
            "better": versus.better,
            "equal": versus.equal,
            "worse": versus.worse,
            "p": None if method == self.reference else _number(versus.p),
            "p_corrected": _number(corrected),
        }

    def save(
        self,
        directory: str | Path,
        *,
        pictures: bool = True,
        overwrite: bool = True,
        inputs: Iterable[str | Path] = (),
    ) -> list[Path]:
        """Write values.csv, summary.json, summary.txt, and pictures: ranking.png, differences.png and curves.png.

        They are written together: all of them, or after an error none. A file of one of these names that is no
        evaluation of ours is never replaced.

        Args:
            directory: is made if it is not there.
            pictures: False leaves them out.
            overwrite: whether the files of an earlier evaluation are replaced, as where one goes on in its folder.
            inputs: the photographs that were read, which are never replaced, even where they are pictures of ours.

        Returns:
            The files written; differences.png only of several methods, curves.png where a metric follows curves.

        Raises:
            ValueError: if a file is in the way; nothing is written then.
            OSError: if a file cannot be written; the error names it.
            MissingExtra: if matplotlib is not installed.
        """
        missing = {"curves.png"} if not self.curves else set()
        missing |= {"differences.png"} if len(self.methods) < 2 else set()
        drawn = [name for name in _DRAWN if name not in missing] if pictures else []
        contents = {Path(directory) / name: self._content(name) for name in (*_WRITTEN, *drawn)}
        return write_files(contents, "evaluation", overwrite=overwrite, inputs=identities(inputs))

    def _content(self, name: str) -> bytes | Iterator[bytes]:
        """One of the files; the one that grows with the images line after line."""
        if name.endswith(".png"):
            from fusioncam_core.evaluation import plots

            draw = {"ranking.png": plots.ranking_png, "differences.png": plots.differences_png}
            return draw.get(name, plots.curves_png)(self)
        if name == "values.csv":
            return (_encoded(line) for line in self._csv_lines())
        texts: dict[str, Callable[[], str]] = {
            "summary.json": lambda: f"{self.to_json()}\n",
            "summary.txt": lambda: f"{software('evaluation')}\n{self}\n",
        }
        return _encoded(texts[name]())


class _Line:
    """What a csv writer wrote last."""

    def write(self, text: str) -> None:
        self.text = text


def _encoded(text: str) -> bytes:
    """Bytes of a photograph's name that are no UTF-8 are written as escapes."""
    return text.encode("utf-8", "backslashreplace")


def require_place(
    directory: str | Path, *, pictures: bool = True, overwrite: bool = True, inputs: Iterable[str | Path] = ()
) -> None:
    """Look whether `Evaluation.save` can write into a folder, before the work of an evaluation is done.

    Args:
        directory: and the others, as for `Evaluation.save`.
        pictures: whether there will be any.
        overwrite: whether the files of an earlier evaluation are replaced.
        inputs: the photographs.

    Raises:
        ValueError: if a file is in the way; it is named.
    """
    names = (*_WRITTEN, *(_DRAWN if pictures else ()))
    paths = [Path(directory) / name for name in names]
    require_free(paths, "evaluation", overwrite=overwrite, inputs=identities(inputs))


def problem_lines(problems: Sequence[Problem]) -> Iterator[str]:
    """What is missing, one line a reason, with the images it concerns."""
    grouped: dict[tuple[str, str | None, str | None], list[str]] = {}
    for problem in problems:
        grouped.setdefault((problem.reason, problem.method, problem.metric), []).append(problem.image)
    yield "Left out:"
    for (reason, method, metric), images in grouped.items():
        where = ", ".join(each for each in (method, metric) if each is not None)
        named = ", ".join(images[:3]) + (f" and {len(images) - 3} more" if len(images) > 3 else "")
        yield f"  {named}{f' ({where})' if where else ''}: {reason}"


def _plain(found: Interval) -> dict[str, float | int | None]:
    """An interval for JSON, which has no NaN."""
    return {name: _number(value) for name, value in found._asdict().items()}


def _number(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value
