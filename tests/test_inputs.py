"""Inputs as models take them: in containers, beside what is no array, shared by all images, with channels anywhere."""

from __future__ import annotations

import collections
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pytest

from fusioncam_core import (
    EXPLAINERS,
    RISE,
    AblationCAM,
    BinaryLogit,
    EigenCAM,
    FusionCAM,
    GradCAM,
    Regression,
    ScoreCAM,
    SmoothGradCAMPlusPlus,
    evaluate,
)
from fusioncam_core.arrays.namespaces import to_numpy
from fusioncam_core.arrays.words import normalise, resize
from fusioncam_core.models.axes import drawn_for_one, over_channels, spatial_size
from fusioncam_core.models.baselines import erased_images
from fusioncam_core.models.black_box import BlackBox
from fusioncam_core.models.calling import Caller
from fusioncam_core.models.structure import ByForm, Shared, map_arrays, rebuilt, split
from libraries import framework

torch = pytest.importorskip("torch")
nn = torch.nn

GENERATOR = np.random.default_rng(0)
MRI, CT = (GENERATOR.random((3, 1, 8, 10), dtype=np.float32) for _ in range(2))
TABLE = GENERATOR.random((3, 5), dtype=np.float32)
KERNELS = GENERATOR.normal(size=(2, 4)).astype(np.float32)
HEAD = GENERATOR.normal(size=(8, 3)).astype(np.float32)

METHODS = (GradCAM, ScoreCAM, FusionCAM, AblationCAM, SmoothGradCAMPlusPlus)
"""Of each way to run a model one: with gradients, under masks, both, with replaced activations, on other images."""

OPTIONS: dict[str, Any] = {"rise": {"masks": 30}, "ss-cam": {"samples": 3}, "smooth-grad-cam++": {"samples": 3}}


class Scan(NamedTuple):
    """Two images of a patient."""

    mri: Any
    ct: Any


def torch_branch() -> Any:
    return nn.Sequential(nn.Conv2d(1, 4, 1, bias=False), nn.ReLU())


class TwoBranches(nn.Module):
    """A branch for each of two images, and a head; as it takes them, its subclasses say."""

    def __init__(self) -> None:
        super().__init__()
        self.mri, self.ct, self.head = torch_branch(), torch_branch(), nn.Linear(8, 3, bias=False)
        with torch.no_grad():
            for branch, kernel in zip((self.mri, self.ct), KERNELS, strict=True):
                branch[0].weight.copy_(torch.from_numpy(kernel).reshape(4, 1, 1, 1))
            self.head.weight.copy_(torch.from_numpy(HEAD.T))

    def classes(self, mri: Any, ct: Any) -> Any:
        return self.head(torch.cat([self.mri(mri).mean((2, 3)), self.ct(ct).mean((2, 3))], 1))


def by_hand(target: int = 1) -> np.ndarray:
    """Grad-CAM at the branch of the first image, channels last: the head is linear in the means of the channels."""
    activations = np.maximum(np.moveaxis(MRI, 1, -1) * KERNELS[0], 0)
    maps = np.maximum(activations @ (HEAD[:4, target] / (8 * 10)), 0)
    return normalise(resize(maps.astype(np.float32), (8, 10)))


class OneList(TwoBranches):
    def forward(self, views: Any) -> Any:
        assert isinstance(views, list)
        return self.classes(*views)


class OneTuple(TwoBranches):
    def forward(self, views: Any) -> Any:
        assert type(views) is tuple
        return self.classes(*views)


class OneNamedTuple(TwoBranches):
    def forward(self, scan: Any) -> Any:
        return self.classes(scan.mri, scan.ct)


class OneMapping(TwoBranches):
    def forward(self, batch: Any) -> Any:
        assert isinstance(batch, dict | collections.UserDict)
        return self.classes(batch["mri"], batch["ct"])


class Nested(TwoBranches):
    def forward(self, images: Any) -> Any:
        return self.classes(*images["images"]) + 0 * images["meta"].sum()


class ByName(TwoBranches):
    def forward(self, mri: Any, ct: Any = None, scale: float = 1.0, mode: str = "sum", *, flag: bool = False) -> Any:
        assert type(scale) is float
        assert mode == "sum"
        assert flag in (True, False)
        return scale * self.classes(mri, mri if ct is None else ct)


class Anything(TwoBranches):
    def forward(self, *images: Any, **more: Any) -> Any:
        return self.classes(*images[:2])


def given(first: Any, second: Any) -> dict[str, tuple[type, Any, Any]]:
    """The models, the inputs they take, and where the explained one is in them."""
    meta = np.arange(3)
    return {
        "list": (OneList, [first, second], 0),
        "tuple": (OneTuple, (first, second), 0),
        "list in a list": (OneList, [[first, second]], (0, 0)),
        "named tuple": (OneNamedTuple, Scan(first, second), 0),
        "named tuple by position": (OneNamedTuple, (Scan(first, second),), (0, 0)),
        "mapping": (OneMapping, {"mri": first, "ct": second}, "mri"),
        "user's mapping": (OneMapping, collections.UserDict(mri=first, ct=second), "mri"),
        "nested": (Nested, {"images": [first, second], "meta": meta}, ("images", 0)),
        "names": (ByName, {"mri": first, "ct": second}, "mri"),
        "names and more": (ByName, {"mri": first, "ct": second, "scale": 2.0, "mode": "sum", "flag": True}, "mri"),
        "positions": (ByName, (first, second), 0),
        "a list of positions": (ByName, [first, second], 0),
        "any positions": (Anything, (first, second), 0),
    }


@pytest.mark.parametrize("kind", list(given(MRI, CT)))
class TestContainers:
    def test_grad_cam(self, kind: str) -> None:
        make, inputs, which = given(MRI, CT)[kind]
        explanation = GradCAM(make(), "mri", masked_input=which)(inputs, 1)
        np.testing.assert_allclose(explanation.maps, by_hand(), atol=1e-6)
        assert explanation.images.shape == MRI.shape

    @pytest.mark.parametrize("method", METHODS)
    def test_all_ways_to_run_the_model(self, kind: str, method: Any) -> None:
        make, inputs, which = given(MRI, CT)[kind]
        options = OPTIONS.get(method.name, {})
        expected = method(Anything(), "mri", masked_input=0, **options)((MRI, CT), 1).maps
        if kind == "names and more" and method in (ScoreCAM, FusionCAM):
            expected = method(Doubled(), "mri", masked_input=0, **options)((MRI, CT), 1).maps
        found = method(make(), "mri", masked_input=which, batch_size=2, **options)(inputs, 1).maps
        np.testing.assert_allclose(found, expected, atol=1e-5)


class Doubled(TwoBranches):
    def forward(self, mri: Any, ct: Any) -> Any:
        return 2 * self.classes(mri, ct)


