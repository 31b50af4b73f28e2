"""Which engine runs, with how many threads, and whether it is trusted."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from absence import hide
from engine_models import (
    IMAGES,
    Convolutions,
    Deciding,
    convolutions,
    counted_exports,
    seeded,
    with_part,
)
from engine_names import ENGINES, NEAR, registered_engines
from fusioncam_core import (
    RISE,
    AblationCAM,
    EngineWarning,
    FusionCAM,
    GradCAM,
    MissingExtra,
    ScoreCAM,
    UnionCAM,
    adapt_model,
)
from fusioncam_core.errors import InvalidTypeError, InvalidValueError
from fusioncam_core.evaluation.compared import compared_methods
from fusioncam_core.explainers import ensembles, region
from fusioncam_core.models import engine_choice, engine_steps, threads
from fusioncam_core.models.engine_choice import Choice
from fusioncam_core.models.engine_trust import probes, require_trust
from fusioncam_core.models.engines import require_engine
from fusioncam_core.plugins.engines import find_engine
from libraries import framework

torch = framework("torch")
nn = torch.nn


# Networks that nobody trained: a map may be empty.
pytestmark = [
    pytest.mark.filterwarnings("ignore::fusioncam_core.EmptyMapWarning"),
    pytest.mark.usefixtures(registered_engines.__name__),
]


OUTSIDE = """
import sys
from fusioncam_engines.openvino import OpenVINO
OpenVINO()
print(any(name.startswith("openvino_telemetry") for name in sys.modules))
import openvino.tools.ovc.convert_impl as converts
print(converts.tm.__name__)
"""


def test_openvino_tells_nobody() -> None:
    if importlib.util.find_spec("openvino") is None:
        pytest.skip("openvino is not installed")
    run = subprocess.run([sys.executable, "-c", OUTSIDE], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False", "openvino.tools.ovc.telemetry_stub"]


def test_onnx_runtime_tells_nobody(tmp_path: Path) -> None:
    if importlib.util.find_spec("onnxruntime") is None:
        pytest.skip("onnxruntime is not installed")
    code = "import os; from fusioncam_engines.onnxruntime import ONNXRuntime; ONNXRuntime(); print(dict(os.environ))"
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    homes = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, env={**environment, **homes}, capture_output=True, text=True, check=True)
    assert not list(tmp_path.iterdir()), "a device's number and events that wait to be sent"
    assert "ORT_DISABLE_TELEMETRY" not in run.stdout, "the process's own environment is left as it was"


class TestTrust:
    """Of six images of three classes, whose logits reach from 0 to 17."""

    EXPECTED = np.arange(18, dtype=np.float32).reshape(6, 3)

    def trusted(self, change: Callable[[np.ndarray], np.ndarray], precision: Any = "float32") -> None:
        require_trust(
            lambda places: [change(self.EXPECTED.copy())[places]], [self.EXPECTED], precision, "The engine", 8
        )

    def test_a_ten_thousandth_of_the_range_is_the_same(self) -> None:
        self.trusted(lambda values: values + 0.0016)

    def test_more_is_not(self) -> None:
        with pytest.raises(
            InvalidValueError, match=r"differs from the framework by 0\.0018 where outputs have a range"
        ):
            self.trusted(lambda values: values + 0.0018)

    def test_nor_is_what_is_no_number(self) -> None:
        def spoiled(values: np.ndarray) -> np.ndarray:
            values[2, 1] = np.nan
            return values

        with pytest.raises(InvalidValueError, match="by inf"):
            self.trusted(spoiled)

    def test_nor_other_shapes(self) -> None:
        with pytest.raises(InvalidValueError, match=r"shape \(6, 2\), and the framework \(6, 3\)"):
            self.trusted(lambda values: values[:, :2])

    def test_one_image_counts_as_well(self) -> None:
        def run(places: np.ndarray) -> list[np.ndarray]:
            return [self.EXPECTED[places] + (len(places) == 1)]

        with pytest.raises(InvalidValueError, match="on one image differs"):
            require_trust(run, [self.EXPECTED], "float32", "The engine", 6)

    def test_so_do_as_many_as_will_run_at_once(self) -> None:
        """An engine may run those in another way."""

        def run(places: np.ndarray) -> list[np.ndarray]:
            return [self.EXPECTED[places] + (len(places) == 8)]

        require_trust(run, [self.EXPECTED], "float32", "The engine", 6)
        with pytest.raises(InvalidValueError, match="on 8 images differs"):
            require_trust(run, [self.EXPECTED], "float32", "The engine", 8)

    @pytest.mark.parametrize(("off", "refused"), [(0.1, False), (0.19, False), (0.21, True), (np.nan, True)])
    def test_one_image_in_half_precision_is_as_near_as_all_at_once(self, off: float, refused: bool) -> None:
        """It is in any order by itself, and an engine may run it in another way."""

        def run(places: np.ndarray) -> list[np.ndarray]:
            return [self.EXPECTED[places] + (off if len(places) == 1 else 0.1)]

        sentence = pytest.raises(InvalidValueError, match=r"on one image differs from the framework by .*: expected at")
        with sentence if refused else contextlib.nullcontext():
            require_trust(run, [self.EXPECTED], "bfloat16", "The engine", 6)

    def test_half_precision_keeps_the_order(self) -> None:
        self.trusted(lambda values: values * 1.1 + 0.3, "bfloat16")
        with pytest.raises(InvalidValueError, match=r"ranks 6 scores with a correlation of -1\.000"):
            self.trusted(lambda values: -values, "bfloat16")

    def test_equal_scores_are_in_no_order(self) -> None:
        """By their places they would be in the order of these, which happen to rise."""
        expected = [np.arange(18, dtype=np.float32).reshape(6, 3)]
        with pytest.raises(InvalidValueError, match=r"ranks 6 scores with a correlation of 0\.000"):
            require_trust(lambda places: [np.zeros((len(places), 3))], expected, "bfloat16", "The engine", 8)

    def test_probes_show_all_but_a_corner_and_nothing(self) -> None:
        maps = probes(2, "float32")
        assert maps.shape == (6, 4, 4)
        assert maps[0].sum() == 15
        assert maps[0, 0, 0] == 0
        assert not maps[1].any()
        assert maps[2:].std() > 0.2


@ENGINES
def test_more_images_at_once_where_rows_run_apart(name: str) -> None:
    """Not of a function, whose outputs may have any axes: these are made of all rows together, in more memory."""
    cam = ScoreCAM(convolutions(), "features.3", engine=name)
    apart = 16 if name == "openvino" else 8
    for target, size in ((0, apart), (lambda outputs: outputs[:, 0], 8), (0, apart)):
        cam._steps._batchings.clear()
        cam(IMAGES, target)
        ((_, begun, _),) = cam._steps._batchings
        assert begun == size
    cam(IMAGES, lambda outputs: outputs[:, 0])
    assert len(cam._steps._batchings) == len({apart, 8})


class TestThreads:
    def test_are_no_more_than_the_frameworks_nor_than_the_process_may_use(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(threads, "_processors", lambda: 8)
        monkeypatch.setattr(threads, "CGROUP", tmp_path / "cpu.max")
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        assert [threads.allowed(wanted) for wanted in (1, 6, 64)] == [1, 6, 8]
        for written, most in (("max 100000", 8), ("250000 100000", 3), ("50000 100000", 1)):
            (tmp_path / "cpu.max").write_text(written)
            assert threads.allowed(64) == most
        monkeypatch.setenv("OMP_NUM_THREADS", "2,1")
        (tmp_path / "cpu.max").unlink()
        assert threads.allowed(64) == 2

    @ENGINES
    @pytest.mark.parametrize("method", [FusionCAM, UnionCAM, ScoreCAM])
    def test_a_map_beside_an_engine_is_worked_out_in_one(
        self, method: Any, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Behind arithmetic in all of its threads PyTorch would keep them awake, where the engine's are to run."""
        pytest.importorskip("threadpoolctl")
        seen: list[int] = []

        def looked(function: Callable[..., Any]) -> Callable[..., Any]:
            def looks(*arguments: Any, **options: Any) -> Any:
                seen.append(torch.get_num_threads())
                return function(*arguments, **options)

            return looks

        for module, function in ((ensembles, "_fusion_cam"), (ensembles, "_union_cam"), (region, "_score_cam")):
            monkeypatch.setattr(module, function, looked(getattr(module, function)))
        before = torch.get_num_threads()
        torch.set_num_threads(2)
        try:
            for engine, number in ((name, 1), (None, 2)):
                method(convolutions(), "features.3", engine=engine)(IMAGES, 0)
                assert torch.get_num_threads() == 2
                assert set(seen) == {number}
                seen.clear()
        finally:
            torch.set_num_threads(before)

    @ENGINES
    def test_explainers_in_two_of_them(self, name: str) -> None:
        shared, own = seeded(Convolutions), with_part(nn.Identity())
        cams = [ScoreCAM(shared, engine=name), RISE(shared, masks=20, engine=name), ScoreCAM(own, "1", engine=name)]
        expected = [cam(IMAGES, 1).maps for cam in cams]
        with ThreadPoolExecutor(3) as pool:
            for _ in range(4):
                found = list(pool.map(lambda cam: cam(IMAGES, 1).maps, cams))
                for one, other in zip(found, expected, strict=True):
                    np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)


