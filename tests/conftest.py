from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fusioncam_core
from fusioncam_core.models.batch_search import AutoBatching
from libraries import EVERYTHING, LIBRARIES, REQUIRED, Library

GOLDEN = Path(fusioncam_core.__file__).parent / "testing"
DATA = Path(__file__).parent / "data"

JAX_FILES = (
    "test_jax_contract.py",
    "test_jax.py",
    "test_jax_flax.py",
    "test_jax_equinox.py",
    "test_jax_kinds.py",
    "test_eager_jax.py",
)
"""They share one worker, and so what JAX has compiled."""

SLOWEST_FILES = (
    *JAX_FILES,
    "test_frameworks_agree.py",
    "test_methods_agree.py",
    "test_docs.py",
    "test_readme.py",
    "test_zoo_fashion.py",
    "test_keras.py",
    "test_keras_kinds.py",
    "test_zoo.py",
    "test_efficientnet.py",
    "test_metrics_measures.py",
    "test_keras_contract.py",
    "test_tensorflow_contract.py",
    "test_evaluation.py",
    "test_input_shapes.py",
    "test_explainers.py",
    "test_held_models.py",
    "test_devices.py",
    "test_default_layer.py",
    "test_ensembles.py",
    "test_metrics_imputation.py",
    "test_kill_evaluation.py",
)
"""They are begun first, so that no worker is left alone with one of them at the end."""


def pytest_configure(config: pytest.Config) -> None:
    """Fail at once where a framework that must be tested is missing: its tests would be skipped one by one."""
    missing = [name for name in REQUIRED if importlib.util.find_spec(name) is None]
    if missing:
        raise pytest.UsageError(f"FUSIONCAM_REQUIRE names {', '.join(missing)}, which cannot be found here")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `--dist loadfile`, files of JAX alone are one unit of work."""
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class ByFramework(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return "jax" if Path(file).name in JAX_FILES else file

    return ByFramework(config, log)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave slow variants to `make test-all`, and put the slowest files first."""
    left_out = {item for item in items if item.get_closest_marker("slow") and not EVERYTHING}
    config.hook.pytest_deselected(items=list(left_out))
    places = {name: place for place, name in enumerate(SLOWEST_FILES)}
    kept = (item for item in items if item not in left_out)
    items[:] = sorted(kept, key=lambda item: places.get(item.path.name, len(places)))


@pytest.fixture(params=[name for name in LIBRARIES if EVERYTHING or name not in ("jax", "tensorflow-xla")])
def library(request: pytest.FixtureRequest) -> Library:
    """Each array library, eager and compiled, for functions that go through `compile`; JAX is compiled alone.

    JAX compiles each operation of eager code by itself, and TensorFlow with XLA what JAX compiles as well:
    test_eager_jax.py and test_tensorflow_xla.py call every function once.
    """
    return LIBRARIES[request.param]()


@pytest.fixture(params=["numpy", "strict", "torch", "tensorflow", *(["jax"] if EVERYTHING else [])])
def eager(request: pytest.FixtureRequest) -> Library:
    """Each array library, for what cannot be compiled or need not be."""
    return LIBRARIES[request.param]()


@pytest.fixture(scope="session")
def shapes() -> dict[str, Any]:
    """The golden vectors of the shapes network."""
    return dict(np.load(GOLDEN / "shapes_golden.npz"))


@pytest.fixture(scope="session")
def shapes_weights() -> dict[str, Any]:
    """The weights of the shapes network, in PyTorch's layout."""
    return dict(np.load(GOLDEN / "shapes_cnn.npz"))


@pytest.fixture(autouse=True)
def no_search(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test but those marked `searches` depends on which batch proves fastest, by whose size results are rounded."""
    if request.node.get_closest_marker("searches") is None:
        monkeypatch.setattr(AutoBatching, "_is_worth_trying", lambda batching, left: False)
