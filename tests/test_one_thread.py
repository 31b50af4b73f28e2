"""NumPy's linear algebra in one thread, beside a framework's."""

from __future__ import annotations

import copy
import sys
import threading
import types
from typing import Any

import numpy as np
import pytest

from fusioncam_core.approximation.gaussian_process import GaussianProcess
from fusioncam_core.arrays import one_thread
from fusioncam_core.arrays.one_thread import in_one_thread
from fusioncam_core.methods.score import score_cam

threadpoolctl = pytest.importorskip("threadpoolctl")


def threads() -> set[int]:
    """Of NumPy's libraries of linear algebra."""
    return {each["num_threads"] for each in threadpoolctl.threadpool_info() if each["user_api"] == "blas"}


@pytest.fixture(autouse=True)
def several() -> Any:
    """More than one, whatever the process was given."""
    with threadpoolctl.threadpool_limits(limits=2, user_api="blas"):
        if threads() != {2}:
            pytest.skip("NumPy's linear algebra has one thread here")
        yield


def test_inside_and_behind() -> None:
    with in_one_thread():
        assert threads() == {1}
        with in_one_thread():
            assert threads() == {1}
        assert threads() == {1}
    assert threads() == {2}


def test_after_an_error() -> None:
    with pytest.raises(ValueError, match="inside"), in_one_thread():
        raise ValueError("inside")
    assert threads() == {2}


@pytest.mark.parametrize("first_out", ["main", "other"])
def test_of_several_threads_each_has_it_back(first_out: str) -> None:
    entered, leave = threading.Event(), threading.Event()
    seen: list[set[int]] = []

    def stay() -> None:
        with in_one_thread():
            seen.append(threads())
            entered.set()
            leave.wait(20)
        seen.append(threads())

    other = threading.Thread(target=stay)
    with in_one_thread():
        other.start()
        assert entered.wait(20)
        if first_out == "other":
            leave.set()
            other.join()
    leave.set()
    other.join()
    assert seen[0] == {1}
    assert threads() == {2}
    third = threading.Thread(target=lambda: seen.append(threads()))
    third.start()
    third.join()
    assert seen[-1] == {2}


class Library:
    """Stands in for threadpoolctl's: one number for all threads, as OpenBLAS has it, or one for each, as OpenMP."""

    def __init__(self, *, local: bool):
        self._kept: Any = threading.local() if local else types.SimpleNamespace()
        self.filepath = f"local: {local}"

    def get_num_threads(self) -> int:
        return int(getattr(self._kept, "number", 4))

    def set_num_threads(self, number: int) -> None:
        self._kept.number = number


def test_openmp_has_a_number_for_each_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where libraries are looked for anew while another thread is inside."""
    blas, openmp = (Library(local=local) for local in (False, True))
    monkeypatch.setattr(one_thread, "_libraries", lambda _, kind: [copy.copy(blas if kind == "blas" else openmp)])
    seen: list[tuple[int, int]] = []

    def stay() -> None:
        openmp.set_num_threads(3)
        with in_one_thread():
            seen.append((blas.get_num_threads(), openmp.get_num_threads()))
        seen.append((blas.get_num_threads(), openmp.get_num_threads()))

    with in_one_thread():
        other = threading.Thread(target=stay)
        other.start()
        other.join()
        assert openmp.get_num_threads() == 1
    assert seen[0] == (1, 1)
    assert seen[1][1] == 3
    assert (blas.get_num_threads(), openmp.get_num_threads()) == (4, 4)


def test_libraries_that_come_later_are_found() -> None:
    found = one_thread._libraries(len(sys.modules), "blas")
    assert found
    assert one_thread._libraries(len(sys.modules), "blas") is found
    assert one_thread._libraries(len(sys.modules) + 1, "blas") is not found


def test_without_threadpoolctl_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(one_thread, "_libraries", lambda modules, kind: [])
    with in_one_thread():
        assert threads() == {2}
    assert threads() == {2}


def test_maps_within_a_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """While masks are scored, which is the framework's work, the threads are as they were."""
    seen: dict[str, set[int]] = {}
    prediction = GaussianProcess.prediction

    def predicts(self: Any, *arguments: Any) -> Any:
        seen["predicted"] = threads()
        return prediction(self, *arguments)

    def scores(masks: np.ndarray, owners: np.ndarray) -> np.ndarray:
        seen["scored"] = threads()
        return masks.mean(axis=(1, 2))

    monkeypatch.setattr(GaussianProcess, "prediction", predicts)
    activations = np.random.default_rng(0).random((1, 40, 5, 5), dtype=np.float32)
    score_cam(activations, scores, size=(10, 10), budget=12)
    assert seen == {"predicted": {1}, "scored": {2}}
    assert threads() == {2}
