"""Roles: seeded, balanced, disjoint, named by a hash and written to lists."""

from collections import Counter

import numpy as np
import pytest

from pos_hf.data import DataArguments, PairedDataset, files, load_data
from pos_hf.data.checks import check_data
from pos_hf.data.loading import load_roles
from pos_hf.data.splits import balanced_order, count_labels, write_split


def load(folder, **options):
    return load_data(DataArguments(dataset=str(folder), **options))


def roles(data):
    return {
        role: set(rows["id"]) for role, rows in (data.masked_roles | {"unlabeled": data.unlabeled}).items()
    }


def test_labels_given_up_become_unlabeled(folder):
    data = load(folder, num_labeled=2, selection_share=0)
    assert len(data.labeled) == 2 and len(data.unlabeled) == 4 + 4
    assert data.unlabeled[0]["image"].mode == "RGB" and "mask" not in data.unlabeled.column_names


def test_roles_are_disjoint_and_complete(folder):
    found = roles(load(folder, num_labeled=5, selection_share=0.4))
    assert len(found["selection"]) == 2 and len(found["labeled"]) == 3 and len(found["unlabeled"]) == 5
    assert not found["selection"] & (found["labeled"] | found["unlabeled"])


def test_the_seed_names_the_split(folder):
    first = load(folder, num_labeled=3, split_seed=1)
    assert roles(first) == roles(load(folder, num_labeled=3, split_seed=1))
    hashes = {load(folder, num_labeled=3, split_seed=seed).split_hash() for seed in range(5)}
    assert first.split_hash() in hashes and len(hashes) > 1


def test_the_hash_depends_on_roles_alone(folder):
    (folder / "forward.txt").write_text("pet_1\npet_2\n")
    (folder / "backward.txt").write_text("pet_2\npet_1\n")
    forward = load(folder, labeled_ids="forward.txt")
    assert forward.split_hash() == load(folder, labeled_ids="backward.txt").split_hash()
    (folder / "backward.txt").write_text("pet_2\npet_3\n")
    assert forward.split_hash() != load(folder, labeled_ids="backward.txt").split_hash()


def test_a_written_split_reads_back(folder):
    data = load(folder, num_labeled=4, selection_share=0.25)
    write_split(data, folder / "splits")
    again = load(
        folder,
        labeled_ids="splits/labeled.txt",
        unlabeled_ids="splits/unlabeled.txt",
        selection_images="images",
        selection_masks="masks",
        selection_ids="splits/selection.txt",
    )
    assert again.split_hash() == data.split_hash()


def test_label_counts_are_those_of_a_loop(folder):
    data = load(folder, selection_share=0)
    expected = [[(np.asarray(row["mask"]) == id).sum() for id in range(3)] for row in data.labeled]
    np.testing.assert_array_equal(count_labels(data.labeled, 3), expected)


def test_balanced_order_covers_rare_classes_early():
    rng = np.random.default_rng(0)
    counts = np.zeros((200, 6), np.int64)
    counts[:, 0] = 1
    for id, share in enumerate((0.5, 0.2, 0.05, 0.02, 0.01), start=1):
        counts[rng.permutation(200)[: int(200 * share)], id] = 9
    for seed in range(5):
        order = balanced_order(counts, seed)
        assert sorted(order) == list(range(200))
        assert (counts[order[:5]] > 0).any(0).all()  # five images show all six classes
        seen = (counts[order[:10]] > 0).sum(0)
        assert seen[1:4].min() >= 2 and seen[4:].min() >= 2  # all there are of the rarest
    assert balanced_order(counts, 0) != balanced_order(counts, 1)


def test_balanced_split_is_an_option(folder):
    data = load(folder, num_labeled=2, balanced_split=True, selection_share=0)
    assert (count_labels(data.labeled, 3) > 0).any(0).all()


@pytest.mark.parametrize(("labels", "carved"), [(6, 0), (10, 1), (16, 1), (46, 4)])
def test_a_tenth_of_the_labels_is_carved_for_selection(labels, carved):
    data = load("shapes", num_labeled=labels, num_unlabeled=1, num_test=1, selection_share=0.1)
    assert (len(data.selection) if data.selection else 0) == carved and len(data.labeled) == labels - carved


@pytest.fixture
def decoded(monkeypatch):
    """The names of the pictures that are decoded, counted."""
    names = Counter()

    def read_picture(stored):
        names[stored["path"]] += 1
        return files.read_picture(stored)

    for module in ("masks", "images"):  # of masks and of images
        monkeypatch.setattr(f"pos_hf.data.{module}.read_picture", read_picture)
    return names


def test_ids_are_read_without_decoding(folder, tmp_path, decoded):
    args = DataArguments(dataset=str(folder), selection_share=0.5, num_labeled=4, crop_size=16)
    data = load_roles(args)
    data.split_hash()
    write_split(data, tmp_path / "split")
    pairs = PairedDataset.from_arguments(data, args, seed=0)
    keys = list(pairs.sampler(0))
    pairs.names(keys[0])
    assert data.num_channels == 3 and not decoded
    for key in keys:
        pairs[key]
    assert sum(decoded.values()) == 3 * len(keys)  # an image, a labeled one, a mask


def test_the_checks_decode_each_picture_once(folder, decoded):
    load_data(DataArguments(dataset=str(folder), selection_share=0))
    assert set(decoded.values()) == {1} and len(decoded) == 2 * 6 + 2 * 3
    decoded.clear()
    check_data(DataArguments(dataset=str(folder), selection_share=0))
    assert set(decoded.values()) == {1} and len(decoded) == 2 * 6 + 2 * 3 + 4
