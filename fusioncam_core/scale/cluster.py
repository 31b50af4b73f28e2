"""The Ray cluster that work is done on: one that is there, or one of this machine that is started for it."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Iterator
from typing import Any

from fusioncam_core.errors import InvalidValueError
from fusioncam_core.plugins.foreign import described

ADDRESS = "RAY_ADDRESS"
"""Ray's own variable with the address of a cluster: set in what is submitted to one."""

PATIENCE = 10.0
"""Seconds in which somebody has to answer at an address."""


def elsewhere(address: str | None) -> bool:
    """Whether the cluster is more than what this process starts on this machine."""
    return (address or os.environ.get(ADDRESS) or "local") != "local"


@contextlib.contextmanager
def connected(ray: Any, address: str | None, workers: int) -> Iterator[None]:
    """A context in which this process is part of a cluster: as it was already, of one that is there, or of its own."""
    if ray.is_initialized():
        if address is not None:
            raise InvalidValueError(f"This process has initialised Ray itself: expected no address, got {address!r}.")
        yield
        return
    where = address or os.environ.get(ADDRESS) or "local"
    _require_open(where)
    own = {"num_cpus": workers, "include_dashboard": False} if where == "local" else {}
    with _without_reports():
        try:
            ray.init(address=where, **own, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, ValueError, RuntimeError, OSError) as error:
            raise InvalidValueError(_no_cluster(where, error)) from error
    try:
        yield
    finally:
        ray.shutdown()


def _require_open(address: str) -> None:
    """Refuse an address at which nobody listens: Ray asks there for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdecimal():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=PATIENCE).close()
    except (OSError, OverflowError) as error:
        raise InvalidValueError(_no_cluster(address, error)) from error


def _no_cluster(address: str, error: Exception) -> str:
    return (
        f"No Ray cluster could be used at {address!r}: {described(error).rstrip('.')}. Expected an address such as "
        "auto (on a machine of the cluster), HOST:6379 or ray://HOST:10001."
    )


@contextlib.contextmanager
def _without_reports() -> Iterator[None]:
    """A context in which a cluster that is started sends no statistics to anybody, unless the user has said so."""
    name = "RAY_USAGE_STATS_ENABLED"
    before = os.environ.get(name)
    os.environ.setdefault(name, "0")
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(name, None)
