"""The published training steps, written anew as plain loops over pixels, in float64. No tests."""

import torch

IGNORED = 255


def pixel_cross_entropy(logits_C, label):
    """-log softmax(logits)[label] of one pixel."""
    exponentials = torch.exp(logits_C)
    return -torch.log(exponentials[label] / exponentials.sum())


def labeled_loss(logits, labels):
    """L_x: mean over the pixels that are not 255."""
    total, count = 0.0, 0
    for n, row, column in pixels(labels):
        if labels[n, row, column] != IGNORED:
            total = total + pixel_cross_entropy(logits[n, :, row, column], labels[n, row, column])
            count += 1
    return total / count


def confidences_and_labels(logits):
    """Per pixel: the largest softmax probability and its class."""
    logits = logits.detach()
    confidence, label = (
        torch.zeros(logits[:, 0].shape, dtype=torch.float64),
        torch.zeros(logits[:, 0].shape).long(),
    )
    for n, row, column in pixels(confidence):
        exponentials = torch.exp(logits[n, :, row, column])
        probabilities = exponentials / exponentials.sum()
        label[n, row, column] = max(range(len(probabilities)), key=lambda c, p=probabilities: p[c].item())
        confidence[n, row, column] = probabilities[label[n, row, column]]
    return confidence, label


def ignore_map(padding_mask):
    """0, and 255 on padding."""
    return torch.where(padding_mask, IGNORED, 0)


def unlabeled_loss(logits, labels, confidence, ignore, threshold):
    """Sum of the confident pixels' cross-entropies over the number of non-padded pixels."""
    total, count = 0.0, 0
    for n, row, column in pixels(labels):
        if ignore[n, row, column] == IGNORED:
            continue
        count += 1
        if confidence[n, row, column] >= threshold:
            total = total + pixel_cross_entropy(logits[n, :, row, column], labels[n, row, column])
    return total / count


def cutmix(base, patch, boxes):
    """A copy of `base` [N, ..., H, W] with `patch` inside each image's box (top, left, height, width)."""
    mixed = base.clone()
    for n, (top, left, height, width) in enumerate(boxes.tolist()):
        for row in range(top, top + height):
            for column in range(left, left + width):
                mixed[n, ..., row, column] = patch[n, ..., row, column]
    return mixed


def pixels(maps_NHW):
    """All (image, row, column)."""
    count, height, width = maps_NHW.shape
    return [(n, row, column) for n in range(count) for row in range(height) for column in range(width)]


def flipped(values):
    """The batch in reverse order."""
    return torch.stack([values[len(values) - 1 - n] for n in range(len(values))])


def fixmatch_v2(student, teacher, batch, threshold):
    """UniMatch V2's fixmatch.py (without BatchNorm its joint forward is two): L_x, L_s, the total."""
    labeled, unlabeled = batch["labeled"], batch["unlabeled"]
    confidence, label = confidences_and_labels(teacher(unlabeled["pixel_values"]).logits)
    ignore = ignore_map(unlabeled["padding_mask"])
    boxes = unlabeled["cutmix_boxes"][:, 0]
    strong = unlabeled["strong_pixel_values"][:, 0]

    loss_x = labeled_loss(student(labeled["pixel_values"]).logits, labeled["labels"])
    logits = student(cutmix(strong, flipped(strong), boxes)).logits
    mixed = [cutmix(values, flipped(values), boxes) for values in (label, confidence, ignore)]
    loss_s = unlabeled_loss(logits, *mixed, threshold)
    return loss_x, loss_s, (loss_x + loss_s) / 2


