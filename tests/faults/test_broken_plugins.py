"""Plugins that do not work: each is left out with one warning that names it, and everything else goes on."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pluggy
import pytest

from fusioncam_core import (
    EXPLAINERS,
    FusionCamError,
    FusionCamWarning,
    GradCAM,
    InvalidTypeError,
    InvalidValueError,
    LoadedModel,
    MissingExtra,
    PluginWarning,
    adapt_model,
    load_model,
    normalise,
    plugin_manager,
)
from fusioncam_core.explainers import Explainer
from fusioncam_core.explainers.registry import find_method
from fusioncam_core.metrics.metric import find_metric
from fusioncam_core.plugins.engines import find_engine
from fusioncam_core.plugins.guarded import GuardedManager
from fusioncam_core.plugins.loading import place_model
from registries import as_before  # noqa: F401 - a fixture

torch = pytest.importorskip("torch")

hookimpl = pluggy.HookimplMarker("fusioncam")


def registered(hook: str, answer: Callable[..., Any], name: str = "broken") -> None:
    """Register a plugin with one hook, a function of the hook's arguments."""
    plugin_manager().register(type("Plugin", (), {hook: staticmethod(hookimpl(answer))})(), name)


def raising(error: BaseException) -> Callable[[], Any]:
    def hook() -> Any:
        raise error

    return hook


def answering(answer: Any) -> Callable[[], Any]:
    return lambda: answer


def network() -> Any:
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 2, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(2, 2)
    )


