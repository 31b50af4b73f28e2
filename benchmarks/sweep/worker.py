"""One process of the sweep: names of models in, a line each; rows out, a line of JSON each.

python -m benchmarks.sweep.worker timm < names              against maps by hand
python -m benchmarks.sweep.worker timm openvino < names     with an engine, against the framework
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
import warnings

PACKAGES = {
    "timm": "of_timm",
    "transformers": "of_transformers",
    "torchvision": "of_torchvision",
    "keras-tensorflow": "of_keras",
    "keras-jax": "of_keras",
    "keras-torch": "of_keras",
    "monai": "of_monai",
    "smp": "of_smp",
    "ultralytics": "of_ultralytics",
    "flax": "of_jax",
    "equinox": "of_jax",
}
"""By package, the module of this folder that has its models."""


def main() -> None:
    """Answers the first line, `?`, by the list of names; every other by a row."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what packages print is no row
    warnings.simplefilter("ignore")
    package, *engine = sys.argv[1:]
    module = importlib.import_module(f"benchmarks.sweep.{PACKAGES[package]}")
    from benchmarks.sweep.judge import judge
    from benchmarks.sweep.with_engine import judge_with_engine

    for line in sys.stdin:
        name = line.strip()
        if name == "?":
            answer = module.names(package)
        else:
            try:
                given = module.subject(package, name), module.framework()
                answer = judge_with_engine(*given, *engine) if engine else judge(*given)
            except Exception as error:  # noqa: BLE001 - one model must not end the others
                traceback.print_exc()
                answer = {
                    "package": package,
                    "model": name,
                    "status": "not judged",
                    "sentence": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}",
                }
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
