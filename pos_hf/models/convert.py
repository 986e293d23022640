"""Published checkpoints -> our models: recognise the naming, infer the configuration, rename, report.

UniMatch V1 and V2 become segmentation models; DINOv2, ResNet and Xception-65 files become backbones, to be
given as `backbone_weights`. Files of transformers' own naming need no conversion: from_pretrained reads them.
"""

import math
import pickle
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoBackbone, AutoConfig, AutoModelForSemanticSegmentation, PreTrainedModel

from pos_hf.errors import InputError, first_sentence

Weights = dict[str, Tensor]
Rules = list[tuple[str, str]]

# what published files carry and no forward uses: classifiers, the mask token, the first fusion's skip unit
UNUSED = re.compile(
    r"(backbone\.)?(mask_token|fc\..*|head\.fc\..*)|head\.scratch\.refinenet4\.resConfUnit1\..*"
)
XCEPTION = {"model_type": "aligned_xception", "out_indices": [1, 2]}
# transformer layers (1-based) that feed the DPT head, by depth
DPT_LAYERS = {12: [3, 6, 9, 12], 24: [5, 12, 18, 24], 40: [10, 20, 30, 40]}

DINOV2_RULES: Rules = [
    (r"^(cls_token|mask_token|register_tokens)$", r"embeddings.\1"),
    (r"^pos_embed$", "embeddings.position_embeddings"),
    (r"^patch_embed\.proj\.", "embeddings.patch_embeddings.projection."),
    (r"^blocks\.", "encoder.layer."),
    (r"\.attn\.([qkv])\.", r".attention.\1_proj."),
    (r"\.attn\.proj\.", ".attention.o_proj."),
    (r"\.ls(\d)\.gamma$", r".layer_scale\1.lambda1"),
    (r"\.mlp\.w3\.", ".mlp.down_proj."),
    (r"^norm\.", "layernorm."),
]
DPT_RULES: Rules = [
    *((rf"^head\.scratch\.layer{n}_rn\.", f"head.level_convs.{n - 1}.") for n in (1, 2, 3, 4)),
    *((rf"^head\.scratch\.refinenet{n}\.", f"head.fusions.{4 - n}.") for n in (1, 2, 3, 4)),
    (r"\.resConfUnit1\.", ".skip_unit."),
    (r"\.resConfUnit2\.", ".unit."),
    (r"\.out_conv\.", ".project."),
    (r"^head\.scratch\.output_conv\.", "head.output."),
]
RESNET_RULES: Rules = [
    (r"^conv1\.", "embedder.embedder.convolution."),
    (r"^bn1\.", "embedder.embedder.normalization."),
    *((rf"^layer{n}\.", f"encoder.stages.{n - 1}.layers.") for n in (1, 2, 3, 4)),
    (r"\.downsample\.0\.", ".shortcut.convolution."),
    (r"\.downsample\.1\.", ".shortcut.normalization."),
    *((rf"\.conv{n}\.", f".layer.{n - 1}.convolution.") for n in (1, 2, 3)),
    *((rf"\.bn{n}\.", f".layer.{n - 1}.normalization.") for n in (1, 2, 3)),
]
DEEP_STEM_RESNET_RULES: Rules = [
    *((rf"^conv1\.{3 * n}\.", f"embedder.embedder.{n}.convolution.") for n in (0, 1, 2)),
    *((rf"^conv1\.{3 * n + 1}\.", f"embedder.embedder.{n}.normalization.") for n in (0, 1)),
    (r"^bn1\.", "embedder.embedder.2.normalization."),
    *RESNET_RULES,
]
DEEPLAB_RULES: Rules = [
    (r"^head\.b([0-3])\.", r"aspp.branches.\1."),
    (r"^head\.b4\.gap\.1\.", "aspp.pool.0."),
    (r"^head\.b4\.gap\.2\.", "aspp.pool.1."),
    (r"^head\.project\.", "aspp.project."),
    *((rf"^fuse\.{3 * n + m}\.", f"fuse.{n}.{m}.") for n in (0, 1) for m in (0, 1)),
]
V1_XCEPTION_RULES: Rules = [
    *((rf"\.sepconv{n}\.", f".layers.{n - 1}.") for n in (1, 2, 3)),
    *((rf"^conv{n}\.(?=depthwise|pointwise|bn)", f"exit_layers.{n - 3}.") for n in (3, 4, 5)),
    *((rf"^conv{n}\.", f"stem.{n - 1}.convolution.") for n in (1, 2)),
    *((rf"^bn{n}\.", f"stem.{n - 1}.normalization.") for n in (1, 2)),
    (r"\.bn1\.", ".depthwise_normalization."),
    (r"\.bn2\.", ".pointwise_normalization."),
    (r"\.skip\.", ".shortcut.convolution."),
    (r"\.skipbn\.", ".shortcut.normalization."),
    *((rf"^block{n}\.", f"entry.{n - 1}.") for n in (1, 2, 3)),
    (r"^block20\.", "exit_block."),
    *((rf"^block{n}\.", f"middle.{n - 4}.") for n in range(4, 20)),
]
TIMM_XCEPTION_RULES: Rules = [
    *((rf"^blocks\.20\.stack\.conv{n}\.", f"exit_layers.{n - 1}.") for n in (1, 2, 3)),
    *((rf"\.stack\.conv{n}\.", f".layers.{n - 1}.") for n in (1, 2, 3)),
    (r"\.conv_dw\.", ".depthwise."),
    (r"\.conv_pw\.", ".pointwise."),
    (r"\.bn_dw\.", ".depthwise_normalization."),
    (r"\.bn_pw\.", ".pointwise_normalization."),
    (r"\.conv\.", ".convolution."),
    (r"\.bn\.", ".normalization."),
    *((rf"^blocks\.{n}\.", f"entry.{n}.") for n in (0, 1, 2)),
    (r"^blocks\.19\.", "exit_block."),
    *((rf"^blocks\.{n}\.", f"middle.{n - 3}.") for n in range(3, 19)),
]