class TestBesideArrays:
    """None, numbers, words and flags come to the model as they were given."""

    def test_none_takes_the_default(self) -> None:
        expected = GradCAM(ByName(), "mri", masked_input=0)((MRI, MRI), 1).maps
        for inputs, which in (((MRI, None), 0), ({"mri": MRI, "ct": None}, "mri"), ({"mri": MRI}, "mri")):
            for method in (GradCAM, ScoreCAM):
                assert method(ByName(), "mri", masked_input=which)(inputs, 1).maps.isfinite().all()
            found = GradCAM(ByName(), "mri", masked_input=which)(inputs, 1).maps
            torch.testing.assert_close(found, expected)

    def test_objects_are_the_same_ones(self) -> None:
        seen: list[Any] = []
        graph, words, single = object(), ["a", "b"], np.float64(0.5)

        class Notes(TwoBranches):
            def forward(self, mri: Any, *more: Any) -> Any:
                seen.append(more)
                return self.classes(mri, mri)

        FusionCAM(Notes(), "mri", masked_input=0)((MRI, graph, words, single), 1)
        assert all(first is graph and second is words and third is single for first, second, third in seen)

    def test_integers_keep_their_dtype_and_single_numbers_their_shape(self) -> None:
        seen: list[Any] = []

        class Notes(TwoBranches):
            def forward(self, mri: Any, ids: Any, temperature: Any) -> Any:
                seen.append((ids.dtype, tuple(ids.shape), tuple(temperature.shape), temperature.dtype))
                return self.classes(mri, mri) / temperature

        inputs = (MRI, np.arange(3), torch.tensor(2.0, dtype=torch.float64))
        ScoreCAM(Notes(), "mri", masked_input=0, batch_size=2)(inputs, 1)
        assert {(dtype, shape, kind) for dtype, _, shape, kind in seen} == {(torch.int64, (), torch.float32)}
        assert {rows for _, (rows,), _, _ in seen} <= {1, 2}


class WithTable(TwoBranches):
    """An image, and numbers about it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Linear(5, 3)

    def forward(self, image: Any, table: Any) -> Any:
        return self.classes(image, image) + self.table(table)


class Prompted(TwoBranches):
    """Each image with each prompt, as CLIP does: (images, prompts)."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words = nn.Embedding(50, 3)
        with torch.no_grad():  # something speaks for every prompt
            for each in (self.head, self.words):
                each.weight.abs_()

    def forward(self, image: Any, ids: Any, mask: Any = None) -> Any:
        prompts = self.words(ids) if mask is None else self.words(ids) * mask[..., None]
        return {"logits": self.classes(image, image) @ prompts.mean(1).T, "prompts": prompts}


class Fixed(nn.Module):
    """The same with the prompts inside."""

    def __init__(self, model: Any, ids: Any):
        super().__init__()
        self.model, self.ids = model, torch.from_numpy(ids)

    def forward(self, image: Any) -> Any:
        return self.model(image, self.ids)["logits"]


IDS = np.random.default_rng(1).integers(0, 50, (4, 6))


class TestShared:
    @pytest.mark.parametrize("prompts", [1, 2, 3, 4])
    @pytest.mark.parametrize("batch_size", [1, 2, 3, "auto"])
    @pytest.mark.parametrize("method", METHODS)
    def test_prompts(self, method: Any, batch_size: Any, prompts: int) -> None:
        model, ids, options = Prompted(), IDS[:prompts], OPTIONS.get(method.name, {})
        task: Any = {"task": "multilabel", "batch_size": batch_size, **options}
        expected = method(Fixed(model, ids), "model.mri", **task)(MRI, prompts - 1)
        found = method(model, "mri", masked_input="image", shared=["ids"], **task)(
            {"image": MRI, "ids": ids}, prompts - 1
        )
        np.testing.assert_allclose(found.maps, expected.maps, atol=1e-4)
        np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-6)

    @pytest.mark.parametrize("method", [GradCAM, ScoreCAM])
    @pytest.mark.parametrize("batch_size", [1, 2, "auto"])
    @pytest.mark.parametrize("target", [1, lambda outputs: outputs["logits"][:, 1]], ids=["class", "function"])
    def test_as_many_prompts_as_images_are_no_rows_of_theirs(self, method: Any, batch_size: Any, target: Any) -> None:
        inputs = {"image": MRI, "ids": IDS[:3], "mask": np.ones((3, 6), np.float32)}
        with pytest.raises(ValueError, match=r"\(1, 1\) for one image and \(2, 2\) for two.*shared=\['ids', 'mask'\]"):
            method(Prompted(), "mri", masked_input="image", batch_size=batch_size)(inputs, target)

    def test_another_number_of_rows_names_the_way_out(self) -> None:
        with pytest.raises(ValueError, match=r"'image' has 3, 'ids' has 4\. What all images share.*shared=\['ids'\]"):
            GradCAM(Prompted(), "mri", masked_input="image")({"image": MRI, "ids": IDS}, 1)
        message = r"1 has one row for 3 images: is it the same for all of them\?.*shared=\[1\]"
        with pytest.raises(ValueError, match=message):
            GradCAM(WithTable(), "mri", masked_input=0)((MRI, TABLE[:1]), 1)

    def test_one_row_of_a_table(self) -> None:
        expected = FusionCAM(WithTable(), "mri", masked_input=0)((MRI, np.repeat(TABLE[:1], 3, 0)), 1).maps
        found = FusionCAM(WithTable(), "mri", masked_input=0, shared=[1])((MRI, TABLE[:1]), 1).maps
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)

    def test_rows_of_their_own_are_not_shared(self) -> None:
        GradCAM(WithTable(), "mri", masked_input=0)((MRI, TABLE), 1)
        for method in (GradCAM, ScoreCAM):
            with pytest.raises(ValueError, match=r"With shared=\[1\], WithTable does not (run|give)|Leave out"):
                method(TableOfAll(), "mri", masked_input=0, shared=[1])((MRI, TABLE), 1)

    def test_a_part_of_nested_inputs(self) -> None:
        class Graph(TwoBranches):
            def forward(self, image: Any, graph: Any) -> Any:
                assert graph["nodes"].shape == (7, 2)
                assert graph["edges"].shape == (2, 9)
                return self.classes(image, image) * graph["nodes"].mean()

        graph = {"nodes": np.ones((7, 2), np.float32), "edges": np.zeros((2, 9), np.int64)}
        for shared in (["graph"], "graph", [("graph", "nodes"), ("graph", "edges")]):
            cam = ScoreCAM(Graph(), "mri", masked_input="image", shared=shared)
            assert cam({"image": MRI, "graph": graph}, 1).maps.shape == (3, 8, 10)

    def test_what_is_not_there(self) -> None:
        with pytest.raises(ValueError, match=r"shared=\['id'\] is not among the inputs: there are 'ids'"):
            GradCAM(Prompted(), masked_input="image", shared=["id"])({"image": MRI, "ids": IDS}, 1)
        with pytest.raises(ValueError, match=r"shared=\['image'\] is what is explained"):
            GradCAM(Prompted(), masked_input="image", shared=["image"])({"image": MRI, "ids": IDS}, 1)
        with pytest.raises(ValueError, match="say with masked_input= which one is explained"):
            GradCAM(Prompted(), shared=["ids"])(MRI, 1)
        with pytest.raises(TypeError, match=r"shared lists positions, names or paths .* got 1\.5"):
            GradCAM(Prompted(), shared=1.5)

    def test_from_a_source_and_measured(self) -> None:
        model = Prompted()
        cam = GradCAM(model, "mri", masked_input="image", shared=["ids"], batch_size=2)
        expected = cam({"image": MRI, "ids": IDS}, 1).maps
        batches = [({"image": MRI[:1], "ids": IDS}, [1]), ({"image": MRI[1:], "ids": IDS}, [1, 1])]
        found = torch.cat([each.maps for each in cam.explain_many(batches, "labels")])
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
        other = [{"image": MRI[:1], "ids": IDS}, {"image": MRI[1:2], "ids": IDS[:2]}]
        assert [each.class_probabilities.shape[1] for each in cam.explain_many(other)] == [4, 2]
        options: Any = {"layer": "mri", "masked_input": "image", "shared": ["ids"]}
        measured = evaluate(model, batches, ["score-cam"], ["coherency", "deletion"], 1, **options)
        assert measured.problems == ()

    def test_parts_of_an_ensemble_share_the_same(self) -> None:
        model = Prompted()
        with pytest.raises(ValueError, match=r"masked_input and shared\."):
            FusionCAM(model, masked_input="image", shared=["ids"], gradient=GradCAM(model, masked_input="image"))


