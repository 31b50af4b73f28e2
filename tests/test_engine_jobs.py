"""Engines in jobs of several workers: each is told how much of the whole is left to it, and none is taken untimed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from engine_models import Convolutions, counted_exports, seeded
from engine_names import ENGINES, registered_engines
from fusioncam_core import ScoreCAM
from fusioncam_core.explainers.job import Asked, Job
from fusioncam_core.models import engine_choice
from fusioncam_core.models.engine_choice import Choice
from fusioncam_core.scale.batches import ExplainBatches
from fusioncam_core.scale.ray import _OnRay
from libraries import framework

pytest.importorskip("pyarrow")
torch = framework("torch")

pytestmark = [
    pytest.mark.filterwarnings("ignore::fusioncam_core.EmptyMapWarning"),
    pytest.mark.usefixtures(registered_engines.__name__),
]

IMAGES = np.random.default_rng(2).random((12, 3, 16, 16), dtype=np.float32)


class Alone:
    """Four workers, of which this process is the first."""

    count = 4

    def __init__(self, job: Job):
        self._job = job

    def first(self, do: Callable[[Job, Any], Any], item: Any) -> Any:
        return do(self._job, item)


def told(monkeypatch: pytest.MonkeyPatch) -> list[int | None]:
    """What choices are told of how many images lie ahead, from now on."""
    own, totals = Choice.many, []

    def many(self: Choice, total: int | None) -> Any:
        totals.append(total)
        return own(self, total)

    monkeypatch.setattr(Choice, "many", many)
    return totals


def settled(piece: int, source: Any = IMAGES) -> Any:
    job = Job(ScoreCAM(seeded(Convolutions), engine="auto", batch_size=3), Asked(1, piece=piece))
    return _OnRay(Alone(job), source, piece).settle({})


class TestOnRay:
    def test_a_worker_looks_at_its_share(self, monkeypatch: pytest.MonkeyPatch) -> None:
        totals = told(monkeypatch)
        manifest = settled(5)
        assert totals == [3], "12 images for 4 workers"
        assert (manifest.total, manifest.engine) == (12, None)

    def test_of_a_source_without_a_length_nobody_knows(self, monkeypatch: pytest.MonkeyPatch) -> None:
        totals = told(monkeypatch)

        class Loader:
            def __iter__(self) -> Any:
                return iter([IMAGES[:4], IMAGES[4:]])

        assert settled(50, Loader()).total is None
        assert totals == [None]

    @ENGINES
    def test_pieces_that_are_smaller_than_a_decision(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """A piece is one group: the framework's, the conversion's and the one that is timed are of three."""
        count = counted_exports(monkeypatch)
        monkeypatch.setattr(engine_choice, "WORTH", 0.0)
        for faster in (True, False):
            timed = Choice.fix
            monkeypatch.setattr(Choice, "fix", lambda self, on, timed=timed, faster=faster: timed(self, faster))
            found = settled(3).engine
            monkeypatch.setattr(Choice, "fix", timed)
            assert (found is not None) == faster
        assert count() == 2

    @ENGINES
    def test_an_engine_that_was_not_timed_is_not_taken(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(engine_choice, "WORTH", 0.0)
        assert settled(6, IMAGES[:6]).engine is None, "two groups: the framework's, and the one that is converted in"


class TestBatches:
    def test_what_is_to_come_gets_less(self, monkeypatch: pytest.MonkeyPatch) -> None:
        totals = told(monkeypatch)
        explain = ExplainBatches(lambda: ScoreCAM(seeded(Convolutions), engine="auto"), 1, coming=9)
        for start in (0, 4, 8):
            explain({"id": range(4), "image": IMAGES[start : start + 4]})
        assert totals == [9, 5, 1]

    @ENGINES
    def test_an_engine_takes_over(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        count = counted_exports(monkeypatch)
        explain = ExplainBatches(lambda: ScoreCAM(seeded(Convolutions), engine="auto", batch_size=4), 1)
        own = explain({"id": range(4), "image": IMAGES[:4]}).to_pylist()
        assert count() == 0
        monkeypatch.setattr(engine_choice, "WORTH", 0.0)
        for _ in range(2):
            found = explain({"id": range(4), "image": IMAGES[:4]}).to_pylist()
        assert count() == 1
        for one, other in zip(found, own, strict=True):
            np.testing.assert_allclose(one["map"], other["map"], rtol=0, atol=1e-3)
