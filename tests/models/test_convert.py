"""Published checkpoints land whole and compute what the published networks compute."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModelForSemanticSegmentation, Dinov2Backbone

from pos_hf.cli.convert import main
from pos_hf.errors import InputError
from pos_hf.models import convert_checkpoint
from tests.models import published, published_shapes
from tests.models.published import Weights, random_weights

LAYERS = [3, 6, 9, 12]
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}
DTYPES = pytest.mark.parametrize("dtype", TOLERANCE)


def v2_weights() -> Weights:
    shapes = published_shapes.dinov2("backbone.", width=64, depth=12, side=5)
    return random_weights(shapes | published_shapes.dpt_head(64, [8, 12, 16, 20], 8, classes=7))


def v1_weights() -> Weights:
    shapes = published_shapes.resnet("backbone.", 16, [16, 24, 32, 40], [1, 2, 1, 3], deep=True)
    return random_weights(shapes | published_shapes.deeplab_head(16, 40, 12, 20, classes=7))


def cast(weights: Weights, images: torch.Tensor) -> Weights:
    """The float32 weights of a file, to be used in the images' precision."""
    return {name: value.to(images.dtype) for name, value in weights.items()}


def write(weights: Weights, folder: Path, key: str = "model") -> Path:
    """As the published scripts save: DDP's prefix, under a key, among other things."""
    path = folder / "best.pth"
    torch.save({key: {f"module.{name}": value for name, value in weights.items()}, "epoch": 3}, path)
    return path


def assert_close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    assert 0.05 < theirs.std() < 50, "a comparison of vanishing or exploding values would show nothing"
    assert (ours - theirs).abs().max() <= TOLERANCE[ours.dtype] * theirs.abs().max().clamp(min=1)


@DTYPES
@pytest.mark.parametrize("size", [(70, 70), (98, 126), (61, 88)])
@torch.no_grad()
def test_unimatch_v2_computes_the_published_logits_at_any_size(tmp_path, dtype, size):
    weights = v2_weights()
    model, report = convert_checkpoint(write(weights, tmp_path))
    images = torch.randn(2, 3, *size, dtype=dtype)
    assert (report.missing, report.unexpected) == ([], [])
    # the mask token, and two convolutions with a bias each
    assert len(report.unused) == 5
    assert_close(model.to(dtype)(images).logits, published.unimatch_v2(cast(weights, images), images, LAYERS))


@DTYPES
@torch.no_grad()
def test_unimatch_v1_with_a_deep_stem_resnet_computes_the_published_logits(tmp_path, dtype):
    weights = v1_weights()
    model, report = convert_checkpoint(write(weights, tmp_path))
    images = torch.randn(2, 3, 97, 113, dtype=dtype)
    assert (report.matched, report.unused) == (len(weights), [])
    expected = published.unimatch_v1(
        cast(weights, images), images, lambda w, x: published.resnet(w, x, "backbone.", dilate_last=True)
    )
    assert_close(model.to(dtype)(images).logits, expected)


@DTYPES
@torch.no_grad()
def test_unimatch_v1_with_xception65_computes_the_published_logits(tmp_path, dtype):
    shapes = published_shapes.v1_xception("backbone.") | published_shapes.deeplab_head(
        256, 2048, 12, 20, classes=7
    )
    weights = random_weights(shapes)
    model, report = convert_checkpoint(write(weights, tmp_path))
    images = torch.randn(1, 3, 65, 49, dtype=dtype)
    assert (report.matched, report.unused) == (len(weights), [])
    expected = published.unimatch_v1(
        cast(weights, images), images, lambda w, x: published.v1_xception(w, x, "backbone.")
    )
    assert_close(model.to(dtype)(images).logits, expected)


@pytest.mark.parametrize(("registers", "swiglu"), [(0, False), (0, True), (4, False)])
@torch.no_grad()
def test_dinov2_files_become_backbones_with_the_published_tokens(tmp_path, registers, swiglu):
    weights = random_weights(published_shapes.dinov2("", 64, 12, 5, registers, swiglu))
    torch.save(weights, tmp_path / "dinov2.pth")
    model, report = convert_checkpoint(tmp_path / "dinov2.pth")
    images = torch.randn(2, 3, 70, 70, dtype=torch.float64)
    assert (report.missing, report.unexpected, report.unused) == ([], [], [])
    expected = published.dinov2_tokens(cast(weights, images), images, "", LAYERS)
    for ours, theirs in zip(model.double()(images).feature_maps, expected, strict=True):
        assert_close(ours.flatten(2).transpose(1, 2), theirs)


@pytest.mark.parametrize(("deep", "bottleneck"), [(False, True), (False, False), (True, True)])
@torch.no_grad()
def test_resnet_files_become_backbones_with_the_published_maps(tmp_path, deep, bottleneck):
    shapes = published_shapes.resnet("", 16, [16, 24, 32, 40], [2, 1, 2, 1], deep, bottleneck)
    weights = random_weights(shapes | published_shapes.linear("fc", 10, 40))
    save_file(weights, tmp_path / "resnet.safetensors")
    model, report = convert_checkpoint(tmp_path / "resnet.safetensors")
    images = torch.randn(1, 3, 97, 65, dtype=torch.float64)
    assert report.unused == ["fc.bias", "fc.weight"]
    for ours, theirs in zip(
        model.double()(images).feature_maps,
        published.resnet(cast(weights, images), images, "", dilate_last=False),
        strict=True,
    ):
        assert_close(ours, theirs)


