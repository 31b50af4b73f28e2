"""Explanations and layers as lines of text for a terminal of 80 columns."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fusioncam_core.results.digits import probability_text
from fusioncam_core.visible import visible

if TYPE_CHECKING:
    from fusioncam_core.explainers.registry import Capabilities
    from fusioncam_core.models.adapter import LayerInfo
    from fusioncam_core.results.explanation import Explanation

_TOP = 5


_MOST_TARGETS = 10
"""Targets that are shown of one photograph; its file of numbers has them all."""


_NAME_WIDTH = 48


_LAYER_HEADER = ("layer", "kind", "output", "measured")


_GROUP_HEADER = ("layer", "kind", "output", "inside")


_SCREEN = 80


_SEQUENCES = ("Sequential", "ModuleList", "List")
"""Kinds of containers that are no block, but hold some."""


_NAMED_BLOCK = re.compile(r"(?:(?:conv|stage|stack)_?\d+_)?(?:block|unit|cell)_?\d+[a-z]?(?=_)")
"""How the names of the layers of one block begin in Keras' applications, whose models are flat."""


# Rows and columns of the table of Fusion-CAM's contributions, by the name of the weight in every cell.
_FUSION_COLUMNS = ("probability", "contribution", "union weight", "fusion weight")


_FUSION_ROWS = {
    "baseline": ("probability_baseline", "", "", ""),
    "denoised": ("probability_denoised", "contribution_denoised", "weight_denoised", ""),
    "region": ("probability_region", "contribution_region", "weight_region", "fusion_weight_region"),
    "union": ("probability_union", "contribution_union", "", "fusion_weight_union"),
}


_LEGEND = (
    "  probability    how likely the class still is when the model sees no more than",
    "                 the map of that row keeps; of the baseline: nothing at all",
    "  contribution   that probability less the baseline's: what the region of the",
    "                 map alone tells the model. Where it is near 0 or below, the",
    "                 model does not recognise the class by that region, and the",
    "                 map is not to be relied on",
    "  union weight   the shares of the two maps in their sum, the union: as their",
    "                 contributions are",
    "  fusion weight  the shares of the union and of Score-CAM in the final map",
    "A contribution tells what the model uses, not whether it is right to use it.",
)


def photograph_report(
    path: str, explanation: Explanation, class_names: Sequence[str] | None, written: Sequence[Path]
) -> Iterator[str]:
    """The lines about one photograph: its top classes, if classes were explained, the targets, and the files.

    Of many targets the first ten are shown. Names come out as `visible` has them.

    Args:
        path: of the photograph.
        explanation: of NumPy arrays, of this photograph alone.
        class_names: one per class, in the order of the model's outputs, or None.
        written: the files that were written, which differ in their endings.
    """
    yield visible(path)
    if not explanation.target_names or not all(explanation.target_names[0]):
        yield from _top_classes(explanation.class_probabilities[0], class_names)
    method = explanation.titles.get("maps", explanation.method)
    evaluations = f"{explanation.evaluations} model evaluation{'s' * (explanation.evaluations != 1)}"
    yield f"  {visible(method)}, layer {visible(explanation.layer)}, {evaluations}"
    if explanation.masks_run is not None and explanation.uncertainty is not None and explanation.uncertainty.max() > 0:
        moves = f"the region map may still move by {explanation.uncertainty.max():.3f}"
        yield f"  {int(explanation.masks_run[0])} masks run; {moves}"
    for numbers in itertools.islice(target_numbers(explanation, 0, class_names), _MOST_TARGETS):
        yield f"  {_title(numbers)}: {_values(numbers)}"
        yield from _weight_table(numbers["weights"], explanation.titles, of_class=numbers["class"] is not None)
    more = np.atleast_1d(explanation.targets[0]).size - _MOST_TARGETS
    if more > 0:
        yield f"  and {more} more target{'s' * (more != 1)}: the file of numbers has all of them"
    endings = [file.suffix for file in written[1:]]
    yield f"  wrote {visible(', '.join([str(written[0]), *endings]))}"


def layer_table(layers: Sequence[LayerInfo], default: str | None = None) -> Iterator[str]:
    """The lines about a model's layers, in the order given, the default one marked.

    Args:
        layers: any number.
        default: the name of the default layer where the model's loader chose it; otherwise the layers say it.
    """
    marks = _marks(layers, default)
    rows = [(layer.name, _kind(layer), _lengths(layer), layer.finding) for layer in layers]
    yield from _marked_rows(_LAYER_HEADER, rows, marks)
    yield ""
    yield from _about_the_mark(layers, marks, marks)


