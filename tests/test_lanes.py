"""JAX's programs beside each other on a processor, and passes that begin before their turn."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fusioncam_core import EigenCAM, FusionCAM, GradCAM, LayerCAM, ScoreCAM, SmoothGradCAMPlusPlus, adapt_model
from fusioncam_core.models.batch_search import AutoBatching, make_batching
from fusioncam_core.models.batch_size import ModelBatching, Setting

jax = pytest.importorskip("jax")
jnp = jax.numpy
lanes = pytest.importorskip("fusioncam_jax.lanes")

IMAGES = np.random.default_rng(0).random((23, 10, 12, 3), dtype=np.float32)

BIG = np.random.default_rng(1).random((17, 40, 42, 3), dtype=np.float32)
"""Images that are not so small that many are taken together, whatever the batch size is."""

PATIENCE = 20.0
"""Seconds for which a source waits for an explanation."""


@pytest.fixture(params=[2, pytest.param(3, marks=pytest.mark.slow)])
def several(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Lanes, however many threads the process may use."""
    monkeypatch.setattr(lanes, "_OF_PROCESS", [lanes.Lanes(request.param)])
    return int(request.param)


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "_OF_PROCESS", [None])


def project(parameters: Any, images: Any) -> Any:
    features = _tapped(jax.nn.relu(images @ parameters["mix"]))
    return features.mean(axis=(1, 2)) @ parameters["head"]


def _tapped(features: Any) -> Any:
    from fusioncam_jax import tap

    return tap("features", features)


def parameters(seed: int = 1) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    shapes = {"mix": (3, 37), "head": (37, 5)}
    return {name: jnp.asarray(random.normal(size=shape), jnp.float32) for name, shape in shapes.items()}


