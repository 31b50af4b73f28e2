"""The tiny ViT for PyTorch: `python:examples.zoo.tiny_vit_torch:load`."""

import torch
from torch import nn

from examples.zoo.fashion_mnist import class_names, preprocessing
from examples.zoo.fashion_networks import (
    BLOCKS,
    CLASSES,
    HEAD_WIDTH,
    HEADS,
    LAYER_NORM_EPSILON,
    MLP_WIDTH,
    PATCH_SIZE,
    TINY_VIT,
    TOKENS,
    WIDTH,
    checkpoint_path,
    read_parameters,
)
from fusioncam_core import LoadedModel


def load() -> LoadedModel:
    """The trained network with its preprocessing and class names; images are (batch, 1, 28, 28)."""
    return LoadedModel(build(), preprocessing(channels="first"), class_names(), name=TINY_VIT)


def build() -> "TinyViT":
    """The bare network in evaluation mode: (batch, 1, 28, 28) in, (batch, 10) logits out.

    `blocks.0` to `blocks.3` give 50 tokens of width 64, the class token first; `blocks.3.attention_norm` is what
    the last attention reads.
    """
    model = TinyViT()
    arrays = read_parameters(checkpoint_path(TINY_VIT))
    model.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
    return model.eval()


class Tokens(nn.Module):
    """Puts the class token before the patches and adds the positions."""

    def __init__(self) -> None:
        super().__init__()
        self.class_token = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, 1, WIDTH), std=0.02))
        self.positions = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, TOKENS, WIDTH), std=0.02))

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """(batch, 49, 64) to (batch, 50, 64)."""
        class_token = self.class_token.expand(patches.shape[0], -1, -1)  # which torch.export can leave free
        return torch.cat([class_token, patches], dim=1) + self.positions


class Attention(nn.Module):
    """Every token reads from all tokens: softmax(query key^T / sqrt(head width)) value, in four heads."""

    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Linear(WIDTH, WIDTH)
        self.key = nn.Linear(WIDTH, WIDTH)
        self.value = nn.Linear(WIDTH, WIDTH)
        self.output = nn.Linear(WIDTH, WIDTH)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """(batch, 50, 64) to the same shape."""
        query, key, value = (_heads(layer(tokens)) for layer in (self.query, self.key, self.value))
        weights = torch.softmax(query @ key.transpose(2, 3) / HEAD_WIDTH**0.5, dim=-1)
        return self.output((weights @ value).transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Attention and a perceptron, each on normalised tokens and added to what came in."""

    def __init__(self) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(WIDTH, eps=LAYER_NORM_EPSILON)
        self.attention = Attention()
        self.mlp_norm = nn.LayerNorm(WIDTH, eps=LAYER_NORM_EPSILON)
        self.mlp_expand = nn.Linear(WIDTH, MLP_WIDTH)
        self.mlp_gelu = nn.GELU()
        self.mlp_project = nn.Linear(MLP_WIDTH, WIDTH)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """(batch, 50, 64) to the same shape."""
        tokens = tokens + self.attention(self.attention_norm(tokens))
        return tokens + self.mlp_project(self.mlp_gelu(self.mlp_expand(self.mlp_norm(tokens))))


class TinyViT(nn.Module):
    """The network, untrained: patches of 4 x 4 and a class token, four blocks, a classifier of the class token."""

    def __init__(self) -> None:
        super().__init__()
        self.patch_embedding = nn.Conv2d(1, WIDTH, PATCH_SIZE, PATCH_SIZE)
        self.tokens = Tokens()
        self.blocks = nn.ModuleList(Block() for _ in range(BLOCKS))
        self.final_norm = nn.LayerNorm(WIDTH, eps=LAYER_NORM_EPSILON)
        self.classifier = nn.Linear(WIDTH, CLASSES)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(batch, 1, 28, 28) to logits (batch, 10)."""
        tokens = self.tokens(self.patch_embedding(images).flatten(2).transpose(1, 2))
        for block in self.blocks:
            tokens = block(tokens)
        return self.classifier(self.final_norm(tokens)[:, 0])


def _heads(tokens: torch.Tensor) -> torch.Tensor:
    """(batch, tokens, width) to (batch, heads, tokens, head width)."""
    return tokens.unflatten(2, (HEADS, HEAD_WIDTH)).transpose(1, 2)
