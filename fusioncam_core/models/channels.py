"""Where the channels of the explained input are, where its shape leaves more than one reading."""

from __future__ import annotations

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
    runs = sorted(
        (run.place, call_name(each.name, run.number), run.shape)
        for each in listed_layers(adapter, inputs)
        for run in each.runs
    )
    # Behind a pooling nothing lies apart but channels.
    calls = {name: each for _, name, each in runs[:FIRST_CALLS] if len(each) >= 4 and 1 not in each[1:]}
    others = [axis for axis in range(2, len(shape)) if shape[axis] <= FEW and axis != own] if len(shape) > 3 else []
    if not calls:
        return told
    probe = Probe(adapter, inputs, which, own, output)
    if not others:
        return None if any(apart for (apart,) in probe.moves(calls, (own,))) else told
    other = others[0]
    moved = probe.moves(calls, (own, other))
    return other if (True, False) in moved and (False, True) not in moved else told


def _may_be_otherwise(shape: tuple[int, ...], own: int) -> bool:
    """Whether what is taken for channels may be frames, the height, or the time or the bins of a spectrogram."""
    if len(shape) == 3:
        return shape[own] > FEW
    if own != 1:
        return False
    return shape[2] <= FEW if len(shape) == 5 else shape[1] > FEW and shape[-1] <= FEW