def grouped_table(layers: Sequence[LayerInfo], default: str | None, last: int) -> Iterator[str]:
    """The lines about the last layers, each block in one row, which fit a screen.

    A row is called like its last layer, which is the block itself where that is a layer: its output is what comes out
    of the block. The default layer has a row of its own.

    Args:
        layers: in the order in which they run, any number.
        default: as for `layer_table`.
        last: how many rows, from the end.
    """
    marks = _marks(layers, default)
    groups = list(_groups(layers, marks))[-last:]
    rows = _narrowed([_group_row([layers[place] for place in group]) for group in groups])
    shown = [marks[group[-1]] for group in groups]
    yield from _marked_rows(_GROUP_HEADER, rows, shown)
    yield ""
    listed = sum(map(len, groups))
    if listed < len(layers):
        yield f"{len(layers) - listed} more before them"
    if any(len(group) > 1 for group in groups):
        yield "inside: further layers of the block; without --last each has a row"
    yield from _about_the_mark(layers, marks, shown)


def _marks(layers: Sequence[LayerInfo], default: str | None) -> list[bool]:
    return [layer.default if default is None else layer.name == default for layer in layers]


def _marked_rows(header: Sequence[str], rows: Sequence[Sequence[str]], marks: Sequence[bool]) -> Iterator[str]:
    cells = [header, *(tuple(map(visible, row)) for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header) - 1)]
    for mark, row in zip([" ", *("*" if each else " " for each in marks)], cells, strict=True):
        padded = (f"{each:{width}}" for each, width in zip(row, [*widths, 0], strict=True))
        yield f"{mark} {'  '.join(padded)}".rstrip()


def _about_the_mark(layers: Sequence[LayerInfo], marks: Sequence[bool], shown: Sequence[bool]) -> Iterator[str]:
    if any(shown):
        yield "* the layer that is explained by default"
    elif any(marks):
        yield f"{visible(layers[marks.index(True)].name)} is the layer that is explained by default"
    else:
        yield "No layer has spatial extent."


def _groups(layers: Sequence[LayerInfo], marks: Sequence[bool]) -> Iterator[list[int]]:
    """The places of layers that follow one another in one block."""
    containers = {prefix for layer in layers for prefix in _prefixes(layer.name)}
    kinds = {layer.name: layer.kind for layer in layers}
    keys = [
        f"{place}" if mark else _block(layer.name, containers, kinds)
        for place, (layer, mark) in enumerate(zip(layers, marks, strict=True))
    ]
    for _, group in itertools.groupby(range(len(layers)), key=keys.__getitem__):
        yield list(group)


def _block(name: str, containers: AbstractSet[str], kinds: Mapping[str, str]) -> str:
    """The block that a layer is in: the outermost numbered part of its path that is no mere sequence.

    Without such parts, as in Keras' functional models, the beginning of the name up to its last number but one, as in
    "conv5_block3" of "conv5_block3_2_conv"; and if there is none, the name itself.
    """
    for prefix in (*_prefixes(name), name):
        numbered = re.search(r"\d\]?$", prefix) is not None
        if numbered and prefix in containers and kinds.get(prefix) not in _SEQUENCES:
            return prefix
    found = _NAMED_BLOCK.match(name)
    return found[0] if found else name


def _prefixes(name: str) -> list[str]:
    """The containers of a layer by its path, the outermost first: "a", "a[0]" of "a[0].b"."""
    return [name[: found.start()] for found in re.finditer(r"[./\[]", name) if found.start()]


def _group_row(group: Sequence[LayerInfo]) -> tuple[str, str, str, str]:
    *inside, layer = group
    return layer.name, _kind(layer), _lengths(layer), f"{len(inside)}" if inside else ""


def _narrowed(rows: Sequence[tuple[str, str, str, str]]) -> list[tuple[str, str, str, str]]:
    """The rows with kinds so short that 80 columns hold them; names stay whole, since `--layer` takes them."""
    taken = sum(max(map(len, column)) for column in list(zip(_GROUP_HEADER, *rows, strict=True))[::2])
    left = max(_SCREEN - taken - len(_GROUP_HEADER[-1]) - len("* ") - 3 * len("  "), len(_GROUP_HEADER[1]))
    return [(name, _fit(kind, left), output, inside) for name, kind, output, inside in rows]


def _lengths(layer: LayerInfo) -> str:
    return " x ".join(map(str, layer.shape[1:]))


def _kind(layer: LayerInfo) -> str:
    return f"{layer.kind}, then {layer.followed_by}" if layer.followed_by else layer.kind