class TableOfAll(WithTable):
    """Joins a row of the table to each image: more rows than images do not fit."""

    def forward(self, image: Any, table: Any) -> Any:
        return torch.cat([self.classes(image, image), self.table(table)], 1)


def second_class(outputs: Any) -> Any:
    return outputs[:, 1]


class TestWords:
    def test_paths_are_listed(self) -> None:
        with pytest.raises(ValueError, match=r"masked_input=0 is a list, and one array.*\(0, 0\), \(0, 1\)"):
            GradCAM(OneList(), masked_input=0)([[MRI, CT]])
        with pytest.raises(ValueError, match=r"masked_input='pet' is not among the inputs 'mri', 'ct'\."):
            GradCAM(ByName(), masked_input="pet")({"mri": MRI, "ct": CT, "mode": "sum"})
        with pytest.raises(ValueError, match=r"masked_input='mode' is a str.* 'mri', 'ct'"):
            GradCAM(ByName(), masked_input="mode")({"mri": MRI, "ct": CT, "mode": "sum"})
        with pytest.raises(TypeError, match=r"with masked_input=, one of 'mri', 'ct'\."):
            GradCAM(ByName())({"mri": MRI, "ct": CT})

    def test_a_list_of_images_is_a_batch_in_pieces(self) -> None:
        with pytest.raises(TypeError, match=r"got a list\. Stack equal-sized images into a batch"):
            GradCAM(ByName())([MRI[0], MRI[1]])
        with pytest.raises(TypeError, match="those of different sizes are explained one by one"):
            GradCAM(ByName())([MRI[0], MRI[1, :, :4]])

    def test_a_model_that_goes_through_a_list_of_images_takes_a_batch(self) -> None:
        class Detector(TwoBranches):
            def forward(self, images: list[Any]) -> list[dict[str, Any]]:
                features = self.mri(torch.stack([image / 2 for image in images]))
                scores = torch.cat([features.mean((2, 3)), features.mean((2, 3))], 1) @ self.head.weight.T
                return [{"scores": each, "boxes": torch.zeros(number, 4)} for number, each in enumerate(scores)]

        def second(outputs: Any) -> Any:
            return torch.stack([each["scores"][1] for each in outputs])

        class Plain(Detector):
            def forward(self, images: Any) -> Any:
                return torch.stack([each["scores"] for each in super(Plain, self).forward(list(images))])

        for method in (GradCAM, ScoreCAM, FusionCAM):
            found = method(Detector(), "mri", batch_size=2)(MRI, second)
            expected = method(Plain(), "mri", batch_size=2)(MRI, second_class)
            torch.testing.assert_close(found.maps, expected.maps, atol=1e-5, rtol=0)

    def test_arguments_that_are_missing(self) -> None:
        with pytest.raises(ValueError, match=r"WithTable cannot run on inputs .*missing 1 required .* 'table'"):
            GradCAM(WithTable(), "mri")(MRI)
        with pytest.raises(ValueError, match=r"WithTable cannot run on inputs .*unexpected keyword.*'tables'"):
            GradCAM(WithTable(), "mri", masked_input="image")({"image": MRI, "tables": TABLE})


class TestCaller:
    """How a function is called, by its signature."""

    @staticmethod
    def way(function: Callable[..., Any], inputs: Any) -> str:
        return Caller(function).way(inputs)

    def test_tuples_and_lists(self) -> None:
        assert self.way(lambda a, b: 0, (1, 2)) == "position"
        assert self.way(lambda a, b=0, c=0: 0, [1, 2]) == "position"
        assert self.way(lambda *a: 0, [1, 2, 3]) == "position"
        assert self.way(lambda a: 0, (1, 2)) == "whole"
        assert self.way(lambda a, *, b=0: 0, [1, 2]) == "whole"
        assert self.way(lambda a: 0, (1,)) == "position"
        assert self.way(lambda a, b, c: 0, (1, 2)) == "position", "the function says what it lacks"

    def test_mappings(self) -> None:
        assert self.way(lambda a, b: 0, {"a": 1, "b": 2}) == "name"
        assert self.way(lambda a, **more: 0, {"a": 1, "b": 2}) == "name"
        assert self.way(lambda **more: 0, {"a": 1}) == "name"
        assert self.way(lambda a: 0, {"a": 1, "b": 2}) == "whole"
        assert self.way(lambda batch, **more: 0, {"a": 1, "b": 2}) == "whole"
        assert self.way(lambda a, /: 0, {"a": 1}) == "whole"
        assert self.way(lambda batch: 0, {0: 1}) == "whole"

    def test_a_decorator_that_takes_more(self) -> None:
        def inside(a: Any, b: Any = None) -> Any:
            return a, b

        @functools.wraps(inside)
        def outside(*arguments: Any, more: Any = None, **keywords: Any) -> Any:
            return inside(*arguments, **keywords)

        assert Caller(outside)({"a": 1, "more": 2}) == (1, None)

    def test_what_comes_besides(self) -> None:
        def stateful(a: Any, b: Any, state: Any, *, flag: Any) -> Any:
            return a, b, state, flag

        assert Caller(stateful)((1, 2), 3, flag=4) == (1, 2, 3, 4)
        assert Caller(stateful)({"b": 2, "a": 1}, 3, flag=4) == (1, 2, 3, 4)
        assert Caller(lambda a, state: (a, state))([1, 2], 3) == ([1, 2], 3)

    def test_without_a_signature(self) -> None:
        assert self.way(max, (1, 2)) == "position"
        assert self.way(dict, {"a": 1}) == "name"

    def test_marks_of_what_is_shared_stay_here(self) -> None:
        shared = Shared(np.ones(2))
        assert Caller(lambda a, b: b)((np.ones(3), shared)) is shared.array


class TestStructure:
    def test_what_is_untouched_is_the_same_object(self) -> None:
        words = ["a", None, 3]
        assert map_arrays(lambda each: each + 1, words) is words
        inputs = {"x": np.zeros(2), "words": words}
        mapped = map_arrays(lambda each: each + 1, inputs)
        assert mapped["words"] is words
        assert mapped["x"].tolist() == [1, 1]

    @pytest.mark.parametrize(
        "container",
        [[1, 2], (1, 2), Scan(1, 2), collections.OrderedDict(a=1, b=2), collections.defaultdict(int, a=1, b=2)],
        ids=lambda container: type(container).__name__,
    )
    def test_types_are_kept(self, container: Any) -> None:
        copy = rebuilt(container, [3, 4])
        assert type(copy) is type(container)
        assert list(copy.values() if isinstance(copy, Mapping) else copy) == [3, 4]

    def test_arrays_and_all_else_apart(self) -> None:
        first = {"image": np.ones((2, 3)), "more": [None, "word", 1], "shared": Shared(np.zeros(4))}
        arrays, form = split(first)
        assert [each.shape for each in arrays] == [(2, 3), (4,)]
        assert form.slots == (False, True)
        again = form.filled([array + 1 for array in arrays])
        assert again["more"] == [None, "word", 1]
        assert again["shared"].array.tolist() == [1, 1, 1, 1]
        assert split({**first, "image": np.ones(5)})[1].key == form.key
        for more in ([None, "word", True], [None, "other", 1], (None, "word", 1), [None, "word", 1.0]):
            assert split({**first, "more": more})[1].key != form.key
        assert split({**first, "shared": np.zeros(4)})[1].key != form.key

    def test_one_program_a_form_and_few_of_them(self) -> None:
        compiled: list[Any] = []

        def compiler(function: Any) -> Any:
            compiled.append(function)
            return function

        run = ByForm(compiler, lambda array, factor: array * factor)
        assert [run(np.ones(1), factor).item() for factor in (2, 3, 2)] == [2, 3, 2]
        assert len(compiled) == 2
        for factor in range(100):
            run(np.ones(1), factor)
        assert len(run._made) < 10


