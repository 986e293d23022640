"""A folder in, a config out; recipes by name; what is not set aside, not suggested and not looked for."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from pos_hf import __version__
from pos_hf.cli.main import COMMANDS, main
from pos_hf.data import load_data
from pos_hf.errors import InputError
from pos_hf.evaluation import load_for_inference
from pos_hf.runs.config import parse_config
from pos_hf.runs.proposal import LARGE, PHOTOS, SMALL, num_steps, propose_config
from pos_hf.runs.recipes import recipe_file, recipes
from pos_hf.training import POSConfig


def test_init_writes_a_config_that_trains_with_a_comment_for_every_choice(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    assert main(["init", "data"]) == 0
    text = (folder / "data.yaml").read_text()
    assert text.startswith("# yaml-language-server: $schema=pos_hf.schema.json")
    for part in text.split("\n#")[1:]:
        assert part.strip()
    model, data, training = parse_config(folder / "data.yaml", ["--use_cpu"])
    assert (data.dataset, training.output_dir) == ("data", "runs/data")
    assert (model.model, training.method) == ("deeplabv3plus_tiny", "unimatch_v2")
    assert training.per_device_train_batch_size == 2  # no more than there are
    keys = json.loads((folder / "pos_hf.schema.json").read_text())["properties"]
    assert yaml.safe_load(text).keys() <= keys.keys()
    assert keys["crop_size"]["anyOf"] == [{"type": "integer"}]
    assert main(["init", "data"]) == 2 and (folder / "data.yaml").read_text() == text
    assert "exists and is kept" in capsys.readouterr().err


def test_photographs_are_trained_on_for_longer_than_small_pictures(camvid, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    lists = {f"{role}_ids": f"splits/1_16/{role}.txt" for role in ("labeled", "unlabeled")}
    proposed = yaml.safe_load(propose_config(camvid, **lists))
    images_seen = proposed["max_steps"] * proposed["per_device_train_batch_size"]
    assert images_seen // 344 == 35
    assert proposed["method_options"] == {"logit_adjustment": True}


def test_a_folder_like_the_demos_is_trained_as_the_demo_is(tmp_path, monkeypatch):
    """What decides the score is the same: only what is written on the way differs."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (tmp_path / "proposed.yaml").write_text(propose_config("shapes"))
    demo = parse_config(recipe_file("shapes/pos_meo"), ["--use_cpu"])
    proposed = parse_config(tmp_path / "proposed.yaml", ["--use_cpu"])
    differing = {
        key
        for group, other in zip(demo, proposed, strict=True)
        for key, value in vars(group).items()
        if value != vars(other)[key] and not key.startswith("_")
    }
    on_the_way = {"output_dir", "logging_steps", "save_strategy", "save_steps", "save_total_limit"}
    assert differing <= on_the_way | {"logging_dir", "dataset_format", "distributed_state"}


def with_lists(folder: Path) -> Path:
    """Images in train/ and val/, of which lists choose; class "thin" covers 4 of 256 pixels of a mask."""
    mask = np.zeros((16, 16), np.uint8)
    mask[:8], mask[0, :4] = 1, 2
    for role, count in (("train", 6), ("val", 2)):
        for kind in ("images", "masks"):
            (folder / role / kind).mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", (16, 16), (number, 0, 0)).save(folder / role / "images" / f"{role}{number}.png")
            Image.fromarray(mask).save(folder / role / "masks" / f"{role}{number}.png")
    (folder / "id2label.json").write_text('{"0": "ground", "1": "wall", "2": "thin"}')
    (folder / "labeled.txt").write_text("train1\ntrain4\n")
    (folder / "unlabeled.txt").write_text("train0\ntrain2\ntrain3\n")
    return folder


def test_what_is_known_of_a_folder_is_said_to_init_and_a_rare_class_is_looked_after(tmp_path, capsys):
    folder, out = with_lists(tmp_path / "photos"), tmp_path / "photos.yaml"
    lists = ["--labeled_ids", "labeled.txt", "--unlabeled_ids", "unlabeled.txt"]
    assert main(["init", str(folder), "--out", str(out), *lists]) == 0
    assert "# thin covers 1.6% of the labeled pixels:" in out.read_text()
    _, data, training = parse_config(out, ["--use_cpu"])
    assert training.method_options == {"logit_adjustment": True}
    roles = load_data(data, needs_unlabeled=True)
    assert roles.labeled["id"] == ["train1", "train4"] and len(roles.unlabeled) == 3
    assert len(roles.selection) == 2
    for wrong in ("--max_steps", "--labelled_ids"):
        assert main(["init", str(folder), "--out", str(tmp_path / "other.yaml"), wrong, "3"]) == 2
    errors = capsys.readouterr().err
    assert "--max_steps is no key of the data" in errors and "did you mean '--labeled_ids'?" in errors
    assert not (tmp_path / "other.yaml").exists()