def fixmatch_v1(student, teacher, batch, threshold):
    """UniMatch V1's fixmatch.py with the flipped batch as partner; labels from the joint training forward."""
    labeled, unlabeled = batch["labeled"], batch["unlabeled"]
    joint = student(torch.cat([labeled["pixel_values"], unlabeled["pixel_values"]])).logits
    count = len(labeled["labels"])
    loss_x = labeled_loss(joint[:count], labeled["labels"])
    confidence, label = confidences_and_labels(joint[count:])
    ignore = ignore_map(unlabeled["padding_mask"])
    boxes = unlabeled["cutmix_boxes"][:, 0]
    strong = unlabeled["strong_pixel_values"][:, 0]
    logits = student(cutmix(strong, flipped(strong), boxes)).logits
    mixed = [cutmix(values, flipped(values), boxes) for values in (label, confidence, ignore)]
    loss_s = unlabeled_loss(logits, *mixed, threshold)
    return loss_x, loss_s, (loss_x + loss_s) / 2


def unimatch_v1(student, teacher, batch, threshold):
    """UniMatch V1's unimatch.py, in its order: L_x, L_u, the total."""
    labeled, unlabeled, partner = batch["labeled"], batch["unlabeled"], batch["partner"]
    with torch.no_grad():
        student.eval()
        confidence_mix, label_mix = confidences_and_labels(student(partner["pixel_values"]).logits)
        ignore_mix = ignore_map(partner["padding_mask"])
    boxes = [unlabeled["cutmix_boxes"][:, k] for k in (0, 1)]
    strong = [
        cutmix(unlabeled["strong_pixel_values"][:, k], partner["strong_pixel_values"][:, k], boxes[k])
        for k in (0, 1)
    ]

    student.train()
    count = len(labeled["labels"])
    joint = student(torch.cat([labeled["pixel_values"], unlabeled["pixel_values"]]), "channel_dropout").logits
    unlabeled_count = len(boxes[0])
    clean, logits_fp = joint[: count + unlabeled_count], joint[-unlabeled_count:]
    logits_x, logits_weak = clean[:count], clean[count:]
    logits_strong = student(torch.cat(strong)).logits
    confidence, label = confidences_and_labels(logits_weak)
    ignore = ignore_map(unlabeled["padding_mask"])

    loss_x = labeled_loss(logits_x, labeled["labels"])
    losses_s = []
    for k in (0, 1):
        mixed = [
            cutmix(own, other, boxes[k])
            for own, other in ((label, label_mix), (confidence, confidence_mix), (ignore, ignore_mix))
        ]
        view = logits_strong[k * unlabeled_count : (k + 1) * unlabeled_count]
        losses_s.append(unlabeled_loss(view, *mixed, threshold))
    loss_fp = unlabeled_loss(logits_fp, label, confidence, ignore, threshold)
    loss_u = 0.25 * losses_s[0] + 0.25 * losses_s[1] + 0.5 * loss_fp
    return loss_x, loss_u, (loss_x + 0.25 * losses_s[0] + 0.25 * losses_s[1] + 0.5 * loss_fp) / 2


def unimatch_v2(student, teacher, batch, threshold):
    """UniMatch V2's unimatch_v2.py: L_x, L_u, the total."""
    labeled, unlabeled = batch["labeled"], batch["unlabeled"]
    confidence, label = confidences_and_labels(teacher(unlabeled["pixel_values"]).logits)
    ignore = ignore_map(unlabeled["padding_mask"])
    boxes = [unlabeled["cutmix_boxes"][:, k] for k in (0, 1)]
    views = [unlabeled["strong_pixel_values"][:, k] for k in (0, 1)]
    strong = [cutmix(views[k], flipped(views[k]), boxes[k]) for k in (0, 1)]

    count = len(label)
    logits_x = student(labeled["pixel_values"]).logits
    logits_strong = student(torch.cat(strong), "complementary_dropout").logits
    loss_x = labeled_loss(logits_x, labeled["labels"])
    losses_s = []
    for k in (0, 1):
        mixed = [cutmix(values, flipped(values), boxes[k]) for values in (label, confidence, ignore)]
        losses_s.append(unlabeled_loss(logits_strong[k * count : (k + 1) * count], *mixed, threshold))
    return loss_x, (losses_s[0] + losses_s[1]) / 2, (loss_x + (losses_s[0] + losses_s[1]) / 2) / 2
