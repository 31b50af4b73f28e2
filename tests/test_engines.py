"""Masked images through an engine: the framework's maps, or a sentence that says why not."""

from __future__ import annotations

import functools
import gc
import importlib.util
import json
import pickle
import subprocess
import sys
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from absence import hide
from engine_names import ENGINES, NEAR, registered_engines
from fusioncam_core import (
    RISE,
    SSCAM,
    AblationCAM,
    BlackBox,
    EngineWarning,
    FusionCAM,
    GradCAM,
    GroupCAM,
    MissingExtra,
    ScoreCAM,
    SegmentationLogit,
    UnionCAM,
    adapt_model,
)
from fusioncam_core.errors import InvalidTypeError, InvalidValueError
from fusioncam_core.evaluation.compared import compared_methods
from fusioncam_core.models import engine_choice
from fusioncam_core.models.engine_choice import Choice
from fusioncam_core.models.engine_trust import probes, require_trust
from fusioncam_core.models.engines import require_engine
from fusioncam_core.plugins.engines import find_engine
from fusioncam_engines import threads
from libraries import framework

torch = framework("torch")
nn = torch.nn


def seeded(make: Callable[[], Any]) -> Any:
    torch.manual_seed(3)
    return make().eval()


class Convolutions(nn.Module):
    """With running averages, which are not what they are at the beginning."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(channels, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 12, 3, 2, 1), nn.ReLU()
        )
        self.fc = nn.Linear(12, 5)
        self.features[1].running_mean.uniform_(-0.2, 0.2)
        self.features[1].running_var.uniform_(0.5, 2)

    def forward(self, images: Any) -> Any:
        return self.fc(self.features(images).mean(dim=(2, 3)))


class Tokens(nn.Module):
    """A small vision transformer: a class token, positions, attention; its head sees the class token."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, 16))
        self.places = nn.Parameter(torch.randn(1, 17, 16))
        self.block = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, norm_first=True)
        self.norm = nn.LayerNorm(16)
        self.head = nn.Linear(16, 5)

    def forward(self, images: Any) -> Any:
        rows = self.patches(images).flatten(2).transpose(1, 2)
        rows = torch.cat([self.token.expand(rows.shape[0], -1, -1), rows], dim=1) + self.places
        return self.head(self.norm(self.block(rows))[:, 0])


@functools.cache
def convolutions() -> Any:
    """One for all tests that change nothing of it, so that it is converted once for each way."""
    return seeded(Convolutions)


IMAGES = torch.from_numpy(np.random.default_rng(0).random((2, 3, 16, 16), dtype=np.float32))

METHODS: dict[str, tuple[Any, dict[str, Any]]] = {
    "score-cam": (ScoreCAM, {}),
    "by probability": (ScoreCAM, {"channel_weights": "probability"}),
    "a budget": (ScoreCAM, {"budget": 6}),
    "ss-cam": (SSCAM, {"samples": 2}),
    "group-cam": (GroupCAM, {"groups": 4}),
    "rise": (RISE, {"masks": 40, "cells": 4}),
    "union-cam": (UnionCAM, {}),
    "fusion-cam": (FusionCAM, {}),
    "calibrated": (FusionCAM, {"variant": "calibrated"}),
}


def assert_same_maps(method: Any, model: Any, images: Any, targets: Any = None, **options: Any) -> None:
    """Of the framework and of an engine, which did not stay unused."""
    expected = method(model, **{**options, "engine": None})(images, targets)
    cam = method(model, **options)
    explanation = cam(images, targets)
    assert cam.adapter.converted
    assert explanation.evaluations == expected.evaluations
    np.testing.assert_allclose(explanation.maps, expected.maps, rtol=0, atol=NEAR)
    np.testing.assert_array_equal(explanation.targets, expected.targets)


# Networks that nobody trained: a map may be empty.
pytestmark = [
    pytest.mark.filterwarnings("ignore::fusioncam_core.EmptyMapWarning"),
    pytest.mark.usefixtures(registered_engines.__name__),
]


