"""Which images to label next: the doubt by a loop over pixels, the choice by hand, and the command."""

import csv
import math

import numpy as np
import pytest
import torch
from PIL import Image

from pos_hf.cli import suggest
from pos_hf.errors import InputError
from pos_hf.evaluation import load_for_inference, predict_probabilities
from pos_hf.evaluation.suggestion import GRID, Doubt, choose, doubt_of, worth

from .tiny import save_segformer


def test_the_doubt_of_an_image_equals_a_loop_over_its_pixels():
    probabilities = torch.randn(3, 8, 12, generator=torch.Generator().manual_seed(0)).double().softmax(0)
    probabilities[0, 0, 0], probabilities[1:, 0, 0] = 1, 0  # 0 log 0 is 0
    doubt = doubt_of(probabilities)
    entropy, share, cells = np.zeros(3), np.zeros(3), np.zeros((3, GRID, GRID))
    for c in range(3):
        for i in range(8):
            for j in range(12):
                p = probabilities[c, i, j].item()
                entropy[c] -= (p * math.log(p) if p else 0) / 96
                share[c] += p / 96
                cells[c, i // 2, j // 3] += p / 6
    np.testing.assert_allclose(doubt.entropy, entropy, rtol=1e-12)
    np.testing.assert_allclose(doubt.share, share, rtol=1e-12)
    np.testing.assert_allclose(doubt.layout, np.sqrt(cells).ravel(), rtol=1e-12)


def test_doubt_about_a_rare_class_is_worth_more_by_the_root_of_its_rarity():
    def doubt(entropy):
        return Doubt(np.array(entropy), np.array([0.96, 0.04]), np.zeros(1))

    common, rare = worth([doubt([0.3, 0.0]), doubt([0.0, 0.3])])
    assert rare / common == pytest.approx(math.sqrt(0.96 / 0.04))


def test_the_choice_is_of_high_worth_and_not_of_one_kind():
    layouts = np.array([[0.0], [0.0], [0.01], [3.0], [2.0]])
    worth_N = np.array([5.0, 4.9, 4.8, 1.0, 1.2])
    # 0 first; then 3 (1 x 3) before 4 (1.2 x 2); then 4 (1.2 x 1) before the twins of 0
    assert choose(worth_N, layouts, 3) == [0, 3, 4]
    assert choose(worth_N, layouts, 5)[-1] == 1
    assert choose(worth_N, np.arange(5.0)[:, None], 2) == [0, 2]  # 4.8 x 2 before 1.2 x 4 and 1 x 3


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory, processor) -> str:
    return save_segformer(tmp_path_factory.mktemp("model"), processor, [f"class {i}" for i in range(4)])


@pytest.fixture
def images(tmp_path, dataset):
    (tmp_path / "images" / "sub").mkdir(parents=True)
    for number, row in enumerate(dataset):
        row["image"].save(tmp_path / "images" / ("sub" if number % 2 else "") / f"{row['id']}.png")
    return tmp_path / "images"


def test_the_command_writes_a_list_a_table_and_a_sheet(model_folder, images, dataset, tmp_path):
    labeled = tmp_path / "labeled.txt"
    labeled.write_text(f"{dataset[0]['id']}\n")
    out = tmp_path / "out"
    arguments = [model_folder, str(images), "--out", str(out), "--exclude", str(labeled), "--count", "3"]
    assert suggest.main(arguments) == 0
    model, processor = load_for_inference(model_folder, "cpu")
    names = {f"{'sub/' if n % 2 else ''}{row['id']}": row["image"] for n, row in enumerate(dataset) if n}
    maps = predict_probabilities(model, names.values(), processor)
    doubts = {name: doubt_of(map_[0]) for name, map_ in zip(names, maps, strict=True)}
    own = dict(zip(doubts, worth(list(doubts.values())), strict=True))
    listed = (out / "suggested.txt").read_text().splitlines()
    assert listed[0] == max(own, key=own.__getitem__) and len(set(listed)) == 3 and set(listed) <= set(own)
    with (out / "suggested.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == listed
    assert [float(row["worth"]) for row in rows] == pytest.approx([own[id] for id in listed], rel=1e-3)
    with Image.open(out / "suggested.png") as sheet:
        assert sheet.width > 1000
    with pytest.raises(InputError, match="is kept"):
        suggest.main(arguments)


def test_the_sheet_of_an_earlier_call_is_no_image(model_folder, images):
    count = sum(path.is_file() for path in images.rglob("*"))
    arguments = [model_folder, str(images), "--count", str(count), "--out"]
    assert suggest.main([*arguments, str(images / "next")]) == 0
    assert suggest.main([*arguments, str(images / "later")]) == 0
    listed = (images / "later" / "suggested.txt").read_text().splitlines()
    assert len(listed) == count and "next/suggested" not in listed


def test_the_command_refuses_what_it_cannot_answer(model_folder, images, tmp_path):
    out = ["--out", str(tmp_path / "out")]
    with pytest.raises(InputError, match=r"asks for 99 images, and \d+ can be chosen from"):
        suggest.main([model_folder, str(images), "--count", "99", *out])
    (tmp_path / "other.txt").write_text("elsewhere\n")
    with pytest.raises(InputError, match="names none of the images"):
        suggest.main([model_folder, str(images), "--exclude", str(tmp_path / "other.txt"), *out])
    with pytest.raises(InputError, match=r"row_0\.png is no text file: write one id a line"):
        suggest.main([model_folder, str(images), "--exclude", str(images / "row_0.png"), *out])
    assert not (tmp_path / "out").exists()
