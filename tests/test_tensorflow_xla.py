"""Every array function that TensorFlow can compile with XLA: one small call each, with NumPy's values.

To compile took a quarter of the time of all tests of array functions, in which XLA compiles the same ones for JAX.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from each_function import CALLS
from libraries import LIBRARIES, assert_close, framework

ON_THE_HOST = {"fusion_cam", "group_cam", "is_cam", "rise", "score_cam", "ss_cam", "union_cam"}
"""They ask a function of the user's about masks, which looks at values here."""


def test_names() -> None:
    assert set(CALLS) > ON_THE_HOST


@pytest.mark.parametrize("name", [name for name in CALLS if name not in ON_THE_HOST])
def test_values_of_numpy(name: str) -> None:
    tensorflow, library, given = framework("tensorflow"), LIBRARIES["tensorflow-xla"](), []

    def noted(values: Any) -> np.ndarray:
        given.append(np.asarray(values))
        return given[-1]

    expected = CALLS[name](noted)

    def called(*arrays: Any) -> Any:
        left = iter(arrays)
        return CALLS[name](lambda _: next(left))

    made = library.compile(called)(*map(tensorflow.constant, given))
    assert_close(made, expected, tensorflow.constant(expected), atol=1e-5, rtol=1e-5)
