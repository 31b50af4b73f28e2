"""How many images at once: spans, the search for the fastest size, and memory that does not suffice."""

from __future__ import annotations

import contextlib
import functools
import platform
import re
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from fusioncam_core import FusionCAM
from fusioncam_core.errors import MemoryWarning
from fusioncam_core.models import batch_search
from fusioncam_core.models.adapter import Execution, ModelAdapter
from fusioncam_core.models.batch_search import AutoBatching, make_batching
from fusioncam_core.models.batch_size import TOGETHER, Batching, ModelBatching, Setting, Span, require_batch_size
from fusioncam_core.models.black_box import BlackBox
from libraries import framework

pytestmark = pytest.mark.searches


class Full(RuntimeError):
    """The device's memory is full."""


class Device(BlackBox):
    """A model on a device whose clock runs as the work says.

    Args:
        cost: (memory format, size, whether that size is new) -> seconds of one run.
        guess: the size to start with.
        formats: memory formats.
        fixed: whether every shape costs a compilation.
    """

    def __init__(
        self,
        cost: Callable[[str, int, bool], float],
        guess: int = 4,
        formats: tuple[str, ...] = ("as given",),
        *,
        fixed: bool = False,
    ):
        super().__init__(lambda images: images)
        self.now = 0.0
        self.runs: list[tuple[str, int]] = []
        self.execution = Execution(guess, fixed, formats, (Full,))
        self._cost = cost
        self._format = formats[0]

    @contextlib.contextmanager
    def memory_format(self, name: str) -> Iterator[None]:
        before, self._format = self._format, name
        yield
        self._format = before

    def ran_out_of_memory(self, error: Exception) -> bool:
        return "full" in str(error)

    def work(self, span: Span) -> Any:
        self.now += self._cost(self._format, span.length, (self._format, span.length) not in self.runs)
        self.runs.append((self._format, span.length))
        return np.arange(span.start, span.start + span.length)


@pytest.fixture
def make_device(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Device]:
    def make(*arguments: Any, **keywords: Any) -> Device:
        device = Device(*arguments, **keywords)
        monkeypatch.setattr(batch_search.time, "perf_counter", lambda: device.now)
        return device

    return make


def done(batching: Batching, total: int, work: Callable[[Span], Any], **options: Any) -> list[int]:
    """Everything the batching did, in order."""
    return [int(value) for result, count in batching.over(total, work, **options) for value in result[:count]]


class TestBatching:
    def test_spans_cover_everything_once(self) -> None:
        spans: list[Span] = []

        def work(span: Span) -> Any:
            spans.append(span)
            return np.arange(span.start, span.start + span.count)

        assert done(Batching(3), 8, work) == list(range(8))
        assert spans == [Span(0, 3, 3), Span(3, 3, 3), Span(6, 2, 2)]

    @pytest.mark.parametrize(("total", "lengths"), [(8, [3, 3, 3]), (3, [3]), (2, [2]), (1, [1]), (4, [3, 3]), (0, [])])
    def test_fixed_spans_have_few_lengths(self, total: int, lengths: list[int]) -> None:
        batching = Batching(3, fixed=True)
        spans = [span for span, _ in batching.over(total, lambda span: span)]
        assert [span.length for span in spans] == lengths
        assert sum(span.count for span in spans) == total
        padded = batching.padded(np.arange(total))
        assert all(len(span.of(padded)) == span.length for span in spans)

    def test_padded_lengths_are_powers_of_two(self) -> None:
        lengths = {len(Batching(16, fixed=True).padded(np.arange(total))) for total in range(1, 112)}
        assert lengths == {32, 64, 128}

    @pytest.mark.parametrize("batch_size", [0, -1, 2.5, True, None, "many"])
    def test_no_batch_size(self, batch_size: Any) -> None:
        with pytest.raises(ValueError, match=rf"a positive number of images or 'auto'.* {re.escape(repr(batch_size))}"):
            require_batch_size(batch_size)


