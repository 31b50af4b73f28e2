"""transformers: every architecture for images, videos, detection and segmentation, from configurations made small."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import torch

from benchmarks.sweep import on_torch, torchvision_operators
from benchmarks.sweep.layouts import FIRST, LAST, MAPS, ByLayer, Layout
from benchmarks.sweep.subject import NotBuiltError, Size, Subject, expectation

torchvision_operators.install()
from transformers import AutoConfig  # noqa: E402 - torchvision's operators come first
from transformers.models.auto import modeling_auto  # noqa: E402

KINDS = {
    "classification": modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING,
    "video": modeling_auto.MODEL_FOR_VIDEO_CLASSIFICATION_MAPPING,
    "detection": modeling_auto.MODEL_FOR_OBJECT_DETECTION_MAPPING,
    "segmentation": modeling_auto.MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING,
}

NAMES = {
    "classification": modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES,
    "video": modeling_auto.MODEL_FOR_VIDEO_CLASSIFICATION_MAPPING_NAMES,
    "detection": modeling_auto.MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES,
    "segmentation": modeling_auto.MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES,
}

FRAMES = 4

WIDTHS = {
    "hidden_size": 32,
    "d_model": 32,
    "intermediate_size": 64,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "num_attention_heads": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
}
DEPTHS = {"num_hidden_layers": 3, "encoder_layers": 2, "decoder_layers": 2, "num_queries": 10}
BARE: dict[str, int] = {}
"""What configurations call how wide and how deep a model is, and what it is made; nothing where it stays as it is."""

LARGEST = 250_000_000
"""Parameters of what a test machine takes."""

PATCH = {"image_size": 64, "patch_size": 16}

KEYWORDS: dict[str, dict[str, Any]] = {
    "swin": {"embed_dim": 16, "depths": [1, 1, 2], "num_heads": [2, 2, 2], "window_size": 4},
    "swinv2": {"embed_dim": 16, "depths": [1, 1, 2], "num_heads": [2, 2, 2], "window_size": 4},
    "donut-swin": {"embed_dim": 16, "depths": [1, 1, 2], "num_heads": [2, 2, 2], "window_size": 4},
    "convnext": {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]},
    "convnextv2": {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]},
    "resnet": {"embedding_size": 8, "hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "layer_type": "basic"},
    "timesformer": {"num_frames": FRAMES},
    "videomae": {"num_frames": FRAMES},
    "vivit": {"num_frames": FRAMES, "tubelet_size": [2, 16, 16]},
    "vjepa2": {"frames_per_clip": FRAMES, "num_pooler_layers": 1, "pred_num_hidden_layers": 1},
    "videoprism_vision_model": {"num_frames": FRAMES},
    "efficientnet": {"width_coefficient": 0.5, "depth_coefficient": 0.35, "hidden_dim": 640},
    "perceiver": {"num_latents": 16, "d_latents": 32, "num_self_attends_per_block": 2, "num_cross_attention_heads": 1},
    "yolos": {"num_detection_tokens": 10},
    "segmentation data2vec-vision": {"num_hidden_layers": 4, "out_indices": [1, 2, 3, 4]},
    "dpt": {
        "num_hidden_layers": 4,
        "backbone_out_indices": [0, 1, 2, 3],
        "neck_hidden_sizes": [8, 16, 24, 32],
        "fusion_hidden_size": 16,
        "reassemble_factors": [4, 2, 1, 0.5],
    },
    "segmentation beit": {"num_hidden_layers": 4, "out_indices": [1, 2, 3, 4]},
}
"""By model type, or kind and model type, what its configuration is given beside or in place of the words above."""

CLASS = Layout(before=1)


def _finest(values: Any, size: Size, stride: int) -> Any:
    """Of tokens of several scales, one behind the other, the first and finest."""
    grid = tuple(math.ceil(length / stride) for length in size)
    patches = values[:, : math.prod(grid)]
    return patches.reshape(len(values), *grid, -1).transpose(0, 3, 1, 2)


LAYOUTS: dict[str, ByLayer] = {
    "beit": ByLayer(CLASS),
    "clip": ByLayer(CLASS),
    "metaclip_2": ByLayer(CLASS),
    "cvt": ByLayer(FIRST, [(r".*layernorm.*|.*layers.*", CLASS)]),
    "data2vec-vision": ByLayer(CLASS),
    "deformable_detr": ByLayer(FIRST, [(r".*layer_norm", Layout(own=lambda values, size: _finest(values, size, 8)))]),
    "deit": ByLayer(Layout(before=2)),
    "dinat": ByLayer(LAST),
    "dinov2": ByLayer(CLASS),
    "dinov2_with_registers": ByLayer(Layout(before=5)),
    "dpt": ByLayer(CLASS),
    "mobilevit": ByLayer(FIRST),
    "pvt": ByLayer(CLASS),
    "perceiver": ByLayer(MAPS, [(r".*input_preprocessor", Layout(patch=(1, 1)))]),  # latents behind the pixels
    "tipsv2_dpt": ByLayer(Layout(stretched=True)),
    "timesformer": ByLayer(Layout(before=1, patch=(1, 16, 16), order=(1, 2, 0))),
    "videomae": ByLayer(Layout(patch=(2, 16, 16))),
    "vit": ByLayer(CLASS),
    "vit_msn": ByLayer(CLASS),
    "vivit": ByLayer(Layout(before=1, patch=(2, 16, 16))),
    "vjepa2": ByLayer(Layout(patch=(2, 16, 16))),
    "yolos": ByLayer(Layout(before=1, after=10)),
}
"""By model type where channels are. All others are (B, C, H, W), or rows of patches without anything before them."""

EXPECTED = [
    ("classification (beit|data2vec-vision)", r"\w+\.(layernorm|encoder\.layer\.\d+)"),
    ("classification bit", r"bit\.(norm|encoder\.stages\.3)"),
    ("classification (clip|metaclip_2)", r"vision_model\.encoder\.layers\.\d+"),
    ("classification cvt", r"cvt\.encoder\.stages\.2\.layers\.9\.layernorm_before"),
    ("classification (deit|vit|vit_msn)", r"\w+\.layers\.2\.layernorm_before"),
    ("classification (dinov2.*|ijepa|focalnet|swin|swinv2)", r"\w+\.layernorm"),
    ("classification donut-swin", r"donut\.(layernorm|encoder\.layers\.2)"),
    ("classification efficientnet", r"efficientnet\.encoder\.top_(activation|bn|conv)"),
    ("classification mobilenet_v1", r"mobilenet_v1\.layer\.25(\.\w+)?"),
    ("classification mobilenet_v2", r"mobilenet_v2\.conv_1x1(\.\w+)?"),
    ("classification mobilevit", r"mobilevit\.conv_1x1_exp(\.\w+)?"),
    ("classification (mobilevitv2|pp_lcnet)", r".*(layer|blocks|stages)\.\d+(\.\w+)*|last_conv.*|act_fn"),
    ("classification (poolformer|swiftformer)", r"norm|\w+\.encoder\..*"),
    ("classification pvt", r"pvt\.encoder\.block\.3\.1\.layer_norm_1"),
    ("classification pvt_v2", r"pvt_v2\.encoder\.layers\.3(\.layer_norm)?"),
    ("classification siglip", r"vision_model\.(post_layernorm|encoder\.layers\.\d+)"),
    ("classification timm_wrapper", r"timm_model\.layer4"),
    ("classification .*", r"(\w+\.)*(stages|layers)\.\d+"),
]
"""By kind and model type the layers that the field names."""


def framework() -> ModuleType:
    return on_torch


def names(package: str) -> list[str]:
    return [f"{kind} {name}" for kind, models in NAMES.items() for name in models]


def subject(package: str, name: str) -> Subject:
    """The model of a kind and a model type."""
    kind, _, model_type = name.partition(" ")
    common: dict[str, Any] = {"expected": expectation(EXPECTED, name), "score": SCORES[kind]}
    if kind == "video":
        common |= {
            "sizes": ((FRAMES, 64, 64), (FRAMES, 224, 224)),
            "other": (FRAMES, 64, 96),
            "shape": lambda size: (size[0], 3, *size[1:]),
        }
    return Subject(
        package,
        name,
        kind,
        lambda size: _make(kind, model_type, size),
        LAYOUTS.get(model_type, ByLayer(FIRST)),
        **common,
    )


def _make(kind: str, model_type: str, size: Size) -> torch.nn.Module:
    reasons = []
    for words in _words(kind, model_type, size):
        try:
            configuration = AutoConfig.for_model(model_type, **words)
            chosen = KINDS[kind][type(configuration)]
            chosen = chosen[0] if isinstance(chosen, tuple) else chosen
            with torch.device("meta"):
                count = on_torch.parameters(chosen(configuration))
            if count > LARGEST:
                reasons.append(f"{count / 1e6:.0f} million parameters")
                continue
            model = chosen(configuration)
            with torch.no_grad():
                model.eval()(torch.zeros(1, *((size[0], 3, *size[1:]) if kind == "video" else (3, *size))))
        except Exception as error:  # noqa: BLE001 - whatever a configuration made small does not fit
            reasons.append(f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")
        else:
            return model
    raise NotBuiltError(f"{size}: {'; '.join(dict.fromkeys(reasons))}")


def _words(kind: str, model_type: str, size: Size) -> Iterator[dict[str, Any]]:
    """What configurations are given, the smallest first: narrow and shallow, shallow, as it is."""
    default = AutoConfig.for_model(model_type)
    square = size[-1] == size[-2] and not isinstance(getattr(default, "image_size", 0), list | tuple)
    side: Any = size[-1] if square else list(size[-2:])
    vision = {**WIDTHS, "num_hidden_layers": 3, "patch_size": 16, "image_size": side}
    own_words = KEYWORDS.get(f"{kind} {model_type}", KEYWORDS.get(model_type, {}))
    given = {"image_size": side, **own_words}
    for words in ({**WIDTHS, **DEPTHS}, DEPTHS, BARE):
        known = {name: value for name, value in words.items() if isinstance(getattr(default, name, None), int)}
        own = {name: value for name, value in given.items() if hasattr(default, name)}
        if isinstance(getattr(default, "crop_size", None), int):
            own["crop_size"] = size[-1]
        if words is not BARE and hasattr(default, "vision_config"):
            own["vision_config"] = {name: vision[name] for name in vision if hasattr(default.vision_config, name)}
        yield {**known, **own, "num_labels": 6}


def _detected(outputs: Any, number: int) -> Any:
    """The best candidate of a class."""
    if "logits" not in outputs:  # a map of where there is text
        return outputs[0].flatten(1).amax(dim=1)
    return outputs.logits[..., number % outputs.logits.shape[-1]].amax(dim=1)


def _segmented(outputs: Any, number: int) -> Any:
    """The mean logit of a class."""
    return outputs.logits[:, number % outputs.logits.shape[1]].mean(dim=(1, 2))


SCORES: dict[str, Callable[[Any, int], Any] | None] = {
    "classification": None,
    "video": None,
    "detection": _detected,
    "segmentation": _segmented,
}
