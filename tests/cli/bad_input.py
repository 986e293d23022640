"""The table of bad input: how a user's folder is spoilt, which command is run, and what must be named."""

import json
import os
import pickle
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from datasets import Dataset, Features, Value
from PIL import Image
from safetensors.torch import load_file, save_file

from pos_hf.files import write_manifest

TRAIN = "train {}/config.yaml"


class Case(NamedTuple):
    """`{}` in the command and in the words stands for the folder."""

    name: str
    words: tuple[str, ...]
    spoil: Callable[[Path], Any] = lambda folder: None
    command: str = TRAIN


def keys(**values: Any) -> Callable[[Path], None]:
    """Set keys of the config."""

    def spoil(folder: Path) -> None:
        path = folder / "config.yaml"
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return spoil


def write(name: str, content: str | bytes) -> Callable[[Path], None]:
    """Write a file."""

    def spoil(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)

    return spoil


def both(*spoils: Callable[[Path], None]) -> Callable[[Path], None]:
    return lambda folder: [spoil(folder) for spoil in spoils]


def every_mask(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    """Redraw the labeled masks."""
    return lambda folder: [
        Image.fromarray(change(np.asarray(Image.open(path))).astype(np.uint8)).save(path)
        for path in (folder / "data" / "masks").iterdir()
    ]


def fan_out(folder: Path) -> None:
    """Twelve folders of two links each to the next: four thousand paths to the last."""
    for level in range(12):
        (folder / "data" / "unlabeled" / f"{level}").mkdir()
    for level in range(11):
        for name in ("left", "right"):
            target = folder / "data" / "unlabeled" / f"{level + 1}"
            (folder / "data" / "unlabeled" / f"{level}" / name).symlink_to(target)


def saved_rows(**changed: Any) -> Callable[[Path], None]:
    """Make the folder a saved dataset of two rows, of which the first one's values are changed."""

    def spoil(folder: Path) -> None:
        stored = {"bytes": (folder / "data" / "images" / "0.png").read_bytes(), "path": "0.png"}
        ids = {"bytes": (folder / "data" / "masks" / "0.png").read_bytes(), "path": "0.png"}
        row = {"id": "a", "image": stored, "mask": ids}
        struct = {"bytes": Value("binary"), "path": Value("string")}
        features = Features({"id": Value("string"), "image": struct, "mask": struct})
        rows = Dataset.from_list([row | changed, row | {"id": "b"}], features=features)
        rows.save_to_disk(folder / "saved")

    options = {"dataset_format": "huggingface", "id_column": "id", "class_names": ["background", "cat"]}
    return both(spoil, lambda folder: keys(dataset=str(folder / "saved"), **options)(folder))


def mask_of(ids: np.ndarray) -> Callable[[Path], None]:
    return lambda folder: Image.fromarray(ids).save(folder / "data" / "masks" / "1.png")


def cut(name: str, share: float) -> Callable[[Path], None]:
    """Keep the first part of a file."""

    def spoil(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: int(len(content) * share)])

    return spoil


def unlink(*names: str) -> Callable[[Path], None]:
    return lambda folder: [(folder / name).unlink() for name in names]


def bomb(side: int) -> bytes:
    """A PNG of a few bytes that promises side x side pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + content


class Malicious:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple:
        return exec, ("import pathlib; pathlib.Path('ran').touch()",)


def array(content: Any, **options: Any) -> Callable[[Path], None]:
    """Put an array in the place of an unlabeled image."""
    return both(
        unlink("data/unlabeled/extra_0.png"),
        lambda folder: np.save(folder / "data" / "images" / "0.npy", content, **options),
        unlink("data/images/0.png"),
    )


def without_tensor(folder: Path) -> None:
    path = folder / "model" / "model.safetensors"
    weights = load_file(path)
    weights.pop("classifier.weight")
    save_file(weights, path, metadata={"format": "pt"})


def pickled_weights(folder: Path) -> None:
    (folder / "model" / "model.safetensors").unlink()
    torch.save({"classifier.weight": Malicious()}, folder / "model" / "pytorch_model.bin")


def link(name: str, target: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).symlink_to(folder / target)


def model_file(name: str, **values: Any) -> Callable[[Path], None]:
    """Set entries of one of the model's files."""

    def spoil(folder: Path) -> None:
        path = folder / "model" / name
        content = json.loads(path.read_text())
        for key, value in values.items():
            content[key] = content[key] | value if isinstance(content.get(key), dict) else value
        path.write_text(json.dumps(content))

    return spoil