@pytest.mark.filterwarnings("ignore:The .* map is zero everywhere:fusioncam_core.FusionCamWarning")
class TestChannels:
    """Channels behind frames, and none at all: the maps of the same network for channels first."""

    class Clips(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.conv = nn.Sequential(nn.Conv3d(3, 6, 3, padding=1), nn.ReLU())
            self.head = nn.Linear(6, 4)

        def forward(self, clips: Any) -> Any:
            return self.head(self.conv(clips).mean((2, 3, 4)))

    class Frames(Clips):
        def forward(self, clips: Any) -> Any:
            return super().forward(clips.transpose(1, 2))

    class Rows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.conv = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.ReLU())
            self.head = nn.Linear(6, 4)

        def forward(self, images: Any) -> Any:
            return self.head(self.conv(images).mean((2, 3)))

    class Spectrograms(Rows):
        def forward(self, bins: Any) -> Any:
            return super().forward(bins.unsqueeze(1))

    CLIPS = np.random.default_rng(2).random((2, 3, 4, 10, 8), dtype=np.float32)
    BINS = np.random.default_rng(3).random((2, 1, 12, 9), dtype=np.float32)

    @pytest.mark.parametrize("method", list(EXPLAINERS))
    @pytest.mark.parametrize("baseline", ["zero", "blur", (0.1, 0.2, 0.3)])
    def test_frames_before_channels(self, method: str, baseline: Any) -> None:
        options = {"baseline": baseline, **OPTIONS.get(method, {})}
        expected = EXPLAINERS[method](self.Clips(), "conv", **options)(self.CLIPS, 1).maps
        cam = EXPLAINERS[method](self.Frames(), "conv", backend_options={"channels": 2}, **options)
        found = cam(np.moveaxis(self.CLIPS, 1, 2), 1)
        assert found.maps.shape == (2, 4, 10, 8)
        torch.testing.assert_close(found.maps, expected, atol=1e-5, rtol=0)

    @pytest.mark.parametrize("method", list(EXPLAINERS))
    @pytest.mark.parametrize("baseline", ["zero", "blur"])
    def test_no_channels(self, method: str, baseline: Any) -> None:
        options = {"baseline": baseline, **OPTIONS.get(method, {})}
        expected = EXPLAINERS[method](self.Rows(), "conv", **options)(self.BINS, 1).maps
        cam = EXPLAINERS[method](self.Spectrograms(), "conv", backend_options={"channels": "none"}, **options)
        torch.testing.assert_close(cam(self.BINS[:, 0], 1).maps, expected, atol=1e-5, rtol=0)

    def test_a_single_one_without_a_batch_axis(self) -> None:
        spectrograms = GradCAM(self.Spectrograms(), "conv", backend_options={"channels": "none"})
        assert spectrograms(self.BINS[0, 0], 1).maps.shape == (1, 12, 9)
        frames = GradCAM(self.Frames(), "conv", backend_options={"channels": 2})
        assert frames(np.moveaxis(self.CLIPS, 1, 2)[0], 1).maps.shape == (1, 4, 10, 8)

    @pytest.mark.parametrize("told", [3, -1, "last"])
    def test_last_by_any_name(self, told: Any) -> None:
        """With a batch axis and without; behind frames, too."""

        class Last(self.Rows):  # type: ignore[misc, name-defined]
            def forward(self, images: Any) -> Any:
                return super().forward(images.movedim(-1, 1))

        images = np.moveaxis(self.BINS, 1, -1)
        expected = GradCAM(self.Rows(), "conv")(self.BINS, 1).maps
        cam = GradCAM(Last(), "conv", backend_options={"channels": told})
        torch.testing.assert_close(cam(images, 1).maps, expected)
        torch.testing.assert_close(cam(images[0], 1).maps, expected[:1])

        class LastOfClips(self.Clips):  # type: ignore[misc, name-defined]
            def forward(self, clips: Any) -> Any:
                return super().forward(clips.movedim(-1, 1))

        clips, told = np.moveaxis(self.CLIPS, 1, -1), 4 if told == 3 else told
        expected = GradCAM(self.Clips(), "conv")(self.CLIPS, 1).maps
        cam = GradCAM(LastOfClips(), "conv", backend_options={"channels": told})
        torch.testing.assert_close(cam(clips, 1).maps, expected)
        torch.testing.assert_close(cam(clips[0], 1).maps, expected[:1])

    def test_frames_that_the_model_folds_into_the_batch(self) -> None:
        class Folding(self.Rows):  # type: ignore[misc, name-defined]
            def forward(self, clips: Any) -> Any:
                images = clips.flatten(0, 1)
                return self.head(self.conv(images).mean((2, 3)).unflatten(0, clips.shape[:2]).mean(1))

        def fold(values: Any) -> Any:
            return values.unflatten(0, (-1, 3)).transpose(1, 2)

        model, clips = Folding(), np.random.default_rng(4).random((2, 3, 1, 6, 6), dtype=np.float32)
        found = GradCAM(model, "conv", reshape=fold, backend_options={"channels": 2})(clips, 1)
        with torch.no_grad():
            activations = model.conv(torch.from_numpy(clips).flatten(0, 1)).unflatten(0, (2, 3))
            maps = torch.einsum("btchw,c->bthw", activations, model.head.weight[1]).relu()
        expected = normalise(maps, spatial_ndim=3)
        torch.testing.assert_close(found.maps, expected, atol=1e-5, rtol=0)

    def test_metrics(self) -> None:
        for model, images, channels in (
            (self.Spectrograms(), self.BINS[:, 0], "none"),
            (self.Frames(), np.moveaxis(self.CLIPS, 1, 2).copy(), 2),
        ):
            metrics = ["average-drop", "coherency", "deletion", "insertion", "infidelity", "max-sensitivity"]
            options: Any = {"layer": "conv", "backend_options": {"channels": channels}}
            assert evaluate(model, images, ["grad-cam"], metrics, 1, **options).problems == ()
        first = evaluate(self.Rows(), self.BINS, ["grad-cam"], ["road"], 1, layer="conv").mean("grad-cam", "road").mean
        options = {"layer": "conv", "backend_options": {"channels": "none"}}
        none = evaluate(self.Spectrograms(), self.BINS[:, 0], ["grad-cam"], ["road"], 1, **options)
        assert none.mean("grad-cam", "road").mean == pytest.approx(first, abs=1e-6)

    def test_pictures_of_the_middle_frame(self, tmp_path: Any) -> None:
        pytest.importorskip("matplotlib")
        frames = GradCAM(self.Frames(), "conv", backend_options={"channels": 2})
        explanation = frames(np.moveaxis(self.CLIPS, 1, 2), 1)
        assert explanation.image_channel_axis == 2
        assert explanation._repr_png_()[:4] == b"\x89PNG"
        assert len(explanation.save(tmp_path)) == 6
        spectrograms = GradCAM(self.Spectrograms(), "conv", backend_options={"channels": "none"})
        assert spectrograms(self.BINS[:, 0], 1)._repr_png_()[:4] == b"\x89PNG"

    @pytest.mark.parametrize("axis", [1, -1, 2, -2, None])
    def test_words_of_axes(self, axis: int | None) -> None:
        first = np.random.default_rng(0).random((2, 3, 5, 6))
        images = first[:, 0] if axis is None else np.moveaxis(first, 1, axis)
        xp = GradCAM(BlackBox(lambda images: images)).adapter.namespace
        assert spatial_size(images, axis) == (5, 6)
        maps = np.random.default_rng(1).random((2, 5, 6))
        expected = maps if axis is None else np.moveaxis(maps[:, None], 1, axis)
        np.testing.assert_array_equal(over_channels(maps, 2, axis, xp=xp), expected)
        if axis is not None:
            erased = erased_images(images, [1.0, 2.0, 3.0], axis, xp)
            np.testing.assert_array_equal(np.moveaxis(erased, axis, 1)[1, :, 2, 3], [1, 2, 3])
        drawn = drawn_for_one(lambda shape: np.arange(np.prod(shape)).reshape(shape), images.shape[1:], axis)
        own = np.arange(images[0].size).reshape((5, 6) if axis is None else (3, 5, 6))
        np.testing.assert_array_equal(drawn[0], own if axis is None else np.moveaxis(own[None], 1, axis)[0])

    @pytest.mark.parametrize("channels", ["middle", 0, True, 1.5])
    def test_other_words(self, channels: Any) -> None:
        with pytest.raises(ValueError, match=r"channels is 'first' or 'last': got .*'none'.*such as 2"):
            GradCAM(self.Rows(), backend_options={"channels": channels})

    def test_an_axis_that_is_not_there(self) -> None:
        with pytest.raises(ValueError, match=r"channels are in axis 4 of a batch, and images of shape \(1, 1, 12, 9\)"):
            GradCAM(self.Rows(), "conv", backend_options={"channels": 4}, masked_input=0)((self.BINS,), 1)