@dataclass(frozen=True)
class ConversionReport:
    """What became of a checkpoint's tensors.

    Args:
        matched: our tensors that were filled, each from one published tensor or a part of one.
        unused: published names left out because no forward uses them.
        missing: our names that no tensor landed on.
        unexpected: published names with no place in the model.
    """

    matched: int
    unused: list[str]
    missing: list[str]
    unexpected: list[str]

    def __str__(self) -> str:
        lines = [f"{self.matched} tensors matched, {len(self.unused)} unused by the network"]
        for kind, names in (("missing", self.missing), ("unexpected", self.unexpected)):
            shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
            lines.append(f"{len(names)} {kind}" + (f": {shown}" if names else ""))
        return "; ".join(lines)


def convert_checkpoint(
    source: Path,
    *,
    weights: Literal["model", "model_ema"] | None = None,
    id2label: dict[int, str] | None = None,
    strict: bool = True,
) -> tuple[PreTrainedModel, ConversionReport]:
    """Read a published checkpoint into a model of this package.

    Args:
        source: a local .pth / .pt / .bin file (read with `weights_only=True`) or a .safetensors file.
        weights: which of UniMatch V2's two sets to take; None takes the EMA model if there is one.
        id2label: class names, for a segmentation model; None names them LABEL_0, LABEL_1, ...
        strict: refuse tensors that are missing or left over.

    Returns:
        The model (a segmentation model, or a backbone) in float32 and evaluation mode, and the report.

    Raises:
        InputError: the file cannot be read safely, is of no known naming, or (strict) does not fit.
    """
    tensors = load_tensors(source, weights)
    try:
        settings, rules, head_rules = recognise(tensors)
        model_class: Any = AutoModelForSemanticSegmentation if head_rules else AutoBackbone
        config = AutoConfig.for_model(**settings)
        with torch.device("meta"):  # sizes are compared before any memory is taken for them
            places = model_class.from_config(config).state_dict()
        renamed, report = sort_tensors(tensors, places, rules, head_rules)
    except InputError as error:
        raise InputError(f"{source} {error}") from error
    except Exception as error:  # sizes that fit together in no layer
        raise InputError(f"{source} holds tensors that make no network: {first_sentence(error)}") from error
    what = f"a {config.model_type}"
    if strict and (report.missing or report.unexpected):
        raise InputError(f"{source} does not fit {what}: {report}")
    for name, tensor in renamed.items():
        if tensor.shape != places[name].shape:
            raise InputError(
                f"{source} does not fit {what}: {name} has the shape {tuple(tensor.shape)} there, but "
                f"{tuple(places[name].shape)} in the network"
            )
    if head_rules and id2label is not None:
        if len(id2label) != config.num_labels:
            raise InputError(
                f"{source} has {config.num_labels} classes, but {len(id2label)} names were given"
            )
        config.id2label, config.label2id = id2label, {label: i for i, label in id2label.items()}
    model = model_class.from_config(config)
    model.load_state_dict(renamed, strict=False)
    return model.eval(), report


