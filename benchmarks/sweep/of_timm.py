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

SMALLEST = {
    "beit": "beit_base_patch16_224",
    "byoanet": "halonet_h1",
    "byobnet": "test_byobnet",
    "cait": "cait_xxs24_224",
    "coat": "coat_tiny",
    "convit": "convit_tiny",
    "convmixer": "convmixer_768_32",
    "convnext": "test_convnext",
    "cpubone": "cpubone_nano",
    "crossvit": "crossvit_tiny_240",
    "csatv2": "csatv2",
    "cspnet": "cs3darknet_focus_s",
    "cspnext": "cspnext_tiny",
    "davit": "davit_tiny",
    "deepseek_vit": "deepseek_vit_412m",
    "deit": "deit_tiny_patch16_224",
    "densenet": "densenet121",
    "dla": "dla46x_c",
    "dpn": "dpn48b",
    "edgenext": "edgenext_xx_small",
    "efficientformer": "efficientformer_l1",
    "efficientformer_v2": "efficientformerv2_s0",
    "efficientnet": "test_efficientnet",
    "efficientvim": "efficientvim_m1",
    "efficientvit_mit": "efficientvit_b0",
    "efficientvit_msra": "efficientvit_m0",
    "eva": "eva02_tiny_patch14_336",
    "fasternet": "fasternet_t0",
    "fastvit": "fastvit_t8",
    "focalnet": "focalnet_tiny_srf",
    "gcvit": "gcvit_xxtiny",
    "gemma4_vit": "gemma4_vit_167m",
    "ghostnet": "ghostnet_050",
    "hardcorenas": "hardcorenas_b",
    "hgnet": "hgnetv2_b0",
    "hiera": "hiera_tiny_224",
    "hieradet_sam2": "hieradet_small",
    "hrnet": "hrnet_w18_small",
    "iformer": "iformer_t",
    "inception_next": "inception_next_atto",
    "inception_resnet_v2": "inception_resnet_v2",
    "inception_v3": "inception_v3",
    "inception_v4": "inception_v4",
    "lcnetv2": "lcnetv2_small",
    "levit": "levit_128s",
    "lowformer": "lowformer_b0",
    "mambaout": "test_mambaout",
    "maxxvit": "test_coatnet",
    "metaformer": "poolformerv2_s12",
    "mlp_mixer": "gmlp_ti16_224",
    "mobilenetv3": "mobilenetv3_small_050",
    "mobilenetv5": "mobilenetv5_base",
    "mobilevit": "mobilevit_xxs",
    "mvitv2": "mvitv2_tiny",
    "naflexvit": "naflexvit_base_patch16_parfac_gap",
    "nasnet": "nasnetalarge",
    "nest": "nest_tiny",
    "nextvit": "nextvit_small",
    "nfnet": "test_nfnet",
    "pit": "pit_ti_224",
    "pnasnet": "pnasnet5large",
    "pvt_v2": "pvt_v2_b0",
    "qwen3_vit": "qwen3_vit_88m",
    "rdnet": "rdnet_tiny",
    "regnet": "regnetx_002",
    "repghost": "repghostnet_050",
    "repvit": "repvit_m1",
    "res2net": "res2next50",
    "resnest": "resnest14d",
    "resnet": "test_resnet",
    "resnetv2": "resnetv2_18",
    "rexnet": "rexnet_100",
    "selecsls": "selecsls42",
    "senet": "legacy_seresnet18",
    "sequencer": "sequencer2d_s",
    "shvit": "shvit_s1",
    "sknet": "skresnet18",
    "starnet": "starnet_s050",
    "swiftformer": "swiftformer_xs",
    "swin_transformer": "swin_tiny_patch4_window7_224",
    "swin_transformer_v2": "swinv2_tiny_window8_256",
    "swin_transformer_v2_cr": "swinv2_cr_tiny_224",
    "tiny_vit": "tiny_vit_5m_224",
    "tnt": "tnt_s_legacy_patch16_224",
    "tresnet": "tresnet_m",
    "twins": "twins_svt_small",
    "vgg": "vgg11",
    "visformer": "visformer_tiny",
    "vision_transformer": "test_vit",
    "vision_transformer_hybrid": "vit_tiny_r_s16_p8_224",
    "vision_transformer_relpos": "test_vit_relpos",
    "vision_transformer_sam": "samvit_base_patch16_224",
    "vitamin": "vitamin_small_224",
    "volo": "volo_d1_224",
    "vovnet": "ese_vovnet19b_slim_dw",
    "xception": "legacy_xception",
    "xception_aligned": "xception41",
    "xcit": "xcit_nano_12_p16_224",
}
"""By module the model with the fewest parameters of timm 1.0.31, as `main` prints them."""

KEYWORDS: dict[str, dict[str, Any]] = {
    name: {"num_classes": 10, "depth": 3} for name in ("deepseek_vit", "gemma4_vit", "qwen3_vit")
}
"""By module, what its model is built with beside its size."""

SIZES: dict[str, tuple[Size, ...]] = {"crossvit": ((240, 240),)}
"""By module, the sizes to try where they are not the usual ones."""

SQUARE = ("crossvit",)
"""Modules whose models take squares alone: CrossViT scales the image for its coarse branch."""

CLASS, FOUR_REGISTERS = Layout(before=1), Layout(before=4)

