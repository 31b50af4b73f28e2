"""What attention adds on the tiny ViT: the last block's, and by its gradient, fused with region maps."""

from __future__ import annotations

import numpy as np
import torch

from benchmarks.study.measuring import Values, measured, metrics_of
from benchmarks.study.methods import Form, region_map
from benchmarks.study.networks import Network
from benchmarks.study.views import View
from examples.zoo.tiny_vit_torch import _heads
from fusioncam_core import normalise, resize

REGIONS = ("score-cam", "score-cam by regression")

GRADIENT_MAPS = ("grad-cam", "layer-cam")


def attention_map(view: View, *, by_gradient: bool) -> np.ndarray:
    """(1, 1, h, w): what the class token reads from each patch in the last block, the mean over heads.

    With `by_gradient` each weight counts times the gradient of the target's logit, where that is positive (Chefer et
    al., arXiv 2103.15679, of one block).
    """
    weights, gradients = _attention(view)
    shares = np.maximum(weights * gradients, 0) if by_gradient else weights
    patches = shares.mean(axis=0)[0, 1:]
    side = round(len(patches) ** 0.5)
    return np.asarray(normalise(np.asarray(resize(patches.reshape(1, 1, side, side), view.size))))


def _attention(view: View) -> tuple[np.ndarray, np.ndarray]:
    """(heads, tokens, tokens) of the last block, and the gradients of the target's logit."""
    model = view.network.model
    tokens = model.tokens(model.patch_embedding(torch.from_numpy(view.image[None])).flatten(2).transpose(1, 2))
    for block in model.blocks[:-1]:
        tokens = block(tokens)
    last = model.blocks[-1]
    read = last.attention_norm(tokens)
    query, key, value = (
        _heads(layer(read)) for layer in (last.attention.query, last.attention.key, last.attention.value)
    )
    weights = torch.softmax(query @ key.transpose(2, 3) / query.shape[-1] ** 0.5, dim=-1)
    tokens = tokens + last.attention.output((weights @ value).transpose(1, 2).flatten(2))
    tokens = tokens + last.mlp_project(last.mlp_gelu(last.mlp_expand(last.mlp_norm(tokens))))
    logits = model.classifier(model.final_norm(tokens)[:, 0])
    (gradients,) = torch.autograd.grad(logits[0, int(view.targets[0])], weights)
    return weights[0].detach().numpy(), gradients[0].numpy()


def measure(network: Network, image: np.ndarray) -> Values:
    """Attention maps alone, region maps alone, and both united without the third step; gradient maps for comparison."""
    view = View(network, image)
    attention = {
        "attention": attention_map(view, by_gradient=False),
        "attention by gradient": attention_map(view, by_gradient=True),
    }
    maps = {f"tiny ViT: {name}": each for name, each in attention.items()}
    for region in REGIONS:
        maps[f"tiny ViT: {region}"] = region_map(view, region)
        for name in GRADIENT_MAPS:
            maps[f"tiny ViT: {name} + {region}"] = Form(gradient=name, region=region, step=False)(view)
        for name, each in attention.items():
            maps[f"tiny ViT: {name} + {region}"] = Form(region=region, step=False).of(view, each)
    return measured(view, {name: each[0, 0] for name, each in maps.items()}, metrics_of(view, road=False))
