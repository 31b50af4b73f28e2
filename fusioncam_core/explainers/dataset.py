"""Explaining many images, in groups that suit the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fusioncam_core.data.progress import progress_bar
from fusioncam_core.data.sources import SourceTargets, length, prefetched, read, regrouped
from fusioncam_core.results.explanation import Explanation

if TYPE_CHECKING:
    from fusioncam_core.explainers.base import Explainer


def explain_many(
    explainer: Explainer,
    source: Any,
    targets: Any,
    *,
    preprocessing: Callable[[Any], Any] | None,
    prefetch: int,
    progress: bool | None,
) -> Iterator[Explanation]:
    """As `Explainer.explain_many`."""
    adapter = explainer.adapter
    size = adapter.execution.batch_size if explainer.batch_size == "auto" else int(explainer.batch_size)
    groups = regrouped(read(source, adapter, explainer.masked_input, explainer.shared, preprocessing, size), size)
    wanted = SourceTargets(targets)
    with progress_bar(length(source), f"{explainer.title}, images", progress) as advance:
        for group in prefetched(groups, prefetch):
            explanation = explainer._call(group.inputs, wanted.of(group), progress=False)
            for name, single in zip(group.names, explanation.split(), strict=True):
                yield single if name is None else replace(single, names=(name,))
                advance(1)
