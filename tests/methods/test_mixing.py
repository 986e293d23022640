"""CutMix boxes and ClassMix masks against loops and counts."""

import torch

from pos_hf.methods.mixing import box_mask, class_mask, paste, random_boxes
from tests.methods.published import cutmix


def test_pasting_a_box_equals_the_pixel_loop_for_images_and_label_maps():
    boxes = torch.tensor([[0, 0, 0, 0], [1, 2, 3, 4], [0, 0, 6, 9], [5, 8, 1, 1]])
    mask = box_mask(boxes, 6, 9)
    images, patches = torch.randn(2, 4, 3, 6, 9).unbind(0)
    assert torch.equal(paste(images, patches, mask), cutmix(images, patches, boxes))
    labels, other = torch.randint(0, 9, (2, 4, 6, 9)).unbind(0)
    assert torch.equal(paste(labels, other, mask), cutmix(labels, other, boxes))
    assert mask.sum((1, 2)).tolist() == [0, 12, 54, 1]


def test_box_mask_keeps_leading_axes():
    boxes = torch.tensor([[[0, 0, 2, 2], [1, 1, 1, 3]]])
    assert box_mask(boxes, 4, 5).shape == (1, 2, 4, 5)
    assert torch.equal(box_mask(boxes, 4, 5)[0, 1], box_mask(boxes[0, 1], 4, 5))


def test_random_boxes_lie_inside_and_have_the_published_area():
    boxes = random_boxes(torch.empty(4000, 3, 60, 80))
    top, left, height, width = boxes.unbind(1)
    assert (boxes >= 0).all() and (top + height <= 60).all() and (left + width <= 80).all()
    area = (height * width) / (60 * 80)
    assert area.max() <= 0.4
    assert 0.19 < area.mean() < 0.21  # U(0.02, 0.4) has mean 0.21, less what rounding down takes
    # uniform place: the box's centre is the image's on average
    assert abs((top + height / 2).mean() / 60 - 0.5) < 0.02
    assert abs((left + width / 2).mean() / 80 - 0.5) < 0.02


def test_class_mask_takes_whole_classes_half_of_them_and_no_padding():
    labels = torch.tensor([[0, 0, 1, 1], [2, 2, 3, 3], [4, 4, 4, 4], [7, 7, 7, 7]]).repeat(50, 1, 1)
    valid = torch.ones_like(labels, dtype=torch.bool)
    valid[:, 3] = False  # class 7 is seen on padding only
    mask = class_mask(labels, valid)
    assert not mask[~valid].any()
    taken = torch.zeros(5)
    for image_labels, image_mask in zip(labels, mask, strict=True):
        classes = image_labels[image_mask].unique()
        assert len(classes) == 2  # half of five, rounded down
        for label in classes:
            assert image_mask[image_labels == label].all()
            taken[label] += 1
    assert (taken > 5).all()  # every class is drawn, about 20 times each


def test_class_mask_of_a_single_class_is_empty():
    labels = torch.full((2, 3, 3), 4)
    assert not class_mask(labels, torch.ones_like(labels, dtype=torch.bool)).any()