def multiplied(first: str, item: str, levels: int = 9) -> str:
    """YAML in which each level names the one before ten times over."""
    lines = [f"a0: &a0 {first}"]
    lines += [f"a{n}: &a{n} {item.format(', '.join([f'*a{n - 1}'] * 10))}" for n in range(1, levels)]
    return "lr_scheduler_kwargs:\n" + "".join(f"  {line}\n" for line in lines)


def single(name: str, words: str, **values: Any) -> Case:
    """One value of the config; its key, or the method or strategy whose option it is, must be named."""
    key = next(iter(values)).removesuffix("_options")
    return Case(name, (key, words, "config.yaml"), keys(**values))


CONFIGS = [
    Case("score of an unknown class", ("iou_cap", "'cat'"), keys(metric_for_best_model="iou_cap")),
    single("negative learning rate", "must lie in (0, ", learning_rate=-1),
    single("learning rate that is no number", "finite", learning_rate=float("nan")),
    single("learning rate in words", "'fast'", learning_rate="fast"),
    single("learning rate as a list", "finite number", learning_rate=[1, 2]),
    single("no steps", "set one of them above 0", max_steps=0),
    single("half a step", "whole number", max_steps=1.5),
    single("empty batch", "[1, ", per_device_train_batch_size=0),
    single("no accumulation", "[1, ", gradient_accumulation_steps=0),
    single("evaluate every 0 steps", "(0, ", eval_steps=0, eval_strategy="steps"),
    single("log every 0 steps", "(0, ", logging_steps=0),
    single("unknown optimizer", "'adamw_torch'", optim="adamw_troch"),
    single("optimizer that steps in the backward", "backward", optim="adalomo"),
    single("arguments no optimizer reads", "optim_args", optim="sgd", optim_args="nonsense"),
    single("unknown schedule", "'polynomial'", lr_scheduler_type="polynomal"),
    single("argument no schedule takes", "powr", lr_scheduler_kwargs={"powr": 1}),
    single("unknown save strategy", "'steps'", save_strategy="stepps"),
    single("unknown tracker", "wandbb", report_to="wandbb"),
    single("two precisions", "bf16", fp16=True, bf16=True),
    single("score that is never measured", "mean_iou", metric_for_best_model="eval_f1"),
    single("score of almost that name", "mean_iou", metric_for_best_model="mean_ioux"),
    single(
        "pushes in the middle",
        "pushed once",
        hub_strategy="every_save",
        push_to_hub=True,
        hub_model_id="me/run",
    ),
    single("checkpoints without a teacher", "leave it False", save_only_model=True),
    single("engine without exact gradients", "FSDP2", deepspeed="zero.json"),
    single("setting for text", "made for text", label_smoothing_factor=0.1),
    single("unknown method", "'fixmatch'", method="fixmach"),
    single("unknown method option", "'threshold'", method_options={"treshold": 0.9}),
    single("threshold above 1", "[0, 1]", method_options={"threshold": 1.5}),
    single("unknown strategy", "'pos'", strategy="poss"),
    single("unknown strategy option", "min_weights", strategy_options={"min_weights": 0}),
    single("strategy option of another type", "true or false", strategy_options={"meo": "very"}),
    single("options that are no JSON", "JSON", strategy_options="{not json"),
    Case("unknown model", ("dinov2_dpt_tiny",), keys(model="dinov2_dpt_tinny")),
    Case("model options that fit no layer", ("model_options",), keys(model_options={"aspp_channels": -4})),
    single("compiler that there is not", "'inductor'", torch_compile_backend="inducter"),
    single("windows of nothing", "window is 0, but must lie in [2, ", inference_options={"window": 0}),
    single("unknown inference option", "'window'", inference_options={"windw": 64}),
    single("no scale", "scales is empty", inference_options={"scales": []}),
    single("epoch over unknown images", "'labeled'", epoch_over="labelled"),
    Case("epoch without a step", ("epoch_over", "per_device_train_batch_size"), both(
        keys(epoch_over="labeled", labeled_ids="list.txt"), write("data/list.txt", "0\n"))),
    single("dataset by number", "must be text", dataset=3),
    Case("unknown layout", ("folders",), keys(dataset_format="tar")),
    single("crop of nothing", "[1, ", crop_size=0),
    single("backward scale range", "[LOW, HIGH]", scale_range=[2.0, 0.5]),
    single("one bound of a range", "[LOW, HIGH]", image_range=[5.0]),
    single("class names that are text", "a list", class_names="cat"),
    Case("class named twice", ("twice",), keys(class_names=["cat", "cat"])),
    single("colour that is none", "#zz0000", mask_colors=["#zz0000", "#000000"]),
    single("mask value beyond 32 bits", "2147483647", mask_values={"4294967296": 1}),
    single("everything for selection", "[0, 1)", selection_share=1.0),
    single("spread of nothing", "(0, inf)", image_std=[0.0, 1.0, 1.0]),
    single("unknown answer to bad samples", "'skip'", on_bad_sample="skipp"),
    Case("more labels than images", ("there are 2",), keys(num_labeled=7)),
    Case("batch that no ratio divides", ("unlabeled_ratio",), keys(unlabeled_ratio=3)),
    Case("unknown key", ("'learning_rate'", "config.yaml"), keys(learning_rat=1)),
    Case("key that is a number", ("unknown key '1'", "config.yaml"), write("config.yaml", "1: 2\n")),
    Case("unknown argument", ("--max_steps",), command=TRAIN + " --max_step 3"),
    Case("wrong value on the command line", ("max_steps", "many"), command=TRAIN + " --max_steps many"),
    Case("no command-line arguments", ("config", "--help"), command="train"),
    Case("unknown command", ("'train'",), command="trian"),
    Case("no config", ("there is no config file {}/nothing.yaml",), command="train {}/nothing.yaml"),
    Case("config that is a list", ("config.yaml",), write("config.yaml", "- a\n- b\n")),
    Case("broken YAML", ("config.yaml", "valid YAML"), write("config.yaml", "a: [1\n")),
    Case("YAML that would run code", ("config.yaml", "tag"),
         write("config.yaml", "!!python/object/apply:os.getcwd []")),
    Case("impossible date", ("config.yaml", "month"), write("config.yaml", "seed: 2024-99-01")),
    Case("config of bytes", ("config.yaml",), write("config.yaml", b"\xff\xfe\x00\x81")),
    Case("endless nesting", ("config.yaml",), write("config.yaml", "a: " + "[" * 1500)),
    Case("deep nesting", ("config.yaml", "deeper"), write("config.yaml", "dataset: " + "[" * 60 + "]" * 60)),
    Case("alias of itself", ("config.yaml", "alias"),
         write("config.yaml", "lr_scheduler_kwargs: &a {power: *a}")),
    Case("aliases that multiply", ("config.yaml", "alias"),
         write("config.yaml", multiplied("[1, 1]", "[{}]"))),
    Case("merged aliases that multiply", ("config.yaml", "alias"),
         write("config.yaml", multiplied("{power: 1}", "{{<<: [{}]}}"))),
    Case("config of many MiB", ("config.yaml", "MiB"), write("config.yaml", "#" * (2 << 20))),
    Case("options of endless JSON", ("method_options", "JSON"),
         command=TRAIN + " --method_options " + "[" * 100_000),
]  # fmt: skip

