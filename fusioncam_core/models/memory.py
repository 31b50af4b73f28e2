"""A full memory, in whatever words it is told."""

from __future__ import annotations

import re

MEMORY_ERRORS = (MemoryError, RuntimeError)
"""What libraries raise when the memory is full: NumPy the first, PyTorch, JAX and CUDA's libraries kinds of the second.

A framework that raises anything else names it in `Execution.memory_errors`.
"""

KINDS = frozenset({"MemoryError", "OutOfMemoryError", "ResourceExhaustedError"})
"""Classes, PyTorch's and TensorFlow's among them, that are raised for nothing else."""

WORDS = re.compile(
    "|".join(
        (
            r"\bout of memory\b",  # CUDA, HIP, MPS and XPU in PyTorch; XLA's allocator
            r"\b[A-Z]+(_STATUS)?_ALLOC_FAILED\b",  # cuDNN, cuBLAS, cuFFT, cuSOLVER, cuSPARSE
            r"\bRESOURCE_EXHAUSTED\b",  # XLA
            r"\bOOM when allocating\b",  # TensorFlow
            r"\bDst tensor is not initialized\b",  # TensorFlow, where a copy to the GPU found no room
            r"\bDefaultCPUAllocator: (can't allocate|not enough) memory\b",  # PyTorch on a CPU
            r"\b(failed|unable) to allocate\b",  # ONNX Runtime, XLA on a CPU
            r"\b(cannot|can't|could not) allocate\b",  # the system
            r"\bbad_alloc\b",  # C++
        )
    ),
    re.IGNORECASE,
)


def memory_is_full(error: BaseException) -> bool:
    """Whether an error, or the one that it was raised from, says that there was no memory for what was asked.

    `CUBLAS_STATUS_NOT_INITIALIZED` is not counted: it often means the same, but as often an earlier fault of a kernel,
    after which nothing runs.
    """
    told: BaseException | None = error
    while told is not None:
        if not KINDS.isdisjoint(kind.__name__ for kind in type(told).__mro__) or WORDS.search(str(told)):
            return True
        told = told.__cause__
    return False
