"""Runs the sweep in a few processes, and keeps a row of JSON a model: it goes on where it stopped.

python -m benchmarks.sweep.run --out sweep-out --packages timm transformers --only 'resnet|vit' --limit 10
python -m benchmarks.sweep.run --out sweep-out --engine openvino
"""

from __future__ import annotations

import argparse
import collections
import functools
import importlib.metadata
import json
import os
import queue
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.sweep.with_engine import SMALL
from benchmarks.sweep.worker import PACKAGES

VERSIONS = (
    "fusioncam",
    "numpy",
    "torch",
    "openvino",
    "onnxruntime",
    "timm",
    "transformers",
    "torchvision",
    "keras",
    "tensorflow-cpu",
    "jax",
    "flax",
    "equinox",
    "monai",
    "segmentation-models-pytorch",
    "ultralytics",
    "equimo",
    "flaxmodels",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """1 if a model is wrong, in this run or in one before."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sweep.run")
    parser.add_argument("--out", type=Path, default=Path("sweep-out"), metavar="DIR", help="rows, a file a package")
    parser.add_argument("--packages", nargs="+", choices=list(PACKAGES), help="all, or those of the engines' small set")
    parser.add_argument("--engine", metavar="NAME", help="its maps against the framework's, of a small set of models")
    parser.add_argument("--only", default="", metavar="REGEX", help="models in whose names it is found")
    parser.add_argument("--limit", type=int, help="this many models a package")
    parser.add_argument("--workers", type=int, default=2, help="processes (%(default)s)")
    parser.add_argument("--time-limit", type=float, default=300, metavar="SECONDS", help="for a model (%(default)s)")
    parser.add_argument("--again", action="store_true", help="also models that have a row")
    options = parser.parse_args(arguments)
    options.packages = options.packages or list(PACKAGES if options.engine is None else SMALL)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "versions.json").write_text(json.dumps(_versions(), indent=1))
    for package in options.packages:
        _sweep(package, options)
    statuses = collections.Counter(
        row["status"] for package in options.packages for row in read(options.out, _rows_of(package, options)).values()
    )
    print(", ".join(f"{number} {status}" for status, number in statuses.most_common()))
    return int(bool(statuses["wrong"] + statuses["raw error"]))


def read(folder: Path, package: str) -> dict[str, dict[str, Any]]:
    """The rows of a package by model, of a model that ran more than once the last."""
    path = folder / f"{package}.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return {row["model"]: row for row in map(json.loads, lines)}


def _rows_of(package: str, options: argparse.Namespace) -> str:
    """What the file of a package's rows is called."""
    return package if options.engine is None else f"{package}-with-{options.engine}"


def _versions() -> dict[str, Any]:
    found = {}
    for name in VERSIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {"date": time.strftime("%Y-%m-%d"), "python": sys.version.split()[0], "packages": found}


def _sweep(package: str, options: argparse.Namespace) -> None:
    rows_of = _rows_of(package, options)
    begin = functools.partial(Worker, package, options.out, rows_of, options.engine)
    first = begin()
    names = first.ask("?", options.time_limit)
    if not isinstance(names, list):
        print(f"{package}: {names}")
        first.stop()
        return
    done = {} if options.again else read(options.out, rows_of)
    names = names if options.engine is None else [name for name in names if name in SMALL.get(package, ())]
    wanted = [name for name in names if re.search(options.only, name)][: options.limit]
    waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
    for name in wanted:
        if name not in done:
            waiting.put(name)
    workers = [first, *(begin() for _ in range(options.workers - 1))]
    with (options.out / f"{rows_of}.jsonl").open("a") as rows:
        lock = threading.Lock()
        threads = [
            threading.Thread(target=_work, args=(worker, waiting, rows, lock, options.time_limit)) for worker in workers
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def _work(worker: Worker, waiting: queue.SimpleQueue[str], rows: Any, lock: threading.Lock, limit: float) -> None:
    while True:
        try:
            name = waiting.get_nowait()
        except queue.Empty:
            worker.stop()
            return
        row = worker.ask(name, limit)
        if isinstance(row, str):
            row = {"package": worker.package, "model": name, "status": "not judged", "sentence": row}
        with lock:
            rows.write(json.dumps(row) + "\n")
            rows.flush()
            print(_line(row), flush=True)


def _line(row: dict[str, Any]) -> str:
    difference = f"{row['difference']:.0e}" if "difference" in row else "-"
    words = [row["package"], row["model"], row["status"], difference, row.get("layer", ""), row.get("sentence", "")]
    return "  ".join(words)[:250]


class Worker:
    """A process that is begun anew where it dies or takes too long."""

    def __init__(self, package: str, folder: Path, rows_of: str, engine: str | None = None):
        self.package, self._engine = package, engine
        self._log = folder / f"{rows_of}.log"
        self._begin()

    def _begin(self) -> None:
        environment = {**os.environ, **_environment(self.package)}
        with self._log.open("a") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.sweep.worker", self.package, *filter(None, [self._engine])],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=environment,
            )
        self._answers: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._listen, args=(self._process, self._answers), daemon=True).start()

    @staticmethod
    def _listen(process: Any, answers: queue.SimpleQueue[str]) -> None:
        for line in process.stdout:
            answers.put(line)
        answers.put("")

    def ask(self, name: str, limit: float) -> Any:
        """The answer, or words that say why there is none."""
        try:
            self._process.stdin.write(f"{name}\n")  # type: ignore[union-attr]
            self._process.stdin.flush()  # type: ignore[union-attr]
            line = self._answers.get(timeout=limit)
        except queue.Empty:
            self.stop()
            self._begin()
            return f"it took longer than {limit:.0f} seconds"
        except BrokenPipeError:
            line = ""
        if line:
            return json.loads(line)
        self.stop()
        self._begin()
        return f"the process ended: see {self._log.name}"

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()


def _environment(package: str) -> Iterable[tuple[str, str]] | dict[str, str]:
    """One thread a process: as many processes as cores are meant to run at once."""
    threads = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "TF_CPP_MIN_LOG_LEVEL": "3", "HF_HUB_OFFLINE": "1"}
    backend = package.partition("-")[2]
    return threads | ({"KERAS_BACKEND": backend} if package.startswith("keras-") else {})


if __name__ == "__main__":
    sys.exit(main())