DATA = [
    Case("no folder", ("{}/nowhere",), keys(dataset="nowhere"), TRAIN + " --dataset {}/nowhere"),
    Case("image without mask", ("images/1.png", "mask"), unlink("data/masks/1.png")),
    Case("mask of another size", ("masks/1.png", "7 x 9", "24 x 20"), mask_of(np.zeros((9, 7), np.uint8))),
    Case("id beyond the classes", ("masks/1.png", "[7]"), mask_of(np.full((20, 24), 7, np.uint8))),
    Case("painted mask", ("masks/1.png", "mask_colors"), mask_of(np.zeros((20, 24, 3), np.uint8))),
    Case("mask of 16 bits", ("masks/1.png", "4000"), mask_of(np.full((20, 24), 4000, np.uint16))),
    Case("masks of 0 and 255", ("0 and 255", 'mask_values: {"255": 1}'), every_mask(lambda ids: ids * 255)),
    Case("masks of one class", ("labeled", "single class (cat)"), every_mask(np.ones_like)),
    Case("one class named", ("(cat)", 'class_names: ["background", "cat"]'),
         write("data/id2label.json", '{"0": "cat"}')),
    Case("nothing labeled", ("labeled", "ignored"), every_mask(lambda ids: np.full_like(ids, 255))),
    Case("nothing to score", ("test", "ignored"), both(
        keys(test_images="images", test_masks="void", test_ids="test.txt", labeled_ids="list.txt"),
        write("data/list.txt", "0\n"), write("data/test.txt", "1\n"), write("data/void/x", ""),
        lambda folder: Image.new("L", (24, 20), 255).save(folder / "data" / "void" / "1.png"))),
    Case("soft masks", ("masks/", "values without a class", "smoothed"), every_mask(
        lambda ids: np.arange(ids.size).reshape(ids.shape) % 255)),
    Case("images of other channels than the labeled ones", ("unlabeled/x.npy", "4 channels", "images/0.png"),
         lambda folder: np.save(folder / "data" / "unlabeled" / "x.npy", np.zeros((20, 24, 4), np.uint8))),
    Case("role without images", ("no test image", "remove"), both(
        write("data/test/images/notes.txt", ""), write("data/test/masks/notes.txt", ""))),
    Case("image listed twice", ("2 labeled images", "'0'"),
         both(keys(labeled_ids="list.txt"), write("data/list.txt", "0\n0.png\n"))),
    Case("pages called image", ("images/0.tif", "13 pages", "split_pages"), both(
        unlink("data/images/0.png"),
        lambda folder: Image.new("L", (24, 20)).save(folder / "data" / "images" / "0.tif", save_all=True,
        append_images=[Image.new("L", (24, 20))] * 12))),
    Case("PostScript called image", ("images/0.png", "cannot be read"), write(
        "data/images/0.png", "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")),
    Case("pipe called image", ("images/2.png", "pipe"), both(
        lambda folder: os.mkfifo(folder / "data" / "images" / "2.png"),
        lambda folder: Image.new("L", (24, 20)).save(folder / "data" / "masks" / "2.png"))),
    Case("pipe called list", ("list.txt", "pipe"), both(
        keys(labeled_ids="list.txt"), lambda folder: os.mkfifo(folder / "data" / "list.txt"))),
    Case("endless list", ("list.txt", "device"), both(
        keys(labeled_ids="list.txt"), lambda folder: (folder / "data" / "list.txt").symlink_to("/dev/zero"))),
    Case("links that fan out", ("unlabeled", "leads back"), fan_out),
    Case("name that is not UTF-8", ("caf\\xe9.png", "rename"), lambda folder: Path(os.fsdecode(
        os.fsencode(folder) + b"/data/unlabeled/caf\xe9.png")).touch()),
    Case("row without a mask", ("1 of 2 rows", "no mask"), saved_rows(mask=None)),
    Case("row without an image", ("1 of 2 rows", "no image"), saved_rows(image=None)),
    Case("row without an id", ("1 of 2 rows", "no id"), saved_rows(id=None)),
    Case("rows of one id", ("2 labeled images", "'b'"), saved_rows(id="b")),
    Case("row that names a file", ("row 0", "/etc/passwd"),
         saved_rows(image={"bytes": None, "path": "/etc/passwd"})),
    Case("COCO without annotations", ("instances_train2017.json", "COCO"), both(
        keys(dataset_format="coco"), write("data/annotations/instances_train2017.json", "{}"))),
    Case("COCO object that cannot be drawn", ("instances_train2017.json", "x/1.jpg", "drawn"), both(
        keys(dataset_format="coco"), write("data/annotations/instances_train2017.json", json.dumps({
            "images": [{"id": 1, "file_name": "x/1.jpg", "width": 4, "height": 4}],
            "annotations": [{"image_id": 1, "category_id": 9, "segmentation": []}], "categories": []})))),
    Case("nothing unlabeled", ("unlabeled",),
         unlink("data/unlabeled/extra_0.png", "data/unlabeled/extra_1.png")),
    Case("best of no scores", ("save_strategy", "eval_strategy"), keys(save_strategy="best")),
    Case("nothing to evaluate on", ("eval_strategy", "selection"), keys(eval_strategy="steps", eval_steps=1)),
    Case("batch beyond the images", ("per_device_train_batch_size", "2"),
         keys(per_device_train_batch_size=8)),
    Case("cut image", ("images/0.png", "cannot be read"), cut("data/images/0.png", 0.5)),
    Case("empty image", ("images/0.png", "cannot be read"), write("data/images/0.png", b"")),
    Case("text called image", ("images/0.png", "cannot be read"), write("data/images/0.png", "hello")),
    Case("image bomb", ("images/0.png", "decompression bomb"), write("data/images/0.png", bomb(60_000))),
    Case("image of 16 bits", ("images/0.png", "image_range"), lambda folder: Image.fromarray(
        np.zeros((20, 24), np.uint16)).save(folder / "data" / "images" / "0.png")),
    Case("array with pickled objects", ("images/0.npy", "cannot be read"),
         array(np.array([Malicious()]), allow_pickle=True)),
    Case("array of words", ("images/0.npy", "<U1"), array(np.full((20, 24, 3), "a"))),
    Case("array without channels", ("images/0.npy", "(20, 24)"), array(np.zeros((20, 24), np.uint8))),
    Case("array shorter than it says", ("images/0.npy", "cannot be read"),
         both(array(np.zeros((20, 24, 3), np.uint8)), cut("data/images/0.npy", 0.5))),
    Case("one name twice", ("0.jpg", "same name"), lambda folder: Image.new("RGB", (24, 20)).save(
        folder / "data" / "images" / "0.jpg")),
    Case("no class names", ("id2label.json", "do not exist"),
         both(unlink("data/id2label.json"), keys(dataset_format="folders"))),
    Case("broken class names", ("id2label.json", "JSON"), write("data/id2label.json", "[")),
    Case("classes with a gap", ("id2label.json", "[0, 2]"),
         write("data/id2label.json", '{"0": "a", "2": "b"}')),
    Case("no list", ("list.txt", "does not exist"), keys(labeled_ids="list.txt")),
    Case("list of a missing image", ("list.txt", '"17"'),
         both(keys(labeled_ids="list.txt"), write("data/list.txt", "17\n"))),
    Case("list that leaves the folder", ("list.txt", "outside"), both(
        keys(labeled_ids="list.txt"), write("data/list.txt", "../../x.png masks/0.png\n"), write("../x.png",
        b""))),
    Case("list with another root", ("list.txt", "outside"), both(
        keys(unlabeled_ids="list.txt"), write("data/list.txt", "/etc/passwd x\n"))),
    Case("list of bytes", ("list.txt", "no text"),
         both(keys(labeled_ids="list.txt"), write("data/list.txt", b"\xff\xfe\x81"))),
    Case("link to the folder above", ("images/loop", "leads back"), link("data/images/loop", "data")),
    Case("links to each other", ("leads back",), both(
        write("data/images/a/x.txt", ""), write("data/images/b/x.txt", ""),
        link("data/images/a/to_b", "data/images/b"), link("data/images/b/to_a", "data/images/a"))),
    Case("folder that is no saved dataset", ("{}/data", "parquet"), keys(dataset_format="huggingface")),
    Case("broken parquet", ("{}/data", "cannot be loaded"), both(
        keys(dataset_format="huggingface"), write("data/train-0.parquet", "no parquet"))),
    Case("broken saved dataset", ("{}/data", "cannot be loaded"), both(
        keys(dataset_format="huggingface"), write("data/dataset_dict.json", '{"splits": ["train"]}'))),
    Case("data that check-data cannot override", ("--crop_size",),
         command="check-data {}/data --crop_size 3"),
]  # fmt: skip

