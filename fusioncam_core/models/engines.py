"""Engines: what runs a model's masked passes in place of its framework, and how one is chosen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np

from fusioncam_core.arrays.checks import require_word
from fusioncam_core.errors import InvalidValueError

Precision = Literal["float32", "bfloat16"]

AUTO = "auto"
"""The word for an engine where it is worth its conversion."""

BATCH = 8
"""Images at once where the search for an engine's best number starts: its networks were fastest from there on."""

Shape = tuple[int | str, ...]
"""The lengths of an array's axes; a free one by its name, which is the same wherever two are equal."""

ARGUMENT = "argument_"
"""What arguments are called in a graph that names them, with their places: "argument_0"."""

RESULT = "result_"
"""What its results are called, likewise."""

Run = Callable[[Sequence[np.ndarray[Any, Any]]], list[np.ndarray[Any, Any]]]
"""A converted graph: (its arguments, in their order) -> its results."""

Parts = Mapping[str, bytes]
"""A converted graph as it is kept on disk, by names such as "model.onnx": descriptions and weights, and no code."""

Keep = Callable[[Callable[[], Parts]], None]
"""Told how to get the parts of a graph, where it is to be kept."""


class Chosen(NamedTuple):
    """What a user asked for.

    Attributes:
        name: of an engine; "auto"; None for the framework alone.
        precision: in which the engine computes.
    """

    name: str | None = None
    precision: Precision = "float32"


def require_engine(name: Any, precision: Precision) -> Chosen:
    """The choice, if its words are words of ours; whether there is an engine of that name is found out elsewhere.

    Raises:
        InvalidValueError: for anything else.
    """
    if name is not None and not (isinstance(name, str) and name):
        raise InvalidValueError(f"engine is None, 'auto' or an engine's name, such as 'openvino': got {name!r}.")
    if str(precision) == "int8":
        raise InvalidValueError(
            "engine_precision='int8' is not offered, since networks whose whole numbers are not fitted to photographs "
            "bring masks into another order: take 'bfloat16', or leave it out for 'float32'."
        )
    return Chosen(name, require_word(precision, "engine_precision", Precision))


@dataclass(frozen=True)
class Exported:
    """A function of arrays, as a framework wrote it down for others to read.

    Attributes:
        kinds: what it can be had as, each made when it is asked for: "torch", a `torch.export.ExportedProgram`;
            "tensorflow", a concrete function; "onnx", the bytes of a model.
        shapes: of its arguments, in their order.
        threads: with how many the framework works.
        identity: makes a digest of the operations in their order and of all constants, the same in every process, by
            which a graph that is kept on disk is found again; None if the framework cannot tell.
        rows: the free length that all results begin with and whose rows do not meet, so that some of them may run
            beside others; None if that is not known.
    """

    kinds: Mapping[str, Callable[[], Any]]
    shapes: tuple[Shape, ...]
    threads: int
    identity: Callable[[], str] | None = None
    rows: str | None = None


class Engine(Protocol):
    """What a plugin answers to `fusioncam_engine`.

    Attributes:
        name: by which it is asked for.
        reads: the kinds of `Exported` that it reads, the one that suits it best first.
    """

    name: str
    reads: tuple[str, ...]

    def unable(self, precision: Precision) -> str | None:
        """Why it cannot compute in that precision on this machine, as the end of a sentence; None if it can."""

    def converted(self, graph: Any, kind: str, exported: Exported, precision: Precision) -> Run:
        """What runs a graph.

        Args:
            graph: what `exported.kinds[kind]()` gave.
            kind: one of `reads`.
            exported: what is known of it besides. No more threads than its are used.
            precision: in which to compute; arguments and results are float32 in either.
        """


@runtime_checkable
class RunsApart(Protocol):
    """An engine that runs a few rows beside others, where `exported.rows` says that it may.

    Attributes:
        apart: images at once where the search starts then.
    """

    apart: int


@runtime_checkable
class Restores(Protocol):
    """An engine whose graphs can be kept on disk. Its `converted` takes `keep`, a `Keep`, as well.

    Attributes:
        version: of what converts and runs graphs.
    """

    version: str

    def restored(self, parts: Parts, exported: Exported, precision: Precision) -> Run:
        """What runs a graph of which these parts were kept.

        Args:
            parts: as `keep` got them from this version.
            exported: the function that was converted.
            precision: as then.
        """


class Converted(NamedTuple):
    """What runs a function.

    Attributes:
        run: runs it.
        anew: converts it, where `run` comes from the disk.
    """

    run: Run
    anew: Callable[[], Run] | None = None


class Conversion(Protocol):
    """An engine as the core uses it: whatever goes wrong inside of it is an error of ours."""

    @property
    def name(self) -> str:
        """The engine's."""

    def batch_size(self, *, in_rows: bool) -> int:
        """Images at once to begin with, where rows of results may run apart or not."""

    def unable(self, precision: Precision) -> str | None:
        """As `Engine.unable`."""

    def converted(self, export: Callable[[], Exported], precision: Precision, told: str) -> Converted:
        """What runs a function that a backend exports.

        Args:
            export: exports it.
            precision: in which to compute.
            told: what is converted, to begin a sentence with.

        Raises:
            InvalidValueError: if it cannot be exported or converted.
        """
