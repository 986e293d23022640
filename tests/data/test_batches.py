"""Keys name views; order and views do not depend on workers, resumes or processes."""

from collections import Counter

import numpy as np
import pytest
import torch
from accelerate.data_loader import BatchSamplerShard
from PIL import Image
from torch.utils.data import BatchSampler, DataLoader

from pos_hf.data import DataArguments, PairedDataset, PairSampler, Views, collate, load_data
from pos_hf.data.batches import NO_LABEL, rare_classes
from pos_hf.errors import InputError


@pytest.fixture
def data(folder):
    return load_data(DataArguments(dataset=str(folder), selection_share=0))


@pytest.fixture
def pairs(data):
    return PairedDataset(data.labeled, data.unlabeled, Views(32), seed=3)


def keys(sampler, epoch):
    sampler.set_epoch(epoch)
    return list(sampler)


def flat(batch):
    return {f"{group}/{name}": value for group, views in batch.items() for name, value in views.items()}


def assert_same_batches(first, second):
    assert len(first) == len(second)
    for left, right in zip(map(flat, first), map(flat, second), strict=True):
        assert left.keys() == right.keys()
        assert all(torch.equal(left[name], right[name]) for name in left)


def test_an_epoch_shows_every_unlabeled_row_once():
    sampler = PairSampler(5, 23, seed=0)
    for epoch in range(3):
        assert sorted(unlabeled for _, _, unlabeled in keys(sampler, epoch)) == list(range(23))
    assert keys(sampler, 0) != keys(PairSampler(5, 23, seed=1), 0)


def test_labeled_rows_are_used_equally_often_across_epochs():
    sampler = PairSampler(5, 23, seed=0)
    used = [labeled for epoch in range(4) for _, labeled, _ in keys(sampler, epoch)]
    for start in range(0, 90, 5):
        assert sorted(used[start : start + 5]) == list(range(5))


def test_more_labeled_than_unlabeled_rows_are_all_reached():
    sampler = PairSampler(10, 4, seed=0)
    used = [labeled for epoch in range(5) for _, labeled, _ in keys(sampler, epoch)]
    assert Counter(used) == dict.fromkeys(range(10), 2)


def test_batch_has_the_shapes_and_types_of_the_wire(pairs):
    batch = collate([pairs[key] for key in keys(pairs.sampler(0), 0)[:2]])
    described = {name: (value.dtype, tuple(value.shape)) for name, value in flat(batch).items()}
    assert described == {
        "labeled/pixel_values": (torch.uint8, (2, 3, 32, 32)),
        "labeled/labels": (torch.int64, (2, 32, 32)),
        "unlabeled/pixel_values": (torch.uint8, (2, 3, 32, 32)),
        "unlabeled/strong_pixel_values": (torch.uint8, (2, 2, 3, 32, 32)),
        "unlabeled/cutmix_boxes": (torch.int64, (2, 2, 4)),
        "unlabeled/padding_mask": (torch.bool, (2, 32, 32)),
        "unlabeled/key": (torch.int64, (2, 3)),
    }


def test_views_are_a_function_of_seed_and_key(data, pairs):
    again = PairedDataset(data.labeled, data.unlabeled, Views(32), seed=3)
    assert_same_batches([pairs[0, 1, 2]], [again[0, 1, 2]])
    other_seed = PairedDataset(data.labeled, data.unlabeled, Views(32), seed=4)
    for other in (pairs[1, 1, 2], other_seed[0, 1, 2]):
        assert not torch.equal(
            other["unlabeled"]["pixel_values"], pairs[0, 1, 2]["unlabeled"]["pixel_values"]
        )


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more workers than cores is the point
@pytest.mark.parametrize(("workers", "persistent"), [(2, False), (2, True), (4, False)])
def test_workers_change_nothing(pairs, workers, persistent):
    def epochs(num_workers, persistent=False):
        sampler = pairs.sampler(0)
        loader = DataLoader(
            pairs,
            batch_size=2,
            sampler=sampler,
            collate_fn=collate,
            num_workers=num_workers,
            persistent_workers=persistent,
        )
        batches = []
        for epoch in range(2):
            sampler.set_epoch(epoch)
            torch.manual_seed(epoch * num_workers)  # whatever the global generators do
            batches += list(loader)
        return batches

    assert_same_batches(epochs(0), epochs(workers, persistent))


def test_a_resume_in_the_middle_of_an_epoch_sees_the_same_rest(pairs):
    whole = keys(pairs.sampler(0), 1)
    resumed = keys(pairs.sampler(0), 1)[2:]
    assert_same_batches([pairs[key] for key in whole[2:]], [pairs[key] for key in resumed])


def test_two_processes_see_the_batches_of_one():
    batches = BatchSampler(PairSampler(5, 24, seed=0), batch_size=2, drop_last=True)
    shards = [list(BatchSamplerShard(batches, num_processes=2, process_index=rank)) for rank in (0, 1)]
    assert sorted(map(tuple, [*shards[0], *shards[1]])) == sorted(map(tuple, batches))