class TestSearch:
    """One image takes `|log2(size / best)| + 1` seconds: fastest at `best`."""

    @pytest.mark.parametrize("best", [1, 2, 4, 8, 32])
    def test_finds_the_fastest_size(self, make_device: Any, best: int) -> None:
        device = make_device(lambda _, size, new: size * (abs(np.log2(size / best)) + 1) + 5 * new)
        batching = make_batching(device, "auto")
        assert isinstance(batching, AutoBatching)
        assert done(batching, 5000, device.work) == list(range(5000)), "the search does the work, and no more"
        assert batching.settled
        assert batching.way == ("as given", best)
        assert {size for _, size in device.runs[-3:-1]} == {best}

    @pytest.mark.parametrize("best", [1, 3, 7, 28])
    def test_sizes_need_not_be_powers_of_two(self, make_device: Any, best: int) -> None:
        device = make_device(lambda _, size, new: size * (abs(np.log2(size / best)) + 1), guess=7)
        batching = AutoBatching(device)
        done(batching, 5000, device.work)
        assert batching.settled
        assert batching.way.size == best

    def test_the_first_run_of_a_size_does_not_count(self, make_device: Any) -> None:
        device = make_device(lambda _, size, new: size * (1 if size == 8 else 2) + 1000 * new)
        batching = AutoBatching(device)
        done(batching, 500, device.work)
        assert batching.size == 8

    @pytest.mark.parametrize("faster", ["rows", "columns"])
    def test_compares_memory_formats(self, make_device: Any, faster: str) -> None:
        device = make_device(lambda name, size, new: size * (1 if name == faster else 2), 4, ("rows", "columns"))
        batching = AutoBatching(device)
        done(batching, 500, device.work)
        assert batching.way.memory_format == faster
        assert device.runs[-1][0] == faster

    def test_goes_on_where_a_call_ended(self, make_device: Any) -> None:
        device = make_device(lambda _, size, new: size * (abs(np.log2(size / 16)) + 1))
        batching = AutoBatching(device)
        done(batching, 13, device.work)
        assert not batching.settled
        for _ in range(30):
            done(batching, 40, device.work)
        assert batching.way.size == 16

    def test_what_it_found_is_kept(self, make_device: Any) -> None:
        device = make_device(lambda _, size, new: size * (1 if size == 8 else 2))
        batching = AutoBatching(device)
        done(batching, 2000, device.work)
        device.runs.clear()
        done(batching, 64, device.work)
        assert device.runs == [("as given", 8)] * 8

    @pytest.mark.parametrize("best", [2, 4, 8])
    def test_delays_seldom_mislead_it(self, make_device: Any, best: int) -> None:
        """Work is delayed at random moments, as on a busy machine, so that of the short runs more are not."""
        found: list[int] = []
        for seed in range(60):
            delays = np.random.default_rng(seed)

            def seconds(_: str, size: int, new: bool, delays: np.random.Generator = delays) -> float:
                alone = size * (1 + 0.2 * abs(np.log2(size / best)))
                return float(alone + 2 * delays.poisson(0.1 * alone))

            device = make_device(seconds)
            batching = AutoBatching(device)
            done(batching, 5000, device.work)
            found.append(batching.way.size)
        assert found.count(best) >= 0.88 * len(found)

    def test_no_search_where_none_is_asked_for(self, make_device: Any) -> None:
        device = make_device(lambda _, size, new: size)
        batching = AutoBatching(device)
        assert done(batching, 12, device.work, search=False) == list(range(12))
        assert device.runs == [("as given", 4)] * 3

    def test_compilations_take_a_fifth_of_the_time_at_most(self, make_device: Any) -> None:
        device = make_device(lambda _, size, new: size * (1 if size >= 16 else 2) + 300 * new, 8, fixed=True)
        batching = AutoBatching(device)
        done(batching, 400, device.work)
        assert {size for _, size in device.runs} == {8}, "800 seconds of work, 300 for another size: not worth it yet"
        spent = device.now
        while not batching.settled:
            before = device.now
            done(batching, 400, device.work)
            spent += device.now - before
        assert batching.way.size == 16
        compiled = 300 * (len(set(device.runs)) - 1)
        assert compiled <= batch_search.SHARE * spent

    @pytest.mark.parametrize("best", [2, 16, 32])
    def test_of_light_images_a_size_that_is_not_faster_is_passed_over(self, make_device: Any, best: int) -> None:
        """Sizes 8 and 4 take an image as long, which ends a search that does not look beyond them."""
        device = make_device(lambda _, size, new: size * (1 if size == best else 1.2 if size > 2 else 1.3))
        found = {}
        for light in (False, True):
            batching = make_batching(device, "auto", light=light)
            done(batching, 5000, device.work)
            assert batching.settled
            found[light] = batching.way.size
        assert found == ({False: 2, True: 2} if best == 2 else {False: 4, True: best if best == 16 else 4})

    @pytest.mark.parametrize("size", [8, "auto", Setting("as given", 8)])
    def test_many_light_images_are_brought_together(self, make_device: Any, size: Any) -> None:
        device = make_device(lambda _, size, new: float(size), guess=8)
        assert make_batching(device, size, light=True).wanted == TOGETHER
        assert make_batching(device, size).wanted == (16 if size == "auto" else 8)

    def test_the_last_span_of_a_size_on_trial_is_full(self, make_device: Any) -> None:
        device = make_device(lambda _, size, new: size * (1 if size >= 64 else 2), 4)
        batching = AutoBatching(device)
        for total in (7, 30, 63, 200, 500):
            assert done(batching, total, device.work) == list(range(total))
        assert max(size for _, size in device.runs) <= 500


