"""What runs a graph of OpenVINO: rows beside each other, with requests that stand in for its own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

openvino = pytest.importorskip("fusioncam_engines.openvino")


class Request:
    """Works in a thread of its own, as OpenVINO's do.

    Args:
        function: of the arguments.
        beside: met while it works, if there is one.
    """

    def __init__(self, function: Callable[..., Any], beside: threading.Barrier | None = None):
        self.function, self.beside = function, beside
        self.seen: list[int] = []
        self.told: list[list[int]] = [[]]
        self._arguments: dict[int, np.ndarray] = {}
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None

    def set_input_tensor(self, place: int, tensor: np.ndarray) -> None:
        assert self._thread is None, "it is busy"
        self._arguments[place] = tensor
        self.told[-1].append(place)

    def start_async(self) -> None:
        assert self._thread is None, "it is busy"
        self.seen.append(len(self._arguments[0]))
        self.told.append([])
        self._thread = threading.Thread(target=self._work, args=(list(self._arguments.values()),))
        self._thread.start()

    def _work(self, arguments: list[np.ndarray]) -> None:
        try:
            if self.beside is not None:
                self.beside.wait(20)
            self.made = self.function(*arguments)
        except ValueError as error:
            self._error = error

    def wait(self) -> None:
        if self._thread is None:  # as OpenVINO's: nothing is to be waited for
            return
        self._thread.join()
        self._thread, error, self._error = None, self._error, None
        if error is not None:
            raise error

    def get_output_tensor(self, number: int) -> Any:
        return type("Tensor", (), {"data": self.made[number]})


def scaled(rows: np.ndarray, factor: np.ndarray) -> list[np.ndarray]:
    return [rows * factor, rows + 1]


ROWS = np.arange(22.0).reshape(11, 2)
FACTOR = np.asarray([2.0, 3.0])
FEW = 3


def tensor(array: np.ndarray, *, shared_memory: bool) -> np.ndarray:
    """As OpenVINO's: it shares no memory that nobody may write into."""
    assert array.flags.writeable or not shared_memory
    return array if shared_memory else array.copy()


def running(count: int, function: Callable[..., Any] = scaled, *, meet: bool = True) -> Any:
    barrier = threading.Barrier(count) if meet else None
    alone, beside = Request(function), [Request(function, barrier) for _ in range(openvino.TURNS * count)]
    one, *others = (openvino._Request(each, tensor) for each in (alone, *beside))
    return openvino._Rows(one, others, [True, False], [0, 1], FEW), alone, beside


@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 9, 11, 12, 24, 40])
def test_each_row_is_its_own(count: int, rows: int) -> None:
    """All requests get as many rows as their graph has, whatever comes."""
    run, alone, beside = running(count, meet=False)
    given = np.random.default_rng(0).random((rows, 2))
    for _ in range(2):
        for one, other in zip(run([given, FACTOR]), scaled(given, FACTOR), strict=True):
            np.testing.assert_array_equal(one, other)
    assert set(alone.seen) <= {1}
    assert {share for each in beside for share in each.seen} <= {FEW}
    assert len(alone.seen) < 2 * FEW * count


@pytest.mark.parametrize(("count", "rows"), [(2, 6), (2, 12), (2, 42), (3, 9), (3, 36), (4, 48)])
def test_many_rows_run_beside_each_other(count: int, rows: int) -> None:
    """A few at a time: each takes the next few when it is done."""
    run, alone, beside = running(count)
    given = np.random.default_rng(0).random((rows, 2))
    np.testing.assert_array_equal(run([given, FACTOR])[0], given * FACTOR)
    assert not alone.seen
    runs = [len(each.seen) for each in beside]
    assert {sum(runs[thread::count]) for thread in range(count)} == {rows // (count * FEW)}


@pytest.mark.parametrize(
    ("count", "rows", "apart"),
    [(1, 1, 0), (1, 3, 3), (1, 5, 3), (2, 4, 0), (2, 5, 5), (2, 7, 6), (4, 7, 0), (4, 8, 8), (4, 13, 12), (4, 20, 20)],
)
def test_what_is_left_runs_one_by_one_where_that_takes_less_time(count: int, rows: int, apart: int) -> None:
    run, alone, beside = running(count, meet=False)
    np.testing.assert_array_equal(run([ROWS[:1].repeat(rows, 0), FACTOR])[1], ROWS[:1].repeat(rows, 0) + 1)
    assert sum(alone.seen) == rows - apart
    assert sum(len(each.seen) for each in beside) == -(-apart // FEW)


def test_what_has_no_rows_is_not_taken_apart() -> None:
    request = Request(scaled)
    run = openvino._Whole(openvino._Request(request, tensor), [1])
    (found,) = run([ROWS, FACTOR])
    np.testing.assert_array_equal(found, ROWS + 1)
    assert request.seen == [len(ROWS)]


def test_what_stays_the_same_is_told_once() -> None:
    """Every chunk has its own rows; one whose array may not be written into is copied."""
    run, _, beside = running(2, meet=False)
    fixed = FACTOR.copy()
    fixed.flags.writeable = False
    for factor in (FACTOR, fixed):
        for rows in (ROWS, ROWS + 1):
            np.testing.assert_array_equal(run([rows, factor])[0], rows * factor)
    for each in beside:
        runs = len(each.seen)
        assert each.told == [[0, 1], *[[0]] * (runs // 2 - 1), [0, 1], *[[0]] * (runs // 2 - 1), []]


def test_what_is_shared_may_change_in_its_place() -> None:
    run, _, _ = running(2, meet=False)
    factor = FACTOR.copy()
    for scale in (1, 3):
        factor *= scale
        np.testing.assert_array_equal(run([ROWS, factor])[0], ROWS * factor)


def test_an_error_of_one_leaves_none_at_work() -> None:
    def refuses(rows: np.ndarray, factor: np.ndarray) -> list[np.ndarray]:
        if rows[0, 0] == 0:
            raise ValueError("the first row")
        return scaled(rows, factor)

    run, _, beside = running(2, refuses, meet=False)
    for _ in range(2):
        with pytest.raises(ValueError, match="the first row"):
            run([ROWS, FACTOR])
    np.testing.assert_array_equal(run([ROWS[1:], FACTOR])[0], ROWS[1:] * FACTOR)
    assert all(len(each.seen) >= 2 for each in beside)


def test_results_are_not_written_into_by_the_next_run() -> None:
    buffer = [np.empty((FEW, 2)), np.empty((FEW, 2))]

    def into(rows: np.ndarray, factor: np.ndarray) -> list[np.ndarray]:
        for one, other in zip(buffer, scaled(rows, factor), strict=True):
            one[...] = other
        return buffer

    run, _, _ = running(1, into, meet=False)
    first = run([ROWS[:FEW], FACTOR])[0]
    run([ROWS[4 : 4 + FEW], FACTOR])
    np.testing.assert_array_equal(first, ROWS[:FEW] * FACTOR)
