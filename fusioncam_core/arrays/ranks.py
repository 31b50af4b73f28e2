"""Whether two rows of numbers are in the same order."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def rank_correlation(first: npt.NDArray[Any], second: npt.NDArray[Any]) -> float:
    """Spearman's correlation of two maps of one shape, equal pixels by their mean rank; 0 if one is constant.

    Examples:
        >>> import numpy as np
        >>> from fusioncam_core.metrics import rank_correlation
        >>> rank_correlation(np.array([0.1, 0.2, 0.9]), np.array([1.0, 2.0, 3.0]))
        1.0
    """
    one, other = (_mean_ranks(each.ravel()) for each in (first, second))
    one, other = one - one.mean(), other - other.mean()
    length = np.sqrt((one @ one) * (other @ other))
    return float(one @ other / length) if length > 0 else 0.0


def _mean_ranks(values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    means: npt.NDArray[np.float64] = np.cumsum(counts) - (counts - 1) / 2
    return means[places]
