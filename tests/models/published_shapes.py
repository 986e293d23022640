"""Names and shapes of the tensors in published files, for networks of any width."""

Shapes = dict[str, tuple[int, ...]]


def batch_norm(name: str, channels: int) -> Shapes:
    parts = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{part}": (channels,) for part in parts} | {f"{name}.num_batches_tracked": ()}


def linear(name: str, *shape: int) -> Shapes:
    """A weight [out, in, ...] and its bias [out]."""
    return {f"{name}.weight": shape, f"{name}.bias": (shape[0],)}


def dinov2(
    prefix: str, width: int, depth: int, side: int, registers: int = 0, swiglu: bool = False
) -> Shapes:
    shapes: Shapes = {
        "cls_token": (1, 1, width),
        "pos_embed": (1, side**2 + 1, width),
        "mask_token": (1, width),
        **linear("patch_embed.proj", width, 3, 14, 14),
        **linear("norm", width),
    }
    if registers:
        shapes["register_tokens"] = (1, registers, width)
    for index in range(depth):
        b = f"blocks.{index}"
        shapes |= linear(f"{b}.norm1", width) | linear(f"{b}.norm2", width)
        shapes |= linear(f"{b}.attn.qkv", 3 * width, width) | linear(f"{b}.attn.proj", width, width)
        shapes |= {f"{b}.ls1.gamma": (width,), f"{b}.ls2.gamma": (width,)}
        if swiglu:
            inner = (int(4 * width * 2 / 3) + 7) // 8 * 8
            shapes |= linear(f"{b}.mlp.w12", 2 * inner, width) | linear(f"{b}.mlp.w3", width, inner)
        else:
            shapes |= linear(f"{b}.mlp.fc1", 4 * width, width) | linear(f"{b}.mlp.fc2", width, 4 * width)
    return {prefix + name: shape for name, shape in shapes.items()}


def dpt_head(width: int, levels: list[int], fusion: int, classes: int) -> Shapes:
    shapes: Shapes = {}
    for index, channels in enumerate(levels):
        shapes |= linear(f"head.projects.{index}", channels, width, 1, 1)
        shapes[f"head.scratch.layer{index + 1}_rn.weight"] = (fusion, channels, 3, 3)
        r = f"head.scratch.refinenet{index + 1}"
        shapes |= linear(f"{r}.out_conv", fusion, fusion, 1, 1)
        for unit in ("resConfUnit1", "resConfUnit2"):
            for conv in ("conv1", "conv2"):
                shapes |= linear(f"{r}.{unit}.{conv}", fusion, fusion, 3, 3)
    shapes |= linear("head.resize_layers.0", levels[0], levels[0], 4, 4)
    shapes |= linear("head.resize_layers.1", levels[1], levels[1], 2, 2)
    shapes |= linear("head.resize_layers.3", levels[3], levels[3], 3, 3)
    shapes |= linear("head.scratch.output_conv.0", fusion, fusion, 3, 3)
    return shapes | linear("head.scratch.output_conv.2", classes, fusion, 1, 1)


def conv_bn(conv: str, bn: str, *shape: int) -> Shapes:
    """A convolution without bias and its batch normalisation."""
    return {f"{conv}.weight": shape} | batch_norm(bn, shape[0])


