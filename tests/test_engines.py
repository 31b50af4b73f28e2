"""Masked images through an engine: the framework's maps, or a sentence that says why not."""

from __future__ import annotations

import gc
import importlib.util
import weakref
from typing import Any

import numpy as np
import pytest

from engine_models import (
    IMAGES,
    Convolutions,
    Deciding,
    Dropping,
    Tokens,
    convolutions,
    counted_exports,
    seeded,
    with_part,
)
from engine_names import ENGINES, NEAR, assert_same_maps, registered_engines
from fusioncam_core import (
    RISE,
    SSCAM,
    BlackBox,
    FusionCAM,
    GroupCAM,
    ScoreCAM,
    SegmentationLogit,
    UnionCAM,
)
from fusioncam_core.errors import InvalidValueError
from fusioncam_core.models.masking import MaskedScorer
from fusioncam_engines import openvino
from libraries import framework

torch = framework("torch")
nn = torch.nn


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


# Networks that nobody trained: a map may be empty.
pytestmark = [
    pytest.mark.filterwarnings("ignore::fusioncam_core.EmptyMapWarning"),
    pytest.mark.usefixtures(registered_engines.__name__),
]


class Segments(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 4, 1)
        nn.init.ones_(self.conv.bias)  # so that maps are not zeros

    def forward(self, images: Any) -> Any:
        return {"out": self.head(self.conv(images).relu()), "aux": images.sum((1, 2, 3))}


@ENGINES
class TestMaps:
    @pytest.mark.parametrize("method", METHODS)
    def test_are_the_frameworks(self, name: str, method: str) -> None:
        kind, options = METHODS[method]
        assert_same_maps(kind, convolutions(), IMAGES, [[0, 3], [2, 1]], engine=name, **options)

    @pytest.mark.parametrize("budget", [None, 6])
    def test_masks_and_scores_stay_on_the_host(
        self, name: str, budget: int | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """But the black image's: Score-CAM by logits asks the engine with arrays of NumPy, and gets such."""
        cam = ScoreCAM(convolutions(), engine=name, budget=budget, batch_size=4)
        kinds, logits = [], MaskedScorer._logits

        def noted(self: Any, maps: Any, *rest: Any, **options: Any) -> Any:
            found = logits(self, maps, *rest, **options)
            kinds.append((type(maps), type(found)))
            return found

        monkeypatch.setattr(MaskedScorer, "_logits", noted)
        cam(IMAGES, 1)
        assert kinds.count((np.ndarray, np.ndarray)) >= 2
        assert len(set(kinds)) <= 2

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
                nn.init.ones_(self.conv.bias)  # so that maps are not zeros

            def forward(self, image: Any, words: Any, scale: Any) -> Any:
                return (self.conv(image).relu().mean(dim=(2, 3)) * self.names(words).mean(1)) * scale

        inputs = {"image": IMAGES, "words": torch.tensor([[0, 1], [5, 6]]), "scale": torch.tensor([2.0])}
        assert_same_maps(
            ScoreCAM, seeded(Two), inputs, engine=name, masked_input="image", shared=["scale"], layer="conv"
        )

    def test_of_functions_of_the_outputs(self, name: str) -> None:
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


@pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="not installed: openvino")
class TestRowsOfOpenVINO:
    """Its graphs take as many masks as run in them, or, of outputs that may have any axes, any number."""

    @pytest.fixture
    def rows(self, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
        """Of each graph that is compiled, how many masks it takes; None for any number."""
        compiled, found = openvino.OpenVINO._compiled, []

        def noted(self: Any, model: Any, *rest: Any) -> Any:
            (length,) = (each.partial_shape[0] for each in model.inputs if len(each.partial_shape) == 3)
            found.append(length.get_length() if length.is_static else None)
            return compiled(self, model, *rest)

        monkeypatch.setattr(openvino.OpenVINO, "_compiled", noted)
        return found

    @pytest.mark.parametrize(("threads", "few"), [(1, 2), (2, 2), (8, 2), (9, 1), (64, 1)])
    def test_in_float32(self, threads: int, few: int, rows: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(openvino, "allowed", lambda _: threads)
        assert_same_maps(ScoreCAM, seeded(Convolutions), IMAGES, [[0, 3], [2, 1]], engine="openvino")
        assert rows[:2] == [1, few]

    @pytest.mark.parametrize(("threads", "few"), [(2, 4), (4, 4), (5, 3), (16, 1)])
    def test_in_bfloat16(self, threads: int, few: int, rows: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
        if openvino.OpenVINO().unable("bfloat16"):
            pytest.skip("this processor has no bfloat16")
        monkeypatch.setattr(openvino, "allowed", lambda _: threads)
        ScoreCAM(seeded(Convolutions), engine="openvino", engine_precision="bfloat16")(IMAGES, 0)
        assert rows[:2] == [1, few]

    def test_of_functions(self, rows: list[Any]) -> None:
        target = SegmentationLogit(1, np.ones((16, 16), bool), output="out")
        assert_same_maps(ScoreCAM, seeded(Segments), IMAGES, target, engine="openvino", layer="conv")
        assert set(rows) == {None}
