"""A stranger's folder names no file outside of it; a model whose files have changed is not read."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pos_hf.cli.main import main
from pos_hf.errors import InputError
from pos_hf.evaluation import load_for_inference
from pos_hf.files import MANIFEST, write_manifest
from pos_hf.hub import run_files
from pos_hf.model_folders import check_model_folder
from pos_hf.models import build_model

INDEX = "model.safetensors.index.json"


def names_shard(name: object) -> Callable[[Path], None]:
    return lambda folder: (folder / INDEX).write_text(json.dumps({"weight_map": {"weight": name}}))


def names_class(value: object, file: str = "config.json") -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        config = json.loads((folder / file).read_text()) | {"auto_map": value}
        (folder / file).write_text(json.dumps(config))

    return spoil


def links(name: str, then: Callable[[Path], None]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to("../private/key")
        then(folder)

    return spoil


STRANGERS = {
    "path above": names_shard("../private/key"),
    "absolute path": names_shard("/etc/hostname"),
    "path that comes back": names_shard("../run/model.safetensors"),
    "no weights": names_shard("training_args.bin"),
    "no name": names_shard(3),
    "no index": lambda folder: (folder / INDEX).write_text('{"weight_map": [1]}'),
    "shard that is a link": links("a.safetensors", names_shard("a.safetensors")),
    "module above": names_class({"AutoConfig": "../private/key.Config"}),
    "absolute module": names_class({"AutoModel": "/etc/hostname.Model"}),
    "module that is a link": links("key.py", names_class({"AutoConfig": "key.Config"})),
    "processor's module": names_class({"AutoImageProcessor": ["../key.A", None]}, "preprocessor_config.json"),
    "no classes": names_class("x"),
}


@pytest.fixture
def stranger(make_run, tmp_path) -> Path:
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "key").write_text("secret")
    return make_run("run")


@pytest.mark.parametrize("kind", STRANGERS)
def test_a_strangers_folder_names_no_file_outside(stranger, capsys, kind):
    STRANGERS[kind](stranger)
    assert main(["push", str(stranger), "--repo", "me/run"]) == 2
    out, err = capsys.readouterr()
    assert "key" not in out and err.count("\n") == 1 and ("trust this folder" in err or "damaged" in err)
    with pytest.raises(InputError) as refusal:
        load_for_inference(str(stranger), "cpu")  # of evaluate, predict, export and landscape
    assert "\n" not in str(refusal.value)
    with pytest.raises(InputError, match=r"trust this folder|damaged"):
        build_model(str(stranger), {0: "a", 1: "b"})


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "metrics.json", "examples"])
def test_no_link_that_leads_out_is_pushed(stranger, tmp_path, name):
    outside = tmp_path / "private" / name
    shutil.move(stranger / name, outside)
    (stranger / name).symlink_to(outside)
    with pytest.raises(InputError, match="link that leads out"):
        run_files(stranger, "![p](examples/shape_0/overlay.png)")


def test_a_snapshot_of_the_hubs_cache_links_to_its_blobs(stranger, tmp_path):
    cache = tmp_path / "models--me--run"
    snapshot = cache / "snapshots" / "0123"
    shutil.copytree(stranger, snapshot)
    (cache / "blobs").mkdir()
    shutil.move(snapshot / "model.safetensors", cache / "blobs" / "abc")
    (snapshot / "a.safetensors").symlink_to("../../blobs/abc")
    names_shard("a.safetensors")(snapshot)
    check_model_folder(snapshot)
    (cache / "blobs" / "abc").rename(tmp_path / "private" / "abc")
    (snapshot / "a.safetensors").unlink()
    (snapshot / "a.safetensors").symlink_to("../../../private/abc")
    with pytest.raises(InputError, match="link that leads out"):
        check_model_folder(snapshot)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "student/model.safetensors"])
def test_a_model_that_has_changed_is_not_read(stranger, name):
    student = "student" if "/" in name else ""
    shutil.copytree(stranger, stranger / "student", ignore=shutil.ignore_patterns("examples", "worst"))
    write_manifest(stranger)
    load_for_inference(str(stranger), "cpu", subfolder=student)
    content = bytearray((stranger / name).read_bytes())
    content[-20] ^= 1
    (stranger / name).write_bytes(content)
    for read in (
        lambda: load_for_inference(str(stranger), "cpu", subfolder=student),
        lambda: run_files(stranger, ""),
    ):
        with pytest.raises(InputError, match=f"{name} has changed"):
            read()
    (stranger / MANIFEST).unlink()  # as the sentence says
    if name != "config.json":
        load_for_inference(str(stranger), "cpu", subfolder=student)


def test_a_list_that_cannot_be_read_is_no_list_of_nothing(stranger):
    (stranger / MANIFEST).write_text("[")
    with pytest.raises(InputError, match=r"manifest\.json' cannot be read"):
        load_for_inference(str(stranger), "cpu")
