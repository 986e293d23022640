"""The published networks as plain functions of a state dict in the published naming: the truth for
conversions.

Written from the papers' descriptions and the shapes of the files, with torch's functional operations alone.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

Weights = dict[str, Tensor]


def random_weights(shapes: dict[str, tuple[int, ...]]) -> Weights:
    """Weights that keep activations near 1: fan-in scaling, positive variances, scales near 1."""
    weights = {}
    for name, shape in shapes.items():
        if name.endswith("num_batches_tracked"):
            weights[name] = torch.tensor(3)
        elif name.endswith(("running_var", "gamma")) or (name.endswith("weight") and len(shape) == 1):
            weights[name] = torch.rand(shape) + 0.5
        else:
            fan_in = math.prod(shape[1:]) if name.endswith("weight") else 25
            weights[name] = torch.randn(shape) / math.sqrt(fan_in)
    return weights


def resize(images: Tensor, size: tuple[int, ...]) -> Tensor:
    return F.interpolate(images, size=tuple(size), mode="bilinear", align_corners=True)


class Layers:
    """Operations that read their parameters by name, under a prefix."""

    def __init__(self, weights: Weights, prefix: str = "", eps: float = 1e-5) -> None:
        self.weights, self.prefix, self.eps = weights, prefix, eps

    def at(self, prefix: str) -> "Layers":
        return Layers(self.weights, f"{self.prefix}{prefix}.", self.eps)

    def has(self, name: str) -> bool:
        return f"{self.prefix}{name}" in self.weights

    def get(self, name: str) -> Tensor | None:
        return self.weights.get(f"{self.prefix}{name}")

    def conv(
        self, name: str, x: Tensor, stride: int = 1, dilation: int = 1, depthwise: bool = False
    ) -> Tensor:
        weight = self.weights[f"{self.prefix}{name}.weight"]
        padding, groups = dilation * (weight.shape[-1] // 2), len(weight) if depthwise else 1
        return F.conv2d(x, weight, self.get(f"{name}.bias"), stride, padding, dilation, groups)

    def bn(self, name: str, x: Tensor) -> Tensor:
        w = self.at(name)
        return F.batch_norm(
            x, w.get("running_mean"), w.get("running_var"), w.get("weight"), w.get("bias"), eps=self.eps
        )

    def linear(self, name: str, x: Tensor) -> Tensor:
        return F.linear(x, self.weights[f"{self.prefix}{name}.weight"], self.get(f"{name}.bias"))

    def layer_norm(self, name: str, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], self.get(f"{name}.weight"), self.get(f"{name}.bias"), eps=1e-6)


def dinov2_tokens(weights: Weights, images: Tensor, prefix: str, after: list[int]) -> list[Tensor]:
    """Normed patch tokens [B, N, D] after the given (1-based) layers; positions as in the DINOv2 code."""
    w = Layers(weights, prefix)
    patch = weights[f"{prefix}patch_embed.proj.weight"].shape[-1]
    rows, columns = images.shape[-2] // patch, images.shape[-1] // patch
    projection = weights[f"{prefix}patch_embed.proj.weight"], weights[f"{prefix}patch_embed.proj.bias"]
    x = F.conv2d(images, *projection, stride=patch).flatten(2).transpose(1, 2)
    positions = w.get("pos_embed")
    side = math.isqrt(positions.shape[1] - 1)
    grid = positions[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    if (rows, columns) != (side, side):
        grid = F.interpolate(grid, scale_factor=((rows + 0.1) / side, (columns + 0.1) / side), mode="bicubic")
    x = x + grid.flatten(2).transpose(1, 2)
    prefix_tokens = [w.get("cls_token") + positions[:, :1]]
    if w.has("register_tokens"):
        prefix_tokens.append(w.get("register_tokens"))
    x = torch.cat([*(token.expand(len(x), -1, -1) for token in prefix_tokens), x], dim=1)
    outputs = []
    for index in range(after[-1]):
        b = w.at(f"blocks.{index}")
        batch, tokens, width = x.shape
        qkv = b.linear("attn.qkv", b.layer_norm("norm1", x)).reshape(batch, tokens, 3, width // 64, 64)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        attention = (q @ k.transpose(-2, -1) / 8).softmax(-1) @ v
        x = x + b.linear("attn.proj", attention.transpose(1, 2).flatten(2)) * b.get("ls1.gamma")
        inner = b.layer_norm("norm2", x)
        if b.has("mlp.w12.weight"):
            gate, up = b.linear("mlp.w12", inner).chunk(2, dim=-1)
            inner = b.linear("mlp.w3", F.silu(gate) * up)
        else:
            inner = b.linear("mlp.fc2", F.gelu(b.linear("mlp.fc1", inner)))
        x = x + inner * b.get("ls2.gamma")
        if index + 1 in after:
            outputs.append(w.layer_norm("norm", x)[:, x.shape[1] - rows * columns :])
    return outputs


def unimatch_v2(weights: Weights, images: Tensor, after: list[int]) -> Tensor:
    """UniMatch V2: DINOv2 + DPT. Images of sides that 14 does not divide are resized, and the logits back."""
    size = images.shape[-2:]
    rows, columns = (math.floor(side / 14 + 0.5) for side in size)
    images = resize(images, (14 * rows, 14 * columns))
    w = Layers(weights, "head.")
    levels = []
    for index, tokens in enumerate(dinov2_tokens(weights, images, "backbone.", after)):
        x = w.conv(f"projects.{index}", tokens.transpose(1, 2).unflatten(2, (rows, columns)))
        if index < 2:
            name, stride = f"resize_layers.{index}", 4 // (index + 1)
            x = F.conv_transpose2d(x, weights[f"head.{name}.weight"], weights[f"head.{name}.bias"], stride)
        elif index == 3:
            x = w.conv("resize_layers.3", x, stride=2)
        levels.append(w.conv(f"scratch.layer{index + 1}_rn", x))

    def unit(block: Layers, name: str, x: Tensor) -> Tensor:
        return x + block.conv(f"{name}.conv2", block.conv(f"{name}.conv1", x.relu()).relu())

    fused = None
    for number in (4, 3, 2, 1):
        block, level = w.at(f"scratch.refinenet{number}"), levels[number - 1]
        fused = level if fused is None else fused + unit(block, "resConfUnit1", level)
        target = levels[number - 2].shape[-2:] if number > 1 else [2 * side for side in level.shape[-2:]]
        fused = block.conv("out_conv", resize(unit(block, "resConfUnit2", fused), target))
    logits = w.conv("scratch.output_conv.2", w.conv("scratch.output_conv.0", fused).relu())
    return resize(resize(logits, images.shape[-2:]), size)


def resnet(weights: Weights, images: Tensor, prefix: str, dilate_last: bool) -> tuple[Tensor, Tensor]:
    """torchvision's naming, plain or deep stem; returns the maps of stages 1 and 4 (stride 16 or 32)."""
    w = Layers(weights, prefix)
    if w.has("conv1.0.weight"):
        x = w.bn("conv1.1", w.conv("conv1.0", images, stride=2)).relu()
        x = w.conv("conv1.6", w.bn("conv1.4", w.conv("conv1.3", x)).relu())
    else:
        x = w.conv("conv1", images, stride=2)
    x = F.max_pool2d(w.bn("bn1", x).relu(), 3, 2, 1)
    for stage in (1, 2, 3, 4):
        index = 0
        while w.has(f"layer{stage}.{index}.conv1.weight"):
            b = w.at(f"layer{stage}.{index}")
            dilate = dilate_last and stage == 4
            stride = 2 if stage > 1 and index == 0 and not dilate else 1
            dilation = 2 if dilate and index > 0 else 1
            shortcut = x
            if b.has("downsample.0.weight"):
                shortcut = b.bn("downsample.1", b.conv("downsample.0", x, stride))
            if b.has("conv3.weight"):
                y = b.bn("bn1", b.conv("conv1", x)).relu()
                y = b.bn("bn2", b.conv("conv2", y, stride, dilation)).relu()
                y = b.bn("bn3", b.conv("conv3", y))
            else:
                y = b.bn("bn1", b.conv("conv1", x, stride)).relu()
                y = b.bn("bn2", b.conv("conv2", y))
            x, index = (y + shortcut).relu(), index + 1
        if stage == 1:
            low = x
    return low, x


