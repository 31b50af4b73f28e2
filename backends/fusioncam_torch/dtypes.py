"""In which precision a model takes its inputs, and gradients that half precision does not hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import torch
from torch.nn.modules.conv import _ConvNd

COMPUTED_IN = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""What models run in; smaller floating dtypes are for storing weights."""

HALF_SCALES = (2.0**15, 2.0**10, 2.0**5, 1.0)
"""What a score is multiplied by before float16 gradients of it are taken, whose largest number is just below 2^16.

The gradient of a mean over 224 x 224 positions is 2e-5 of the one behind it, and float16 keeps all of its 11 bits down
to 6e-5 only.
"""


def like_inputs(
    modules: Iterable[torch.nn.Module], parameters: Iterable[torch.nn.Parameter], axes: int
) -> torch.Tensor:
    """Of a model's parameters one of the dtype and on the device that an input of so many axes is to have.

    Where the parameters are of several dtypes (a tower in half precision, a scale in double) the first convolution over
    as many axes decides; without one, the dtype of the most numbers. A tensor of no numbers for a model without
    parameters.
    """
    floating = [each for each in parameters if each.dtype in COMPUTED_IN]
    if len({each.dtype for each in floating}) > 1:
        weights = [part.weight for part in modules if isinstance(part, _ConvNd)]
        weights = [each for each in weights if each.dtype in COMPUTED_IN]
        of_a_batch, of_one = ([each for each in weights if each.ndim == count] for count in (axes, axes + 1))
        floating = of_a_batch or of_one or _of_the_most(floating)
    return next(iter(floating), torch.empty(0))


def _of_the_most(parameters: Sequence[torch.nn.Parameter]) -> list[torch.nn.Parameter]:
    numbers: Counter[torch.dtype] = Counter()
    for each in parameters:
        numbers[each.dtype] += each.numel()
    ((dtype, _),) = numbers.most_common(1)
    return [each for each in parameters if each.dtype == dtype]


def scales(tensors: Iterable[torch.Tensor], device: str) -> Sequence[float]:
    """What to multiply a score by before its gradients at these activations are taken, one after the other tried."""
    if torch.float16 in {each.dtype for each in tensors}:
        return HALF_SCALES
    autocast = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    return HALF_SCALES if autocast and torch.get_autocast_dtype(device) == torch.float16 else (1.0,)


def gradients(
    score: torch.Tensor, activations: Sequence[torch.Tensor], scales: Sequence[float]
) -> list[torch.Tensor | None]:
    """The gradients of a score, each in float32 at least, or None where it does not depend on the activations.

    Args:
        score: one number.
        activations: the graph that leads to them is kept.
        scales: powers of two; the first one with which nothing overflows is used, or the last.
    """
    for scale in scales:
        seed = torch.full_like(score, scale)
        rows = torch.autograd.grad(score, activations, seed, retain_graph=True, allow_unused=True)
        if scale == scales[-1] or all(each is None or bool(each.isfinite().all()) for each in rows):
            break
    wide = [None if each is None else each.to(torch.promote_types(each.dtype, torch.float32)) for each in rows]
    return wide if scale == 1 else [None if each is None else each / scale for each in wide]
