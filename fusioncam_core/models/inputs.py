"""The model's inputs: one array of images, or several arrays, and more beside them, of which one array is explained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fusioncam_core.arrays.namespaces import Array, Namespace
from fusioncam_core.errors import InvalidTypeError, InvalidValueError
from fusioncam_core.models.calling import call_with
from fusioncam_core.models.structure import (
    Path,
    Shared,
    at,
    entries,
    found,
    is_array,
    is_container,
    map_arrays,
    map_rows,
    named,
    rebuilt,
    replaced,
)

if TYPE_CHECKING:
    from fusioncam_core.models.adapter import ModelAdapter

Inputs = Any
"""An array (B, ...), or a tuple, list or mapping, nested at will, of such arrays, of arrays that all images share (as
`Shared`) and of whatever else the model takes."""

Which = int | str | Path | None
"""The position, the name or the path of the explained input; None when there is only one."""

map_leaves = map_arrays
"""(a function of arrays, inputs) -> the same with what it makes of each array, the shared ones among them."""

__all__ = [
    "Inputs",
    "Which",
    "batch_length",
    "call_with",
    "leaf",
    "leaves",
    "map_leaves",
    "map_rows",
    "marked",
    "prepare",
    "require_paths",
    "rows_of",
    "steps",
    "taken",
    "with_leaf",
]


def steps(which: Which) -> Path:
    """The path to the explained input."""
    if which is None:
        return ()
    return which if isinstance(which, tuple) else (which,)


def require_paths(paths: Any) -> tuple[int | str | Path, ...]:
    """Positions, names and paths of inputs; a single position or name stands for one of it.

    Raises:
        InvalidTypeError: for anything else.
    """
    given = (paths,) if isinstance(paths, str | int) else paths
    if not isinstance(given, Sequence) or not all(isinstance(each, str | int | tuple) for each in given):
        raise InvalidTypeError(
            f"shared lists positions, names or paths of inputs, such as ['input_ids']: got {paths!r}."
        )
    return tuple(given)


def leaf(inputs: Inputs, which: Which) -> Array:
    """The explained array of the inputs."""
    for step in steps(which):
        inputs = inputs[step]
    return inputs


def with_leaf(inputs: Inputs, which: Which, array: Array) -> Inputs:
    """The inputs with another explained array."""
    return replaced(inputs, steps(which), array)


def leaves(inputs: Inputs) -> list[Array]:
    """All arrays of the inputs that have a row an image."""
    if is_array(inputs):
        return [inputs]
    return [each for _, each in found(inputs) if not isinstance(each, Shared) and each.ndim]


def rows_of(inputs: Inputs, start: int, stop: int) -> Inputs:
    """The inputs of some neighbouring images."""
    return map_rows(lambda each: each[start:stop, ...], inputs)


def taken(inputs: Inputs, rows: Array, xp: Namespace) -> Inputs:
    """The inputs of some images, by their numbers (n,), which may come several times."""
    return map_rows(lambda each: xp.take(each, rows, axis=0), inputs)


def batch_length(inputs: Inputs) -> int:
    """How many images the inputs hold."""
    return int((inputs if is_array(inputs) else leaves(inputs)[0]).shape[0])


def is_one(inputs: Inputs) -> bool:
    """Whether the inputs hold one image; not if they are recorded for any number."""
    return bool((inputs if is_array(inputs) else leaves(inputs)[0]).shape[0] == 1)


def prepare(
    adapter: ModelAdapter,
    images: Any,
    which: Which,
    shared: Sequence[int | str | Path] = (),
    *,
    channel_axis: int | None = 1,
    input_ndim: int | None = None,
) -> Inputs:
    """The images as the model takes them: on its device, of its dtype, with a batch axis.

    Args:
        adapter: of the model.
        images: an array, or with `which` a tuple, list or dict, nested at will, of arrays and whatever else.
        which: the position, name or path of the input that is explained.
        shared: positions, names or paths of inputs that all images share.
        channel_axis: where a batch has its channels, or None.
        input_ndim: the axes of a batch, where they are known better than by the adapter.

    Raises:
        TypeError: if an image is no floating array, or several inputs came without `which`.
        ValueError: for a wrong number of axes, an empty batch, inputs of different batch sizes, or a
            `which` or `shared` that is not among the inputs.
    """
    if which is not None:
        return _prepare_several(adapter, images, steps(which), shared)
    if shared:
        raise InvalidValueError(
            f"shared={list(shared)!r} names some of several inputs: say with masked_input= which one is explained."
        )
    if is_container(images):
        raise InvalidTypeError(_no_single_input(images))
    array = adapter.as_array(images)
    expected = input_ndim if input_ndim is not None else expected_ndim(adapter, channel_axis, array)
    exact = input_ndim is not None or adapter.input_ndim_is_declared
    return _check_images(array, expected, adapter, exact=exact)


def expected_ndim(adapter: ModelAdapter, channel_axis: int | None, images: Array) -> int | None:
    """The axes of a batch; of inputs whose channels lie elsewhere than a layer has them, as far as it can be told."""
    told = adapter.batch_ndim(images)
    if told is None or adapter.input_ndim_is_declared or channel_axis in (1, -1):
        return told
    if channel_axis is None:
        return told - 1
    if told <= 3 or channel_axis < 0:
        return None
    # Channels come last, or there are frames before them, and an image's two axes behind.
    possible = [count for count in (channel_axis + 1, channel_axis + 3) if count >= told] or [told]
    return next((count for count in possible if count - images.ndim in (0, 1)), possible[-1])


def _no_single_input(images: Any) -> str:
    arrays = [(path, each) for path, each in found(images) if isinstance(each, Shared) or each.ndim]
    kind = type(images).__qualname__
    sizes = {tuple(each.shape) for _, each in arrays if not isinstance(each, Shared)}
    if isinstance(images, list | tuple) and len(sizes) > 1 and len({len(size) for size in sizes}) == 1:
        stack = "Images of one size are stacked into a batch; those of different sizes are explained one by one"
    else:
        stack = "Stack equal-sized images into a batch"
    return (
        f"Images are one array: got a {kind}. {stack}; for a model with several inputs say which is explained with "
        f"masked_input=" + (f", one of {_listed(arrays)}." if arrays else ".")
    )


MOST_LISTED = 12
"""So many inputs are named in a message."""


def _listed(arrays: Sequence[tuple[Path, Any]]) -> str:
    names = [repr(named(path)) for path, _ in arrays]
    return ", ".join(names[:MOST_LISTED]) + (
        f" and {len(names) - MOST_LISTED} more" if len(names) > MOST_LISTED else ""
    )


def _prepare_several(adapter: ModelAdapter, images: Any, which: Path, shared: Sequence[int | str | Path]) -> Inputs:
    if not is_container(images):
        raise InvalidTypeError(
            f"masked_input={named(which)!r} names one of several inputs: got a single {type(images).__qualname__}."
        )
    inputs = map_arrays(adapter.as_array, images)
    explained = _explained(inputs, which)
    _check_images(explained, explained.ndim, adapter, exact=True)
    inputs = marked(inputs, shared, which)
    _check_rows(inputs, which)
    return inputs


def marked(inputs: Inputs, shared: Sequence[int | str | Path], which: Which) -> Inputs:
    """The inputs with the arrays that all images share marked as such.

    Raises:
        InvalidValueError: for one that is not among the inputs, or is the explained one.
    """
    for path in shared:
        inputs = _shared(inputs, steps(path), steps(which))
    return inputs


def _explained(inputs: Inputs, which: Path) -> Array:
    """The array at the path.

    Raises:
        InvalidValueError: with the paths there are, if there is none.
    """
    arrays = [(path, each) for path, each in found(inputs) if path]
    try:
        explained = at(inputs, which)
    except LookupError:
        listed = _listed(arrays) or "there is no array among them"
        raise InvalidValueError(f"masked_input={named(which)!r} is not among the inputs {listed}.") from None
    if isinstance(explained, Shared):
        explained = explained.array
    if not is_array(explained):
        raise InvalidValueError(
            f"masked_input={named(which)!r} is a {type(explained).__qualname__}, and one array is explained: of the "
            f"inputs {_listed(arrays) or 'none is an array'}."
        )
    return explained


def _shared(inputs: Inputs, path: Path, which: Path) -> Inputs:
    """The inputs with the arrays at the path, or below it, marked as those that all images share."""
    if path == which[: len(path)]:
        raise InvalidValueError(f"shared={[named(path)]!r} is what is explained: every image has its own of it.")
    try:
        here = at(inputs, path)
    except LookupError:
        listed = _listed([pair for pair in found(inputs) if pair[0] != which]) or "none beside the explained one"
        raise InvalidValueError(f"shared={[named(path)]!r} is not among the inputs: there are {listed}.") from None
    return replaced(inputs, path, _marked(here))


def _marked(value: Any) -> Any:
    if is_container(value):
        return rebuilt(value, [_marked(each) for _, each in entries(value)])
    return Shared(value) if is_array(value) else value


def _check_rows(inputs: Inputs, which: Path) -> None:
    """Raise InvalidValueError unless every array that is not shared has a row an image."""
    batch = int(leaf(inputs, which).shape[0])
    rows = {path: int(each.shape[0]) for path, each in found(inputs) if not isinstance(each, Shared) and each.ndim}
    others = [named(path) for path, count in rows.items() if count != batch]
    if not others:
        return
    single = [named(path) for path, count in rows.items() if count == 1 and named(path) in others]
    counts = ", ".join(f"{named(path)!r} has {count}" for path, count in rows.items())
    once = f" {single[0]!r} has one row for {batch} images: is it the same for all of them?" if single else ""
    raise InvalidValueError(
        f"All inputs need the same batch size, a row an image: {counts}.{once} What all images share (prompts, a "
        f"graph, one row of metadata) is named: shared={others!r}."
    )


def _check_images(images: Array, input_ndim: int | None, adapter: ModelAdapter, *, exact: bool) -> Array:
    """A floating batch of images; one image gets its batch axis.

    Of a number of axes that was not declared, more are accepted: a model may fold them itself, as frames into images.
    """
    model_name, xp = adapter.model_name, adapter.namespace
    if not xp.isdtype(images.dtype, "real floating"):
        kind, advice = (
            (
                "floating-point images and rescales them itself",
                "Make them float32 and leave their values as they are: images.astype('float32').",
            )
            if adapter.rescales_inputs
            else (
                "preprocessed floating-point images",
                "Preprocess as in training (usually scaling to [0, 1] or by mean and standard deviation) first.",
            )
        )
        raise InvalidTypeError(f"{model_name} takes {kind}: got an array of {images.dtype}. {advice}")
    if input_ndim is not None and images.ndim == input_ndim - 1:
        images = xp.expand_dims(images, axis=0)
    too_many = exact and input_ndim is not None and images.ndim > input_ndim
    if images.ndim < (3 if input_ndim is None else input_ndim) or too_many:
        expected = f"{input_ndim} axes (or {input_ndim - 1} for one image)" if input_ndim else "at least 3 axes"
        raise InvalidValueError(
            f"{model_name} takes a batch of images with {expected}: got an array of shape {tuple(images.shape)}."
        )
    if 0 in images.shape:
        raise InvalidValueError(f"An empty batch came: images of shape {tuple(images.shape)} hold nothing to explain.")
    return images
