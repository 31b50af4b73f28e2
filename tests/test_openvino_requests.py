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


def running(count: int, function: Callable[..., Any] = scaled, *, meet: bool = True, rows: bool = True) -> Any:
    barrier = threading.Barrier(count) if meet else None
    beside = [Request(function, barrier) for _ in range(openvino.TURNS * count)]
    together, *others = (openvino._Request(each, tensor) for each in (Request(function), *beside))
    return openvino._Running(together, others, [rows, False], [0, 1], FEW), beside


@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize("rows", [4, 5, 11, 40])
def test_many_rows_run_beside_each_other(count: int, rows: int) -> None:
    """A few at a time: each takes the next few when it is done."""
    run, beside = running(count)
    given = np.random.default_rng(0).random((rows, 2))
    for _ in range(2):
        for one, other in zip(run([given, FACTOR]), scaled(given, FACTOR), strict=True):
            np.testing.assert_array_equal(one, other)
    shares = [share for each in beside for share in each.seen]
    assert sum(shares) == 2 * rows
    assert max(shares) <= FEW
    assert max(shares) - min(shares) <= 1
    runs = [len(each.seen) for each in beside]
    assert len({sum(runs[thread::count]) for thread in range(count)}) == 1


@pytest.mark.parametrize(("count", "rows"), [(4, 3), (2, 1), (1, 9), (0, 9)])
def test_fewer_rows_than_requests_run_together(count: int, rows: int) -> None:
    run, beside = running(count)
    np.testing.assert_array_equal(run([ROWS[:rows], FACTOR])[0], ROWS[:rows] * FACTOR)
    assert not any(each.seen for each in beside)


def test_what_has_no_rows_is_not_taken_apart() -> None:
    run, beside = running(2, rows=False)
    np.testing.assert_array_equal(run([ROWS, FACTOR])[1], ROWS + 1)
    assert not any(each.seen for each in beside)


def test_what_stays_the_same_is_told_once() -> None:
    """Every chunk has its own rows; one whose array may not be written into is copied."""
    run, beside = running(2)
    fixed = FACTOR.copy()
    fixed.flags.writeable = False
    for factor in (FACTOR, fixed):
        for rows in (ROWS, ROWS + 1):
            np.testing.assert_array_equal(run([rows, factor])[0], rows * factor)
    for each in beside:
        runs = len(each.seen)
        assert each.told == [[0, 1], *[[0]] * (runs // 2 - 1), [0, 1], *[[0]] * (runs // 2 - 1), []]


def test_what_is_shared_may_change_in_its_place() -> None:
    run, _ = running(2)
    factor = FACTOR.copy()
    for scale in (1, 3):
        factor *= scale
        np.testing.assert_array_equal(run([ROWS, factor])[0], ROWS * factor)


def test_an_error_of_one_leaves_none_at_work() -> None:
    def refuses(rows: np.ndarray, factor: np.ndarray) -> list[np.ndarray]:
        if rows[0, 0] == 0:
            raise ValueError("the first row")
        return scaled(rows, factor)

    run, beside = running(2, refuses, meet=False)
    for _ in range(2):
        with pytest.raises(ValueError, match="the first row"):
            run([ROWS, FACTOR])
    np.testing.assert_array_equal(run([ROWS[1:], FACTOR])[0], ROWS[1:] * FACTOR)
    assert all(len(each.seen) >= 3 for each in beside)


def test_results_are_not_written_into_by_the_next_run() -> None:
    buffer = [np.empty((4, 2)), np.empty((4, 2))]

    def into(rows: np.ndarray, factor: np.ndarray) -> list[np.ndarray]:
        for one, other in zip(buffer, scaled(rows, factor), strict=True):
            one[...] = other
        return buffer

    run, _ = running(0, into)
    first = run([ROWS[:4], FACTOR])[0]
    run([ROWS[4:8], FACTOR])
    np.testing.assert_array_equal(first, ROWS[:4] * FACTOR)
