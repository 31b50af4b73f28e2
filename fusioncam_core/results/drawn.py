"""Maps of any form as what is drawn of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fusioncam_core.methods.form import FormName


def drawn(saliency: npt.NDArray[np.floating[Any]], form: FormName) -> npt.NDArray[np.floating[Any]]:
    """What is drawn of one map: its values in [0, 1].

    A signed or raw map is divided by its largest magnitude, and what speaks against the target is drawn as nothing.
    So a map in which most speaks against it is faint, and not as bright as one in which most speaks for it.

    Args:
        saliency: (*spatial).
        form: what its values are: `Explanation.form`.
    """
    if form == "normalised":
        return saliency
    largest = np.abs(saliency).max()
    shown: npt.NDArray[np.floating[Any]] = np.maximum(saliency, 0) / (largest if largest > 0 else 1)
    return shown
