"""Programs for which XLA need not do all it can: a first call waits less for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax

from fusioncam_jax.lanes import behind
from fusioncam_jax.reach import outside

Options = Mapping[str, Any]
"""What XLA is told of one program."""

Started = Callable[[Any], Callable[..., Any]]
"""`behind` or `by_turns` of `fusioncam_jax.lanes`: of a jitted function, one whose calls are started elsewhere."""

SMALL: Options = {"xla_backend_optimization_level": 1, "xla_cpu_use_fusion_emitters": False}
"""For small steps of arrays: those of Fusion-CAM at 224 x 224 compile in half of the time and run as fast, Grad-CAM's
of 16 images at 1280 channels faster. A whole network takes longer to compile without the emitters, and to run."""

ONCE: Options = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}
"""For a network that runs once or twice: EfficientNet-Lite0 compiles in a third of the time, and takes a seventh longer
to run."""

UNKNOWN_OPTION = "No such compile option"
"""In XLA's error for one that this version of it does not have."""


def quickly(function: Callable[..., Any], options: Options, started: Started = behind) -> Callable[..., Any]:
    """The function of arrays, compiled on the processor with these options, and elsewhere as usual.

    Inside of another program, for which JAX takes no options, it becomes part of that.

    Args:
        function: of arrays.
        options: for XLA.
        started: how its calls are started.
    """
    usual = started(jax.jit(function))
    quick = started(jax.jit(function, compiler_options=dict(options)))

    def run(*arguments: Any) -> Any:
        nonlocal quick
        if quick is usual or not outside() or jax.default_backend() != "cpu":
            return usual(*arguments)
        try:
            return quick(*arguments)
        except jax.errors.JaxRuntimeError as error:
            if UNKNOWN_OPTION not in str(error):
                raise
            quick = usual
        return usual(*arguments)

    return run