def test_a_folder_trains_without_a_config_and_keeps_what_was_chosen(folder, capsys):
    run = folder / "out"
    more = ["--max_steps", "1", "--crop_size", "16", "--use_cpu", "--output_dir", str(run)]
    assert main(["train", str(folder / "data"), *more]) == 0
    proposed = (run / "proposed.yaml").read_text()
    assert proposed in capsys.readouterr().out
    assert (run / "model.safetensors").exists() and yaml.safe_load(proposed)["strategy"] == "pos"


@pytest.mark.parametrize(
    ("images", "plan", "steps"),
    [
        (240, SMALL, 600),
        (344, PHOTOS, 1505),
        (10_000, SMALL, 4000),
        (10_000, LARGE, 20_000),
        (240, LARGE, 3600),
        (40, LARGE, 2000),
    ],
)
def test_the_steps_of_a_proposal_have_a_budget(images, plan, steps):
    assert num_steps(images, plan) == steps


def test_recipes_are_known_by_name(capsys):
    assert "shapes/pos_meo" in recipes() and not any(name.startswith("studies") for name in recipes())
    assert main(["recipes", "shapes/supervised"]) == 0
    assert capsys.readouterr().out == recipe_file("shapes/supervised").read_text()
    assert main(["train", "pascal/unimatch_v2/dinov2_smal"]) == 2
    assert "did you mean 'pascal/unimatch_v2/dinov2_small'?" in capsys.readouterr().err


def test_the_version_is_told(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"pos-hf {__version__}\n"


def test_a_known_key_is_offered_only_when_it_is_near(folder):
    config = folder / "config.yaml"
    with pytest.raises(InputError, match=r"--lerning_rate, did you mean '--learning_rate'\?"):
        parse_config(config, ["--lerning_rate", "1"])
    with pytest.raises(InputError, match=r"lists the known ones$"):
        parse_config(config, ["--wait_for_improvement", "1"])


def test_labels_are_set_aside_only_where_something_looks_at_them(tmp_path):
    (tmp_path / "c.yaml").write_text("dataset: shapes\n")
    watched = ["--eval_strategy", "steps", "--eval_steps", "5"]
    shares = [
        parse_config(tmp_path / "c.yaml", [*more, "--use_cpu"])[1].selection_share for more in ([], watched)
    ]
    assert shares == [0.0, 0.1]


def test_early_stopping_is_a_key_and_needs_scores(tmp_path):
    with pytest.raises(InputError, match="early_stopping_patience needs scores"):
        POSConfig(str(tmp_path), early_stopping_patience=2, use_cpu=True)
    config = POSConfig(
        str(tmp_path), early_stopping_patience=2, eval_strategy="steps", eval_steps=10, use_cpu=True
    )
    assert config.load_best_model_at_end and config.save_steps == 10


def test_a_mistyped_run_folder_is_not_sought_on_the_hub(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setattr("transformers.AutoConfig.from_pretrained", None)
    for name in ("./modl", "data/imges", str(folder / "modl"), "a/b/c"):
        with pytest.raises(InputError, match="there is no model folder"):
            load_for_inference(name, "cpu")
    with pytest.raises(InputError, match=r"did you mean 'data/images'"):
        load_for_inference("data/imges", "cpu")


def test_a_command_line_without_a_config_says_so(capsys):
    assert main(["train", "--dataset", "shapes"]) == 2
    assert "--dataset comes before the config" in capsys.readouterr().err


def completed(script, *typed):
    """What bash offers for the last of the words typed."""
    words = " ".join(f"'{word}'" for word in ("pos-hf", *typed))
    ask = f"COMP_WORDS=({words}); COMP_CWORD={len(typed)}; _pos_hf; echo ${{COMPREPLY[@]}}"
    return subprocess.run(
        ["bash", "-c", f"{script}\n{ask}"], capture_output=True, text=True, check=True
    ).stdout.split()


def test_bash_completes_commands_flags_keys_and_recipes(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").touch()
    assert main(["completion", "bash"]) == 0
    script = capsys.readouterr().out
    assert completed(script, "ch") == ["check-data"]
    assert completed(script, "predict", "--conf") == ["--confidence"]
    assert completed(script, "train", "m") == ["mine.yaml"]
    assert completed(script, "train", "shapes/") == ["shapes/pos_meo", "shapes/supervised"]
    assert completed(script, "train", "mine.yaml", "--crop_s") == ["--crop_size"]
    for command in COMMANDS:
        assert "--help" in completed(script, command, "--h")


def test_fish_and_zsh_get_the_same_words(capsys):
    assert main(["completion", "fish"]) == 0
    fish = capsys.readouterr().out
    assert "complete -c pos-hf -n '__fish_seen_subcommand_from train' -l crop_size\n" in fish
    assert main(["completion", "zsh"]) == 0
    assert "bashcompinit" in capsys.readouterr().out.splitlines()[0]
