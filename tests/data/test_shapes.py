"""The embedded dataset: seeded, labelled as drawn, and what its documentation says about difficulty."""

import numpy as np
import pytest

from pos_hf.data import DataArguments, load_data
from pos_hf.data.shapes import CLASSES, IMAGE_SIZE, draw_scene


def pixels(rows):
    return np.stack([np.asarray(row["image"]) for row in rows])


@pytest.fixture(scope="module")
def scenes():
    return [draw_scene(np.random.default_rng([0, index])) for index in range(150)]


def test_images_follow_the_seed_and_the_test_set_does_not():
    sizes = {"num_labeled": 2, "num_unlabeled": 2, "num_test": 2}
    first, again, other = (load_data(DataArguments(**sizes, split_seed=seed)) for seed in (0, 0, 1))
    for role in ("labeled", "unlabeled"):
        np.testing.assert_array_equal(pixels(getattr(first, role)), pixels(getattr(again, role)))
        assert (pixels(getattr(first, role)) != pixels(getattr(other, role))).any()
    np.testing.assert_array_equal(pixels(first.test), pixels(other.test))
    assert len(np.unique(np.concatenate([pixels(first.labeled), pixels(first.unlabeled)]), axis=0)) == 4


def test_every_class_occurs_and_background_is_most(scenes):
    shares = np.bincount(np.concatenate([mask.ravel() for _, mask in scenes])) / (150 * IMAGE_SIZE**2)
    assert len(shares) == len(CLASSES) + 1 and shares[0] > 0.4 and shares[1:].min() > 0.015


def test_a_scene_is_labelled_where_its_objects_are(scenes):
    jumps = np.array([abs(np.diff(image.astype(float), axis=1)).mean(-1) for image, _ in scenes])
    borders = np.array([np.diff(mask.astype(int), axis=1) != 0 for _, mask in scenes])
    assert jumps[borders].mean() > 1.5 * jumps[~borders].mean()