@ENGINES
class TestMaps:
    @pytest.mark.parametrize("method", METHODS)
    def test_are_the_frameworks(self, name: str, method: str) -> None:
        kind, options = METHODS[method]
        assert_same_maps(kind, convolutions(), IMAGES, [[0, 3], [2, 1]], engine=name, **options)

    @pytest.mark.parametrize("options", [{"baseline": "blur"}, {"baseline": 0.5}, {"batch_size": 3}], ids=str)
    def test_with_what_is_erased_and_any_batch(self, name: str, options: dict[str, Any]) -> None:
        assert_same_maps(FusionCAM, convolutions(), IMAGES, engine=name, **options)

    def test_of_tokens(self, name: str) -> None:
        assert_same_maps(ScoreCAM, seeded(Tokens), IMAGES, layer="norm", engine=name)

    def test_of_one_channel_and_of_other_sizes(self, name: str) -> None:
        model = seeded(lambda: Convolutions(1))
        for size in (16, 20):
            images = torch.from_numpy(np.random.default_rng(1).random((1, 1, size, size + 4), dtype=np.float32))
            assert_same_maps(ScoreCAM, model, images, engine=name)

    @pytest.mark.parametrize("axes", [1, 3])
    def test_of_signals_and_volumes(self, name: str, axes: int) -> None:
        convolution = {1: nn.Conv1d, 3: nn.Conv3d}[axes]
        pool = {1: nn.AdaptiveAvgPool1d, 3: nn.AdaptiveAvgPool3d}[axes]
        model = seeded(
            lambda: nn.Sequential(convolution(2, 6, 3, 2), nn.ReLU(), pool(1), nn.Flatten(), nn.Linear(6, 3))
        )
        images = torch.from_numpy(np.random.default_rng(1).random((2, 2, *(12,) * axes), dtype=np.float32))
        assert_same_maps(ScoreCAM, model, images, layer="1", engine=name)

    def test_of_several_inputs(self, name: str) -> None:
        class Two(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.conv, self.names = nn.Conv2d(3, 6, 3), nn.Embedding(7, 6)

            def forward(self, image: Any, words: Any, scale: Any) -> Any:
                return (self.conv(image).relu().mean(dim=(2, 3)) * self.names(words).mean(1)) * scale

        inputs = {"image": IMAGES, "words": torch.tensor([[0, 1], [5, 6]]), "scale": torch.tensor([2.0])}
        assert_same_maps(
            ScoreCAM, seeded(Two), inputs, engine=name, masked_input="image", shared=["scale"], layer="conv"
        )

    def test_of_functions_of_the_outputs(self, name: str) -> None:
        class Segments(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.conv, self.head = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 4, 1)

            def forward(self, images: Any) -> Any:
                return {"out": self.head(self.conv(images).relu()), "aux": images.sum((1, 2, 3))}

        corner = np.zeros((16, 16), bool)
        corner[:5, :5] = True
        targets = [SegmentationLogit(1, corner, output="out"), SegmentationLogit(2, ~corner, output="out")]
        for given in (targets[0], targets):  # the same for both images; one for each
            assert_same_maps(ScoreCAM, seeded(Segments), IMAGES, given, engine=name, layer="conv")

    @pytest.mark.parametrize("options", [{"task": "binary"}, {"task": "multilabel"}, {"output_kind": "probabilities"}])
    def test_of_other_tasks(self, name: str, options: dict[str, Any]) -> None:
        classes = 1 if options.get("task") == "binary" else 3
        ends = [nn.Softmax(1)] if "output_kind" in options else []
        model = seeded(
            lambda: nn.Sequential(
                nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, classes), *ends
            )
        )
        assert_same_maps(ScoreCAM, model, IMAGES, layer="1", engine=name, **options)