class TestMemory:
    def limited(self, device: Device, most: int, message: str = "memory is full") -> Callable[[Span], Any]:
        def work(span: Span) -> Any:
            if span.length > most:
                raise Full(message)
            return device.work(span)

        return work

    def test_goes_on_with_half_and_says_so_once(self, make_device: Any) -> None:
        device = make_device(lambda _, size, new: size)
        batching = ModelBatching(device, 32)
        with pytest.warns(MemoryWarning, match="does not hold 32 images at once in <lambda>: going on with 16") as said:
            assert done(batching, 70, self.limited(device, 5)) == list(range(70))
        assert len(said) == 1
        assert {size for _, size in device.runs} == {4, 2}
        device.runs.clear()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            done(batching, 8, self.limited(device, 5))
        assert device.runs == [("as given", 4)] * 2, "what did not fit is not tried again"

    def test_says_so_again_where_still_less_fits_later(self, make_device: Any) -> None:
        batching = ModelBatching(make_device(lambda _, size, new: size), 32)
        for most, words in ((20, "hold 32 .* with 16"), (3, "hold 16 .* with 8")):
            with pytest.warns(MemoryWarning, match=words):
                done(batching, 70, self.limited(batching._adapter, most))
        assert batching.size == 2

    def test_auto_says_so_where_less_fits_than_was_found(self, make_device: Any) -> None:
        device = make_device(lambda _, size, new: 10 + size)
        batching = AutoBatching(device)
        done(batching, 2000, self.limited(device, 64))
        assert batching.way.size == 64
        with pytest.warns(MemoryWarning, match="does not hold 64 images .* going on with 32") as said:
            done(batching, 200, self.limited(device, 10))
        assert len(said) == 1
        assert batching.way.size == 8

    @pytest.mark.parametrize("error", [MemoryError(), RuntimeError("CUDA error: out of memory")], ids=str)
    def test_other_words_for_a_full_memory(self, make_device: Any, error: Exception) -> None:
        device = make_device(lambda _, size, new: size)
        device.ran_out_of_memory = functools.partial(ModelAdapter.ran_out_of_memory, device)

        def work(span: Span) -> Any:
            if span.length > 5:
                raise type(error)(*error.args)
            return device.work(span)

        with pytest.warns(MemoryWarning, match="going on with 4"):
            assert done(ModelBatching(device, 8), 20, work) == list(range(20))

    def test_half_of_what_was_tried(self, make_device: Any) -> None:
        """Of a batch of 64 there are three images: half of those is one, and 32 would be the same three again."""
        device = make_device(lambda _, size, new: size)
        batching = ModelBatching(device, 64)
        with pytest.warns(MemoryWarning, match="does not hold 3 images at once in <lambda>: going on with 1"):
            done(batching, 3, self.limited(device, 2))
        assert batching.size == 1

    def test_one_image_that_does_not_fit_is_an_error(self, make_device: Any) -> None:
        device = make_device(lambda _, size, new: size)
        with pytest.warns(MemoryWarning), pytest.raises(Full):
            done(ModelBatching(device, 8), 70, self.limited(device, 0))

    def test_another_error_is_not_about_memory(self, make_device: Any) -> None:
        device = make_device(lambda _, size, new: size)
        with pytest.raises(Full, match="something else"):
            done(ModelBatching(device, 8), 70, self.limited(device, 4, "something else"))

    def test_a_size_on_trial_may_fail(self, make_device: Any) -> None:
        device = make_device(lambda _, size, new: 10 + size)
        batching = AutoBatching(device)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert done(batching, 300, self.limited(device, 8)) == list(range(300))
        assert batching.settled
        assert batching.way.size == 8

    def test_auto_halves_its_first_guess(self, make_device: Any) -> None:
        device = make_device(lambda _, size, new: size, 64)
        batching = AutoBatching(device)
        with pytest.warns(MemoryWarning, match="does not hold 64"):
            assert done(batching, 300, self.limited(device, 20)) == list(range(300))
        assert batching.way.size == 16


