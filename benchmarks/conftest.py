"""The framework that a run is about, and what is written down of the machine."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import pytest

from benchmarks.subjects import SUBJECTS, Subject

PACKAGES = (
    "fusioncam", "torch", "tensorflow-cpu", "keras", "jax", "flax", "openvino", "onnxruntime", "numpy",
    "grad-cam", "torchcam", "tf-keras-vis",
)  # fmt: skip


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--framework", choices=sorted(SUBJECTS), default="torch", help="what the network runs on")
    parser.addoption("--rounds", type=int, default=3, help="how often everything is timed")
    parser.addoption("--masks", type=int, default=None, help="with engines: a budget, where all masks take too long")


@pytest.fixture(scope="session")
def masks(request: pytest.FixtureRequest) -> int | None:
    chosen: int | None = request.config.getoption("masks")
    return chosen


@pytest.fixture(scope="session")
def subject(request: pytest.FixtureRequest) -> Subject:
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    return SUBJECTS[request.config.getoption("framework")]()


@pytest.fixture
def rounds(request: pytest.FixtureRequest) -> int:
    return int(request.config.getoption("rounds"))


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    """Versions and cores, and nothing that names the machine."""
    machine_info.pop("node", None)
    machine_info["cores"] = os.cpu_count()
    machine_info["python"] = platform.python_version()
    machine_info["packages"] = {name: _version(name) for name in PACKAGES if _version(name)}
    machine_info["threads"] = os.environ.get("OMP_WAIT_POLICY", "default waiting")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