class Squeezed(nn.Module):
    def __init__(self, outputs: int, end: Callable[[Any], Any] = torch.squeeze):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU())
        self.head, self.end = nn.Linear(4, outputs), end

    def forward(self, images: Any) -> Any:
        return self.end(self.head(self.conv(images).mean((2, 3))))


def same(outputs: Any) -> Any:
    return outputs


class TestLostAxis:
    """`return x.squeeze()`: one image's outputs have the axis of the batch again."""

    @pytest.mark.parametrize("method", METHODS)
    @pytest.mark.parametrize("images", [1, 3])
    @pytest.mark.parametrize("batch_size", [1, 2, "auto"])
    def test_classes(self, method: Any, images: int, batch_size: Any) -> None:
        options = {"batch_size": batch_size, **OPTIONS.get(method.name, {})}
        expected = method(Squeezed(4, same), "conv", **options)(MRI[:images], 1)
        found = method(Squeezed(4), "conv", **options)(MRI[:images], 1)
        torch.testing.assert_close(found.maps, expected.maps, atol=1e-5, rtol=0)
        assert found.class_probabilities.shape == (images, 4)

    @pytest.mark.parametrize("target", [Regression(), BinaryLogit(), lambda outputs: outputs.reshape(-1)])
    @pytest.mark.parametrize("method", [GradCAM, FusionCAM])
    def test_functions_of_one_number(self, method: Any, target: Any) -> None:
        seen: list[Any] = []

        def noted(outputs: Any) -> Any:
            seen.append(tuple(outputs.shape))
            return target(outputs)

        expected = method(Squeezed(1, same), "conv")(MRI[:1], target)
        found = method(Squeezed(1), "conv")(MRI[:1], noted)
        torch.testing.assert_close(found.maps, expected.maps, atol=1e-5, rtol=0)
        assert all(len(shape) == 1 for shape in seen)

    def test_binary(self) -> None:
        for images in (1, 3):
            expected = FusionCAM(Squeezed(1, same), "conv", task="binary")(MRI[:images], 1)
            found = FusionCAM(Squeezed(1), "conv", task="binary")(MRI[:images], 1)
            torch.testing.assert_close(found.maps, expected.maps, atol=1e-5, rtol=0)

    def test_in_containers_and_beside_what_never_had_it(self) -> None:
        def end(outputs: Any) -> Any:
            return {"logits": outputs.squeeze(), "loss": outputs.sum(), "weights": torch.arange(5.0)}

        seen: list[Any] = []

        def second(outputs: Any) -> Any:
            seen.append({name: tuple(each.shape) for name, each in outputs.items()})
            return outputs["logits"][:, 1]

        GradCAM(Squeezed(4, end), "conv")(MRI[:1], second)
        assert seen
        assert all(shapes == {"logits": (1, 4), "loss": (), "weights": (5,)} for shapes in seen)

    def test_two_images_are_run_once(self) -> None:
        model, runs = Squeezed(4), []
        model.register_forward_pre_hook(lambda _, inputs: runs.append(len(inputs[0])))
        cam = GradCAM(model, "conv")
        for _ in range(3):
            cam(MRI[:1], 1)
        # One image lists the layers, halves are changed twice; then one image, and two to see that its row was lost.
        assert runs == [1, 2, 2, 1, 2, 1, 1]
        runs.clear()
        plain = Squeezed(4, same)
        plain.register_forward_pre_hook(lambda _, inputs: runs.append(len(inputs[0])))
        GradCAM(plain, "conv")(MRI[:1], 1)
        assert runs == [1, 2, 2, 1]

    def test_black_box(self) -> None:
        def answer(images: Any) -> Any:
            return np.stack([9 * images.mean((1, 2, 3)), -9 * images[..., :5].mean((1, 2, 3))], 1).squeeze()

        def whole(images: Any) -> Any:
            return answer(images).reshape(len(images), 2)

        first, second = (RISE(BlackBox(each), masks=21, batch_size=4)(MRI[:1], 1) for each in (answer, whole))
        np.testing.assert_allclose(first.maps, second.maps, atol=1e-6)


class Baked(nn.Module):
    """A batch size written into the model, as exported ones have it."""

    def __init__(self, size: int | None):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU())
        self.head, self.size = nn.Linear(4, 3), size

    def forward(self, images: Any) -> Any:
        features = self.conv(images)
        if self.size is not None:
            features = features.view(self.size, 4, *images.shape[2:])
        return self.head(features.mean((2, 3)))


