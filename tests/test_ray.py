"""Jobs on Ray: the rows of one process, by workers of one local cluster."""

from __future__ import annotations

import functools
import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fusioncam_core import FusionCAM, GradCAM, Preprocessing
from fusioncam_core.errors import CannotWriteError, InvalidTypeError, InvalidValueError, WorkerError
from fusioncam_core.scale.ray import explain_to
from fusioncam_core.scale.workers import Workers
from test_jobs import network, rows

ray = pytest.importorskip("ray")
parquet = pytest.importorskip("pyarrow.parquet")
torch = pytest.importorskip("torch")
nn = torch.nn


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # the workers import helpers of the tests
        ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        yield
        ray.shutdown()


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).random((25, 1, 12, 10), dtype=np.float32)


def grad_cam(**options: Any) -> Any:
    return GradCAM(network(), batch_size=4, **options)


def near(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    """Equal rows, but for the last digits of numbers."""
    assert len(found) == len(expected)
    for own, other in zip(found, expected, strict=True):
        assert own.keys() == other.keys()
        for name, value in other.items():
            if isinstance(value, float) or (name == "map" and value is not None):
                np.testing.assert_allclose(own[name], value, atol=1e-6, rtol=0, err_msg=name)
            else:
                assert own[name] == value, name


class TestJobs:
    def test_the_rows_of_one_process(self, images: np.ndarray, tmp_path: Path) -> None:
        broken = images.copy()
        broken[[3, 24]] = np.nan
        grad_cam().explain_to(tmp_path / "one", broken, "top2", piece=4, class_names=list("abcde"), progress=False)
        done = explain_to(
            grad_cam, tmp_path / "ray", broken, "top2", piece=4, class_names=list("abcde"), progress=False, workers=2
        )
        assert (done.images, done.skipped, done.explained, len(done.files)) == (25, 2, 25, 7)
        near(rows(tmp_path / "ray"), rows(tmp_path / "one"))
        one, other = (json.loads((tmp_path / name / "_job.json").read_text()) for name in ("one", "ray"))
        assert other == one

    def test_begun_here_and_ended_there_and_the_reverse(self, images: np.ndarray, tmp_path: Path) -> None:
        grad_cam().explain_to(tmp_path / "whole", images, piece=5, progress=False)
        expected = rows(tmp_path / "whole")
        explain_to(grad_cam, tmp_path / "there", images, piece=5, progress=False)
        grad_cam().explain_to(tmp_path / "here", images, piece=5, progress=False)
        for name in ("there", "here"):
            for part in (1, 3):
                (tmp_path / name / f"part-{part:06d}.parquet").unlink()
        back = grad_cam().explain_to(tmp_path / "there", images, piece=5, progress=False)
        forth = explain_to(grad_cam, tmp_path / "here", images, piece=5, progress=False)
        assert [(each.images, each.explained, len(each.files)) for each in (back, forth)] == [(25, 10, 5)] * 2
        near(rows(tmp_path / "there"), expected)
        near(rows(tmp_path / "here"), expected)
        again = explain_to(grad_cam, tmp_path / "here", images, piece=5, progress=False)
        assert (again.images, again.explained) == (25, 0)
        with pytest.raises(InvalidValueError, match="of something else: the method, its options or its layers changed"):
            explain_to(functools.partial(grad_cam, relu=False), tmp_path / "here", images, piece=5, progress=False)