MODEL, ON_MODEL = "evaluate {}/model shapes", TRAIN + " --model {}/model"
MODELS = [
    Case("no model", ("{}/nothing",), command="evaluate {}/nothing shapes"),
    Case("folder without a model", ("{}/data", "config.json"), command="evaluate {}/data shapes"),
    Case("folder without a model, to train", ("{}/data", "config.json"), command=TRAIN + " --model {}/data"),
    Case("model of other classes", ("2 classes", "shapes"), command=MODEL),
    Case("model of classes of other names", ("'dog'", "class_names"),
         keys(class_names=["background", "dog"]), "evaluate {}/model {}/config.yaml --role labeled"),
    Case("cut weights", ("{}/model",), cut("model/model.safetensors", 0.5), MODEL),
    Case("cut weights, to train", ("{}/model",), cut("model/model.safetensors", 0.5), ON_MODEL),
    Case("weights that lack a tensor", ("{}/model", "classifier.weight"), without_tensor, MODEL),
    Case("no weights", ("{}/model",), unlink("model/model.safetensors"), MODEL),
    Case("weights that would run code", ("{}/model",), pickled_weights, MODEL),
    Case("weights that would run code, to train", ("{}/model",), pickled_weights, ON_MODEL),
    Case("unknown model type", ("{}/model", "no_such_type"),
         write("model/config.json", '{"model_type": "no_such_type"}'), MODEL),
    Case("model that does not segment", ("{}/model",), write("model/config.json", '{"model_type": "bert"}'),
         MODEL),
    Case("config.json that is a list", ("{}/model",), write("model/config.json", "[]"), MODEL),
    Case("config.json of bytes", ("{}/model",), write("model/config.json", b"\xff\x00"), MODEL),
    Case("palette of words", ("{}/model", "palette"), model_file("config.json", palette="red"), MODEL),
    Case("palette that lacks a colour", ("{}/model", "palette", "2 colours"),
         model_file("config.json", palette=[[0, 0, 0]]), MODEL),
    Case("patches of nothing", ("{}/model", "patch_size"),
         model_file("config.json", backbone_config={"patch_size": 0}), MODEL),
    Case("patches of nothing, to train", ("patch_size",),
         model_file("config.json", backbone_config={"patch_size": 0}), ON_MODEL),
    Case("images resized beyond memory", ("{}/model", "height", "100000"),
         model_file("preprocessor_config.json", do_resize=True, size={"height": 100_000, "width": 100_000}),
         "predict {}/model {}/data/images --out {}/o"),
    Case("no image processor", ("{}/model",), unlink("model/preprocessor_config.json"), MODEL),
    Case("shard outside the folder", ("weight_map", "../key"),
         write("model/model.safetensors.index.json", '{"weight_map": {"a": "../key"}}'), MODEL),
    Case("shard outside the folder, to export", ("weight_map", "../key"),
         write("model/model.safetensors.index.json", '{"weight_map": {"a": "../key"}}'),
         "export {}/model --to {}/out.onnx"),
    Case("module outside the folder, to train", ("auto_map", "../key.Model"),
         write("model/config.json", '{"auto_map": {"AutoModel": "../key.Model"}}'), ON_MODEL),
    Case("model that has changed", ("{}/model", "model.safetensors has 3 bytes", "manifest.json"), both(
        lambda folder: write_manifest(folder / "model"), write("model/model.safetensors", "abc")), MODEL),
    Case("images of other channels", ("channels",), keys(image_mean=[0.5, 0.5])),
    Case("no complete checkpoint", ("no checkpoint", "{}/run", "manifest"),
         write("run/checkpoint-1/config.json", "{}"), TRAIN + " --resume_from_checkpoint latest"),
    Case("resume from something else", ("{}/data",), command=TRAIN + " --resume_from_checkpoint {}/data"),
    Case("backbone weights for a folder", ("backbone_weights",), keys(backbone_weights="x/y"), ON_MODEL),
    Case("no backbone weights", ("{}/nothing",),
         command=TRAIN + " --backbone_weights {}/nothing --model_options "
         '{"group_norm_groups":null}'),
    Case("crop smaller than a patch", ("crop_size 4", "8 pixels"),
         command=TRAIN + " --model dinov2_dpt_tiny --crop_size 4"),
    # the tests run offline
    Case("model of the Hub, offline", ("someone/model",), command="evaluate someone/model shapes"),
    Case("model of the Hub to train, offline", ("someone/model",), command=TRAIN + " --model someone/model"),
    Case("dataset of the Hub, offline", ("someone/pets",), keys(dataset_format="huggingface"),
         TRAIN + " --dataset someone/pets"),
    Case("backbone of the Hub, offline", ("someone/vit",),
         command=TRAIN + " --model dinov2_dpt_tiny --backbone_weights someone/vit"),
    Case("nothing to convert", ("{}/x.pth",), command="convert {}/x.pth --to {}/out"),
    Case("pickle that would run code", ("x.pth", "run code"),
         write("x.pth", pickle.dumps(Malicious(), protocol=2)),
         "convert {}/x.pth --to {}/out"),
    Case("broken safetensors", ("x.safetensors", "damaged"), write("x.safetensors", b"12345678"),
         "convert {}/x.safetensors --to {}/out"),
    Case("tensors of no known naming", ("x.pth", "naming"), lambda folder: torch.save(
        {"a": torch.ones(1)}, folder / "x.pth"), "convert {}/x.pth --to {}/out"),
    Case("one tensor", ("x.pth", "Tensor"), lambda folder: torch.save(torch.ones(1), folder / "x.pth"),
         "convert {}/x.pth --to {}/out"),
]  # fmt: skip