class TestFixedBatch:
    @pytest.mark.parametrize("size", [1, 2, 4, 5])
    @pytest.mark.parametrize("images", [1, 3])
    @pytest.mark.parametrize("method", METHODS)
    def test_found_on_failure(self, method: Any, images: int, size: int) -> None:
        options = OPTIONS.get(method.name, {})
        expected = method(Baked(None), "conv", **options)(MRI[:images], [1] * images)
        found = method(Baked(size), "conv", **options)(MRI[:images], [1] * images)
        torch.testing.assert_close(found.maps, expected.maps, atol=1e-5, rtol=0)
        assert found.evaluations == expected.evaluations

    def test_default_layer_and_layers(self) -> None:
        cam = FusionCAM(Baked(4))
        assert [layer.name for layer in cam.layers(MRI) if layer.default] == ["conv"]
        assert cam(MRI, 1).layer == "conv"
        assert cam.adapter.execution.batch_size == 4

    def test_no_other_size_is_run(self) -> None:
        model, runs = Baked(2), []
        model.register_forward_pre_hook(lambda _, inputs: runs.append(len(inputs[0])))
        cam = FusionCAM(model, "conv")
        cam(MRI, 1)
        runs.clear()
        cam(MRI, 1)
        assert set(runs) == {2}

    def test_measured(self) -> None:
        found = evaluate(Baked(2), MRI, ["grad-cam", "score-cam"], ["average-drop", "deletion"], 1, layer="conv")
        expected = evaluate(Baked(None), MRI, ["grad-cam", "score-cam"], ["average-drop", "deletion"], 1, layer="conv")
        assert found.problems == ()
        for method in ("grad-cam", "score-cam"):
            assert found.mean(method, "deletion").mean == pytest.approx(
                expected.mean(method, "deletion").mean, abs=1e-5
            )

    def test_another_reason_is_said_as_it_is(self) -> None:
        with pytest.raises(ValueError, match=r"Baked cannot run on inputs of shape \(1, 2, 8, 10\).*1 channels"):
            GradCAM(Baked(None), "conv")(np.zeros((1, 2, 8, 10), np.float32), 1)

    def test_parts_of_one_sample_are_no_batch(self) -> None:
        class Bag(Baked):
            def forward(self, bag: Any) -> Any:
                return super().forward(bag).mean(0, keepdim=True)

        for method in (GradCAM, EigenCAM, ScoreCAM, FusionCAM):
            for target in (None, 1, lambda outputs: outputs[:, 1]):
                with pytest.raises(ValueError, match=r"makes one output of two images.* a bag"):
                    method(Bag(None), "conv")(MRI, target)


# --- the same on the other frameworks, channels last


LAST = np.ascontiguousarray(np.moveaxis(MRI, 1, -1)), np.ascontiguousarray(np.moveaxis(CT, 1, -1))

Classes = Callable[[Any, Any], Any]
"""Two images (n, 8, 10, 1), or a single one of each, to the classes' scores."""


def ways(classes: Classes) -> dict[str, tuple[Callable[..., Any], Any, Any]]:
    """Functions that take the images in several ways, what to give them, and where the explained one is."""
    first, second = LAST

    def one_list(views: Any) -> Any:
        assert type(views) is list
        return classes(*views)

    def one_named_tuple(scan: Any) -> Any:
        return classes(scan.mri, scan.ct)

    def one_mapping(batch: Any) -> Any:
        return classes(batch["mri"], batch["ct"])

    def nested(batch: Any) -> Any:
        assert batch["words"] == ["a", None, 2]
        return classes(*batch["images"])

    def by_name(mri: Any, ct: Any = None, scale: float = 1.0, mode: str = "sum", flag: bool = False) -> Any:
        assert type(scale) is float
        assert flag is True
        return {"mean": 0.0, "sum": scale}[mode] * classes(mri, mri if ct is None else ct)

    more = {"scale": 1.0, "mode": "sum", "flag": True}
    return {
        "list": (one_list, [first, second], 0),
        "named tuple": (one_named_tuple, (Scan(first, second),), (0, 0)),
        "mapping": (one_mapping, {"mri": first, "ct": second}, "mri"),
        "nested": (nested, {"images": [first, second], "words": ["a", None, 2]}, ("images", 0)),
        "names and more": (by_name, {"mri": first, "ct": second, **more}, "mri"),
        "positions and none": (by_name, (first, None, 1.0, "sum", True), 0),
    }


WAYS = list(ways(lambda mri, ct: None))


def score_cam_by_torch(kind: str) -> np.ndarray:
    second = MRI if kind == "positions and none" else CT
    return ScoreCAM(Anything(), "mri", masked_input=0)((MRI, second), 1).maps.numpy()


def assert_right(kind: str, model: Any, layer: str, inputs: Any, which: Any, options: Mapping[str, Any] = {}) -> None:
    """Grad-CAM is the one by hand, and Score-CAM that of PyTorch."""
    shared: Any = {"masked_input": which, "batch_size": 2, "backend_options": options}
    found = GradCAM(model, layer, **shared)(inputs, 1)
    np.testing.assert_allclose(to_numpy(found.maps), by_hand(), atol=1e-5)
    found = ScoreCAM(model, layer, **shared)(inputs, 1)
    np.testing.assert_allclose(to_numpy(found.maps), score_cam_by_torch(kind), atol=1e-4)


PROMPTS = np.abs(np.random.default_rng(5).normal(size=(50, 3))).astype(np.float32)
POSITIVE = np.abs(HEAD[:4])


def prompted_maps(method: Any, prompts: int) -> np.ndarray:
    """By PyTorch, with the prompts inside of the model."""

    class Inside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mri = torch_branch()
            self.mri[0].weight.data.copy_(torch.from_numpy(KERNELS[0]).reshape(4, 1, 1, 1))

        def forward(self, image: Any) -> Any:
            scores = self.mri(image).mean((2, 3)) @ torch.from_numpy(POSITIVE)
            return scores @ torch.from_numpy(PROMPTS[IDS[:prompts]].mean(1)).T

    return method(Inside(), "mri", task="multilabel")(MRI, 1).maps.numpy()


def assert_prompts(model: Any, layer: str, options: Mapping[str, Any] = {}) -> None:
    """Three images with four prompts, and with as many prompts as images."""
    keywords: Any = {"masked_input": "image", "task": "multilabel", "batch_size": 2, "backend_options": options}
    for method in (GradCAM, ScoreCAM):
        found = method(model, layer, shared=["ids"], **keywords)({"image": LAST[0], "ids": IDS}, 1)
        np.testing.assert_allclose(to_numpy(found.maps), prompted_maps(method, 4), atol=1e-4)
    found = ScoreCAM(model, layer, shared=["ids"], **keywords)({"image": LAST[0], "ids": IDS[:3]}, 1)
    np.testing.assert_allclose(to_numpy(found.maps), prompted_maps(ScoreCAM, 3), atol=1e-4)


def assert_prompts_are_refused(model: Any, layer: str, options: Mapping[str, Any] = {}) -> None:
    """With as many of them as images, and nothing said."""
    keywords: Any = {"masked_input": "image", "task": "multilabel", "backend_options": options}
    with pytest.raises(ValueError, match=r"\(1, 1\) for one image and \(2, 2\) for two.*shared=\['ids'\]"):
        ScoreCAM(model, layer, **keywords)({"image": LAST[0], "ids": IDS[:3]}, 1)


def assert_squeezed(model: Any, plain: Any, layer: str, options: Mapping[str, Any] = {}) -> None:
    for method in (GradCAM, ScoreCAM):
        cam, expected = (method(each, layer, batch_size=2, backend_options=options) for each in (model, plain))
        for images in (LAST[0][:1], LAST[0]):
            maps = to_numpy(cam(images, 1).maps)
            np.testing.assert_allclose(maps, to_numpy(expected(images, 1).maps), atol=1e-5)