def v1_xception(weights: Weights, images: Tensor, prefix: str) -> tuple[Tensor, Tensor]:
    """UniMatch V1's Xception-65 at stride 16: the first ReLU works in place, so identities are rectified."""
    w = Layers(weights, prefix)

    def separable(b: Layers, x: Tensor, stride: int = 1, relu: bool = False) -> Tensor:
        act: Callable[[Tensor], Tensor] = F.relu if relu else lambda y: y
        x = act(b.bn("bn1", b.conv("depthwise", x, stride, depthwise=True)))
        return act(b.bn("bn2", b.conv("pointwise", x)))

    x = w.bn("bn1", w.conv("conv1", images, stride=2)).relu()
    x = w.bn("bn2", w.conv("conv2", x)).relu()
    for number in range(1, 21):
        b, stride = w.at(f"block{number}"), 2 if number <= 3 else 1
        shortcut = b.bn("skipbn", b.conv("skip", x, stride)) if b.has("skip.weight") else x.relu()
        y = separable(b.at("sepconv2"), separable(b.at("sepconv1"), x.relu()).relu())
        if number == 2:
            low = y
        x = separable(b.at("sepconv3"), y.relu(), stride) + shortcut
    for number in (3, 4, 5):
        x = separable(w.at(f"conv{number}"), x, relu=True)
    return low, x