FAULTS = """
import resource, sys
import numpy as np
from fusioncam_core.models.batch_size import ModelBatching
from fusioncam_core.models.black_box import BlackBox

def work(span):
    blocks = [np.full(20 << 20, 1, np.uint8) for _ in range(4)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

batching = ModelBatching(BlackBox(lambda images: images), 1)
pairs = batching.over(11, work) if sys.argv[1] == "batched" else ((work(0), 1) for _ in range(11))
faults = [each for each, _ in pairs]
print((faults[-1] - faults[0]) / 10)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="about glibc's malloc")
def test_freed_memory_is_at_hand_for_the_next_run() -> None:
    def faults(how: str) -> float:
        done = subprocess.run([sys.executable, "-c", FAULTS, how], check=True, capture_output=True, text=True)
        return float(done.stdout)

    assert faults("plain") > 100
    assert faults("batched") < 10


def test_a_search_changes_nothing_but_the_time(
    shapes: dict[str, Any], shapes_weights: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    framework("torch")
    from torch_models import Shapes

    tried: set[Setting] = set()
    tell = AutoBatching._tell
    monkeypatch.setattr(
        AutoBatching, "_tell", lambda batching, way, seconds: [tried.add(way), tell(batching, way, seconds)]
    )
    model = Shapes(shapes_weights).eval()
    fixed = FusionCAM(model, "features", batch_size=8)(shapes["images"], shapes["target"]).numpy()
    cam = FusionCAM(model, "features")
    live = fixed.masks_run.sum()
    for _ in range(6):
        each = cam(shapes["images"], shapes["target"]).numpy()
        np.testing.assert_allclose(each.maps, fixed.maps, atol=1e-4)
        assert each.evaluations == 8 + live + 2 + 3 * 8, "two groups of four images, each with its black one"
    assert len({way.size for way in tried}) > 1
    assert len({way.memory_format for way in tried}) == 2