class TestJax:
    @pytest.fixture(autouse=True)
    def jax(self) -> Any:
        return framework("jax")

    @staticmethod
    def classes(weights: Any, mri: Any, ct: Any) -> Any:
        import jax.numpy as jnp

        from fusioncam_jax import tap

        branches = [jnp.maximum(image @ weights[name], 0) for image, name in ((mri, "mri"), (ct, "ct"))]
        branches[0] = tap("mri", branches[0])
        return jnp.concatenate([each.mean((-3, -2)) for each in branches], axis=-1) @ weights["head"]

    @pytest.fixture
    def weights(self) -> Any:
        import jax.numpy as jnp

        first, second = (jnp.asarray(kernel.reshape(1, 4)) for kernel in KERNELS)
        return {"mri": first, "ct": second, "head": jnp.asarray(HEAD), "words": jnp.asarray(PROMPTS)}

    @pytest.mark.parametrize("kind", WAYS)
    def test_functions(self, kind: str, weights: Any) -> None:
        function, inputs, which = ways(functools.partial(self.classes, weights))[kind]
        assert_right(kind, (_method(function), weights), "mri", inputs, which)

    @pytest.mark.parametrize("kind", ["list", "names and more"])
    def test_a_pair(self, kind: str, weights: Any) -> None:
        import jax.numpy as jnp

        def features(mri: Any, ct: Any) -> Any:
            return jnp.maximum(mri @ weights["mri"], 0) + 0 * ct

        function, inputs, which = ways(features)[kind]
        pair = function, lambda values: values.mean((1, 2)) @ weights["head"][:4]
        found = GradCAM(pair, masked_input=which, backend_options={"framework": "jax"})(inputs, 1)
        np.testing.assert_allclose(found.maps, by_hand(), atol=1e-5)

    @pytest.mark.parametrize("kind", ["list", "nested", "names and more"])
    def test_nnx(self, kind: str, weights: Any) -> None:
        nnx = framework("flax.nnx")
        function, inputs, which = ways(functools.partial(self.classes, weights))[kind]

        class Model(nnx.Module):  # type: ignore[misc, name-defined]
            def __init__(self) -> None:
                self.weight = nnx.Param(weights["mri"])

        Model.__call__ = _method(function)  # type: ignore[method-assign]
        assert_right(kind, Model(), "mri", inputs, which)

    @pytest.mark.parametrize("kind", ["list", "nested", "names and more"])
    def test_equinox_takes_one_image(self, kind: str, weights: Any) -> None:
        equinox = framework("equinox")
        function, inputs, which = ways(functools.partial(self.classes, weights))[kind]
        Model = type("Model", (equinox.Module,), {"__call__": _method(function)})
        assert_right(kind, Model(), "mri", inputs, which, {"channels": "last"})

    def test_prompts(self, weights: Any) -> None:
        import jax.numpy as jnp

        from fusioncam_jax import tap

        def apply(weights: Any, image: Any, ids: Any) -> Any:
            scores = tap("mri", jnp.maximum(image @ weights["mri"], 0)).mean((-3, -2)) @ POSITIVE
            return scores @ weights["words"][ids].mean(1).T

        assert_prompts((apply, weights), "mri")
        assert_prompts_are_refused((apply, weights), "mri")
        equinox = framework("equinox")
        Model = type("Model", (equinox.Module,), {"__call__": lambda self, image, ids: apply(weights, image, ids)})
        assert_prompts(Model(), "mri", {"channels": "last"})

    def test_lost_axis(self, weights: Any) -> None:
        def plain(weights: Any, image: Any) -> Any:
            return self.classes(weights, image, image)

        assert_squeezed((lambda *given: plain(*given).squeeze(), weights), (plain, weights), "mri")

    def test_fixed_batch(self, weights: Any) -> None:
        def plain(weights: Any, image: Any) -> Any:
            return self.classes(weights, image, image)

        def baked(weights: Any, image: Any) -> Any:
            return plain(weights, image.reshape(2, 8, 10, 1))

        assert_squeezed((baked, weights), (plain, weights), "mri")

    def test_channels(self, weights: Any) -> None:
        import jax.numpy as jnp

        from fusioncam_jax import tap

        def frames(weights: Any, clips: Any) -> Any:  # (n, frames, channels, height, width)
            mixed = jnp.moveaxis(clips, 2, -1) @ weights
            return tap("mixed", jnp.maximum(mixed, 0)).mean((1, 2, 3))

        def last(weights: Any, clips: Any) -> Any:
            return tap("mixed", jnp.maximum(clips @ weights, 0)).mean((1, 2, 3))

        mix = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32))
        clips = np.random.default_rng(1).random((2, 5, 3, 6, 4), dtype=np.float32)
        for method in (GradCAM, ScoreCAM):
            found = method((frames, mix), "mixed", backend_options={"channels": 2})(clips, 1)
            expected = method((last, mix), "mixed")(np.moveaxis(clips, 2, -1), 1)
            assert found.maps.shape == (2, 5, 6, 4)
            np.testing.assert_allclose(found.maps, expected.maps, atol=1e-5)

        def bins(weights: Any, values: Any) -> Any:  # (n, time, bins)
            return tap("mixed", jnp.maximum(values[..., None] @ weights[:1], 0)).mean((1, 2))

        def with_channel(weights: Any, values: Any) -> Any:
            return tap("mixed", jnp.maximum(values @ weights[:1], 0)).mean((1, 2))

        values = clips[:, :, 0, :, 0]
        found = ScoreCAM((bins, mix), "mixed", backend_options={"channels": "none"})(values, 1)
        expected = ScoreCAM((with_channel, mix), "mixed")(values[..., None], 1)
        np.testing.assert_allclose(found.maps, expected.maps, atol=1e-5)


def _method(function: Callable[..., Any]) -> Any:
    """The function with an argument before its own."""

    def call(self: Any, *arguments: Any, **keywords: Any) -> Any:
        return function(*arguments, **keywords)

    own = inspect.signature(function)
    first = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    call.__signature__ = own.replace(parameters=[first, *own.parameters.values()])  # type: ignore[attr-defined]
    return call


class TestTensorFlow:
    OPTIONS: Mapping[str, Any] = {"framework": "tensorflow"}

    @pytest.fixture
    def tf(self) -> Any:
        return framework("tensorflow")

    @pytest.mark.parametrize("kind", WAYS)
    @pytest.mark.parametrize("compiled", [False, True])
    def test_a_pair(self, tf: Any, kind: str, compiled: bool) -> None:
        def features(mri: Any, ct: Any) -> Any:
            return tf.nn.relu(mri * KERNELS[0].reshape(1, 1, 1, 4)) + 0 * ct

        function, inputs, which = ways(features)[kind]
        pair = tf.function(function) if compiled else function, lambda values: self.head(tf, values, HEAD[:4])
        found = GradCAM(pair, masked_input=which, backend_options=self.OPTIONS)(inputs, 1)
        np.testing.assert_allclose(found.maps, by_hand(), atol=1e-5)
        found = ScoreCAM(pair, masked_input=which, batch_size=2, backend_options=self.OPTIONS)(inputs, 1)
        alone = (lambda image: features(image, 0)), pair[1]
        expected = ScoreCAM(alone, backend_options=self.OPTIONS)(LAST[0], 1)
        np.testing.assert_allclose(found.maps, expected.maps, atol=1e-5)

    @staticmethod
    def head(tf: Any, values: Any, weights: np.ndarray) -> Any:
        return tf.reduce_mean(values, (1, 2)) @ weights

    def test_lost_axis(self, tf: Any) -> None:
        def features(image: Any) -> Any:
            return tf.nn.relu(image * KERNELS[0].reshape(1, 1, 1, 4))

        plain = features, lambda values: self.head(tf, values, HEAD[:4])
        squeezed = features, lambda values: tf.squeeze(self.head(tf, values, HEAD[:4]))
        assert_squeezed(squeezed, plain, "features", self.OPTIONS)

    def test_fixed_batch(self, tf: Any) -> None:
        def features(image: Any) -> Any:
            return tf.nn.relu(image * KERNELS[0].reshape(1, 1, 1, 4))

        plain = features, lambda values: self.head(tf, values, HEAD[:4])
        baked = (lambda image: features(tf.reshape(image, (2, 8, 10, 1)))), plain[1]
        assert_squeezed(baked, plain, "features", self.OPTIONS)

    def test_channels(self, tf: Any) -> None:
        mix = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
        clips = np.random.default_rng(1).random((2, 5, 3, 6, 4), dtype=np.float32)

        def last(clips: Any) -> Any:
            return tf.nn.relu(tf.einsum("bthwc,cd->bthwd", clips, mix))

        def frames(clips: Any) -> Any:
            return last(tf.transpose(clips, (0, 1, 3, 4, 2)))

        def head(values: Any) -> Any:
            return tf.reduce_mean(values, (1, 2, 3))

        for method in (GradCAM, ScoreCAM):
            options = {**self.OPTIONS, "channels": 2}
            found = method((frames, head), backend_options=options)(clips, 1)
            expected = method((last, head), backend_options=self.OPTIONS)(np.moveaxis(clips, 2, -1), 1)
            np.testing.assert_allclose(found.maps, expected.maps, atol=1e-5)


