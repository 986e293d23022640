"""The training and evaluation benchmarks run, and both of their sides do the same work."""

import json
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[1] / "scripts" / "benchmarks"


@pytest.fixture(autouse=True)
def scripts_folder(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))


@pytest.mark.parametrize("model", ["dinov2_tiny", "resnet_tiny"])
def test_the_published_step_and_ours_have_the_same_losses(model):
    import loss_curves

    small = ["--steps", "3", "--crop", "32", "--batch", "2", "--threshold", "0.06"]
    result = loss_curves.run(loss_curves.parse(["--model", model, *small]))
    for objective in result["ours over published"].values():
        assert objective["max"] < 1e-3
    assert result["last losses"]["published"][1] > 0  # pixels are kept: both objectives are compared


def test_the_two_evaluation_loops_count_the_same_pixels():
    import evaluation

    small = ["--images", "6", "--scale", "0.1", "--rounds", "1", "--batch", "2"]
    result = evaluation.run(evaluation.parse(["--model", "dinov2_tiny", *small]))
    assert result["share_of_counts_that_differ"] < 1e-4
    assert set(result["images_per_second"]) == {"published", "ours"}


def test_every_side_of_the_training_benchmark_is_measured(monkeypatch, capsys):
    import train_step

    small = ["--crop", "32", "--batch", "2", "--picture", "64", "48"]
    rounds = ["--warm_up", "1", "--rounds", "2", "--section_rounds", "1", "--alone", "1"]
    monkeypatch.setattr(sys, "argv", ["train_step.py", "--model", "dinov2_tiny", *small, *rounds])
    train_step.main()
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(result["sides"]) == {"published", "uniform", "pos", "pos_paper"}
    for side in result["sides"].values():
        assert {"data", "teacher", "student", "optimizer", "ema"} <= set(side["parts_ms"])
        assert side["peak_MB"] > 10  # three copies of 0.9 million float32 weights at the least
    assert 0 <= result["data_wait_share"] <= 1


def test_processes_and_one_report_the_same_of_a_dataset(monkeypatch, capsys):
    import check_data

    small = ["--images", "36", "--size", "64", "48", "--rounds", "1"]
    monkeypatch.setattr(sys, "argv", ["check_data.py", *small])
    assert check_data.main()["processor_time"] > 0  # it compares the reports itself


def test_the_cache_is_compared_with_decoding(monkeypatch, capsys):
    import image_cache

    small = ["--images", "1", "--size", "160", "120", "--crop", "32", "--rounds", "1"]
    monkeypatch.setattr(sys, "argv", ["image_cache.py", *small])
    result = image_cache.main()  # it compares the views itself
    assert result["device_views"]["ratios"][0] > 0


def test_the_simulation_waits_for_nothing_on_one_gpu_and_for_bytes_on_many():
    import scaling

    slow = scaling.parse(["--step_ms", "100", "--network_GBs", "0.01"])
    table = scaling.scaling(slow)
    assert {row["step_ms"][0] for row in table.values()} == {100.0}
    for name in ("ddp, pos", "ddp, pos, shared forward"):
        assert table[name]["exchanged_over_N"] == 4
    apart, at_the_end = (table[f"ddp, {name}, shared forward"]["step_ms"][-1] for name in ("uniform", "pos"))
    hidden = 1e2 * slow.backward_share
    assert at_the_end - apart == pytest.approx(hidden)
    assert at_the_end > 1e3


def test_the_memory_of_a_large_image_is_measured():
    import large_images

    result = large_images.run(large_images.parse(["--size", "300", "200", "--options", "--window 64 --flip"]))
    assert result["size"] == [300, 200]
    assert 0 <= result["GB_above_the_model"] < 0.5


def test_the_gpu_check_knows_its_numbers_and_goes_on_where_it_stopped(monkeypatch, capsys, tmp_path):
    import gpu

    result = gpu.numbers()
    assert result["ok"] and result["fp32"]["gradient"] < 1e-4 < result["bf16"]["gradient"]
    assert gpu.resume()["ok"]
    assert set(gpu.NEED_CUDA) < set(gpu.PARTS)
    asked = []

    def child(name):
        asked.append(name)
        return {"ok": name != "resume"}

    monkeypatch.setattr(gpu, "child", child)
    monkeypatch.setattr(gpu, "NEED_CUDA", ("fp16",))
    monkeypatch.setattr(gpu, "CUDA", False)
    out = tmp_path / "gpu.jsonl"
    for expected in (["views", "resume"], []):  # the second time all is known
        monkeypatch.setattr(sys, "argv", ["gpu.py", "--out", str(out), "--parts", "views", "fp16", "resume"])
        with pytest.raises(SystemExit) as stop:
            gpu.main()
        assert stop.value.code == 1 and asked == expected
        asked.clear()
    printed = capsys.readouterr().out
    assert "| views | ok |" in printed and "| fp16 | not measured |" in printed
    assert "| resume | FAILED" in printed


def test_training_a_part_needs_less_than_training_all():
    import lora

    small = ["--crop", "32", "--batch", "2", "--rounds", "1", "--steps", "3", "--rank", "2"]
    small += ["--picture", "64", "48"]
    result = lora.run(lora.parse(["--model", "dinov2_tiny", *small]))
    full, adapted, frozen = (result["sides"][side] for side in lora.SIDES)
    for number in ("trained", "resident_MB", "step_MB"):
        assert full[number] > adapted[number] > frozen[number] > 0


def test_both_layouts_of_a_models_weights_are_timed():
    import layout

    result = layout.run(layout.parse(["--crop", "32", "--batch", "2", "--rounds", "3"]))
    for lowest, median, highest in result.values():
        assert 0 < lowest <= median <= highest