def resnet(
    prefix: str, stem: int, widths: list[int], depths: list[int], deep: bool, bottleneck: bool = True
) -> Shapes:
    if deep:
        half = stem // 2
        shapes = conv_bn("conv1.0", "conv1.1", half, 3, 3, 3) | conv_bn(
            "conv1.3", "conv1.4", half, half, 3, 3
        )
        shapes |= conv_bn("conv1.6", "bn1", stem, half, 3, 3)
    else:
        shapes = conv_bn("conv1", "bn1", stem, 3, 7, 7)
    channels = stem
    for stage, (width, depth) in enumerate(zip(widths, depths, strict=True), start=1):
        for index in range(depth):
            b = f"layer{stage}.{index}"
            if bottleneck:
                shapes |= conv_bn(f"{b}.conv1", f"{b}.bn1", width // 4, channels, 1, 1)
                shapes |= conv_bn(f"{b}.conv2", f"{b}.bn2", width // 4, width // 4, 3, 3)
                shapes |= conv_bn(f"{b}.conv3", f"{b}.bn3", width, width // 4, 1, 1)
            else:
                shapes |= conv_bn(f"{b}.conv1", f"{b}.bn1", width, channels, 3, 3)
                shapes |= conv_bn(f"{b}.conv2", f"{b}.bn2", width, width, 3, 3)
            if index == 0 and (channels != width or stage > 1):
                shapes |= conv_bn(f"{b}.downsample.0", f"{b}.downsample.1", width, channels, 1, 1)
            channels = width
    return {prefix + name: shape for name, shape in shapes.items()}


def deeplab_head(low: int, high: int, aspp: int, decoder: int, classes: int) -> Shapes:
    shapes = conv_bn("head.b0.0", "head.b0.1", aspp, high, 1, 1)
    for number in (1, 2, 3):
        shapes |= conv_bn(f"head.b{number}.0", f"head.b{number}.1", aspp, high, 3, 3)
    shapes |= conv_bn("head.b4.gap.1", "head.b4.gap.2", aspp, high, 1, 1)
    shapes |= conv_bn("head.project.0", "head.project.1", aspp, 5 * aspp, 1, 1)
    shapes |= conv_bn("reduce.0", "reduce.1", 48, low, 1, 1)
    shapes |= conv_bn("fuse.0", "fuse.1", decoder, aspp + 48, 3, 3)
    shapes |= conv_bn("fuse.3", "fuse.4", decoder, decoder, 3, 3)
    return shapes | linear("classifier", classes, decoder, 1, 1)


# in and out channels of Xception-65's blocks: (in, middle, out)
XCEPTION_BLOCKS = [
    (64, 128, 128),
    (128, 256, 256),
    (256, 728, 728),
    *[(728, 728, 728)] * 16,
    (728, 728, 1024),
]
XCEPTION_EXIT = [(1024, 1536), (1536, 1536), (1536, 2048)]


def v1_xception(prefix: str) -> Shapes:
    def separable(name: str, channels: int, out: int) -> Shapes:
        shapes = conv_bn(f"{name}.depthwise", f"{name}.bn1", channels, 1, 3, 3)
        return shapes | conv_bn(f"{name}.pointwise", f"{name}.bn2", out, channels, 1, 1)

    shapes = conv_bn("conv1", "bn1", 32, 3, 3, 3) | conv_bn("conv2", "bn2", 64, 32, 3, 3)
    for number, (channels, middle, out) in enumerate(XCEPTION_BLOCKS, start=1):
        b = f"block{number}"
        shapes |= separable(f"{b}.sepconv1", channels, middle) | separable(f"{b}.sepconv2", middle, out)
        shapes |= separable(f"{b}.sepconv3", out, out)
        if channels != out:
            shapes |= conv_bn(f"{b}.skip", f"{b}.skipbn", out, channels, 1, 1)
    for number, (channels, out) in enumerate(XCEPTION_EXIT, start=3):
        shapes |= separable(f"conv{number}", channels, out)
    return {prefix + name: shape for name, shape in shapes.items()}


def timm_xception() -> Shapes:
    def separable(name: str, channels: int, out: int) -> Shapes:
        shapes = conv_bn(f"{name}.conv_dw", f"{name}.bn_dw", channels, 1, 3, 3)
        return shapes | conv_bn(f"{name}.conv_pw", f"{name}.bn_pw", out, channels, 1, 1)

    shapes = conv_bn("stem.0.conv", "stem.0.bn", 32, 3, 3, 3) | conv_bn(
        "stem.1.conv", "stem.1.bn", 64, 32, 3, 3
    )
    for number, (channels, middle, out) in enumerate(XCEPTION_BLOCKS):
        b = f"blocks.{number}"
        shapes |= separable(f"{b}.stack.conv1", channels, middle) | separable(f"{b}.stack.conv2", middle, out)
        shapes |= separable(f"{b}.stack.conv3", out, out)
        if channels != out:
            shapes |= conv_bn(f"{b}.shortcut.conv", f"{b}.shortcut.bn", out, channels, 1, 1)
    for number, (channels, out) in enumerate(XCEPTION_EXIT, start=1):
        shapes |= separable(f"blocks.20.stack.conv{number}", channels, out)
    return shapes | linear("head.fc", 1000, 2048)