@ENGINES
class TestKept:
    def test_a_second_explainer_converts_nothing(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        model, count = seeded(Convolutions), counted_exports(monkeypatch)
        for method in (ScoreCAM, FusionCAM):
            for images in (IMAGES, IMAGES[:1]):
                method(model, engine=name)(images)
        assert count() == 1

    def test_weights_that_changed_in_place_are_converted_anew(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        model, count = seeded(Convolutions), counted_exports(monkeypatch)
        cam = ScoreCAM(model, engine=name)
        before = cam(IMAGES, 1).maps
        with torch.no_grad():
            model.features[0].weight.data.mul_(-1)  # which PyTorch's own count of changes does not see
        after = cam(IMAGES, 1).maps
        assert count() == 2
        np.testing.assert_allclose(after, ScoreCAM(model)(IMAGES, 1).maps, rtol=0, atol=NEAR)
        assert float((after - before).abs().max()) > 0.1

    def test_running_averages_and_plain_values_too(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        model, count = seeded(Convolutions), counted_exports(monkeypatch)
        cam = ScoreCAM(model, engine=name)
        cam(IMAGES)
        model.features[1].running_mean += 0.5
        cam(IMAGES)
        model.features[1].eps = 0.3
        np.testing.assert_allclose(cam(IMAGES, 1).maps, ScoreCAM(model)(IMAGES, 1).maps, rtol=0, atol=NEAR)
        assert count() == 3

    def test_nothing_keeps_the_model(self, name: str) -> None:
        model = seeded(Convolutions)
        cam = FusionCAM(model, engine=name)
        cam(IMAGES)
        gone, adapter = weakref.ref(model), weakref.ref(cam.adapter)
        gc.collect()  # of what PyTorch's export leaves in circles of its own
        gc.disable()
        try:
            del cam, model
            assert adapter() is None
            assert gone() is None
        finally:
            gc.enable()

    def test_the_model_stays_as_it_was(self, name: str) -> None:
        from torch_models import module_state

        model = seeded(Convolutions).train()
        before = module_state(model)
        FusionCAM(model, engine=name)(IMAGES)
        after = module_state(model)
        assert before.keys() == after.keys()
        assert all(np.array_equal(before[key], after[key]) for key in before if key.endswith(("value", "buffer")))
        assert {key: each for key, each in before.items() if key.endswith(("module", "flags"))} == {
            key: each for key, each in after.items() if key.endswith(("module", "flags"))
        }


def counted_exports(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How often a program was written down from now on."""
    export, calls = torch.export.export, []

    def counting(*arguments: Any, **keywords: Any) -> Any:
        calls.append(arguments)
        return export(*arguments, **keywords)

    monkeypatch.setattr(torch.export, "export", counting)
    return lambda: len(calls)


class Dropping(nn.Module):
    def forward(self, values: Any) -> Any:
        return values * (torch.rand_like(values) > 0.5)


class Deciding(nn.Module):
    def forward(self, values: Any) -> Any:
        return values if float(values.sum()) > 0 else -values


def with_part(part: Any) -> Any:
    return seeded(
        lambda: nn.Sequential(
            nn.Conv2d(3, 6, 3), nn.ReLU(), part, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3)
        )
    )


@ENGINES
class TestRefusals:
    def refused(self, name: str, model: Any, images: Any = IMAGES, **options: Any) -> str:
        with pytest.raises(InvalidValueError) as error:
            ScoreCAM(model, **{"layer": "1", **options}, engine=name)(images, 0)
        return str(error.value)

    def test_random_layers(self, name: str) -> None:
        # Which OpenVINO has no rule for, and ONNX Runtime draws.
        words = {"openvino": "cannot be converted", "onnxruntime": "not give the same outputs twice"}
        assert words[name] in self.refused(name, with_part(Dropping()))

    def test_a_way_that_depends_on_values(self, name: str) -> None:
        assert "cannot be written down" in self.refused(name, with_part(Deciding()))

    def test_a_number_of_images_that_never_changes(self, name: str) -> None:
        class Counting(nn.Module):
            def forward(self, values: Any) -> Any:
                return values.reshape(len(values), -1, values.shape[2], values.shape[3])

        assert "torch.export needs images.shape[0]" in self.refused(name, with_part(Counting()))

    def test_float64(self, name: str) -> None:
        model = with_part(nn.Identity()).double()
        assert "the model's are in float64" in self.refused(name, model)

    def test_half_precision(self, name: str) -> None:
        model = with_part(nn.Identity()).bfloat16()
        assert "the model's are in bfloat16" in self.refused(name, model)

    @pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch.compile's own insides
    @pytest.mark.parametrize(
        ("option", "words"), [({"autocast": "bfloat16"}, "engine_precision="), ({"compile": True}, "torch.compile")]
    )
    def test_what_a_backend_does_itself(self, name: str, option: dict[str, Any], words: str) -> None:
        assert words in self.refused(name, with_part(nn.Identity()), backend_options=option)

    @pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
    def test_recorded_modules(self, name: str) -> None:
        model = torch.jit.trace(with_part(nn.Identity()), IMAGES)
        with pytest.raises(InvalidValueError, match="TorchScript"):
            RISE(model, masks=8, engine=name)(IMAGES)

    def test_a_model_without_a_program(self, name: str) -> None:
        model = BlackBox(lambda images: images.mean(axis=(2, 3)))
        with pytest.raises(InvalidValueError, match="nothing to read"):
            RISE(model, masks=8, engine=name)(IMAGES.numpy())


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


class TestTrust:
    """Of six images of three classes, whose logits reach from 0 to 17."""

    EXPECTED = np.arange(18, dtype=np.float32).reshape(6, 3)

    def trusted(self, change: Callable[[np.ndarray], np.ndarray], precision: Any = "float32") -> None:
        require_trust(lambda span: [change(self.EXPECTED.copy())[span]], [self.EXPECTED], precision, "The engine")

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
        def run(span: slice) -> list[np.ndarray]:
            return [self.EXPECTED[span] + (span.stop - span.start == 1)]

        with pytest.raises(InvalidValueError, match="on one image differs"):
            require_trust(run, [self.EXPECTED], "float32", "The engine")

    def test_half_precision_keeps_the_order(self) -> None:
        self.trusted(lambda values: values * 1.1 + 0.3, "bfloat16")
        with pytest.raises(InvalidValueError, match=r"ranks 6 scores with a correlation of -1\.000"):
            self.trusted(lambda values: -values, "bfloat16")

    def test_probes_show_all_but_a_corner_and_nothing(self) -> None:
        maps = probes(2, "float32")
        assert maps.shape == (6, 4, 4)
        assert maps[0].sum() == 15
        assert maps[0, 0, 0] == 0
        assert not maps[1].any()
        assert maps[2:].std() > 0.2


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
    def test_a_job_writes_down_what_ran(self, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        framework("pyarrow")
        images = np.random.default_rng(2).random((12, 3, 16, 16), dtype=np.float32)
        model = seeded(Convolutions)
        for worth, engine in ((1e9, None), (0.0, "openvino")):
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

    def test_other_words_are_refused(self) -> None:
        model = with_part(nn.Identity())
        with pytest.raises(InvalidValueError, match="No plugin has an engine called 'openvno'"):
            ScoreCAM(model, "1", engine="openvno")
        with pytest.raises(InvalidValueError, match="'float32' or 'bfloat16': got 'int8'"):
            ScoreCAM(model, "1", engine_precision="int8")
        with pytest.raises(InvalidValueError, match="an engine's name, such as 'openvino': got 3"):
            require_engine(3, "float32")

    @pytest.mark.parametrize("name", ["openvino", "onnxruntime"])
    def test_a_missing_package_is_named(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        model = with_part(nn.Identity())
        hide(name, monkeypatch)
        with pytest.raises(MissingExtra, match=rf'needs {name}: pip install "fusioncam\[{name}\]"'):
            ScoreCAM(model, "1", engine=name)