LAYOUTS: dict[str, ByLayer] = {
    "beit": ByLayer(CLASS),
    "cait": ByLayer(FIRST, [(r"blocks_token_only\.\d+\.norm1", CLASS)]),
    "coat": ByLayer(CLASS, [(r"patch_embed\d", FIRST)]),
    "convit": ByLayer(CLASS, [(r"patch_embed|pos_drop|blocks\.[0-9]\b.*", FIRST)]),
    "crossvit": ByLayer(CLASS),
    "deepseek_vit": ByLayer(LAST),
    "deit": ByLayer(CLASS),
    "eva": ByLayer(CLASS),
    "gcvit": ByLayer(FIRST, [(r"stages\.\d+\.blocks.*", LAST)]),
    "hieradet_sam2": ByLayer(LAST),
    "mambaout": ByLayer(LAST),
    "mobilenetv5": ByLayer(Layout(stretched=True)),
    "naflexvit": ByLayer(FOUR_REGISTERS),
    "nest": ByLayer(FIRST, [(r"norm", LAST)]),
    "pit": ByLayer(FIRST, [(r"transformers\.\d+\.blocks.*|norm", CLASS)]),
    "qwen3_vit": ByLayer(LAST),
    "sequencer": ByLayer(LAST),
    "swin_transformer": ByLayer(LAST),
    "swin_transformer_v2": ByLayer(LAST),
    "swin_transformer_v2_cr": ByLayer(FIRST, [(r"stages\.\d+\.blocks.*", LAST)]),
    "tiny_vit": ByLayer(FIRST, [(r"stages\.[1-9]\.blocks.*", LAST)]),
    "tnt": ByLayer(CLASS),
    "vision_transformer": ByLayer(CLASS),
    "vision_transformer_hybrid": ByLayer(CLASS, [(r"patch_embed\.backbone.*", FIRST)]),
    "vision_transformer_sam": ByLayer(LAST, [(r"neck.*", FIRST)]),
    "volo": ByLayer(LAST, [(r"post_network.*|norm", CLASS)]),
    "xcit": ByLayer(FIRST, [(r"cls_attn_blocks.*|norm", CLASS)]),
}
"""By module where channels are. All others are (B, C, H, W) throughout, or rows of patches alone."""

LAST_STAGE = r"stages(\.\d+)*|norm_pre|norm|final_conv(\.\w+)*"
LAST_BLOCKS = r"blocks(\.\d+)*|stages(\.\d+)*|conv_head(\.\w+)*|bn2(\.act)?|act2|norm_head(\.act)?"

EXPECTED = [
    ("beit|naflexvit|vision_transformer_relpos|vitamin|mlp_mixer|convmixer", r"norm|blocks(\.\d+)?(\.norm1)?"),
    ("deepseek_vit|gemma4_vit|qwen3_vit", r"encoder(\.norm|\.blocks(\.\d+)?)?"),
    ("cait", r"blocks_token_only\.1\.norm1|blocks\.23"),
    ("coat", r"parallel_blocks\.5\.norm1[234]"),
    ("convit|deit|vision_transformer_hybrid", r"blocks\.11\.norm1"),
    ("eva", r"norm|blocks\.11(\.norm1)?"),  # which pools its patches
    ("vision_transformer", r"blocks\.5\.norm1"),
    ("tnt", r"blocks\.11(\.norm_out)?"),
    ("crossvit", r"blocks\.2\..*norm\w*|norm\.[01]"),
    ("cpubone|efficientvit_mit", r"head\.in_conv(\.\w+)*|" + LAST_STAGE),
    ("densenet|dpn|vgg|rexnet|inception_v4", r"features(\.\w+)*"),
    ("dla", r"level5|final_conv"),
    ("efficientnet|ghostnet|hardcorenas|mobilenetv3|repghost", LAST_BLOCKS),
    ("mobilenetv5", r"msfa(\.norm)?"),
    ("efficientvim", r"norm\.3|stages(\.2)?"),
    ("hiera|hieradet_sam2", r"norm|blocks(\.\d+)?"),
    ("hrnet", r"final_layer(\.\d+)*"),
    ("inception_resnet_v2", r"conv2d_7b(\.\w+)?"),
    ("inception_v3", r"Mixed_7c"),
    ("lowformer", r"(head\.)?in_conv(\.\w+)*|" + LAST_STAGE),
    ("nasnet|pnasnet", r"act|cell_\d+"),
    ("nfnet", r"final_act|final_conv"),
    ("pit", r"transformers\.2\.blocks\.3\.norm1"),
    ("resnet|res2net|resnest|senet|sknet", r"layer4(\.\d+)?"),
    ("resnetv2", r"norm|stages(\.\d+)*"),
    ("selecsls", r"head(\.\d+)?"),
    ("tresnet", r"body(\.layer4)?"),
    ("twins", r"norm|blocks\.3(\.\d+)?"),
    ("vision_transformer_sam", r"neck(\.3)?"),
    ("volo", r"norm|post_network\.1\.norm1|network\.4(\.\d+)?"),  # whose auxiliary head reads the patches
    ("xception", r"act4|bn4|conv4"),
    ("xception_aligned", r"act|blocks(\.\d+)?"),
    ("xcit", r"cls_attn_blocks\.1\.norm1|blocks\.11"),
    (".*", LAST_STAGE),
]
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
        other=None if name in SQUARE else (96, 128),
        expected=expectation(EXPECTED, name),
        variant=SMALLEST[name],
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
