"""Jobs on Ray: the rows of one process, by workers of one local cluster."""

from __future__ import annotations

import contextlib
import functools
import importlib
import json
import os
import signal
import socket
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fusioncam_core import GradCAM
from fusioncam_core.cli import main
from fusioncam_core.errors import CannotWriteError, InvalidTypeError, InvalidValueError, MemoryWarning, WorkerError
from fusioncam_core.scale import cluster as clusters
from fusioncam_core.scale import ray as on_ray
from fusioncam_core.scale.batches import ExplainBatches
from fusioncam_core.scale.ray import explain_to
from fusioncam_core.scale.workers import Workers
from test_batches import PREPROCESSING, photographs
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
        # More than there are: Ray Data wants some beside those of the workers, to read and to look up what is done.
        ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
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


# --- what workers are sent is found in this module by them


def squared(held: dict[str, int], item: int) -> tuple[int, int]:
    held["calls"] = held.get("calls", 0) + 1
    return item * item, os.getpid()


def killed_once(flag: Path, held: Any, item: int) -> int:
    if item == 3 and not flag.exists():
        flag.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def killed_always(held: Any, item: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def without_disk(held: Any, item: int) -> None:
    raise CannotWriteError(28, "No space left on device", "/full")


def foreign(held: Any, item: int) -> None:
    raise KeyError("weights")


def warned(held: Any, item: int) -> None:
    warnings.warn("A batch of 8 images did not fit.", MemoryWarning, stacklevel=1)
    warnings.warn("This is a framework's", DeprecationWarning, stacklevel=1)


def no_model() -> None:
    raise InvalidValueError("'keras:model.keras': there is no such file.")


class Unknown:
    """Of a module that workers do not have."""

    def __reduce__(self) -> Any:
        return importlib.import_module, ("fusioncam_nowhere",)

    def __call__(self) -> None: ...


class TestWorkers:
    def test_each_loads_once(self) -> None:
        with Workers(dict, workers=2) as workers:
            made = dict(workers.each(squared, range(20)))
            assert {item: square for item, (square, _) in made.items()} == {n: n * n for n in range(20)}
            assert 1 <= len({pid for _, pid in made.values()}) <= 2
            assert os.getpid() not in {pid for _, pid in made.values()}
            assert workers.first(squared, 12)[0] == 144

    def test_what_a_dead_one_had_is_done_by_another(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        with Workers(dict, workers=2) as workers:
            done = [made for _, made in workers.each(functools.partial(killed_once, tmp_path / "flag"), range(6))]
            assert sorted(done) == list(range(6))
            assert caplog.messages == ["A worker died, and another one takes its place."]
            with pytest.raises(WorkerError, match="3 workers died over the same piece of work, the last one so: "):
                list(workers.each(killed_always, [1]))
            assert workers.first(squared, 5)[0] == 25

    def test_errors_come_once_and_in_words(self) -> None:
        with Workers(dict, workers=1) as workers:
            with pytest.raises(CannotWriteError, match=r"^/full: No space left on device$"):
                list(workers.each(without_disk, range(3)))
            with pytest.raises(WorkerError, match=r"^A worker ended with KeyError: 'weights'\n") as error:
                list(workers.each(foreign, range(3)))
            assert 'raise KeyError("weights")' in error.value.__notes__[0]
            with pytest.warns(MemoryWarning, match=r"A batch of 8 images did not fit\.") as seen:
                list(workers.each(warned, range(3)))
            assert {each.category for each in seen} == {MemoryWarning}
            assert workers.first(squared, 5)[0] == 25

    def test_what_cannot_be_loaded(self) -> None:
        with Workers(no_model) as workers, pytest.raises(InvalidValueError, match=r"^'keras:model.keras': there is no"):
            workers.first(squared, 1)
        with Workers(Unknown()) as workers, pytest.raises(WorkerError, match="No module named 'fusioncam_nowhere'"):
            workers.first(squared, 1)

    @pytest.mark.parametrize("gpus", [-1, 1.5, "1", True])
    def test_no_number_of_gpus(self, gpus: Any) -> None:
        with pytest.raises(InvalidValueError, match="gpus_per_worker as 0, a fraction up to 1 or a whole number, got"):
            Workers(dict, gpus_per_worker=gpus)

    def test_gpus_that_are_not_there(self) -> None:
        with pytest.raises(InvalidValueError, match=r"the GPUs that Ray sees on this machine, 0, got 0\.5"):
            Workers(dict, gpus_per_worker=0.5).__enter__()

    def test_addresses(self) -> None:
        with pytest.raises(InvalidValueError, match="has initialised Ray itself: expected no address, got 'auto'"):
            Workers(dict, address="auto").__enter__()
        with socket.socket() as bound:  # and does not listen
            bound.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{bound.getsockname()[1]}"
            with pytest.raises(InvalidValueError, match=rf"No Ray cluster could be used at '{address}': Connection"):
                clusters._require_open(address)


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

    def test_a_folder(self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Workers read the photographs, at the same paths: also where these are relative."""
        monkeypatch.chdir(tmp_path)
        options: dict[str, Any] = {"preprocessing": PREPROCESSING, "piece": 4, "progress": False}
        photographs().explain_to("one", folder.name, **options)
        done = explain_to(photographs, "ray", folder.name, workers=1, **options)
        assert (done.images, done.skipped) == (9, 2)
        near(rows(tmp_path / "ray"), rows(tmp_path / "one"))

    def test_the_command(self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "ray_job_model.py").write_text(
            "from fusioncam_core import LoadedModel\nfrom test_batches import PREPROCESSING\n"
            "from test_jobs import network\n"
            "def load():\n    return LoadedModel(network(channels=3), PREPROCESSING, tuple('abcde'), layer='1')\n"
        )
        command = ["explain", folder.name, "--method", "grad-cam", "--job", "--no-progress", "--targets", "b,d"]
        command += ["--model", "python:ray_job_model:load", "--batch-size", "4", "--job-piece", "4"]
        assert main([*command, "--out", "ray", "--engine", "ray", "--workers", "1"]) == 1
        assert "9 images in 3 files, 2 of them left out: 9 explained now" in capsys.readouterr().out
        assert main([*command, "--out", "one"]) == 1
        near(rows(tmp_path / "ray"), rows(tmp_path / "one"))
        assert {row["name"] for row in rows(tmp_path / "ray") if not row["error"]} == {"b", "d"}
        assert main([*command, "--out", "ray"]) == 1
        assert "all of it was there already" in capsys.readouterr().out

    @pytest.mark.filterwarnings("ignore::fusioncam_core.errors.EmptyMapWarning")
    def test_a_loader(self, images: np.ndarray, tmp_path: Path) -> None:
        data = torch.utils.data.TensorDataset(torch.from_numpy(images), torch.arange(25) % 5)
        loader = torch.utils.data.DataLoader(data, batch_size=7)
        grad_cam().explain_to(tmp_path / "one", loader, "labels", piece=10, progress=False)
        explain_to(grad_cam, tmp_path / "ray", loader, "labels", piece=10, progress=False, workers=1)
        assert [row["class"] for row in rows(tmp_path / "ray")] == [n % 5 for n in range(25)]
        near(rows(tmp_path / "ray"), rows(tmp_path / "one"))

    def test_refused(self, images: np.ndarray, tmp_path: Path) -> None:
        class Paths:
            def __iter__(self) -> Iterator[str]:
                return iter(["a.png"])

        with pytest.raises(
            InvalidValueError, match="On Ray photographs are read by the workers: expected a folder or a"
        ):
            explain_to(grad_cam, tmp_path / "out", Paths(), progress=False, workers=1)
        with pytest.raises(InvalidTypeError, match="a function that returns an explainer, got one that returns a Sequ"):
            explain_to(network, tmp_path / "out", images, progress=False, workers=1)
        with pytest.raises(InvalidValueError, match="None of the images could be explained"):
            explain_to(grad_cam, tmp_path / "out", np.full_like(images, np.nan), progress=False, workers=1)
        assert not (tmp_path / "out" / "_job.json").exists()

    def test_a_full_disk(self, images: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        class Full:
            def write(self, content: bytes) -> None:
                raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(on_ray, "whole_file", lambda path: contextlib.nullcontext(Full()))
            with pytest.raises(CannotWriteError, match=r"part-00000[0-2]\.parquet: No space left on device"):
                explain_to(grad_cam, tmp_path, images, piece=10, progress=False, workers=1)
        assert not list(tmp_path.glob("part-*"))
        assert explain_to(grad_cam, tmp_path, images, piece=10, progress=False, workers=1).explained == 25


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    noise = np.random.default_rng(1).integers(0, 256, (7, 12, 12, 3), dtype=np.uint8)
    for number, pixels in enumerate(noise):
        path = tmp_path / "photographs" / ("cat" if number % 2 else "dog") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    for broken in ("cat/0.png", "dog/9.png"):
        (tmp_path / "photographs" / broken).write_bytes(b"no picture")
    return tmp_path / "photographs"


@pytest.mark.filterwarnings("ignore:.*deprecated:DeprecationWarning")  # of what Ray Data sets itself
def test_a_dataset_of_ray_goes_on_by_its_own_checkpoints(folder: Path, tmp_path: Path) -> None:
    """By a column that is both in what is read and in the rows: of files their path."""
    checkpoint = pytest.importorskip("ray.data.checkpoint")
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.checkpoint_config = checkpoint.CheckpointConfig(
        id_column="path", checkpoint_path=str(tmp_path / "checkpoints"), delete_checkpoint_on_success=False
    )
    files = sorted(map(str, folder.rglob("*.png")))
    own = {"factory": photographs, "targets": "top2", "preprocessing": PREPROCESSING, "image": "bytes", "id": "path"}
    for known in (files[:4], files):
        ray.data.read_binary_files(known, include_paths=True).map_batches(
            ExplainBatches,
            fn_constructor_kwargs=own,
            compute=ray.data.ActorPoolStrategy(size=1),
            num_cpus=0.5,
            batch_size=3,
        ).write_parquet(str(tmp_path / "out"))
    context.checkpoint_config = None
    found = parquet.read_table(tmp_path / "out").to_pylist()
    broken = {str(folder / "cat" / "0.png"), str(folder / "dog" / "9.png")}
    assert sorted((row["id"], row["row"]) for row in found) == [
        (file, k) for file in files for k in range(1 if file in broken else 2)
    ]
    expected = photographs()(np.stack([PREPROCESSING(Image.open(folder / "cat" / "1.png"))]), "top2").numpy()
    own_rows = [row for row in found if row["id"].endswith("cat/1.png")]
    np.testing.assert_allclose([row["score"] for row in own_rows], expected.scores[0], atol=1e-6)