def sort_tensors(
    tensors: Weights, places: Weights, rules: Rules, head_rules: Rules
) -> tuple[Weights, ConversionReport]:
    """Give the published tensors our names.

    Args:
        tensors: of the file.
        places: our names, with tensors of the right shapes.
        rules: of the backbone.
        head_rules: of the head, empty for a backbone alone.

    Returns:
        The tensors that have a place, by our names, and what became of all.
    """
    renamed: Weights = {}
    left_over: set[str] = set()
    for name, fused in tensors.items():
        for part, tensor in split_fused(name, fused):
            target = rename(part, rules, head_rules)
            if target in places:
                renamed[target] = tensor
            else:
                left_over.add(name)
    return renamed, ConversionReport(
        matched=len(renamed),
        unused=sorted(name for name in left_over if UNUSED.fullmatch(name)),
        # a counter that old files lack and that BatchNorm with a fixed momentum never reads
        missing=sorted(n for n in places.keys() - renamed.keys() if not n.endswith("num_batches_tracked")),
        unexpected=sorted(name for name in left_over if not UNUSED.fullmatch(name)),
    )


def load_tensors(source: Path, weights: str | None) -> Weights:
    """Read a checkpoint's tensors by name, without the wrappers of DDP and of the training scripts."""
    if not source.is_file():
        raise InputError(f"{source} is no file; download the checkpoint first and give its path")
    if source.suffix == ".safetensors":
        try:
            content: Any = load_file(source)
        except SafetensorError as error:
            raise InputError(f"{source} is damaged: {first_sentence(error)}") from error
    else:
        try:
            content = torch.load(source, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            # torch's own text goes on to advise unsafe loading
            reason = str(error).partition("WeightsUnpickler error: ")[2].partition(". ")[0].strip()
            raise InputError(
                f"{source} is damaged or holds more than tensors, which could run code: "
                f"{reason.partition(chr(10))[0] or 'no pickle of tensors'}"
            ) from error
        except Exception as error:  # a damaged pickle fails in whatever it has become
            raise InputError(
                f"{source} is no checkpoint, or a damaged one: {first_sentence(error)}"
            ) from error
    if not isinstance(content, dict):
        raise InputError(f"{source} holds a {type(content).__name__}, not weights by name")
    keys = [weights] if weights else ["model_ema", "model", "state_dict"]
    wrapper = next((key for key in keys if isinstance(content.get(key), dict)), None)
    if wrapper is None and weights:
        raise InputError(f"{source} has no {weights!r} weights; it holds {', '.join(list(content)[:5])}")
    content = content if wrapper is None else content[wrapper]
    tensors = {
        str(name).removeprefix("module."): value
        for name, value in content.items()
        if isinstance(value, Tensor)
    }
    # a tensor's shape may claim more than is stored of it, and the network would be made that large
    claimed, stored = sum(tensor.nbytes for tensor in tensors.values()), source.stat().st_size
    if claimed > 2 * stored:
        raise InputError(
            f"{source} is damaged: its tensors claim {claimed / 2**20:.0f} MiB, but the file has "
            f"{stored / 2**20:.0f} MiB"
        )
    return tensors


def recognise(tensors: Weights) -> tuple[dict[str, Any], Rules, Rules]:
    """Tell a naming by the tensors only it has; return configuration, backbone rules, head rules."""
    inner = {name.removeprefix("backbone."): tensor for name, tensor in tensors.items()}
    if "head.scratch.output_conv.2.weight" in tensors:
        return dpt_config(tensors, inner), DINOV2_RULES, DPT_RULES
    if "head.b4.gap.1.weight" in tensors:
        if "block20.skip.weight" in inner:
            return deeplab_config(tensors, XCEPTION, None), V1_XCEPTION_RULES, DEEPLAB_RULES
        return deeplab_config(tensors, resnet_config(inner), 16), DEEP_STEM_RESNET_RULES, DEEPLAB_RULES
    if "pos_embed" in tensors and "blocks.0.ls1.gamma" in tensors:
        return dinov2_config(tensors), DINOV2_RULES, []
    if "blocks.20.stack.conv3.conv_pw.weight" in tensors:
        timm = {"rectify_identity": False, "batch_norm_eps": 1e-3, "batch_norm_momentum": 0.1}
        return XCEPTION | timm, TIMM_XCEPTION_RULES, []
    if "layer4.0.conv1.weight" in tensors:
        is_deep = "conv1.0.weight" in tensors
        return resnet_config(tensors), DEEP_STEM_RESNET_RULES if is_deep else RESNET_RULES, []
    raise InputError(
        f"is of no known naming (UniMatch V1 or V2, DINOv2, ResNet, Xception-65); "
        f"its tensors begin with {', '.join(list(tensors)[:3])}"
    )


def shape(tensors: Weights, name: str, dimensions: int) -> torch.Size:
    """The shape of a tensor that must be there, with so many dimensions."""
    if name not in tensors:
        raise InputError(f"lacks the tensor {name}, which tells the network's sizes")
    found = tensors[name].shape
    if len(found) != dimensions:
        raise InputError(f"has a tensor {name} of the shape {tuple(found)}, not of {dimensions} dimensions")
    return found


def count(names: Iterable[str], pattern: str) -> int:
    """Number of different indices that the pattern's group takes."""
    return len({match[1] for name in names if (match := re.match(pattern, name))})


def dinov2_config(tensors: Weights) -> dict[str, Any]:
    """Infer a DINOv2 configuration; the published heads are 64 wide."""
    hidden_size, _, _, patch_size = shape(tensors, "patch_embed.proj.weight", 4)
    depth = count(tensors, r"blocks\.(\d+)\.")
    config = {
        "model_type": "dinov2",
        "hidden_size": hidden_size,
        "num_hidden_layers": depth,
        "num_attention_heads": hidden_size // 64,
        "patch_size": patch_size,
        "image_size": math.isqrt(shape(tensors, "pos_embed", 3)[1] - 1) * patch_size,
        "use_swiglu_ffn": "blocks.0.mlp.w12.weight" in tensors,
        "out_indices": DPT_LAYERS.get(depth, [depth]),
    }
    if "register_tokens" in tensors:
        config |= {
            "model_type": "dinov2_with_registers",
            "num_register_tokens": shape(tensors, "register_tokens", 3)[1],
        }
    return config


def dpt_config(tensors: Weights, backbone: Weights) -> dict[str, Any]:
    """Infer a UniMatch V2 configuration; positions are interpolated as its code does."""
    return {
        "model_type": "dino_dpt",
        "backbone_config": dinov2_config(backbone),
        "neck_hidden_sizes": [shape(tensors, f"head.projects.{level}.weight", 4)[0] for level in range(4)],
        "fusion_hidden_size": shape(tensors, "head.scratch.layer1_rn.weight", 4)[0],
        "position_interpolation": "published",
        "num_labels": shape(tensors, "head.scratch.output_conv.2.weight", 4)[0],
    }


def deeplab_config(
    tensors: Weights, backbone_config: dict[str, Any], output_stride: int | None
) -> dict[str, Any]:
    """Infer a UniMatch V1 configuration; files do not tell the dilations, which are those of its code."""
    return {
        "model_type": "deeplabv3plus",
        "backbone_config": backbone_config,
        "output_stride": output_stride,
        "aspp_channels": shape(tensors, "head.b0.0.weight", 4)[0],
        "low_level_channels": shape(tensors, "reduce.0.weight", 4)[0],
        "decoder_channels": shape(tensors, "fuse.0.weight", 4)[0],
        "num_labels": shape(tensors, "classifier.weight", 4)[0],
    }


def resnet_config(tensors: Weights) -> dict[str, Any]:
    """Infer a ResNet configuration: depths, widths, bottlenecks and the kind of stem."""
    is_bottleneck = "layer1.0.conv3.weight" in tensors
    last = "conv3" if is_bottleneck else "conv2"
    return {
        "model_type": "deep_stem_resnet" if "conv1.0.weight" in tensors else "resnet",
        "depths": [count(tensors, rf"layer{stage}\.(\d+)\.") for stage in (1, 2, 3, 4)],
        "hidden_sizes": [shape(tensors, f"layer{stage}.0.{last}.weight", 4)[0] for stage in (1, 2, 3, 4)],
        "layer_type": "bottleneck" if is_bottleneck else "basic",
        "embedding_size": shape(tensors, "bn1.weight", 1)[0],
        "out_indices": [1, 4],
    }


def split_fused(name: str, tensor: Tensor) -> list[tuple[str, Tensor]]:
    """Split the fused projections: rows q | k | v of attention, gate | up of SwiGLU."""
    for fused, parts in (
        (".attn.qkv.", (".attn.q.", ".attn.k.", ".attn.v.")),
        (".mlp.w12.", (".mlp.gate_proj.", ".mlp.up_proj.")),
    ):
        if fused in name:
            if tensor.dim() == 0 or len(tensor) % len(parts):
                raise InputError(
                    f"has a tensor {name} of the shape {tuple(tensor.shape)}, not of {len(parts)} parts"
                )
            chunks = tensor.chunk(len(parts))
            return [(name.replace(fused, part), chunk) for part, chunk in zip(parts, chunks, strict=True)]
    return [(name, tensor)]


def rename(name: str, rules: Rules, head_rules: Rules) -> str:
    """Translate one published name; a file that is a backbone alone has no head rules."""
    if not head_rules:
        return apply_rules(name, rules)
    inner = name.removeprefix("backbone.")
    return apply_rules(name, head_rules) if inner == name else f"backbone.{apply_rules(inner, rules)}"


def apply_rules(name: str, rules: Rules) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name
