"""Explaining many images, in groups that suit the model."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from fusioncam_core import errors
from fusioncam_core.arrays.checks import require_word
from fusioncam_core.data.prefetching import Next, with_next
from fusioncam_core.data.progress import progress_bar
from fusioncam_core.data.sources import Group, SourceTargets, length, read, regrouped
from fusioncam_core.errors import SkippedImageWarning, warn
from fusioncam_core.explainers.diagnostics import images_called
from fusioncam_core.models.inputs import leaf
from fusioncam_core.results.explanation import Explanation
from fusioncam_core.results.provenance import plain

if TYPE_CHECKING:
    from fusioncam_core.explainers.base import Explainer

OnError = Literal["raise", "skip"]
"""What becomes of an image that cannot be explained."""


def explain_many(
    explainer: Explainer,
    source: Any,
    targets: Any,
    *,
    preprocessing: Callable[[Any], Any] | None,
    prefetch: int,
    progress: bool | None,
    on_error: OnError,
) -> Iterator[Explanation]:
    """As `Explainer.explain_many`."""
    require_word(on_error, "on_error", OnError)
    return _explained(explainer, source, targets, preprocessing, prefetch, progress, on_error)


def _explained(
    explainer: Explainer,
    source: Any,
    targets: Any,
    preprocessing: Callable[[Any], Any] | None,
    prefetch: int,
    progress: bool | None,
    on_error: OnError,
) -> Iterator[Explanation]:
    adapter = explainer.adapter
    size = adapter.execution.batch_size if explainer.batch_size == "auto" else int(explainer.batch_size)
    images = read(
        source,
        adapter,
        explainer.masked_input,
        explainer.shared,
        preprocessing,
        size,
        strict=on_error == "raise",
    )
    wanted = SourceTargets(targets)
    prepared = None if preprocessing is None else plain(preprocessing)
    bar = progress_bar(length(source), f"{explainer.title}, images", progress)
    ahead = with_next(regrouped(images, lambda group: _together(explainer, group)), prefetch)
    many = explainer._choice.many(length(source))
    with many, bar as advance, contextlib.closing(ahead) as groups, looking_ahead(explainer):
        for group, behind in groups:
            for single in _of_group(explainer, group, wanted, behind):
                if isinstance(single, LeftOut):
                    single.tell(on_error)
                else:
                    yield _with_preprocessing(single, prepared)
                advance(1)


def _together(explainer: Explainer, group: Group) -> int:
    """How many of such images are explained together now."""
    return explainer._steps.groups(leaf(group.inputs, explainer.masked_input)).wanted


@contextlib.contextmanager
def looking_ahead(explainer: Explainer) -> Iterator[None]:
    """A context in which the explainer's calls follow each other; at its end nothing is begun with any more."""
    try:
        yield
    finally:
        explainer._ahead.forget(explainer.adapter)


def _of_group(
    explainer: Explainer,
    group: Group,
    wanted: SourceTargets,
    behind: Next[Group],
    form: Callable[[Explanation], Explanation] | None = None,
) -> Iterator[Explanation | LeftOut]:
    """The explanation of each image; in halves, and halves of these, if something is wrong with one of them.

    Args:
        behind: a look at the next group.
        form: of the whole, before it is taken apart.
    """

    def inputs_behind() -> Any:
        found = behind()
        return None if found is None else found.inputs

    targets = wanted.of(group)
    try:
        with images_called(group.words):
            whole = explainer._call(group.inputs, targets, False, inputs_behind)
    except (ValueError, RuntimeError) as error:  # ours, and what models raise of values that they cannot take
        if len(group.places) == 1:
            yield LeftOut(group.places[0], group.words[0], error)
            return
        middle = len(group.places) // 2
        for part in (group.rows(0, middle), group.rows(middle, len(group.places))):
            yield from _of_group(explainer, part, wanted, behind, form)
        return
    yield from _in_its_places(whole if form is None else form(whole), group)


class LeftOut(NamedTuple):
    """An image that could not be explained.

    Attributes:
        place: in the source.
        image: what it is called in messages.
        error: the reason.
    """

    place: int
    image: str
    error: Exception

    def tell(self, on_error: OnError) -> None:
        """Raise or warn of the error, with the name of its image."""
        image, error = self.image, self.error
        if on_error == "skip":
            warn(f"{image[0].upper()}{image[1:]} of the source is left out: {error}", SkippedImageWarning)
            return
        if type(error) in vars(errors).values():
            raise type(error)(f"{image[0].upper()}{image[1:]} of the source: {error}") from error
        error.add_note(f"This is about {image} of the source.")
        raise error


def _in_its_places(whole: Explanation, group: Group) -> Explanation:
    """The explanation of a group, whose images are all of files or none is."""
    names, files = (tuple(each for each in of if each is not None) for of in (group.names, group.files))
    return replace(whole, indices=group.places, names=names, files=files)


def _with_preprocessing(single: Explanation, preprocessing: Any) -> Explanation:
    """Of a photograph, the explanation that says how it was prepared; arrays came as they were."""
    if not single.files or single.provenance is None:
        return single
    return replace(single, provenance=replace(single.provenance, preprocessing=preprocessing))
