"""Where the channels of the explained input are, where its shape leaves more than one reading."""

from __future__ import annotations

from fusioncam_core.errors import EvidenceWarning, warn
from fusioncam_core.models.adapter import ModelAdapter, call_name
from fusioncam_core.models.inputs import Inputs, Which, leaf
from fusioncam_core.models.measurements import listed_layers
from fusioncam_core.models.probe import Probe

FEW = 4
"""The most channels that images have by themselves: grey, colours, transparency."""

FIRST_CALLS = 12
"""How many calls, from the first on, are looked at: nothing is pooled there yet."""


def measured_channel_axis(
    adapter: ModelAdapter, inputs: Inputs, which: Which, output: int | str | None = None
) -> int | None:
    """The axis of a batch of the explained input that holds its channels, counted from 0; None if none does.

    The adapter's own word holds unless the shape suggests another reading, such as frames before the colours (B, T, C,
    H, W), colours last, or a spectrogram (B, time, bins); then it is measured, by two passes of two images, whether
    what it takes for channels is an axis of space.

    Args:
        adapter: of the model.
        inputs: one image, as a batch.
        which: the explained one of several inputs.
        output: the position or name of the explained one of several outputs.
    """
    shape = tuple(int(length) for length in leaf(inputs, which).shape)
    told = adapter.input_channel_axis
    if told is None:
        return None
    own = told % len(shape)
    if not _may_be_otherwise(shape, own):
        return told
    calls = _first_calls(adapter, inputs)
    others = [axis for axis in range(2, len(shape)) if shape[axis] <= FEW and axis != own] if len(shape) > 3 else []
    if not calls:
        return told
    probe = Probe(adapter, inputs, which, own, output)
    if not others:
        return None if any(apart for (apart,) in probe.moves(calls, (own,))) else told
    other = others[0]
    moved = probe.moves(calls, (own, other))
    return other if (True, False) in moved and (False, True) not in moved else told


def warn_of_other_channels(
    adapter: ModelAdapter, inputs: Inputs, which: Which, output: int | str | None = None
) -> None:
    """Warn with `EvidenceWarning` if the user's word on the channels contradicts what is measured.

    It is measured only where another axis has few enough lengths to be that of the channels, by two passes of two
    images. The user's word holds.

    Args:
        adapter: of the model, with the user's `channels`.
        inputs, which, output: as for `measured_channel_axis`.
    """
    shape = tuple(int(length) for length in leaf(inputs, which).shape)
    told = adapter.input_channel_axis
    own = None if told is None else told % len(shape)
    others = [axis for axis in range(1, len(shape)) if 1 < shape[axis] <= FEW and axis != own]
    if len(shape) < 4 or not others or (own is not None and shape[own] <= FEW):
        return
    calls = _first_calls(adapter, inputs)
    if not calls:
        return
    other, probe = others[0], Probe(adapter, inputs, which, own, output)
    if own is None:
        wrong = not any(apart for (apart,) in probe.moves(calls, (other,)))
    else:
        moved = probe.moves(calls, (own, other))
        wrong = (True, False) in moved and (False, True) not in moved
    if wrong:
        said = "that there are none" if own is None else f"axis {own}"
        warn(
            f"channels says of the images {shape} for {adapter.model_name}: {said}. By what was measured they are in "
            f"axis {other}: changes along it stay together in what the first layers return. Your word is taken; "
            "without it, or with the right one, other layers and maps come out.",
            EvidenceWarning,
        )


def _first_calls(adapter: ModelAdapter, inputs: Inputs) -> dict[str, tuple[int, ...]]:
    """The first calls of layers, and the shapes of their outputs; behind a pooling nothing lies apart but channels."""
    runs = sorted(
        (run.place, call_name(each.name, run.number), run.shape)
        for each in listed_layers(adapter, inputs)
        for run in each.runs
    )
    return {name: each for _, name, each in runs[:FIRST_CALLS] if len(each) >= 4 and 1 not in each[1:]}


def _may_be_otherwise(shape: tuple[int, ...], own: int) -> bool:
    """Whether what is taken for channels may be frames, the height, or the time or the bins of a spectrogram."""
    if len(shape) == 3:
        return shape[own] > FEW
    if own != 1:
        return False
    return shape[2] <= FEW if len(shape) == 5 else shape[1] > FEW and shape[-1] <= FEW
