"""The library's main job on real input: photographs explained with an ImageNet network.

    python -m examples.demo --framework torch --out demo-out

writes a picture per photograph, the maps and the numbers into the folder `demo-out`. It is the command line
`fusioncam explain PHOTO... --model SPEC`, given scikit-image's photographs and an EfficientNet-Lite0.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from examples.zoo.photographs import photograph
from fusioncam_core.cli import main as fusioncam

MODELS = {
    "torch": "python:examples.zoo.efficientnet_lite0_torch:load",
    "tensorflow": "python:examples.zoo.efficientnet_lite0_keras:load",
    "jax": "python:examples.zoo.efficientnet_lite0_flax:load",
}
"""The same network in each framework: what the command line's `--model` takes."""

PHOTOGRAPHS = ("coffee", "chelsea")


def main(arguments: Sequence[str] | None = None) -> int:
    """Explain the photographs; returns the command line's exit status."""
    parser = argparse.ArgumentParser(prog="python -m examples.demo", description="Explain two photographs.")
    parser.add_argument("--framework", choices=sorted(MODELS), default="torch")
    parser.add_argument("--out", default="demo-out", metavar="DIR", help="where the pictures go")
    options = parser.parse_args(arguments)
    if options.framework == "tensorflow":
        os.environ["KERAS_BACKEND"] = "tensorflow"
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # no notes about the processor between the tables
    photographs = [str(photograph(name)) for name in PHOTOGRAPHS]
    where = ["--model", MODELS[options.framework], "--out", options.out]
    return fusioncam(["explain", *photographs, *where])


if __name__ == "__main__":
    sys.exit(main())