class TestKeras:
    @pytest.fixture
    def keras(self) -> Any:
        return framework("keras")

    def branches(self, keras: Any) -> tuple[Any, Any]:
        made = tuple(keras.layers.Conv2D(4, 1, use_bias=False, activation="relu", name=name) for name in ("mri", "ct"))
        for branch, kernel in zip(made, KERNELS, strict=True):
            branch.build((None, 8, 10, 1))
            branch.set_weights([kernel.reshape(1, 1, 1, 4)])
        return made

    @staticmethod
    def classes(keras: Any, branches: Any, mri: Any, ct: Any) -> Any:
        means = [keras.ops.mean(branch(image), (1, 2)) for branch, image in zip(branches, (mri, ct), strict=True)]
        return keras.ops.matmul(keras.ops.concatenate(means, axis=1), HEAD)

    @pytest.mark.parametrize("kind", [kind for kind in WAYS if kind != "nested"])
    def test_subclass(self, keras: Any, kind: str) -> None:
        branches = self.branches(keras)
        function, inputs, which = ways(functools.partial(self.classes, keras, branches))[kind]
        assert_right(kind, self.subclass(keras, function, branches), "mri", inputs, which)

    def test_words_among_arrays_are_refused_by_keras_itself(self, keras: Any) -> None:
        branches = self.branches(keras)
        function, inputs, which = ways(functools.partial(self.classes, keras, branches))["nested"]
        with pytest.raises(ValueError, match=r"model cannot run on inputs .* mix tensors and non-tensors"):
            GradCAM(self.subclass(keras, function, branches), masked_input=which)(inputs, 1)

    @staticmethod
    def subclass(keras: Any, function: Callable[..., Any], parts: Any) -> Any:
        class Model(keras.Model):  # type: ignore[misc, name-defined]
            def __init__(self) -> None:
                super().__init__(name="model")
                self.parts = list(parts)

        Model.call = _method(function)  # type: ignore[method-assign]
        model = Model()
        model.built = True
        return model

    @pytest.mark.parametrize("kind", ["list", "tuple", "mapping", "nested"])
    def test_functional(self, keras: Any, kind: str) -> None:
        first, second = (keras.Input((8, 10, 1), name=name) for name in ("first", "second"))
        structures = {
            "list": ([first, second], list(LAST), 0),
            "tuple": ((first, second), LAST, 0),
            "mapping": ({"first": first, "second": second}, {"first": LAST[0], "second": LAST[1]}, "first"),
            "nested": ({"images": [first, second]}, {"images": list(LAST)}, ("images", 0)),
        }
        structure, inputs, which = structures[kind]
        model = keras.Model(structure, self.classes(keras, self.branches(keras), first, second))
        assert_right(kind, model, "mri", inputs, which)

    def test_prompts(self, keras: Any) -> None:
        branch = self.branches(keras)[0]

        def call(image: Any, ids: Any) -> Any:
            scores = keras.ops.matmul(keras.ops.mean(branch(image), (1, 2)), POSITIVE)
            prompts = keras.ops.mean(keras.ops.take(keras.ops.convert_to_tensor(PROMPTS), ids, axis=0), 1)
            return keras.ops.matmul(scores, keras.ops.transpose(prompts))

        model = self.subclass(keras, call, [branch])
        assert_prompts(model, "mri")
        assert_prompts_are_refused(model, "mri")

    def test_lost_axis(self, keras: Any) -> None:
        branch = self.branches(keras)[0]

        def plain(image: Any) -> Any:
            return keras.ops.matmul(keras.ops.mean(branch(image), (1, 2)), HEAD[:4])

        def squeezed(image: Any) -> Any:
            return keras.ops.squeeze(plain(image))

        models = [self.subclass(keras, each, [branch]) for each in (squeezed, plain)]
        assert_squeezed(*models, "mri")

    @pytest.mark.parametrize("size", [1, 2, 3])
    @pytest.mark.parametrize("declared", [True, False])
    def test_fixed_batch(self, keras: Any, size: int, declared: bool) -> None:
        branch = self.branches(keras)[0]

        def plain(image: Any) -> Any:
            return keras.ops.matmul(keras.ops.mean(branch(image), (1, 2)), HEAD[:4])

        def baked(image: Any) -> Any:
            values = keras.ops.reshape(branch(image), (size, 80, 4))
            return keras.ops.matmul(keras.ops.mean(values, 1), HEAD[:4])

        images = keras.Input(batch_shape=(size, 8, 10, 1))
        model = keras.Model(images, baked(images)) if declared else self.subclass(keras, baked, [branch])
        assert_squeezed(model, self.subclass(keras, plain, [branch]), "mri")
        if declared:
            assert GradCAM(model).adapter.execution.batch_size == size

    def test_a_stateful_network_has_its_batch(self, keras: Any) -> None:
        keras.utils.set_random_seed(0)

        def network(size: int | None, stateful: bool) -> Any:
            return keras.Sequential(
                [
                    keras.Input(batch_shape=(size, 4, 6, 6, 1)),
                    keras.layers.ConvLSTM2D(
                        3, 3, padding="same", return_sequences=True, stateful=stateful, name="sequences"
                    ),
                    keras.layers.GlobalAveragePooling3D(),
                    keras.layers.Dense(3),
                ]
            )

        model, plain = network(1, True), network(None, False)
        plain.set_weights([to_numpy(each.value) for each in model.trainable_variables])
        clips = np.random.default_rng(0).random((2, 4, 6, 6, 1), dtype=np.float32)
        before = [to_numpy(each.value) for each in model.non_trainable_variables]
        for method in (GradCAM, ScoreCAM):
            found, expected = (method(each, "sequences")(clips, 1) for each in (model, plain))
            np.testing.assert_allclose(to_numpy(found.maps), to_numpy(expected.maps), atol=1e-4)
        for value, other in zip(before, model.non_trainable_variables, strict=True):
            np.testing.assert_array_equal(value, to_numpy(other.value))

    def test_channels(self, keras: Any) -> None:
        mix = keras.layers.Conv3D(4, 1, activation="relu", name="mix", data_format="channels_last")
        clips = keras.Input((5, 3, 6, 4))
        first = keras.Model(clips, keras.ops.mean(mix(keras.ops.transpose(clips, (0, 1, 3, 4, 2))), (1, 2, 3)))
        clips = keras.Input((5, 6, 4, 3))
        last = keras.Model(clips, keras.ops.mean(mix(clips), (1, 2, 3)))
        given = np.random.default_rng(1).random((2, 5, 3, 6, 4), dtype=np.float32)
        for method in (GradCAM, ScoreCAM):
            found = method(first, "mix", backend_options={"channels": 2})(given, 1)
            expected = method(last, "mix")(np.moveaxis(given, 2, -1), 1)
            np.testing.assert_allclose(to_numpy(found.maps), to_numpy(expected.maps), atol=1e-5)