FILES = [
    Case("another run", ("{}/run", "another run"), write("run/run.json", "{}")),
    Case("a user's card", ("{}/run/README.md", "kept"), write("run/README.md", "mine")),
    Case("a user's model", ("{}/run/model.safetensors", "kept"), write("run/model.safetensors", "mine")),
    Case("a file called like the run", ("{}/run", "output_dir"), write("run", "mine")),
    Case("earlier scores", ("metrics.json", "kept"), write("out/metrics.json", "mine"),
         "evaluate {}/model {}/config.yaml --role labeled --out {}/out"),
    Case("earlier masks", ("masks/0.png", "kept"), write("out/masks/0.png", "mine"),
         "predict {}/model {}/data/images --out {}/out"),
    Case("earlier conversion", ("config.json", "kept"), write("out/config.json", "mine"),
         "convert {}/x.pth --to {}/out"),
    Case("earlier export", ("out.onnx", "kept"), write("out.onnx", "mine"),
         "export {}/model --to {}/out.onnx"),
    Case("earlier split", ("labeled.txt", "kept"), write("out/labeled.txt", "mine"),
         "check-data {}/config.yaml --write_split {}/out"),
    Case("page that is no report", ("page.html", "no earlier report"), write("page.html", "mine"),
         "report {}/model --out {}/page.html"),
    Case("report of no run", ("trainer_state.json",), command="report {}/model"),
    Case("window of nothing", ("window", "[2, "),
         command="predict {}/model {}/data/images --out {}/o --window 0"),
    Case("negative scale", ("scales", "(0, "), command="evaluate {}/model shapes --scales 1 -2"),
    Case("batch of nothing", ("batch_size", "[1, "), command="evaluate {}/model shapes --batch_size 0"),
    Case("confidence above 1", ("threshold", "[0, 1]"), command="evaluate {}/model shapes --threshold 3"),
    Case("landscape of no points", ("points", "[1, "), command="landscape {}/model --data shapes --points 0"),
    Case("no image to suggest", ("count", "[1, "),
         command="suggest {}/model {}/data/images --out {}/o --count 0"),
    Case("more suggestions than images", ("--count", "9999", "ask for fewer"),
         command="suggest {}/model {}/data/images --out {}/o --count 9999"),
    Case("conflict of no run", ("{}/model", "run.json"), command="conflict {}/model"),
    Case("conflict of two batches", ("batches", "[16, "), command="conflict {}/model --batches 2"),
    Case("photos that are none", ("0.png", "cannot be read", "2 images"),
         both(write("data/images/0.png", "hello"), write("data/images/1.png", "")),
         "predict {}/model {}/data/images --out {}/o"),
    Case("no photo", ("{}/photos",), command="predict {}/model {}/photos --out {}/o"),
    Case("nothing to predict", ("{}/model", "no image"), command="predict {}/model {}/model --out {}/o"),
]  # fmt: skip

CASES = CONFIGS + DATA + MODELS + FILES