@pytest.mark.parametrize("ratio", [2, 3])
def test_the_ratio_gives_every_labeled_row_so_many_unlabeled_ones(data, ratio):
    sampler = PairSampler(5, 24, seed=0, unlabeled_ratio=ratio)
    for epoch in range(2):
        drawn = keys(sampler, epoch)
        assert sorted(unlabeled for _, _, unlabeled in drawn) == list(range(24))
        partners = [labeled != NO_LABEL for _, labeled, _ in drawn]
        assert partners == [position % ratio == 0 for position in range(24)]
    pairs = PairedDataset(data.labeled, data.unlabeled, Views(32), seed=0, unlabeled_ratio=ratio)
    batch = collate([pairs[0, 1, 0], pairs[0, NO_LABEL, 1]])
    assert len(batch["labeled"]["labels"]) == 1 and len(batch["unlabeled"]["padding_mask"]) == 2


@pytest.mark.parametrize("ratio", [1, 2])
def test_an_epoch_over_the_labeled_rows_draws_each_of_them_once(data, ratio):
    sampler = PairSampler(5, 23, seed=0, unlabeled_ratio=ratio, epoch_over="labeled")
    used = []
    for epoch in range(23):
        drawn = keys(sampler, epoch)
        assert len(drawn) == len(sampler) == 5 * ratio
        assert sorted(labeled for _, labeled, _ in drawn if labeled != NO_LABEL) == list(range(5))
        used += [unlabeled for _, _, unlabeled in drawn]
    assert np.bincount(used).tolist() == [5 * ratio] * 23
    pairs = PairedDataset(data.labeled, data.unlabeled, Views(32), seed=0, epoch_over="labeled")
    assert len(pairs) == len(data.labeled) and [*pairs.sampler(3)] == keys(pairs.sampler(3), 0)


def test_a_second_draw_is_another_view_of_the_same_row(data):
    pairs = PairedDataset(data.labeled, data.unlabeled, Views(32), seed=0, second_draw=True)
    batch = collate([pairs[0, 1, 2], pairs[0, 2, 3]])
    batch["unlabeled"].pop("key")
    assert {name: value.shape for name, value in batch["partner"].items()} == {
        name: value.shape for name, value in batch["unlabeled"].items()
    }
    assert not torch.equal(batch["partner"]["pixel_values"], batch["unlabeled"]["pixel_values"])


def test_class_aware_sampling_shows_classes_equally_often():
    shows = np.zeros((50, 3), bool)
    shows[:, 0], shows[7, 1], shows[40:, 2] = True, True, True
    used = [labeled for _, labeled, _ in PairSampler(50, 6000, seed=0, shows_class=shows)]
    # row 7 is every draw of class 1, and one in fifty of class 0
    assert np.mean(np.array(used) == 7) == pytest.approx(1 / 3 + 1 / 150, abs=0.025)
    assert np.mean(np.array(used) >= 40) == pytest.approx(1 / 3 + 0.2 / 3, abs=0.025)


def test_rare_classes_have_fewer_pixels_than_the_median():
    assert rare_classes(np.array([[100, 5, 0, 40], [100, 0, 0, 40]])) == (1,)


def test_options_reach_the_dataset(folder):
    args = DataArguments(
        dataset=str(folder),
        class_aware_sampling=True,
        rare_class_retries=2,
        unlabeled_ratio=2,
        device_views=True,
        epoch_over="labeled",
    )
    pairs = PairedDataset.from_arguments(load_data(args), args, seed=0)
    assert pairs.shows_class.all() and pairs.unlabeled_ratio == 2 and len(pairs) == 2 * len(pairs.labeled)
    assert pairs.views.rare_class_retries == 2 and len(pairs.views.rare_classes) == 1
    item = pairs[next(iter(pairs.sampler(0)))]
    assert item["unlabeled"]["photometry"].shape == (2, 12)


def test_masks_that_lose_their_labels_while_training_are_noticed(folder, data, caplog):
    pairs = PairedDataset(data.labeled, data.unlabeled, Views(32), seed=0)
    for index, path in enumerate(sorted(folder.glob("masks/*"))):
        mask = Image.open(path)
        mask.point(lambda id: 255).save(path)
        if index < 5:
            pairs[0, index, 0]
            assert caplog.messages[-1] == f"the mask of pet_{index} is ignored in all of its pixels"
    with pytest.raises(InputError, match="are ignored in all of their pixels"):
        pairs[0, 5, 0]


def test_class_aware_sampling_needs_a_class():
    assert rare_classes(np.zeros((4, 3), np.int64)) == ()
    with pytest.raises(InputError, match="no class for class_aware_sampling"):
        PairSampler(4, 8, seed=0, shows_class=np.zeros((4, 3), bool))