def timm_xception(weights: Weights, images: Tensor) -> tuple[Tensor, Tensor]:
    """timm's xception65 naming at output stride 16 without dilation: plain identities, epsilon 1e-3."""
    w = Layers(weights, eps=1e-3)

    def separable(b: Layers, x: Tensor, stride: int = 1, relu: bool = False) -> Tensor:
        act: Callable[[Tensor], Tensor] = F.relu if relu else lambda y: y
        x = act(b.bn("bn_dw", b.conv("conv_dw", x, stride, depthwise=True)))
        return act(b.bn("bn_pw", b.conv("conv_pw", x)))

    x = w.bn("stem.0.bn", w.conv("stem.0.conv", images, stride=2)).relu()
    x = w.bn("stem.1.bn", w.conv("stem.1.conv", x)).relu()
    for number in range(20):
        b, stride = w.at(f"blocks.{number}"), 2 if number < 3 else 1
        shortcut = x
        if b.has("shortcut.conv.weight"):
            shortcut = b.bn("shortcut.bn", b.conv("shortcut.conv", x, stride))
        y = separable(b.at("stack.conv2"), separable(b.at("stack.conv1"), x.relu()).relu())
        if number == 1:
            low = y
        x = separable(b.at("stack.conv3"), y.relu(), stride) + shortcut
    for number in (1, 2, 3):
        x = separable(w.at(f"blocks.20.stack.conv{number}"), x, relu=True)
    return low, x


def unimatch_v1(
    weights: Weights, images: Tensor, backbone: Callable[[Weights, Tensor], tuple[Tensor, Tensor]]
) -> Tensor:
    """UniMatch V1's DeepLabV3+ decoder (rates 6, 12, 18) on a backbone's low and high maps."""
    low, high = backbone(weights, images)
    w = Layers(weights)
    branches = [w.bn("head.b0.1", w.conv("head.b0.0", high)).relu()]
    for number, rate in ((1, 6), (2, 12), (3, 18)):
        branches.append(w.bn(f"head.b{number}.1", w.conv(f"head.b{number}.0", high, dilation=rate)).relu())
    pooled = w.bn("head.b4.gap.2", w.conv("head.b4.gap.1", F.adaptive_avg_pool2d(high, 1))).relu()
    branches.append(resize(pooled, high.shape[-2:]))
    x = w.bn("head.project.1", w.conv("head.project.0", torch.cat(branches, dim=1))).relu()
    reduced = w.bn("reduce.1", w.conv("reduce.0", low)).relu()
    x = torch.cat([reduced, resize(x, low.shape[-2:])], dim=1)
    x = w.bn("fuse.1", w.conv("fuse.0", x)).relu()
    x = w.bn("fuse.4", w.conv("fuse.3", x)).relu()
    return resize(w.conv("classifier", x), images.shape[-2:])
