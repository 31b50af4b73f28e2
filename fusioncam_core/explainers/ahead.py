"""What a framework may begin with while what comes before it is still explained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from fusioncam_core.models.adapter import ModelAdapter
from fusioncam_core.models.batch_size import Batching, Span
from fusioncam_core.models.inputs import Inputs, rows_of
from fusioncam_core.models.structure import is_array


class _Begun(NamedTuple):
    """Inputs of which some rows were begun with.

    Attributes:
        given: as they came, by which they are known again.
        inputs: as the model takes them.
        span: the rows.
        rows: the inputs of these, as the adapter was told of them.
        holds: whether the model is as it was then.
    """

    given: Any
    inputs: Inputs
    span: Span
    rows: Inputs
    holds: Callable[[], bool]


class Ahead:
    """What one explainer's adapter was told of before its turn: the next rows of a batch, the first ones of the next.

    Args:
        prepared: makes inputs of what is given, as the model takes them.
    """

    def __init__(self, prepared: Callable[[Any], Inputs]):
        self._prepared = prepared
        self._begun: _Begun | None = None
        self._kind: Any = None

    def inputs(self, given: Any) -> Inputs:
        """What is given, as the model takes it; with what was begun of it, if the model is still as it was then."""
        self._kind = _kind(given)
        begun = self._begun
        if begun is not None and begun.given is given and begun.holds():
            return begun.inputs
        self._begun = None
        return self._prepared(given)

    def rows(self, inputs: Inputs, span: Span) -> Inputs:
        """The inputs of a span's images."""
        begun, self._begun = self._begun, None
        if begun is not None and begun.inputs is inputs and begun.span == span:
            return begun.rows
        return rows_of(inputs, span.start, span.start + span.count)

    def tell(self, adapter: ModelAdapter, inputs: Inputs, span: Span, given: Any = None) -> None:
        """Tell the adapter of the images that come after those that it sees next."""
        rows = rows_of(inputs, span.start, span.start + span.count)
        holds = adapter.foresee(rows)
        self._begun = None if holds is None else _Begun(given, inputs, span, rows, holds)

    def tell_of_next(self, adapter: ModelAdapter, given: Any, groups: Batching) -> None:
        """The same of the next batch, if its images are like those of this one; others are looked at in their turn."""
        if self._kind is None or _kind(given) != self._kind:
            return
        span = groups.first(int(given.shape[0]))
        if span is not None:
            self.tell(adapter, self._prepared(given), span, given)

    def forget(self, adapter: ModelAdapter) -> None:
        """What was begun is not asked for: its memory is given back."""
        self._begun = None
        adapter.foresee(None)


def _kind(given: Any) -> Any:
    """What is alike of arrays of images, which then are prepared alike; None of one image, and of several inputs."""
    alone = is_array(given) and given.ndim > 1
    return (type(given), given.dtype, tuple(given.shape[1:])) if alone else None
