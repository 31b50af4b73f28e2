"""An evaluation as tables: lines of text for a terminal, Markdown, LaTeX."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING

from fusioncam_core.evaluation.statistics import FEW, Interval
from fusioncam_core.visible import visible

if TYPE_CHECKING:
    from fusioncam_core.evaluation.results import Evaluation
    from fusioncam_core.metrics.metric import Metric

_WIDEST = 26
"""Columns of a method's name in a terminal, in lines of at most 80."""

_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{each: f"\\{each}" for each in "&%$#_{}"},
    **{each: f"${each}$" for each in "<>|"},
}

ALPHA = 0.05
"""Below it a corrected p-value gets a star."""


def text_lines(evaluation: Evaluation) -> Iterator[str]:
    """A table of means for each metric, and one of paired differences; at most 80 columns."""
    for metric in evaluation.metrics:
        yield ""
        yield f"{metric.title} ({metric.better} is better)"
        yield from _means(evaluation, metric)
        if len(evaluation.methods) > 1:
            yield from _differences(evaluation, metric)
    notes = [*evaluation.warnings]
    if len(evaluation.methods) > 1:
        notes.insert(0, f"p, * below {ALPHA}: {_tested(evaluation)}.")
    if notes:
        yield ""
        yield from (line for note in notes for line in _wrapped(note))


def _means(evaluation: Evaluation, metric: Metric) -> Iterator[str]:
    width = _width(evaluation)
    yield f"  {'method':{width}}  {'mean':>7}  {'95 % interval':>18}  {'n':>5}"
    for method in evaluation.ranking(metric.name):
        found = evaluation.mean(method, metric.name)
        yield f"  {_cut(method, width):{width}}  {found.mean:7.3f}  {_span(found):>18}  {found.n:5d}"


def _differences(evaluation: Evaluation, metric: Metric) -> Iterator[str]:
    width, p_values = _width(evaluation), evaluation.p_values()
    head = f"less {_cut(evaluation.reference, width - 5)}"
    yield f"  {head:{width}}  {'mean':>7}  {'95 % interval':>18}  {'p':>7}  better/equal/worse"
    for method in evaluation.ranking(metric.name):
        if method != evaluation.reference:
            versus = evaluation.against(method, metric.name)
            p = p_values[method, metric.name]
            counts = f"{versus.better}/{versus.equal}/{versus.worse}"
            mean = f"{versus.difference.mean:+7.3f}"
            span = f"{_span(versus.difference, '+'):>18}"
            yield f"  {_cut(method, width):{width}}  {mean}  {span}  {_p(p):>7}{_star(p)} {counts}"


def _width(evaluation: Evaluation) -> int:
    names = (*evaluation.methods, f"less {evaluation.reference}")
    return max(len("method"), *(min(len(visible(name)), _WIDEST) for name in names))


def _span(found: Interval, sign: str = "") -> str:
    return f"{found.low:{sign}.3f} to {found.high:{sign}.3f}"


def _p(value: float) -> str:
    return "" if math.isnan(value) else "<0.001" if value < 0.001 else f"{value:.3f}"


def _star(p: float) -> str:
    return "*" if p < ALPHA else " "


def _tested(evaluation: Evaluation) -> str:
    known = sum(not math.isnan(each) for each in evaluation.p_values().values())
    corrected = f", corrected for {known} comparisons (Holm)" if known > 1 else ""
    return f"paired permutation test of the mean difference{corrected}"


def _wrapped(text: str) -> Iterator[str]:
    """Lines of at most 80 columns."""
    yield from textwrap.wrap(text, 80, subsequent_indent="  ")


def markdown(evaluation: Evaluation) -> str:
    """A row for each method, a column for each metric: the mean, its interval, the best one bold; notes below."""
    heads = [f"{_marked_down(metric.title)} {_arrow(metric, '↑', '↓')}" for metric in evaluation.metrics]
    rows = [
        [_marked_down(evaluation.titles.get(method, method)), *_cells(evaluation, method, "**{}**", r"\*")]
        for method in evaluation.methods
    ]
    lines = [["method", *heads], ["---", *("---:" for _ in heads)], *rows]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{table}\n\n{_marked_down(' '.join(_notes(evaluation)))}\n"


def latex(evaluation: Evaluation) -> str:
    """The same as a `table` with a caption, for the package booktabs."""
    up, down = r"$\uparrow$", r"$\downarrow$"
    heads = [f"{_escaped(metric.title)} {_arrow(metric, up, down)}" for metric in evaluation.metrics]
    rows = [
        [_escaped(evaluation.titles.get(method, method)), *_cells(evaluation, method, r"\textbf{{{}}}", "$^{*}$")]
        for method in evaluation.methods
    ]
    body = "\n".join(f"{' & '.join(row)} \\\\" for row in rows)
    return (
        "\\begin{table}\n\\centering\n"
        f"\\caption{{{_escaped(' '.join(_notes(evaluation)))}}}\n"
        f"\\begin{{tabular}}{{l{'r' * len(heads)}}}\n\\toprule\n"
        f"Method & {' & '.join(heads)} \\\\\n\\midrule\n{body}\n\\bottomrule\n\\end{{tabular}}\n\\end{{table}}\n"
    )


def _cells(evaluation: Evaluation, method: str, bold: str, star: str) -> Iterator[str]:
    """A method's means with their intervals."""
    p_values = evaluation.p_values()
    for metric in evaluation.metrics:
        found = evaluation.mean(method, metric.name)
        if not found.n:
            yield "–"
            continue
        best = evaluation.mean(evaluation.ranking(metric.name)[0], metric.name).mean
        mean = bold.format(f"{found.mean:.3f}") if found.mean == best else f"{found.mean:.3f}"
        starred = star if p_values.get((method, metric.name), 1.0) < ALPHA else ""
        fewer = f" (n = {found.n})" if found.n < len(evaluation.images) else ""
        yield f"{mean} [{found.low:.3f}, {found.high:.3f}]{starred}{fewer}"


def _notes(evaluation: Evaluation) -> Iterator[str]:
    yield (
        f"{visible(evaluation.model)}, {len(evaluation.images)} images: means with bootstrap intervals of 95 %, "
        "the best in bold."
    )
    if len(evaluation.methods) > 1:
        reference = evaluation.titles.get(evaluation.reference, evaluation.reference)
        yield f"* differs from {visible(reference)} (p < {ALPHA}, {_tested(evaluation)})."
    yield from evaluation.warnings


def few_images(count: int) -> Iterator[str]:
    """What is to be said where there are few."""
    if count < FEW:
        yield (
            f"Warning: {count} image{'s are' if count != 1 else ' is'} few. Intervals of fewer than {FEW} hold the "
            "mean less often than in 95 %, and few differences can be told from chance."
        )


def _arrow(metric: Metric, up: str, down: str) -> str:
    return up if metric.better == "higher" else down


def _marked_down(text: str) -> str:
    return re.sub(r"([\\`*_\[\]<>|])", r"\\\1", visible(text))


def _escaped(text: str) -> str:
    return "".join(_LATEX.get(each, each) for each in visible(text))


def _cut(text: str, width: int) -> str:
    shown = visible(text)
    return shown if len(shown) <= width else shown[: width - 1] + "…"