class TestLanes:
    """A sort is a program that keeps one core busy: one of so many numbers for a second, and of others for moments."""

    LONG, SHORTER = 3_000_000, 200_000

    def numbers(self, count: int) -> Any:
        return jnp.asarray(np.random.default_rng(0).random(count, dtype=np.float32))

    def sort(self) -> Callable[[Any], Any]:
        made = lanes.by_turns(jax.jit(lambda array: jnp.sort(array)))
        for count in (self.LONG, self.SHORTER):
            made(self.numbers(count)).block_until_ready()
        return made

    def test_long_programs_run_beside_each_other(self, several: int) -> None:
        sort, numbers, fewer = self.sort(), self.numbers(self.LONG), self.numbers(self.SHORTER)
        first, second = sort(numbers), sort(fewer)
        second.block_until_ready()
        assert not first.is_ready()
        assert (np.diff(first) >= 0).all()

    def test_what_waits_for_one_does_not_hold_up_the_next(self, several: int) -> None:
        """Programs that one thread starts follow each other: a short one behind a long one is started elsewhere."""
        sort, numbers, fewer = self.sort(), self.numbers(self.LONG), self.numbers(self.SHORTER)
        short = lanes.behind(jax.jit(lambda array: array + 1))
        short(numbers), short(fewer)
        first = short(sort(short(numbers)))
        second = sort(short(fewer))
        second.block_until_ready()
        assert not first.is_ready()
        np.testing.assert_array_equal(first, np.sort(numbers) + 2)

    def test_programs_are_compiled_for_what_the_caller_has_set_up(self, several: int) -> None:
        count = lanes.by_turns(jax.jit(lambda array: jnp.arange(3).astype(float) + array.sum()))
        assert count(jnp.ones(2)).dtype == jnp.float32
        with jax.enable_x64(True):
            assert count(jnp.ones(2, jnp.float32)).dtype == jnp.float64
        assert count(jnp.ones(2)).dtype == jnp.float32

    def test_errors_come_from_where_they_arise(self, several: int) -> None:
        def wrong(array: Any) -> Any:
            raise ValueError("an error of the model")

        with pytest.raises(ValueError, match="an error of the model"):
            lanes.by_turns(jax.jit(wrong))(jnp.ones(2))

    @pytest.mark.usefixtures("alone")
    def test_one_core_has_none(self) -> None:
        assert lanes.execution().beside == 1
        assert np.asarray(lanes.by_turns(jax.jit(lambda array: array + 1))(jnp.ones(2))).sum() == 4

    def test_what_is_looked_at_where_it_is_called(self, several: int) -> None:
        with jax.debug_nans(True), pytest.raises(FloatingPointError, match="nan"):
            lanes.by_turns(jax.jit(lambda array: array / 0 * 0))(jnp.ones(2))

    def test_inside_of_another_program_it_is_part_of_that(self, several: int) -> None:
        inner = lanes.by_turns(jax.jit(lambda array: array * 2))
        assert jax.grad(lambda array: inner(array).sum())(jnp.ones(3)).tolist() == [2, 2, 2]
        with jax.disable_jit():
            assert inner(jnp.ones(3)).tolist() == [2, 2, 2]

    def test_programs_of_several_devices_are_started_in_their_order(self) -> None:
        """They wait for each other: those of two threads might do so for ever."""
        code = (
            "from fusioncam_jax import lanes\nlanes._OF_PROCESS.append(lanes.Lanes(2))\nprint(lanes.execution().beside)"
        )
        flags = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
        run = functools.partial(
            subprocess.run, [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        assert (run(env=flags).stdout.strip(), run().stdout.strip()) == ("1", "2")

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="processes do not fork here")
    def test_a_process_that_is_forked_off_has_its_own(self) -> None:
        code = (
            "import os, warnings; warnings.simplefilter('ignore')\n"
            "import jax, jax.numpy as jnp\n"
            "from fusioncam_jax import lanes\n"
            "lanes._OF_PROCESS.append(lanes.Lanes(2))\n"
            "lanes.by_turns(jax.jit(lambda array: array + 1))(jnp.ones(2)).block_until_ready()\n"
            "if os.fork() == 0:\n"
            "    os._exit(len(lanes._OF_PROCESS))\n"
            "print(os.waitstatus_to_exitcode(os.wait()[1]), len(lanes._OF_PROCESS))\n"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
        assert done.stdout.split() == ["0", "1"]


class TestSharedOut:
    """Masks that would fill fewer runs than work beside each other are shared out to as many."""

    @pytest.mark.parametrize(
        ("total", "size", "beside", "lengths"),
        [
            (8, 16, 2, [4, 4]),
            (16, 16, 2, [8, 8]),
            (33, 16, 2, [16, 16, 1]),
            (5, 16, 2, [4, 1]),
            (6, 16, 3, [2, 2, 2]),
            (1, 16, 2, [1]),
            (8, 16, 1, [8]),
        ],
    )
    def test_spans(self, total: int, size: int, beside: int, lengths: list[int]) -> None:
        adapter = adapt_model((project, parameters()))
        batching = ModelBatching(adapter, size, beside=beside)
        assert [count for _, count in batching.over(total, lambda span: span.count)] == lengths

    @pytest.mark.searches
    def test_what_is_timed_is_not_shared_out(self) -> None:
        adapter = adapt_model((project, parameters()))
        batching = make_batching(adapter, "auto", beside=2)
        assert isinstance(batching, AutoBatching)
        counts = [count for _, count in batching.over(16, lambda span: span.count, ready=lambda count: None)]
        assert counts == [16]
        assert [count for _, count in batching.over(8, lambda span: span.count)] == [4, 4]

    def test_a_way_that_is_given_is_kept_to(self) -> None:
        adapter = adapt_model((project, parameters()))
        assert make_batching(adapter, Setting("as given", 8), beside=2).way.size == 8


@pytest.mark.parametrize("method", [FusionCAM, ScoreCAM, GradCAM, SmoothGradCAMPlusPlus, EigenCAM])
@pytest.mark.parametrize("batch_size", [4, "auto"])
def test_maps_are_the_same_beside_each_other(
    method: Any, batch_size: Any, several: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def maps() -> np.ndarray:
        explainer = method((project, parameters()), "features", batch_size=batch_size)
        return np.concatenate([explainer(IMAGES[:5]).maps, *(each.maps for each in explainer.explain_many(IMAGES))])

    beside = maps()
    monkeypatch.setattr(lanes, "_OF_PROCESS", [None])
    # Chunks of another length are other programs, whose sums are in another order.
    np.testing.assert_allclose(beside, maps(), atol=1e-6)


class Runs:
    """Counts the rows that capturing passes see."""

    def __init__(self, explainer: Any):
        self.rows: list[int] = []
        adapter = explainer.adapter
        of = adapter._known.programs.of

        def counting(kind: Any, key: Any, make: Any, **options: Any) -> Any:
            program = of(kind, key, make, **options)
            if kind[0] != "capture":
                return program

            def run(current: Any, inputs: Any) -> Any:
                self.rows.append(int(inputs.shape[0]))
                return program(current, inputs)

            return run

        adapter._known.programs.of = counting


@pytest.mark.usefixtures("several")
class TestAhead:
    """The pass of the next images runs while these are explained, and is that of the network as it then is."""

    def cam(self, method: Any = GradCAM, **options: Any) -> Any:
        explainer = method((project, parameters()), "features", batch_size=4, **options)
        explainer(IMAGES[:4])
        return explainer

    def test_each_image_is_run_once(self) -> None:
        cam = self.cam()
        runs = Runs(cam)
        assert len(list(cam.explain_many(IMAGES))) == len(IMAGES)
        assert sum(runs.rows) == len(IMAGES)
        assert cam._ahead._begun is None
        assert cam.adapter._known.begun is None

    def test_of_one_call_as_well(self) -> None:
        cam = self.cam()
        runs = Runs(cam)
        cam(IMAGES)
        assert sum(runs.rows) == len(IMAGES)
        assert cam.adapter._known.begun is None
        assert cam.adapter._known.foreseen is None

    def test_it_is_under_way_before_its_turn(self) -> None:
        cam = self.cam()
        begun = []
        explained = cam.explain_many(BIG, prefetch=5)
        for _ in explained:
            begun.append(cam.adapter._known.begun)
        assert any(each is not None for each in begun)
        again = cam.explain_many(BIG, prefetch=5)
        next(again)
        again.close()
        assert cam.adapter._known.begun is None

    @pytest.mark.parametrize("method", [GradCAM, LayerCAM])
    def test_parameters_that_change_meanwhile(self, method: Any) -> None:
        values = parameters()
        explainer = method((project, values), "features", batch_size=4)
        explainer(BIG[:4])
        found = []
        for number, single in enumerate(explainer.explain_many(BIG, prefetch=5)):
            found.append(single.maps)
            if number == 3:
                assert explainer.adapter._known.begun is not None
                values.update(parameters(2))
        for seed, rows in ((1, slice(0, 4)), (2, slice(4, None))):
            own = method((project, parameters(seed)), "features")(BIG[rows])
            np.testing.assert_allclose(np.concatenate(found[rows]), own.maps, atol=1e-5)

    @pytest.mark.parametrize("of_numpy", [("mix", "head"), ("head",)])
    def test_parameters_of_numpy_may_be_written_to(self, of_numpy: tuple[str, ...]) -> None:
        """Nothing is begun with: the same array may have other values in its turn."""
        values = {name: np.array(each) if name in of_numpy else each for name, each in parameters().items()}
        cam = GradCAM((project, values), "features", batch_size=4, backend_options={"framework": "jax"})
        cam(BIG[:4])
        runs, found = Runs(cam), []
        for number, single in enumerate(cam.explain_many(BIG, prefetch=5)):
            found.append(single.maps)
            if number == 3:
                values["head"] *= -1
        assert sum(runs.rows) == len(BIG)
        np.testing.assert_allclose(np.concatenate(found[4:]), cam(BIG[4:]).maps, atol=1e-5)

    @pytest.mark.parametrize("images", [IMAGES, BIG])
    def test_batches_of_several_shapes_libraries_and_dtypes(self, images: np.ndarray) -> None:
        cam = self.cam()
        batches = [
            images[:4],
            images[4:8, :8],
            images[8:12, :8].astype(np.float64),
            jnp.asarray(images[12:14, :8]),
            images[:3],
            images[5:9],
        ]
        found = [single.maps for single in cam.explain_many(iter(batches), prefetch=4)]
        expected = [cam(batch[row : row + 1]).maps for batch in batches for row in range(len(batch))]
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5)

    def test_two_explanations_at_once_of_one_model(self) -> None:
        first, second = self.cam(), self.cam()
        pairs = zip(first.explain_many(IMAGES), second.explain_many(IMAGES[::-1]), strict=True)
        found = [(one.maps, other.maps) for one, other in pairs]
        for one, other in zip(found, found[::-1], strict=True):
            np.testing.assert_allclose(one[0], other[1], atol=1e-5)

    def test_one_wrong_image_is_left_out_and_no_other(self) -> None:
        images = IMAGES.copy()
        images[9] = np.nan
        with pytest.warns(UserWarning, match="[Ii]mage 9"):
            places = [single.indices for single in self.cam().explain_many(images, on_error="skip")]
        assert places == [(place,) for place in range(len(IMAGES)) if place != 9]

    def test_a_source_that_waits_for_explanations_gets_them(self) -> None:
        told = threading.Semaphore(1)

        def source() -> Iterator[np.ndarray]:
            for number in range(5):
                assert told.acquire(timeout=PATIENCE)
                yield BIG[4 * number : 4 * number + 4]

        for number, _ in enumerate(self.cam().explain_many(source())):
            if number % 4 == 3:
                told.release()
        assert number == len(BIG) - 1

    def test_jobs(self, tmp_path: Path) -> None:
        pytest.importorskip("pyarrow")
        pytest.importorskip("filelock")
        from pyarrow import parquet

        cam = self.cam()
        runs = Runs(cam)
        cam.explain_to(tmp_path, IMAGES, piece=10, progress=False, model_name="project")
        rows = parquet.read_table(tmp_path).to_pylist()
        assert [row["id"] for row in rows] == list(range(len(IMAGES)))
        assert cam.adapter._known.begun is None
        # They are explained before the job begins, to learn how they run best; in the job each is run once.
        assert sum(runs.rows) == 2 * len(IMAGES)
