"""One model, many threads, interrupts anywhere: every map is right, and the model is afterwards as it was before."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from fusioncam_core import AblationCAM, EigenCAM, FusionCAM, GradCAM, GroupCAM, LayerCAM, ScoreCAM
from fusioncam_core.arrays.namespaces import to_numpy
from fusioncam_core.metrics import randomisation_check
from fusioncam_core.models.session import ModelSession, session_of
from interrupts import InterruptError, interrupted, lines_of
from libraries import EVERYTHING, framework

INTERRUPTS = 100 if EVERYTHING else 20
"""How many lines are interrupted for each model."""

pytestmark = [
    pytest.mark.filterwarnings("ignore:The .* map is zero everywhere"),
    pytest.mark.filterwarnings("ignore:The gradient .* is zero everywhere"),
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]


class Subject:
    """A model and all that must be as before.

    Attributes:
        model: with two layers that can be explained.
        layers: their names, the first one first.
        images: four of them.
    """

    model: Any
    layers: tuple[str, str]
    images: np.ndarray

    def state(self) -> Any:
        raise NotImplementedError

    def outputs(self) -> np.ndarray:
        """Of plain inference, as a user does it."""
        raise NotImplementedError

    def carries_a_graph(self) -> bool:
        """Whether what plain inference returned without one holds a graph."""
        return False


class TorchSubject(Subject):
    layers = ("2", "4")

    def __init__(self, *, training: bool):
        torch = framework("torch")
        torch.manual_seed(0)
        self.model = torch.nn.Sequential(
            torch.nn.Conv2d(3, 6, 3, padding=1),
            torch.nn.BatchNorm2d(6),
            torch.nn.ReLU(),
            torch.nn.Conv2d(6, 6, 3, padding=1),
            torch.nn.ReLU(inplace=True),
            torch.nn.AdaptiveAvgPool2d(1),
            torch.nn.Flatten(),
            torch.nn.Dropout(0.5),
            torch.nn.Linear(6, 4),
        ).train(training)
        self.model[2].eval()  # modes may differ
        self.images = np.random.default_rng(0).random((4, 3, 12, 12), dtype=np.float32)
        self._torch, self._graph = torch, False

    def state(self) -> Any:
        modules = [(name, part.training, len(part._forward_hooks)) for name, part in self.model.named_modules()]
        arrays = {name: values.numpy().copy() for name, values in self.model.state_dict().items()}
        same = [id(each) for each in (*self.model.parameters(), *self.model.buffers())]
        thread = self._torch.is_grad_enabled(), self._torch.is_inference_mode_enabled()
        return arrays, modules, same, [each.requires_grad for each in self.model.parameters()], thread

    def outputs(self) -> np.ndarray:
        with self._torch.no_grad():
            outputs = self.model(self._torch.from_numpy(self.images))
        self._graph = self._graph or outputs.requires_grad
        return outputs.detach().numpy()

    def carries_a_graph(self) -> bool:
        return self._graph


class KerasSubject(Subject):
    layers = ("a", "b")

    def __init__(self) -> None:
        keras = framework("keras")
        keras.utils.set_random_seed(0)
        layers = keras.layers
        self.model = keras.Sequential(
            [
                layers.Input((12, 12, 3)),
                layers.Conv2D(6, 3, padding="same", activation="relu", name="a"),
                layers.BatchNormalization(name="normalised"),
                layers.Conv2D(6, 3, padding="same", activation="relu", name="b"),
                layers.GlobalAveragePooling2D(name="pool"),
                layers.Dropout(0.5, name="dropout"),
                layers.Dense(4, activation="softmax", name="dense"),
            ]
        )
        self.images = np.random.default_rng(0).random((4, 12, 12, 3), dtype=np.float32)
        self._parts = [self.model, *self.model._flatten_layers(include_self=False)]
        self._numpy = keras.ops.convert_to_numpy
        self.outputs()  # what a first call sets is set

    def state(self) -> Any:
        arrays = {str(number): self._numpy(each).copy() for number, each in enumerate(self.model.variables)}
        return arrays, [{name: id(value) for name, value in vars(part).items()} for part in self._parts]

    def outputs(self) -> np.ndarray:
        return self._numpy(self.model(self.images, training=False))


SUBJECTS: dict[str, Callable[[], Subject]] = {
    "torch-eval": lambda: TorchSubject(training=False),
    "torch-train": lambda: TorchSubject(training=True),
    "keras": KerasSubject,
}


@pytest.fixture(params=list(SUBJECTS))
def subject(request: pytest.FixtureRequest) -> Subject:
    return SUBJECTS[request.param]()


def assert_same_state(before: Any, after: Any) -> None:
    for name, values in before[0].items():
        np.testing.assert_array_equal(after[0][name], values, err_msg=name)
    assert after[1:] == before[1:]


def explainers(subject: Subject) -> list[Callable[[], Any]]:
    model, (first, last) = subject.model, subject.layers
    return [
        lambda: GradCAM(model, last),
        lambda: FusionCAM(model, last),
        lambda: AblationCAM(model, last),
        lambda: ScoreCAM(model, first, budget=4),
        lambda: LayerCAM(model, [first, last]),
        lambda: GroupCAM(model, last, groups=3),
        lambda: FusionCAM(model, last, gradient=GradCAM(model, first)),
        lambda: EigenCAM(model, first),
    ]


class TestThreads:
    """Four threads, eight calls each, of explainers of their own and of shared ones; a fifth only runs the model."""

    TARGETS = (1, 2, 3, 0)

    def test_every_map_is_that_of_one_thread(self, subject: Subject) -> None:
        made = explainers(subject)
        shared = [make() for make in made]
        expected = [self.maps(explainer, subject) for explainer in shared]
        before, done = subject.state(), threading.Event()

        def explain(thread: int) -> list[tuple[int, np.ndarray]]:
            numbers = [(3 * thread + call) % len(made) for call in range(8)]
            own = (shared[number] if call % 2 else made[number]() for call, number in enumerate(numbers))
            return [(number, self.maps(each, subject)) for number, each in zip(numbers, own, strict=True)]

        def infer() -> list[np.ndarray]:
            outputs = [subject.outputs()]
            while not done.is_set():
                outputs.append(subject.outputs())
            return outputs

        plain = subject.outputs() if _infers_alike(subject) else None
        with ThreadPoolExecutor(max_workers=5) as pool:
            inference = pool.submit(infer) if plain is not None else None
            explained = list(pool.map(explain, range(4)))
            done.set()
        for number, maps in (each for thread in explained for each in thread):
            np.testing.assert_allclose(maps, expected[number], atol=1e-5, err_msg=str(number))
        if inference is not None:
            assert max(np.abs(outputs - plain).max() for outputs in inference.result()) <= 1e-6
            assert not subject.carries_a_graph()
        assert_same_state(before, subject.state())

    def maps(self, explainer: Any, subject: Subject) -> np.ndarray:
        return to_numpy(explainer(subject.images, self.TARGETS).maps)


def _infers_alike(subject: Subject) -> bool:
    """A model in train mode is in eval mode while it is explained."""
    return not getattr(subject.model, "training", False)


class TestInterrupts:
    """An exception between two random lines of ours: the model is as before, and the next map is right."""

    def test_nothing_is_left(self, subject: Subject) -> None:
        calls = self.calls(subject)
        expected = {name: call() for name, call in calls.items()}
        before = subject.state()
        lines = {name: lines_of(call) for name, call in calls.items()}
        draw = random.Random(0)
        for _ in range(INTERRUPTS):
            name = draw.choice(list(calls))
            line = draw.randint(1, lines[name])
            interrupted(calls[name], line)
            assert_same_state(before, subject.state())
            for again in {name, draw.choice(list(calls))}:
                np.testing.assert_allclose(calls[again](), expected[again], atol=1e-6, err_msg=f"{name}, line {line}")
            with ThreadPoolExecutor(max_workers=1) as pool:  # the session is open to others
                np.testing.assert_allclose(pool.submit(calls["gradient"]).result(60), expected["gradient"], atol=1e-6)
        assert_same_state(before, subject.state())

    def calls(self, subject: Subject) -> dict[str, Callable[[], np.ndarray]]:
        model, (first, last) = subject.model, subject.layers
        images = subject.images[:2]
        methods = {
            "gradient": GradCAM(model, last),
            "fusion": FusionCAM(model, last, batch_size=4),
            "ablation": AblationCAM(model, [first, last]),
        }
        checked = FusionCAM(model, last, gradient=GradCAM(model, first), batch_size=4)
        calls = {name: self.call(method, images) for name, method in methods.items()}
        calls["check"] = lambda: randomisation_check(checked, images, [1, 2], stages=2).similarities
        return calls

    def call(self, method: Any, images: np.ndarray) -> Callable[[], np.ndarray]:
        return lambda: to_numpy(method(images, [1, 2]).maps)


class TestSession:
    def test_a_step_back_that_is_interrupted_is_taken_again(self) -> None:
        session, steps = ModelSession(), []

        def begin() -> None:
            session.touch(lambda: steps.append("first"))
            session.touch(interrupts_once)

        def interrupts_once() -> None:
            steps.append("second")
            if steps == ["second"]:
                raise InterruptError

        with pytest.raises(InterruptError), session.opened(begin):
            pass
        assert steps == ["second", "second", "first"]
        assert not session.is_mine

    def test_a_step_back_that_fails_keeps_no_other_one_back(self) -> None:
        session, steps = ModelSession(), []

        def fail() -> None:
            raise OSError("gone")

        def begin() -> None:
            session.touch(lambda: steps.append("back"))
            session.touch(fail)

        with pytest.raises(OSError, match="gone"), session.opened(begin):
            pass
        assert steps == ["back"]
        with ThreadPoolExecutor(max_workers=1) as pool:  # and it is open again
            assert pool.submit(self.enters, session).result(10)

    def test_a_beginning_that_fails_leaves_it_closed(self) -> None:
        session, steps = ModelSession(), []

        def begin() -> None:
            session.touch(lambda: steps.append("back"))
            raise MemoryError

        with pytest.raises(MemoryError), session.opened(begin):
            raise AssertionError("not reached")
        assert steps == ["back"]
        assert not session.is_mine
        assert self.enters(session)

    def enters(self, session: ModelSession) -> bool:
        with session.opened(lambda: None):
            return session.is_mine

    def test_it_is_found_from_the_model_and_does_not_keep_it(self) -> None:
        class Model:
            pass

        model, other = Model(), Model()
        assert session_of(model) is session_of(model)
        assert session_of(model) is not session_of(other)
        first = session_of(model)
        del model
        assert session_of(Model()) is not first

    def test_what_cannot_be_referenced_weakly_has_one_of_its_own(self) -> None:
        assert session_of({}) is not session_of({})

    def test_an_error_inside_comes_through(self) -> None:
        session = ModelSession()
        with pytest.raises(KeyError), session.opened(lambda: None), session.opened(lambda: None):
            raise KeyError
        assert not session.is_mine
