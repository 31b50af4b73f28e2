"""timm: of every module of models the registered one with the fewest parameters.

python -m benchmarks.sweep.of_timm      finds them anew, for another version of timm
"""

from __future__ import annotations

import warnings
from types import ModuleType
from typing import Any

import torch

from benchmarks.sweep import on_torch, torchvision_operators
from benchmarks.sweep.layouts import FIRST, LAST, ByLayer, Layout
from benchmarks.sweep.subject import Size, Subject, expectation

torchvision_operators.install()
import timm  # noqa: E402 - torchvision's operators come first

SMALLEST: dict[str, str] = {}
"""By module the model with the fewest parameters of timm 1.0.31, as `main` prints them."""

SHALLOW = {"depth": 3}
"""Of models of one width the depth tells nothing new, and they are large."""

KEYWORDS: dict[str, dict[str, Any]] = {}
"""By module, what its model is built with beside its size."""

SIZES: dict[str, tuple[Size, ...]] = {}
"""By module, the sizes to try where they are not the usual ones."""

PLAIN, CLASS, FOUR_REGISTERS = Layout(channels="last"), Layout("last", before=1), Layout("last", before=4)

LAYOUTS: dict[str, ByLayer] = {
    "beit": ByLayer(CLASS),
    "cait": ByLayer(PLAIN, [(r"blocks_token_only\.\d+\.norm1", CLASS)]),
    "coat": ByLayer(CLASS, [(r"patch_embed\d", PLAIN)]),
    "convit": ByLayer(CLASS, [(r"patch_embed|pos_drop|blocks\.[0-9]\b.*", PLAIN)]),
    "crossvit": ByLayer(CLASS),
    "davit": ByLayer(FIRST),
    "deepseek_vit": ByLayer(PLAIN),
    "deit": ByLayer(CLASS),
    "efficientformer": ByLayer(FIRST),
    "eva": ByLayer(CLASS),
    "gcvit": ByLayer(FIRST, [(r"stages\.\d+\.blocks.*", LAST)]),
    "gemma4_vit": ByLayer(PLAIN),
    "hiera": ByLayer(PLAIN),
    "hieradet_sam2": ByLayer(LAST),
    "levit": ByLayer(PLAIN),
    "mambaout": ByLayer(LAST),
    "mlp_mixer": ByLayer(PLAIN),
    "mvitv2": ByLayer(PLAIN),
    "naflexvit": ByLayer(PLAIN),
    "nest": ByLayer(FIRST, [(r"norm", LAST)]),
    "pit": ByLayer(FIRST, [(r"transformers\.\d+\.blocks.*|norm", CLASS)]),
    "pvt_v2": ByLayer(FIRST),
    "qwen3_vit": ByLayer(PLAIN),
    "sequencer": ByLayer(LAST),
    "swin_transformer": ByLayer(LAST),
    "swin_transformer_v2": ByLayer(LAST),
    "swin_transformer_v2_cr": ByLayer(FIRST, [(r"stages\.\d+\.blocks.*", LAST)]),
    "tiny_vit": ByLayer(FIRST, [(r"stages\.[1-9]\.blocks.*", LAST)]),
    "tnt": ByLayer(CLASS),
    "twins": ByLayer(PLAIN),
    "vision_transformer": ByLayer(CLASS),
    "vision_transformer_hybrid": ByLayer(CLASS, [(r"patch_embed\.backbone.*", FIRST)]),
    "vision_transformer_relpos": ByLayer(PLAIN),
    "vision_transformer_sam": ByLayer(LAST, [(r"neck.*", FIRST)]),
    "volo": ByLayer(LAST, [(r"post_network.*|norm", CLASS)]),
    "xcit": ByLayer(PLAIN, [(r"cls_attn_blocks.*|norm", CLASS)]),
}
"""By module where channels are. All others are (B, C, H, W) throughout."""

EXPECTED: list[tuple[str, str]] = []
"""By modules the layers that the field names."""


def framework() -> ModuleType:
    return on_torch


def names(package: str) -> list[str]:
    return list(SMALLEST)


def subject(package: str, name: str) -> Subject:
    """The model of a module."""
    return Subject(
        package,
        name,
        "classification",
        lambda size: _make(name, size),
        LAYOUTS.get(name, ByLayer(FIRST)),
        sizes=SIZES.get(name, ((128, 128), (224, 224), (256, 256))),
        expected=expectation(EXPECTED, name),
    )


def _make(name: str, size: Size) -> torch.nn.Module:
    """At its own size where the architecture takes one."""
    keywords = KEYWORDS.get(name, {})
    model = SMALLEST[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return timm.create_model(model, img_size=size, **keywords)
        except TypeError:  # convolutions know no size
            return timm.create_model(model, **keywords)


def main() -> None:
    """Prints the smallest model of each module."""
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for module in timm.list_modules():
            counts = {}
            for model in timm.list_models(module=module):
                try:
                    made = timm.create_model(model)
                except (RuntimeError, NotImplementedError, ValueError, TypeError, AssertionError) as error:
                    print(f"    # {model}: {error}".splitlines()[0])
                    continue
                if getattr(made, "num_classes", 0):
                    counts[model] = on_torch.parameters(made)
            if counts:
                best = min(counts, key=lambda model: counts[model])
                print(f'    "{module}": "{best}",  # {counts[best] / 1e6:.1f} M', flush=True)


if __name__ == "__main__":
    main()
