"""The list of what leaves the machine: everything that is not on it stays."""

import json
import re
import shutil
from pathlib import Path

import pytest

from pos_hf.cli.main import main
from pos_hf.errors import InputError
from pos_hf.hub import run_files
from pos_hf.hub.files import model_files, pictures
from pos_hf.models import build_model

MODEL = {"config.json", "model.safetensors", "preprocessor_config.json"}


def test_what_lies_beside_the_model_stays(make_run) -> None:
    folder = make_run("run")
    strangers = [
        "optimizer.pt",
        "training_args.bin",
        ".env",
        "notes.txt",
        "helper.py",
        "model.safetensors.bak",
    ]
    strangers += ["runs/events.out.tfevents.1", "wandb/debug.log", "checkpoint-5/model.safetensors"]
    for name in strangers:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("secret")
    shutil.copytree(folder / "checkpoint-5", folder / "student")
    for name in MODEL:
        shutil.copy(folder / name, folder / "student" / name)
    files = run_files(folder, "no picture here")
    assert set(files) == MODEL | {f"student/{name}" for name in MODEL} | {"README.md", "metrics.json"}


def test_the_folders_that_weights_came_from_are_taken_out_of_the_configuration(make_run) -> None:
    folder = make_run("run")
    config = json.loads((folder / "config.json").read_text())
    config |= {"_name_or_path": "/home/me/a", "backbone_config": {"_name_or_path": "/home/me/b", "depth": 3}}
    (folder / "config.json").write_text(json.dumps(config))
    uploaded = json.loads(model_files(folder)["config.json"])
    assert "/home/me" not in json.dumps(uploaded)
    assert uploaded["backbone_config"] == {"depth": 3}
    assert uploaded["id2label"] == config["id2label"]


def test_every_shard_and_every_module_that_is_loaded_goes_along(tmp_path) -> None:
    model = build_model("dinov2_dpt_tiny", {0: "a", 1: "b"})
    model.save_pretrained(tmp_path, max_shard_size="500kB")
    (tmp_path / "another.py").touch()
    shards = {path.name for path in tmp_path.glob("model-*.safetensors")}
    code = {"configuration_dino_dpt.py", "modeling_dino_dpt.py", "segmentation.py"}
    assert len(shards) > 1
    assert set(model_files(tmp_path)) == shards | code | {"config.json", "model.safetensors.index.json"}


def test_backbone_weights_leave_no_trace_of_their_folder(tmp_path) -> None:
    backbone = build_model("dinov2_dpt_tiny", {0: "a", 1: "b"}).backbone
    backbone.save_pretrained(tmp_path / "pretrained")
    weights = str(tmp_path / "pretrained")
    build_model("dinov2_dpt_tiny", {0: "a", 1: "b"}, backbone_weights=weights).save_pretrained(
        tmp_path / "run"
    )
    for content in model_files(tmp_path / "run").values():
        assert str(tmp_path).encode() not in (content if isinstance(content, bytes) else content.read_bytes())


def test_pictures_come_from_the_examples_alone(tmp_path) -> None:
    for name in ("examples/a b/overlay.png", "private.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).touch()
    shown = ("examples/a%20b/overlay.png", "private.png", "examples/../private.png", "examples/no.png")
    card = " ".join(f"![a picture]({target})" for target in shown)
    assert set(pictures(tmp_path, card)) == {"examples/a b/overlay.png"}


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"config\.json"):
        run_files(tmp_path, "")


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("card.md", b"\xff\xfe\x00", "card.md' is no text in UTF-8"),
        ("config.json", b"{", r"config\.json' is damaged"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_sentence(make_run, capsys, file, content, message) -> None:
    folder = make_run("run")
    (folder / file).write_bytes(content)
    card = ["--card", str(folder / "card.md")] if file == "card.md" else []
    assert main(["push", str(folder), "--repo", "me/run", *card]) == 2
    assert re.search(message, capsys.readouterr().err)
