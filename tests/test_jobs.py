"""Data sets explained into Parquet files, in this process on small PyTorch models."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from absence import hide
from fusioncam_core import FusionCAM, GradCAM, Preprocessing, resize
from fusioncam_core.cli import main
from fusioncam_core.errors import CannotWriteError, FolderInUseError, MissingExtra
from fusioncam_core.jobs import run as jobs
from fusioncam_core.models.batch_search import AutoBatching
from fusioncam_core.stores.lock import claimed

torch = pytest.importorskip("torch")
parquet = pytest.importorskip("pyarrow.parquet")
nn = torch.nn


def network(seed: int = 0, channels: int = 1) -> Any:
    torch.manual_seed(seed)
    layers = [nn.Conv2d(channels, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)]
    return nn.Sequential(*layers).eval()


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).random((25, 1, 12, 10), dtype=np.float32)


def rows(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for path in sorted(folder.glob("part-*.parquet")):
        found.extend(parquet.read_table(path).to_pylist())
    return found


class TestRows:
    def test_they_hold_what_explain_many_gives(self, images: np.ndarray, tmp_path: Path) -> None:
        cam = GradCAM(network(), "1", batch_size=4)
        done = cam.explain_to(tmp_path / "out", images, "top2", piece=10, class_names=list("abcde"), progress=False)
        assert (done.images, done.skipped, done.explained) == (25, 0, 25)
        assert [path.name for path in done.files] == [f"part-{n:06d}.parquet" for n in range(3)]
        found = rows(tmp_path / "out")
        assert [(row["id"], row["row"]) for row in found] == [(n, k) for n in range(25) for k in range(2)]
        for single in cam.explain_many(images, "top2"):
            for k in range(2):
                row = found[2 * single.indices[0] + k]
                own = single.numpy()
                assert row["class"] == own.targets[0, k]
                assert row["name"] == "abcde"[row["class"]]
                assert row["probability"] == pytest.approx(own.probabilities[0, k], abs=1e-6)
                assert row["score"] == pytest.approx(own.scores[0, k], abs=1e-6)
                assert [row["raw_low"], row["raw_high"]] == pytest.approx(own.raw_range[0, k], abs=1e-6)
                assert row["map_shape"] == [12, 10]
                np.testing.assert_allclose(np.reshape(row["map"], (12, 10)), own.maps[0, k], atol=5e-4)
                assert (row["layer"], row["error"], row["path"], row["masks_run"]) == ("1", None, None, None)

    def test_maps_are_halves(self, images: np.ndarray, tmp_path: Path) -> None:
        GradCAM(network(), "1").explain_to(tmp_path / "out", images, progress=False)
        values = np.float32([row["map"] for row in rows(tmp_path / "out")])
        np.testing.assert_array_equal(values, values.astype(np.float16).astype(np.float32))
        assert values.max() == 1

    def test_smaller_maps_and_none(self, images: np.ndarray, tmp_path: Path) -> None:
        cam = GradCAM(network(), "1", batch_size=4)
        cam.explain_to(tmp_path / "small", images[:6], 3, maps=(3, 2), progress=False)
        cam.explain_to(tmp_path / "none", images[:6], 3, maps=None, progress=False)
        small = resize(cam(images[:6], 3).numpy().maps, (3, 2))
        for row, expected in zip(rows(tmp_path / "small"), small, strict=True):
            np.testing.assert_allclose(np.reshape(row["map"], row["map_shape"]), expected, atol=5e-4)
        assert {(row["map"], row["map_shape"], row["class"]) for row in rows(tmp_path / "none")} == {(None, None, 3)}

    def test_a_methods_weights_are_columns(self, images: np.ndarray, tmp_path: Path) -> None:
        cam = FusionCAM(network(), "1", batch_size=8)
        cam.explain_to(tmp_path / "out", images[:5], 2, piece=2, progress=False)
        own = cam(images[:5], 2).numpy()
        assert len(own.weights) > 5
        for place, row in enumerate(rows(tmp_path / "out")):
            for name, values in own.weights.items():
                assert row[name] == pytest.approx(values[place], abs=1e-5), name
            assert row["masks_run"] == own.masks_run[place]

    def test_images_that_cannot_be_explained_have_a_reason(self, images: np.ndarray, tmp_path: Path) -> None:
        broken = images.copy()
        broken[[3, 4, 24]] = np.nan
        done = GradCAM(network(), "1").explain_to(tmp_path / "out", broken, piece=10, progress=False)
        assert (done.images, done.skipped) == (25, 3)
        found = rows(tmp_path / "out")
        assert [row["id"] for row in found] == list(range(25))
        assert [row["id"] for row in found if row["error"]] == [3, 4, 24]
        assert "NaN or infinity" in found[3]["error"]
        assert found[3]["class"] is None
        with pytest.raises(ValueError, match="Image 3 of the source: NaN or infinity"):
            GradCAM(network(), "1").explain_to(tmp_path / "raise", broken, on_error="raise", progress=False)

    @pytest.mark.parametrize("factor", [1e-9, 1e9])
    def test_maps_in_the_methods_own_units_are_no_halves(
        self, images: np.ndarray, tmp_path: Path, factor: float
    ) -> None:
        """Which would make zeros of small values, and infinities of large ones."""
        model = network()
        with torch.no_grad():
            model[4].weight.mul_(factor)
        cam = GradCAM(model, "1", normalised=False, batch_size=4)
        cam.explain_to(tmp_path, images[:4], 2, progress=False)
        expected = cam(images[:4], 2).numpy().maps
        assert expected.max() > 0
        for row, own in zip(rows(tmp_path), expected, strict=True):
            np.testing.assert_allclose(np.reshape(row["map"], own.shape), own, rtol=1e-6)

    @pytest.mark.parametrize("maps", ["small", 7, (7,), (0, 3), (3, 3, 3)])
    def test_sizes_of_maps_that_are_none(self, images: np.ndarray, tmp_path: Path, maps: Any) -> None:
        with pytest.raises(ValueError, match="size"):
            GradCAM(network(), "1").explain_to(tmp_path / "out", images, maps=maps, progress=False)
        assert not (tmp_path / "out" / "_job.json").exists()

    def test_a_weight_called_as_another_column(self, images: np.ndarray, tmp_path: Path) -> None:
        class Weighing(GradCAM):
            def explain(self, batch: Any) -> Any:
                result = super().explain(batch)
                return replace(result, weights={"score": batch.target_scores * 2, "own": batch.target_scores * 3})

        Weighing(network(), "1").explain_to(tmp_path, images[:3], 1, progress=False)
        for row in rows(tmp_path):
            assert [row["weight_score"], row["own"]] == pytest.approx([row["score"] * 2, row["score"] * 3])

    def test_an_empty_map_is_told_of_its_own_image(self, images: np.ndarray, tmp_path: Path) -> None:
        model = network()
        with torch.no_grad():
            model[0].bias.fill_(-1)
            model[0].weight.fill_(0.2)
        dark = images.copy()
        dark[5] = 0
        GradCAM(model, "1").explain_to(tmp_path / "out", dark, 1, progress=False)
        told = {row["id"]: row["warnings"] for row in rows(tmp_path / "out") if row["warnings"]}
        assert 5 in told
        assert "map is zero everywhere for image 5" in told[5][0]


class TestFiles:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        noise = np.random.default_rng(1).integers(0, 256, (7, 12, 12, 3), dtype=np.uint8)
        for number, pixels in enumerate(noise):
            path = tmp_path / "photographs" / ("cat" if number % 2 else "dog") / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
        for broken in ("cat/0.png", "dog/9.png"):
            (tmp_path / "photographs" / broken).write_bytes(b"no picture")
        return tmp_path / "photographs"

    def test_a_folder(self, folder: Path, tmp_path: Path) -> None:
        preprocessing = Preprocessing(size=(12, 12), mean=0.0, std=255.0)
        cam = GradCAM(network(channels=3), "1")
        done = cam.explain_to(tmp_path / "out", folder, preprocessing=preprocessing, piece=4, progress=False)
        assert (done.images, done.skipped) == (9, 2)
        found = rows(tmp_path / "out")
        expected = ["cat/0.png", "cat/1.png", "cat/3.png", "cat/5.png"]
        assert [row["path"] for row in found] == [*expected, *(f"dog/{n}.png" for n in (0, 2, 4, 6, 9))]
        assert [row["path"] for row in found if row["error"]] == ["cat/0.png", "dog/9.png"]
        assert "cat/0.png" in found[0]["error"]
        again = cam.explain_to(tmp_path / "out", folder, preprocessing=preprocessing, piece=4, progress=False)
        assert (again.explained, again.images, again.skipped) == (0, 9, 2)
        Image.new("RGB", (12, 12)).save(folder / "dog" / "new.png")
        with pytest.raises(ValueError, match="of something else: the images changed"):
            cam.explain_to(tmp_path / "out", folder, preprocessing=preprocessing, piece=4, progress=False)

    @pytest.mark.skipif(sys.platform != "linux", reason="names of any bytes")
    def test_a_name_that_is_no_text(self, folder: Path, tmp_path: Path) -> None:
        (folder / "cat" / "1.png").rename(os.fsdecode(os.fsencode(folder) + b"/cat/\xff.png"))
        (folder / "cat" / "0.png").rename(os.fsdecode(os.fsencode(folder) + b"/cat/\xfe.png"))
        preprocessing = Preprocessing(size=(12, 12), mean=0.0, std=255.0)
        cam = GradCAM(network(channels=3), "1")
        done = cam.explain_to(tmp_path / "out", folder, preprocessing=preprocessing, progress=False)
        assert (done.images, done.skipped) == (9, 2)
        found = {row["path"]: row["error"] for row in rows(tmp_path / "out")}
        assert found["cat/\\udcff.png"] is None
        assert "udcfe" in found["cat/\\udcfe.png"]

    def test_nothing_to_explain(self, folder: Path, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="None of the images could be explained"):
            GradCAM(network(channels=3), "1").explain_to(
                tmp_path / "out",
                [folder / "cat" / "0.png"],
                preprocessing=Preprocessing(size=(12, 12), mean=0.0, std=1.0),
                progress=False,
            )
        assert not (tmp_path / "out" / "_job.json").exists()

    def test_the_command(
        self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "job_model.py").write_text(
            "from fusioncam_core import LoadedModel, Preprocessing\nfrom test_jobs import network\n"
            "def load():\n    preprocessing = Preprocessing(size=(12, 12), mean=0.0, std=255.0)\n"
            "    return LoadedModel(network(channels=3), preprocessing, tuple('abcde'), layer='1')\n"
        )
        command = ["explain", "photographs", "--model", "python:job_model:load", "--method", "grad-cam", "--job"]
        command += ["--targets", "top2", "--out", "out", "--job-maps", "4x4", "--no-progress"]
        assert main(command) == 1  # two photographs were left out
        first = capsys.readouterr().out
        assert "9 images in 1 file, 2 of them left out: 9 explained now" in first
        assert main(command) == 1
        assert "all of it was there already" in capsys.readouterr().out
        found = rows(tmp_path / "out")
        assert len(found) == 7 * 2 + 2
        assert found[1]["path"] == "photographs/cat/1.png"
        assert found[1]["map_shape"] == [4, 4]
        assert main([*command, "--report", "page.html"]) == 2
        assert "--report does not go with --job" in capsys.readouterr().err
        for targets, classes in (("d", {3}), ("b,d", {1, 3})):
            assert main([*command, "--targets", targets, "--out", targets]) == 1
            assert {row["class"] for row in rows(tmp_path / targets) if not row["error"]} == classes
        assert len(rows(tmp_path / "b,d")) == 7 * 2 + 2

    @pytest.mark.parametrize(
        ("given", "words"),
        [
            (["--job", "--workers", "2"], "--workers belongs to --engine ray."),
            (["--job", "--address", "auto"], "--address belongs to --engine ray."),
            (["--engine", "ray"], "--engine ray does jobs: expected --job as well."),
            (["--job", "--engine", "ray"], 'Working on Ray needs ray: pip install "fusioncam[ray]"'),
        ],
    )
    def test_options_of_ray(
        self,
        folder: Path,
        tmp_path: Path,
        given: list[str],
        words: str,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        hide("ray", monkeypatch)
        out = str(tmp_path / "out")
        command = ["explain", str(folder), "--model", "python:nowhere:load", "--method", "grad-cam", "--out", out]
        assert main([*command, *given]) == 2
        assert words in capsys.readouterr().err
        assert not (tmp_path / "out").exists()


class TestGoingOn:
    def test_what_is_there_is_not_made_again(
        self, images: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole = GradCAM(network(), batch_size=4)
        whole.explain_to(tmp_path / "whole", images, piece=5, progress=False)
        part = GradCAM(network(), batch_size=4)
        rows_of = jobs.rows_of

        def interrupted(explanation: Any, *others: Any) -> Iterator[Any]:
            if explanation.indices[0] == 13:
                raise KeyboardInterrupt
            return rows_of(explanation, *others)

        monkeypatch.setattr(jobs, "rows_of", interrupted)
        with pytest.raises(KeyboardInterrupt):
            part.explain_to(tmp_path / "part", images, piece=5, progress=False)
        assert sorted(path.name for path in (tmp_path / "part").glob("part-*")) == [
            "part-000000.parquet",
            "part-000001.parquet",
        ]
        seen: list[int] = []

        def watched(explanation: Any, *others: Any) -> Iterator[Any]:
            seen.append(explanation.indices[0])
            return rows_of(explanation, *others)

        monkeypatch.setattr(jobs, "rows_of", watched)
        again = GradCAM(network(), batch_size=4)  # as another process would make it
        done = again.explain_to(tmp_path / "part", images, piece=5, progress=False)
        assert (done.images, done.explained) == (25, 15)
        assert seen == list(range(10, 25))
        assert rows(tmp_path / "part") == rows(tmp_path / "whole")
        assert again.layer_names == ("1",)

    def test_what_a_killed_run_left_is_cleared_away(self, images: np.ndarray, tmp_path: Path) -> None:
        cam = GradCAM(network(), "1", batch_size=4)
        cam.explain_to(tmp_path, images, piece=10, progress=False)
        (tmp_path / "part-000001.parquet").rename(tmp_path / ".fusioncam-0123456789abcdef")
        assert cam.explain_to(tmp_path, images, piece=10, progress=False).explained == 10
        assert not list(tmp_path.glob(".fusioncam-*"))

    def test_the_way_that_proved_fastest_is_kept(
        self, images: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(AutoBatching, "settled", property(lambda self: True))
        monkeypatch.setattr(AutoBatching, "way", property(lambda self: self._best._replace(size=3)))
        GradCAM(network(), "1").explain_to(tmp_path, images, piece=10, progress=False)
        assert json.loads((tmp_path / "_job.json").read_text())["batch_size"] == 3
        (tmp_path / "part-000002.parquet").unlink()
        sizes: list[int] = []
        cam = GradCAM(network(), "1")
        call = cam._call

        def counted(given: Any, *others: Any) -> Any:
            sizes.append(len(given))
            return call(given, *others)

        monkeypatch.setattr(cam, "_call", counted)
        cam.explain_to(tmp_path, images, piece=10, progress=False)
        assert sizes == [3, 2]

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (lambda images: (network(1), images, {}, {}), "the model or its weights"),
            (lambda images: (network(), images + 1, {}, {}), "the images"),
            (lambda images: (network(), images, {"relu": False}, {}), "the method, its options or its layers"),
            (lambda images: (network(), images, {}, {"targets": 3}), "the targets"),
            (lambda images: (network(), images, {}, {"maps": (2, 2)}), "the size of the kept maps"),
            (lambda images: (network(), images, {}, {"piece": 7}), "how many images a file is of"),
            (lambda images: (network(1), images + 1, {}, {}), "the model or its weights and the images"),
        ],
    )
    def test_another_job_in_the_same_folder(self, images: np.ndarray, tmp_path: Path, change: Any, words: str) -> None:
        GradCAM(network(), "1").explain_to(tmp_path, images, progress=False)
        before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
        model, source, options, keywords = change(images)
        with pytest.raises(ValueError, match="of something else: ") as refused:
            GradCAM(model, "1", **options).explain_to(tmp_path, source, progress=False, **keywords)
        assert words in str(refused.value)
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before

    def test_going_on_can_be_refused(self, images: np.ndarray, tmp_path: Path) -> None:
        GradCAM(network(), "1").explain_to(tmp_path, images, progress=False)
        with pytest.raises(ValueError, match=r"There is a job in .*: expected resume=True"):
            GradCAM(network(), "1").explain_to(tmp_path, images, resume=False, progress=False)

    def test_folders_of_others(self, images: np.ndarray, tmp_path: Path) -> None:
        cam = GradCAM(network(), "1")
        for name, content, words in (
            ("_job.json", "{}", "is no job of fusioncam"),
            ("_job.json", '{"fusioncam": "job", "format": 9}', "is of format 9"),
            ("_job.json", '{"fusioncam": "job", "format": 1, "made_of": {}}', "is damaged: "),
            ("mine.parquet", "rows", r"holds mine\.parquet and no _job\.json"),
        ):
            folder = tmp_path / words.split()[1]
            folder.mkdir(exist_ok=True)
            (folder / name).write_text(content)
            with pytest.raises(ValueError, match=words):
                cam.explain_to(folder, images, progress=False)
            assert [path.name for path in folder.iterdir()] == [name]
            assert (folder / name).read_text() == content
            (folder / name).unlink()

    def test_a_file_in_the_folders_place(self, images: np.ndarray, tmp_path: Path) -> None:
        (tmp_path / "out").write_text("mine")
        with pytest.raises(CannotWriteError, match="out"):
            GradCAM(network(), "1").explain_to(tmp_path / "out", images, progress=False)
        assert (tmp_path / "out").read_text() == "mine"

    @pytest.mark.skipif(sys.platform == "win32", reason="no limit on the size of files")
    def test_a_full_disk(self, images: np.ndarray, tmp_path: Path) -> None:
        """The file is named, nothing half is left, and what is there is gone on with."""
        import resource

        cam = GradCAM(network(), "1", batch_size=4)
        cam.explain_to(tmp_path, images, piece=10, progress=False)
        expected = rows(tmp_path)
        (tmp_path / "part-000001.parquet").unlink()
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, hard))
        try:
            with pytest.raises(CannotWriteError, match=r"part-000001\.parquet"):
                cam.explain_to(tmp_path, images, piece=10, progress=False)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        names = ["_job.json", "_job.lock", "part-000000.parquet", "part-000002.parquet"]
        assert sorted(path.name for path in tmp_path.iterdir()) == names
        assert cam.explain_to(tmp_path, images, piece=10, progress=False).explained == 10
        assert rows(tmp_path) == expected

    def test_a_damaged_file_is_named(self, images: np.ndarray, tmp_path: Path) -> None:
        cam = GradCAM(network(), "1")
        cam.explain_to(tmp_path, images, piece=10, progress=False)
        (tmp_path / "part-000001.parquet").write_bytes(b"torn")
        with pytest.raises(ValueError, match=r"part-000001\.parquet cannot be read: .* Remove it"):
            cam.explain_to(tmp_path, images, piece=10, progress=False)

    def test_one_at_a_time(self, images: np.ndarray, tmp_path: Path) -> None:
        with claimed(tmp_path, 0, "_job.lock", "job"), pytest.raises(FolderInUseError, match="The job of process"):
            GradCAM(network(), "1").explain_to(tmp_path, images, progress=False)


class TestSources:
    @pytest.mark.filterwarnings("ignore::fusioncam_core.errors.EmptyMapWarning")
    def test_a_loader(self, images: np.ndarray, tmp_path: Path) -> None:
        """Its batches are cut where a piece ends; labels are targets."""
        labels = np.arange(25) % 5
        loader = torch.utils.data.DataLoader(
            torch.utils.data.TensorDataset(torch.from_numpy(images), torch.from_numpy(labels)), batch_size=7
        )
        cam = GradCAM(network(), "1", batch_size=4)
        done = cam.explain_to(tmp_path, loader, "labels", piece=10, progress=False)
        assert done.images == 25
        assert [len(parquet.read_table(path)) for path in done.files] == [10, 10, 5]
        found = rows(tmp_path)
        assert [row["class"] for row in found] == labels.tolist()
        own = cam(images, labels).numpy()
        np.testing.assert_allclose([row["score"] for row in found], own.scores, atol=1e-6)
        (tmp_path / "part-000001.parquet").unlink()
        assert cam.explain_to(tmp_path, loader, "labels", piece=10, progress=False).explained == 10
        assert rows(tmp_path) == found

    def test_others_of_as_many_images_are_other_sources(self, images: np.ndarray, tmp_path: Path) -> None:
        cam = GradCAM(network(), "1", batch_size=4)

        def loader(values: np.ndarray) -> Any:
            return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.from_numpy(values)), batch_size=7)

        for name, made in (("loader", loader), ("list", lambda values: [values[:9], values[9:]])):
            cam.explain_to(tmp_path / name, made(images), progress=False)
            assert cam.explain_to(tmp_path / name, made(images.copy()), progress=False).explained == 0
            with pytest.raises(ValueError, match="of something else: the images changed"):
                cam.explain_to(tmp_path / name, made(images[::-1].copy()), progress=False)

    def test_no_images_at_all(self, tmp_path: Path) -> None:
        with pytest.raises(
            TypeError, match="Expected images: a folder, a list of files, an array or a loader, got a int"
        ):
            GradCAM(network(), "1").explain_to(tmp_path / "out", 5, progress=False)

    def test_what_is_read_once_is_refused(self, images: np.ndarray, tmp_path: Path) -> None:
        with pytest.raises(TypeError, match="read again when a job goes on, got a generator"):
            GradCAM(network(), "1").explain_to(tmp_path / "out", (each for each in images), progress=False)
        assert not (tmp_path / "out").exists()

    def test_a_row_of_targets_for_each_image(self, images: np.ndarray, tmp_path: Path) -> None:
        GradCAM(network(), "1").explain_to(tmp_path, images, np.arange(25) % 5, piece=10, progress=False)
        assert [row["class"] for row in rows(tmp_path)] == [n % 5 for n in range(25)]


def test_without_pyarrow(images: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hide("pyarrow", monkeypatch)
    with pytest.raises(MissingExtra, match=r"Keeping explanations in Parquet files needs pyarrow: .*fusioncam\[jobs\]"):
        GradCAM(network(), "1").explain_to(tmp_path / "out", images, progress=False)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("progress", [None, True])
def test_a_line_now_and_then_in_a_log(
    images: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    progress: Any,
) -> None:
    monkeypatch.setattr("fusioncam_core.data.progress.SECONDS", 0.0)
    GradCAM(network(), "1").explain_to(tmp_path, images, progress=progress)
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("Grad-CAM, images: 25 of 25 (100 %) in 0:0")
    assert " a second, about 0:00 left" in last


def test_rows_are_asked_in_sql(images: np.ndarray, tmp_path: Path) -> None:
    """Which class relies on the lower left corner? docs/jobs.md."""
    duckdb = pytest.importorskip("duckdb")
    GradCAM(network(), "1", batch_size=4).explain_to(
        tmp_path, images, "top2", maps=(2, 2), class_names=list("abcde"), progress=False
    )
    query = (
        "SELECT name, count(*) AS n, avg(map[3] / (map[1] + map[2] + map[3] + map[4])) AS share "
        f"FROM '{tmp_path}/part-*.parquet' WHERE error IS NULL GROUP BY name ORDER BY share DESC"
    )
    found = duckdb.sql(query).fetchall()
    expected: dict[str, list[float]] = {}
    for row in rows(tmp_path):
        expected.setdefault(row["name"], []).append(row["map"][2] / sum(row["map"]))
    assert {name: (n, pytest.approx(share)) for name, n, share in found} == {
        name: (len(shares), np.mean(shares)) for name, shares in expected.items()
    }


def test_an_estimate_is_of_the_same_order_as_the_work(images: np.ndarray) -> None:
    cam = GradCAM(network(), "1", batch_size=8)
    forecast = cam.estimate(images, 100_000, seconds=0.4)
    began = time.perf_counter()
    explained = sum(1 for _ in range(8) for _ in cam.explain_many(images))
    rate = explained / (time.perf_counter() - began)
    assert rate / 4 < forecast.images_a_second < rate * 4
    assert forecast.seconds == pytest.approx(100_000 / forecast.images_a_second)
    assert str(forecast).startswith(f"100000 images at {forecast.images_a_second:.3g} a second: ")