@ENGINES
def test_half_precision_moves_maps_by_hundredths(name: str) -> None:
    unable = find_engine(name).unable("bfloat16")
    cam = ScoreCAM(convolutions(), engine=name, engine_precision="bfloat16")
    if unable is not None:
        with pytest.raises(InvalidValueError, match=rf"cannot compute in bfloat16: {unable[:20]}"):
            cam(IMAGES, 1)
        return
    difference = (cam(IMAGES, 1).maps - ScoreCAM(convolutions())(IMAGES, 1).maps).abs().max()
    assert 0 < float(difference) < 0.1


class Pretended:
    """An engine that is never asked to do anything."""

    name = "pretended"

    def unable(self, precision: Any) -> str | None:
        raise AssertionError

    def converted(self, export: Any, precision: Any, told: str) -> Any:
        raise AssertionError


class TestAuto:
    def test_waits_until_a_minute_lies_ahead(self) -> None:
        choice = Choice(Pretended(), auto=True)
        with choice.many(100):
            choice._tell(10, 5, engine=False)  # 90 images at half a second: 45 s
            assert not choice.on
            choice._tell(10, 10, engine=False)  # the fastest group counts
            assert not choice.on
        with choice.many(131):
            choice._tell(10, 5, engine=False)  # 121 images: 60.5 s
            assert choice.on
            assert choice.name == "pretended"

    def test_expects_as_much_as_it_has_seen_of_a_source_without_a_length(self) -> None:
        choice = Choice(Pretended(), auto=True)
        with choice.many(None):
            choice._tell(10, 59, engine=False)
            assert not choice.on
            choice._tell(10, 1, engine=False)
            assert choice.on

    @pytest.mark.parametrize(("seconds", "stays"), [(4.9, True), (5.1, False)])
    def test_keeps_what_is_faster(self, seconds: float, stays: bool) -> None:
        choice = Choice(Pretended(), auto=True)
        with choice.many(1000):
            choice._tell(10, 5, engine=False)
            choice._tell(10, 60, engine=True)  # with the conversion
            assert choice.on
            assert not choice.decided
            choice._tell(10, seconds, engine=True)
        assert choice.decided
        assert choice.on == stays

    def test_a_job_keeps_to_what_it_was_begun_with(self) -> None:
        choice = Choice(Pretended(), auto=True)
        choice.keep_to("pretended")
        assert choice.on
        choice.keep_to(None)
        assert not choice.on
        with pytest.raises(InvalidValueError, match="begun with engine='openvino'"):
            choice.keep_to("openvino")
        with pytest.raises(InvalidValueError, match="begun with engine=None"):
            Choice(Pretended()).keep_to(None)

    @ENGINES
    def test_converts_nothing_for_one_call(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        count = counted_exports(monkeypatch)
        monkeypatch.setattr(engine_choice, "WORTH", 0.0)
        cam = ScoreCAM(convolutions(), engine="auto")
        np.testing.assert_array_equal(cam(IMAGES).maps, ScoreCAM(convolutions())(IMAGES).maps)
        assert count() == 0

    @ENGINES
    def test_takes_an_engine_among_many(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        count = counted_exports(monkeypatch)
        images = np.random.default_rng(2).random((12, 3, 16, 16), dtype=np.float32)
        model = seeded(Convolutions)
        expected = [each.maps for each in ScoreCAM(model, batch_size=3).explain_many(images, 1)]
        few = list(ScoreCAM(model, batch_size=3, engine="auto").explain_many(images, 1))
        assert count() == 0, "not worth it"
        monkeypatch.setattr(engine_choice, "WORTH", 0.0)
        many = list(ScoreCAM(model, batch_size=3, engine="auto").explain_many(images, 1))
        assert count() == 1
        for found in (few, many):
            np.testing.assert_allclose([each.maps for each in found], expected, rtol=0, atol=NEAR)

    @ENGINES
    def test_goes_on_without_one_that_cannot(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(engine_choice, "WORTH", 0.0)
        images = np.random.default_rng(2).random((6, 3, 16, 16), dtype=np.float32)
        model = with_part(Deciding())
        with pytest.warns(EngineWarning, match="The framework goes on: The engine .* cannot be written down") as told:
            found = list(ScoreCAM(model, "1", batch_size=2, engine="auto").explain_many(images, 1))
        assert len(told) == 1
        expected = [each.maps for each in ScoreCAM(model, "1", batch_size=2).explain_many(images, 1)]
        np.testing.assert_array_equal([each.maps for each in found], expected)

    @ENGINES
    def test_goes_on_without_one_that_fails_in_the_middle(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """What was scored by then stays; masks that had gone to the host come back."""
        monkeypatch.setattr(engine_choice, "WORTH", 0.0)
        images = np.random.default_rng(2).random((6, 3, 16, 16), dtype=np.float32)
        model = seeded(Convolutions)
        expected = [each.maps for each in ScoreCAM(model, batch_size=2).explain_many(images, 1)]
        runs, works = [], engine_steps.BatchEngine.__call__

        def failing(self: Any, maps: Any, *rest: Any, **options: Any) -> Any:
            runs.append(type(maps))
            if len(runs) == 5:
                raise InvalidValueError("It fails.")
            return works(self, maps, *rest, **options)

        monkeypatch.setattr(engine_steps.BatchEngine, "__call__", failing)
        with pytest.warns(EngineWarning, match="The framework goes on: It fails."):
            found = list(ScoreCAM(model, batch_size=2, engine="auto").explain_many(images, 1))
        np.testing.assert_allclose([each.maps for each in found], expected, rtol=0, atol=NEAR)
        assert (len(runs), runs[4]) == (5, np.ndarray)

    @ENGINES
    def test_a_job_writes_down_what_ran(self, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        framework("pyarrow")
        images = np.random.default_rng(2).random((12, 3, 16, 16), dtype=np.float32)
        model = seeded(Convolutions)
        taken = next(each for each in ("openvino", "onnxruntime") if importlib.util.find_spec(each) is not None)
        for worth, engine in ((1e9, None), (0.0, taken)):
            monkeypatch.setattr(engine_choice, "WORTH", worth)
            folder = tmp_path / str(engine)
            monkeypatch.setattr(Choice, "_tell", told_that_engines_win)
            ScoreCAM(model, batch_size=2, engine="auto").explain_to(folder, images, 1)
            assert json.loads((folder / "_job.json").read_text())["engine"] == engine


tell = Choice._tell


def told_that_engines_win(choice: Choice, images: int, seconds: float, *, engine: bool) -> None:
    """Whatever the clock says on a machine that others use."""
    tell(choice, images, seconds * (0.001 if engine else 1), engine=engine)


class TestOptions:
    def test_are_those_of_methods_that_mask_images(self) -> None:
        model = with_part(nn.Identity())
        for method in (GradCAM, AblationCAM):
            with pytest.raises(InvalidTypeError, match="no option 'engine'"):
                method(model, "1", engine="openvino")
            assert "engine" not in method(model, "1").get_params()
        for method in (ScoreCAM, RISE, FusionCAM):
            params = method(model, "1").get_params()
            assert (params["engine"], params["engine_precision"]) == (None, "float32")

    @ENGINES
    def test_are_shown_compared_and_kept(self, name: str) -> None:
        model = with_part(nn.Identity())
        cam = FusionCAM(model, "1", engine=name)
        assert repr(cam) == f"FusionCAM(Sequential, layer='1', engine={name!r})"
        assert cam != FusionCAM(model, "1")
        assert cam.region.engine == (name, "float32")
        again = pickle.loads(pickle.dumps(cam))
        assert again.engine == cam.engine
        assert cam(IMAGES).provenance.options["engine"] == name

    @ENGINES
    def test_reach_the_parts_that_have_them(self, name: str) -> None:
        cam = FusionCAM(with_part(nn.Identity()), "1", region="ablation-cam", engine=name)
        assert cam(IMAGES, 1).maps.shape == (2, 16, 16)

    @ENGINES
    def test_of_an_evaluation_go_to_the_methods_that_have_them(self, name: str) -> None:
        compared = compared_methods(adapt_model(with_part(nn.Identity())), ["grad-cam", "rise"], "1", {"engine": name})
        assert compared.explainers["rise"].engine.name == name
        with pytest.raises(InvalidTypeError, match="engine= goes to methods that are given by name, and none"):
            compared_methods(adapt_model(with_part(nn.Identity())), ["grad-cam"], "1", {"engine": name})

    @ENGINES
    def test_a_regression_is_refused_in_half_precision(self, name: str) -> None:
        """It passes the check of single scores, and its map moves by .19."""
        model = with_part(nn.Identity())
        for make in (
            functools.partial(ScoreCAM, channel_weights="regression"),
            functools.partial(FusionCAM, variant="calibrated"),
        ):
            with pytest.raises(InvalidValueError, match=r"regression of scores on masks.* float32"):
                make(model, "1", engine=name, engine_precision="bfloat16")
            make(model, "1", engine=name)
            make(model, "1", engine_precision="bfloat16")  # which nothing computes in

    def test_other_words_are_refused(self) -> None:
        model = with_part(nn.Identity())
        with pytest.raises(InvalidValueError, match="No plugin has an engine called 'openvno'"):
            ScoreCAM(model, "1", engine="openvno")
        with pytest.raises(InvalidValueError, match="'float32' or 'bfloat16': got 'float16'"):
            ScoreCAM(model, "1", engine_precision="float16")
        with pytest.raises(InvalidValueError, match=r"'int8' is not offered, since .*: take 'bfloat16'"):
            ScoreCAM(model, "1", engine_precision="int8")
        with pytest.raises(InvalidValueError, match="an engine's name, such as 'openvino': got 3"):
            require_engine(3, "float32")

    @pytest.mark.parametrize("name", ["openvino", "onnxruntime"])
    def test_a_missing_package_is_named(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        model = with_part(nn.Identity())
        hide(name, monkeypatch)
        with pytest.raises(MissingExtra, match=rf'needs {name}: pip install "fusioncam\[{name}\]"'):
            ScoreCAM(model, "1", engine=name)