@torch.no_grad()
def test_timms_xception65_becomes_a_backbone_with_its_maps(tmp_path):
    weights = random_weights(published_shapes.timm_xception())
    torch.save(weights, tmp_path / "xception65.pth")
    model, _ = convert_checkpoint(tmp_path / "xception65.pth")
    images = torch.randn(1, 3, 65, 65, dtype=torch.float64)
    for ours, theirs in zip(
        model.double()(images).feature_maps,
        published.timm_xception(cast(weights, images), images),
        strict=True,
    ):
        assert_close(ours, theirs)


def test_the_ema_weights_are_taken_unless_others_are_asked_for(tmp_path):
    student, teacher = v2_weights(), v2_weights()
    torch.save({"model": student, "model_ema": teacher}, tmp_path / "best.pth")
    for wanted, expected in ((None, teacher), ("model_ema", teacher), ("model", student)):
        model, _ = convert_checkpoint(tmp_path / "best.pth", weights=wanted)
        assert torch.equal(model.head.projects[0].weight, expected["head.projects.0.weight"])


@pytest.mark.parametrize("change", ["missing", "unexpected"])
def test_a_file_that_does_not_fit_is_refused_with_the_names_unless_partial(tmp_path, change):
    weights = v1_weights()
    if change == "missing":
        del weights["reduce.1.bias"]
    else:
        weights["auxiliary.weight"] = torch.zeros(1)
    path = write(weights, tmp_path)
    with pytest.raises(InputError, match=f"1 {change}: (reduce.1.bias|auxiliary.weight)"):
        convert_checkpoint(path)
    _, report = convert_checkpoint(path, strict=False)
    assert len(getattr(report, change)) == 1


def test_counters_that_old_files_lack_are_not_missed(tmp_path):
    weights = {name: value for name, value in v1_weights().items() if "num_batches" not in name}
    _, report = convert_checkpoint(write(weights, tmp_path))
    assert report.missing == []


def test_a_file_that_would_run_code_is_refused(tmp_path):
    class Payload:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"model": Payload()}, tmp_path / "bad.pth")
    with pytest.raises(InputError, match="could run code"):
        convert_checkpoint(tmp_path / "bad.pth")
    assert not (tmp_path / "ran").exists()


def test_an_unknown_naming_is_refused_with_its_first_names(tmp_path):
    torch.save({"encoder.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(InputError, match=r"encoder\.weight"):
        convert_checkpoint(tmp_path / "other.pth")


def test_a_damaged_file_is_refused(tmp_path):
    path = write(v1_weights(), tmp_path)
    path.write_bytes(path.read_bytes()[:10_000])
    with pytest.raises(InputError, match="damaged"):
        convert_checkpoint(path)


@pytest.mark.parametrize(
    ("name", "tensor", "sentence"),
    [
        ("head.projects.2.weight", None, "lacks the tensor head.projects.2.weight"),
        ("backbone.pos_embed", None, "lacks the tensor pos_embed"),
        ("head.scratch.output_conv.2.weight", torch.tensor(1.0), "not of 4 dimensions"),
        ("backbone.blocks.0.attn.qkv.weight", torch.tensor(1.0), "not of 3 parts"),
        ("backbone.norm.weight", torch.tensor(1.0), r"norm.weight has the shape \(\) there"),
        ("backbone.patch_embed.proj.weight", torch.zeros(1).expand(10**6, 3, 14, 14), "claim .* MiB"),
        ("backbone.patch_embed.proj.weight", torch.zeros(10**5, 1, 1, 1), "does not fit"),
        ("backbone.patch_embed.proj.weight", torch.zeros(0, 1, 1, 0), "make no network|does not fit"),
    ],
)
def test_tensors_that_tell_no_network_are_refused_by_name(tmp_path, name, tensor, sentence):
    weights = v2_weights()
    if tensor is None:
        del weights[name]
    else:
        weights[name] = tensor
    with pytest.raises(InputError, match=rf"best.pth .*{sentence}"):
        convert_checkpoint(write(weights, tmp_path))


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="is no file"):
        convert_checkpoint(tmp_path / "absent.pth")


@torch.no_grad()
def test_the_command_writes_a_folder_that_loads_to_the_same_logits(tmp_path, capsys):
    weights = v2_weights()
    labels = tmp_path / "labels.json"
    labels.write_text('{"0": "a", "1": "b", "2": "c", "3": "d", "4": "e", "5": "f", "6": "g"}')
    argv = [str(write(weights, tmp_path)), "--to", str(tmp_path / "out"), "--id2label", str(labels)]
    assert main(argv) == 0
    assert "0 missing; 0 unexpected" in capsys.readouterr().out
    model = AutoModelForSemanticSegmentation.from_pretrained(tmp_path / "out")
    images = torch.randn(1, 3, 84, 70)
    assert model.config.id2label[6] == "g"
    assert_close(model(images).logits, published.unimatch_v2(cast(weights, images), images, LAYERS))


def test_class_names_of_another_number_are_refused(tmp_path):
    with pytest.raises(InputError, match="7 classes"):
        convert_checkpoint(write(v2_weights(), tmp_path), id2label={0: "a"})


def test_a_file_in_the_attention_layout_of_transformers_4_loads_by_itself(tmp_path):
    weights = random_weights(published_shapes.dinov2("", 64, 12, 5))
    torch.save(weights, tmp_path / "dinov2.pth")
    model, _ = convert_checkpoint(tmp_path / "dinov2.pth")
    renamed = {}
    for name, value in model.state_dict().items():
        for new, old in (("q_proj", "query"), ("k_proj", "key"), ("v_proj", "value")):
            name = name.replace(f"attention.{new}", f"attention.attention.{old}")
        renamed[name.replace("attention.o_proj", "attention.output.dense")] = value
    model.config.save_pretrained(tmp_path)
    save_file(renamed, tmp_path / "model.safetensors", metadata={"format": "pt"})
    loaded = Dinov2Backbone.from_pretrained(tmp_path)
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in model.state_dict().items())
