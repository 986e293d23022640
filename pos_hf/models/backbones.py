"""Surgery on networks after construction: output stride, normalisation. The networks live elsewhere."""

from typing import Any

import torch
from torch import nn

PROBE_SIZE = 128


def set_output_stride(backbone: nn.Module, output_stride: int) -> None:
    """Turn strides into dilations, in place, so that the last feature map has the given stride (DeepLab, a
    trous).

    Convolutions that would go past `output_stride` lose their stride, and every later one is dilated by the
    strides lost before it: a trained network then computes the same values, on a denser grid. On a ResNet
    this is the rule of torchvision and timm, and of the published UniMatch V1 code. Keys and weights do not
    change.

    Args:
        backbone: a convolutional backbone of AutoBackbone whose convolutions pad by (kernel - 1) / 2.
        output_stride: stride of the last feature map in pixels, a power of two.

    Raises:
        ValueError: the backbone cannot be brought to that stride.
    """
    strides: dict[nn.Conv2d, int] = {}

    def note_input_stride(conv: nn.Module, inputs: tuple[torch.Tensor]) -> None:
        strides[conv] = PROBE_SIZE // inputs[0].shape[-1]  # type: ignore[index]

    convolutions = [module for module in backbone.modules() if isinstance(module, nn.Conv2d)]
    hooks = [conv.register_forward_pre_hook(note_input_stride) for conv in convolutions]
    _last_map_size(backbone)
    for hook in hooks:
        hook.remove()
    for conv, stride in strides.items():
        dilation = max(1, stride // output_stride)
        if dilation * output_stride < stride * conv.stride[0]:
            conv.stride = (1, 1)
        if dilation > 1 and conv.kernel_size != (1, 1):
            conv.dilation = (dilation, dilation)
            conv.padding = tuple(dilation * (k - 1) // 2 for k in conv.kernel_size)
    found = PROBE_SIZE // _last_map_size(backbone)
    if found != output_stride:
        raise ValueError(
            f"a {type(backbone).__name__} has output stride {found} where {output_stride} was asked for; "
            "set output_stride to null to take the backbone as it is"
        )


def replace_batch_norm(network: nn.Module, groups: int) -> None:
    """Put a GroupNorm in the place of every BatchNorm2d, in place.

    Args:
        network: any module; every normalised channel count must be a multiple of `groups`.
        groups: of each GroupNorm.
    """
    for name, module in network.named_children():
        if isinstance(module, nn.BatchNorm2d):
            setattr(network, name, nn.GroupNorm(groups, module.num_features))
        else:
            replace_batch_norm(module, groups)


@torch.no_grad()
def _last_map_size(backbone: Any) -> int:
    first = next(module for module in backbone.modules() if isinstance(module, nn.Conv2d))
    probe = first.weight.new_zeros(1, first.in_channels, PROBE_SIZE, PROBE_SIZE)
    training = backbone.training
    backbone.eval()
    size = backbone(probe).feature_maps[-1].shape[-1]
    backbone.train(training)
    return size