def refused(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(FusionCamError, match=f"(?s){message}"):
        call()


def twice(hook: str) -> None:
    """Ask the plugins two times."""
    for _ in range(2):
        CALLS[hook]()


CALLS: dict[str, Callable[[], Any]] = {
    "fusioncam_adapt_model": lambda: adapt_model(network()),
    "fusioncam_array_namespace": lambda: normalise(torch.arange(4.0).reshape(2, 2)),
    "fusioncam_methods": lambda: find_method("grad-cam"),
    "fusioncam_metrics": lambda: find_metric("complexity"),
    "fusioncam_load_model": lambda: refused(lambda: load_model("python:no_such_module:load"), "no module 'no_such"),
    "fusioncam_complete_model": lambda: load_model(network()),
    "fusioncam_place_model": lambda: place_model(LoadedModel(network()), "cpu"),
    "fusioncam_engine": lambda: refused(lambda: find_engine("odd"), "No plugin has an engine called 'odd'"),
    "fusioncam_describe_models": lambda: refused(
        lambda: adapt_model(object()), r"No plugin adapts .*torch\.nn\.Module"
    ),
}
"""What asks plugins, by the hook that is asked. Each works with the plugins that are there."""


class UnprintableError(Exception):
    def __str__(self) -> str:
        raise ValueError("nothing to be seen here")


ERRORS = [
    RuntimeError("it is broken"),
    KeyError("it is broken"),
    ImportError("it is broken"),
    AttributeError("it is broken"),
    RecursionError("it is broken"),
    MemoryError("it is broken"),
    StopIteration("it is broken"),
    SystemExit(0),
    UnprintableError(),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("hook", CALLS)
def test_a_raising_hook(hook: str, error: BaseException) -> None:
    registered(hook, raising(error))
    named = "sys.exit" if isinstance(error, SystemExit) else type(error).__name__
    expected = rf"^The plugin 'broken' is left out: {named}.*FUSIONCAM_DISABLE_PLUGINS=broken"
    with pytest.warns(PluginWarning, match=expected) as caught:
        twice(hook)
    assert len([each for each in caught if each.category is PluginWarning]) == 1, "said once"


GARBAGE = {
    "fusioncam_adapt_model": [3, "garbage", object(), [], GradCAM, b""],
    "fusioncam_array_namespace": [3, "garbage", object(), SimpleNamespace(where=np.where), []],
    "fusioncam_methods": [3, "garbage", object(), [3], [None], [object], [dict], [type("Odd", (), {"name": "odd"})]],
    "fusioncam_metrics": [3, "garbage", object(), [3], [None], [object], [GradCAM], {"odd": 3}],
    "fusioncam_load_model": [3, "garbage", object(), (1, 2), []],
    "fusioncam_complete_model": [3, "garbage", object(), (1, 2), []],
    "fusioncam_place_model": [3, "garbage", object(), torch.nn.Flatten(), []],
    "fusioncam_engine": [3, "garbage", object(), [], SimpleNamespace(name="odd", reads=())],
    "fusioncam_describe_models": [3, object(), ["text"], b"text"],
}


@pytest.mark.parametrize(("hook", "answer"), [(hook, each) for hook, answers in GARBAGE.items() for each in answers])
def test_a_garbage_answer(hook: str, answer: Any) -> None:
    registered(hook, answering(answer))
    with pytest.warns(PluginWarning, match=r"^The plugin 'broken' is left out: .*expected .*, got ") as caught:
        twice(hook)
    assert len(caught) == 1


def test_hooks_are_all_here() -> None:
    assert CALLS.keys() == GARBAGE.keys() == {name for name in vars(plugin_manager().hook) if "fusioncam" in name}


@pytest.mark.parametrize("hook", CALLS)
def test_an_interrupt_passes(hook: str) -> None:
    registered(hook, raising(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        CALLS[hook]()


OWN_CALLS: dict[str, Callable[[], Any]] = {
    "fusioncam_adapt_model": lambda: adapt_model(network()),
    "fusioncam_load_model": lambda: load_model("mine:model"),
    "fusioncam_complete_model": lambda: load_model(network()),
    "fusioncam_place_model": lambda: place_model(LoadedModel(network()), "cpu"),
    "fusioncam_engine": lambda: find_engine("mine"),
}


@pytest.mark.parametrize("error", [InvalidValueError("ours"), InvalidTypeError("ours"), MissingExtra("ours")])
@pytest.mark.parametrize("hook", OWN_CALLS)
def test_what_a_plugin_says_of_its_own_model_reaches_the_user(hook: str, error: Exception) -> None:
    registered(hook, raising(error))
    with pytest.raises(type(error), match=r"^ours$"):
        OWN_CALLS[hook]()


def test_what_was_wrong_is_in_the_error_that_follows() -> None:
    registered("fusioncam_load_model", raising(KeyError("weights")))
    with (
        pytest.warns(PluginWarning),
        pytest.raises(InvalidValueError, match=r"load 'mine:model'; left out: broken \(KeyError: 'weights'\)\."),
    ):
        load_model("mine:model")
    with pytest.raises(InvalidTypeError, match=r"left out: broken \(KeyError: 'weights'\)"):
        adapt_model(object())


def test_the_others_keep_their_order() -> None:
    asked: list[str] = []

    def asks(name: str, answer: Any) -> Callable[[Any], Any]:
        def hook(spec: str) -> Any:
            asked.append(name)
            if isinstance(answer, Exception):
                raise answer
            return answer

        return hook

    for name, answer in (("first", None), ("second", RuntimeError("odd")), ("third", None)):
        registered("fusioncam_load_model", asks(name, answer), name)
    with pytest.warns(PluginWarning, match="'second'"):
        CALLS["fusioncam_load_model"]()
    assert asked == ["third", "second", "first"], "as pluggy has it: the last one registered first"


def test_a_wrapper_is_not_taken() -> None:
    @pluggy.HookimplMarker("fusioncam")(wrapper=True)
    def wraps() -> Any:
        yield
        return "garbage"

    plugin_manager().register(type("Plugin", (), {"fusioncam_adapt_model": staticmethod(wraps)})(), "wrapper")
    with pytest.warns(PluginWarning, match=r"'wrapper' is left out: it wraps a hook"):
        assert adapt_model(network()).model_name == "Sequential"


def test_a_method_of_a_name_that_is_taken() -> None:
    class First(Explainer):
        name, title, family = "taken", "First", "gradient"

    second = type("Second", (GradCAM,), {"title": "Second"})  # without a name it does not put itself in
    second.name = "taken"
    registered("fusioncam_methods", answering([second]))
    with pytest.warns(PluginWarning, match=r"Second is called 'taken', as is .*First") as caught:
        assert [EXPLAINERS["taken"], EXPLAINERS["taken"]] == [First, First]
    assert len(caught) == 1


class TestInstalled:
    """Distributions on Python's path, as a manager of its own finds them."""

    @pytest.fixture
    def install(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
        before = set(sys.modules)
        monkeypatch.syspath_prepend(str(tmp_path))

        def write(module: str, code: str, entry: str | None = None, distribution: str | None = None) -> None:
            name = distribution or f"fusioncam-{module}"
            (tmp_path / f"{module}.py").write_text(code, encoding="utf-8")
            folder = tmp_path / f"{name.replace('-', '_')}-1.0.dist-info"
            folder.mkdir()
            (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
            entries = entry if entry is not None else f"[fusioncam]\n{module} = {module}\n"
            (folder / "entry_points.txt").write_bytes(entries.encode("utf-8", "surrogateescape"))

        yield write
        for name in set(sys.modules) - before:
            if name.startswith("sick"):
                del sys.modules[name]

    HOOK = "import pluggy\nhookimpl = pluggy.HookimplMarker('fusioncam')\n\n@hookimpl\n"

    @pytest.mark.parametrize(
        ("code", "problem"),
        [
            ("import no_such_package\n", "ModuleNotFoundError: No module named 'no_such_package'"),
            ("raise RuntimeError('two\\nlines')\n", "RuntimeError: two lines"),
            ("def load(:\n", "SyntaxError"),
            ("import sys\nsys.exit(0)\n", r"sys\.exit\(0\) was called"),
            ("raise SystemExit\n", r"sys\.exit\(None\) was called"),
            (HOOK + "def fusioncam_adapt_model(modle):\n    pass\n", r"PluginValidationError: .*modle"),
            (HOOK + "def fusioncam_adapt_modle(model):\n    pass\n", "PluginValidationError: unknown hook"),
            ("x = 1\n", "it has none of the hooks of fusioncam: got module"),
            ("def fusioncam_load_model(spec):\n    pass\n", "it has none of the hooks"),
        ],
    )
    def test_what_does_not_load(self, install: Callable[..., None], code: str, problem: str) -> None:
        install("sick", code)
        manager = GuardedManager()
        expected = rf"'sick' of the distribution 'fusioncam-sick' \(sick\) is left out: .*{problem}.*_PLUGINS=sick"
        with pytest.warns(PluginWarning, match=expected) as caught:
            manager.load_installed()
        assert len(caught) == 1
        assert {"torch", "jax", "keras", "tensorflow"} <= {name for name, _ in manager.list_name_plugin()}
        assert not manager.has_plugin("sick")

    @pytest.mark.parametrize(
        ("plugin", "problem"),
        [
            ("[]", "unhashable"),
            ("3", "none of the hooks"),
            ("'text'", "none of the hooks"),
            ("None", "none of the hooks"),
        ],
    )
    def test_what_is_no_plugin(self, install: Callable[..., None], plugin: str, problem: str) -> None:
        install("sick", f"plugin = {plugin}\n", "[fusioncam]\nsick = sick:plugin\n")
        with pytest.warns(PluginWarning, match=problem):
            GuardedManager().load_installed()

    @pytest.mark.parametrize("entry", ["[fusioncam]\nsick = sick:nothing\n", "[fusioncam]\nsick = not a module!\n"])
    def test_an_entry_point_that_leads_nowhere(self, install: Callable[..., None], entry: str) -> None:
        install("sick", "", entry)
        with pytest.warns(PluginWarning, match=r"'sick' of the distribution 'fusioncam-sick' .* is left out"):
            GuardedManager().load_installed()

    def test_entry_points_that_cannot_be_read(self, install: Callable[..., None]) -> None:
        install("sick", "", "[fusioncam]\nno equals sign\n")
        manager = GuardedManager()
        with pytest.warns(PluginWarning, match="distribution 'fusioncam-sick' are left out: its entry_points.txt"):
            manager.load_installed()
        assert manager.has_plugin("torch")

    @pytest.mark.parametrize("entry", ["\udcff\udcfe[x]\n", "no section\n", "[console_scripts]\nno equals sign\n"])
    def test_broken_entry_points_of_others_are_not_ours_to_say(self, install: Callable[..., None], entry: str) -> None:
        install("sick", "", entry)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            GuardedManager().load_installed()

    def test_a_name_that_is_taken(self, install: Callable[..., None]) -> None:
        code = self.HOOK + "def fusioncam_load_model(spec):\n    pass\n"
        install("sick", code)
        install("sicker", code, "[fusioncam]\nsick = sicker\n")
        manager = GuardedManager()
        with pytest.warns(PluginWarning, match=r"the distribution 'fusioncam-sick(er)?' has a plugin of this name"):
            manager.load_installed()
        assert manager.has_plugin("sick")

    def test_one_that_is_blocked_is_not_imported(self, install: Callable[..., None]) -> None:
        install("sick", "raise RuntimeError\n")
        manager = GuardedManager()
        manager.set_blocked("sick")
        manager.load_installed()
        assert (manager.problems, "sick" in sys.modules) == ({}, False)

    def test_the_command_line_says_it_in_one_line(self, install: Callable[..., None], tmp_path: Path) -> None:
        install("sick", "raise RuntimeError('\\x1b[31mtwo\\nlines')\n")
        path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
        command = [sys.executable, "-m", "fusioncam_core", "methods"]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": path}
        )
        assert done.returncode == 0
        assert "grad-cam" in done.stdout
        (line,) = done.stderr.splitlines()
        assert line.startswith(
            "fusioncam: warning: The plugin 'sick' of the distribution 'fusioncam-sick' (sick) is left"
        )
        assert "RuntimeError: \\x1b[31mtwo lines." in line


def test_the_warning_is_one_of_ours() -> None:
    assert issubclass(PluginWarning, FusionCamWarning)