def method_table(methods: Sequence[Capabilities]) -> Iterator[str]:
    """The lines about the methods: what each needs, and its paper."""
    width = max(len(visible(method.name)) for method in methods)
    yield f"{'method':{width}}  {'family':8}  {'gradients':9}  {'layer':5}  {'masks':5}  {'seed':4}  paper"
    for method in methods:
        needs = (method.needs_gradients, method.needs_layer, method.runs_masked, method.seeded)
        marks = (f"{'yes' if need else '-':{space}}" for need, space in zip(needs, (9, 5, 5, 4), strict=True))
        yield f"{visible(method.name):{width}}  {method.family:8}  {'  '.join(marks)}  {visible(method.paper)}"


def _top_classes(probabilities: npt.NDArray[Any], class_names: Sequence[str] | None) -> Iterator[str]:
    yield f"  {'class':>7}  {'name':{_NAME_WIDTH}}  {'probability':>11}"
    for index in np.argsort(-probabilities, kind="stable")[:_TOP].tolist():
        name = "" if class_names is None else _fit(class_names[index], _NAME_WIDTH)
        yield f"  {index:7d}  {name:{_NAME_WIDTH}}  {probabilities[index]:11.4f}"


def table_legend(explanation: Explanation) -> Iterator[str]:
    """What the numbers of `photograph_report` mean, in plain words; of weights where the method has any.

    Args:
        explanation: one of those that were reported.
    """
    yield "What the numbers mean"
    yield "  p, logit       how likely the class is, says the model of the whole picture;"
    yield "                 and its output before that was made a probability"
    functions = bool(explanation.target_names) and any(explanation.target_names[0])
    if functions:
        yield "  value          of a contrast or another function of the outputs, which has"
        yield "                 no probability; of two classes the difference of their logits"
    if any(cell in explanation.weights for cells in _FUSION_ROWS.values() for cell in cells):
        yield from _LEGEND


def _title(numbers: Mapping[str, Any]) -> str:
    if numbers["class"] is None:
        return _fit(numbers["name"], _NAME_WIDTH)
    if numbers["name"] is None:
        return f"class {numbers['class']}"
    return f"{_fit(numbers['name'], _NAME_WIDTH - 10)} ({numbers['class']})"


def _values(numbers: Mapping[str, Any]) -> str:
    """A class's probability and logit; of a function, which is both by itself, its value."""
    if numbers["class"] is None:
        return f"value {numbers['score']:.3f}"
    return f"p = {probability_text(numbers['probability'])}, logit {numbers['score']:.3f}"


def _weight_table(weights: Mapping[str, float], titles: Mapping[str, str], *, of_class: bool) -> Iterator[str]:
    """The stages that have weights, and the weights they have; of a function its values stand in for probabilities."""
    if not weights:
        return
    width = max(len(titles.get(stage, stage)) for stage in _FUSION_ROWS)
    first = f"{'probability' if of_class else 'value':>{len(_FUSION_COLUMNS[0])}}"
    yield f"    {'':{width}}  {'  '.join((first, *_FUSION_COLUMNS[1:]))}"
    for stage, cells in _FUSION_ROWS.items():
        values = [f"{weights[cell]:.4f}" if cell in weights else "" for cell in cells]
        columns = (f"{value:>{len(head)}}" for value, head in zip(values, _FUSION_COLUMNS, strict=True))
        if any(values):
            yield f"    {titles.get(stage, stage):{width}}  {'  '.join(columns)}".rstrip()


def _fit(text: str, width: int) -> str:
    text = visible(text)
    return text if len(text) <= width else text[: width - 1] + "…"


def target_numbers(
    explanation: Explanation, index: int, class_names: Sequence[str] | None = None
) -> Iterator[dict[str, Any]]:
    """For every target of one image its class, name, score, probability and weights, as plain numbers.

    A function has a name and no class.

    Args:
        explanation: of NumPy arrays.
        index: of the image in the batch.
        class_names: one per class, in the order of the model's outputs.

    Yields:
        "class" is None for a function, which has a name, and its value for a probability.
    """
    targets = np.atleast_1d(explanation.targets[index])
    scores = np.atleast_1d(explanation.scores[index])
    probabilities = np.atleast_1d(explanation.probabilities[index])
    weights = {name: np.atleast_1d(values[index]) for name, values in explanation.weights.items()}
    names = explanation.target_names[index] if explanation.target_names else ("",) * len(targets)
    for k, target in enumerate(targets.tolist()):
        yield {
            "class": None if names[k] else target,
            "name": names[k] or (None if class_names is None else class_names[target]),
            "score": _shortest(scores[k]),
            "probability": _shortest(probabilities[k]),
            "weights": {name: _shortest(values[k]) for name, values in weights.items()},
        }


def _shortest(value: np.floating[Any]) -> float:
    """The number with the fewest digits that is still the same in the array's own precision."""
    return float(str(value))
