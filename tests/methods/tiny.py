"""A tiny BatchNorm network, a tiny float64 batch, and the trainer's part of the contract. No tests."""

from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import nn

CLASSES, SIZE = 5, 8


class TinyNet(nn.Module):
    """Two convolutions with BatchNorm between encoder and decoder; offers both feature perturbations."""

    supports_feature_perturbation = True

    def __init__(self, width=6):
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())
        self.decoder = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())
        self.classifier = nn.Conv2d(width, CLASSES, 1)

    def forward(self, pixel_values, feature_perturbation=None, perturb_from=0):
        features = self.encoder(pixel_values)
        if feature_perturbation == "channel_dropout":
            features = torch.cat([features, F.dropout2d(features[perturb_from:], 0.5)])
        elif feature_perturbation == "complementary_dropout":
            half, width = len(features) // 2, features.shape[1]
            mask = 2 * torch.bernoulli(features.new_full((half, width, 1, 1), 0.5))
            features = features * torch.cat([mask, 2 - mask])
        # a steep classifier, so that confidences of an untrained network lie on both sides of a threshold
        return SimpleNamespace(logits=8 * self.classifier(self.decoder(features)))


def tiny_group(batch_size=3, num_views=2):
    """One group of unlabeled tensors: padding at the right of the first image, one empty box."""
    boxes = torch.tensor(
        [[[1, 2, 3, 4], [0, 0, 8, 5]], [[2, 0, 6, 8], [0, 0, 0, 0]], [[0, 3, 5, 2], [3, 3, 4, 4]]]
    )
    padding_mask = torch.zeros(batch_size, SIZE, SIZE, dtype=torch.bool)
    padding_mask[0, :, 5:] = True
    return {
        "pixel_values": torch.randn(batch_size, 3, SIZE, SIZE, dtype=torch.float64),
        "strong_pixel_values": torch.randn(batch_size, num_views, 3, SIZE, SIZE, dtype=torch.float64),
        "cutmix_boxes": boxes[:batch_size, :num_views],
        "padding_mask": padding_mask,
    }


def tiny_batch(batch_size=3):
    """A float64 batch with some ignored labels and V1's partner group."""
    labels = torch.randint(0, CLASSES, (batch_size, SIZE, SIZE))
    labels[:, 0, :3] = 255
    pixel_values = torch.randn(batch_size, 3, SIZE, SIZE, dtype=torch.float64)
    labeled = {"pixel_values": pixel_values, "labels": labels}
    return {"labeled": labeled, "unlabeled": tiny_group(batch_size), "partner": tiny_group(batch_size)}


def with_labeled(batch, count):
    """The batch with its first labeled rows alone, as an `unlabeled_ratio` above 1 makes them fewer."""
    return batch | {"labeled": {name: values[:count] for name, values in batch["labeled"].items()}}


def tiny_student():
    """A TinyNet in training mode whose BatchNorm has seen data, so that its two modes differ."""
    net = TinyNet().double().train()
    with torch.no_grad():
        net(2 * torch.randn(4, 3, SIZE, SIZE, dtype=torch.float64) + 1)
    return net


def run_step(method, student, teacher, batch):
    """What the trainer does: backward on each term before the next, gradients captured per objective.

    Returns:
        Losses, gradients (one list in parameter order) and statistics, the first two by objective.
    """
    parameters = list(student.parameters())
    losses = dict.fromkeys(method.objectives, 0.0)
    gradients = {objective: [torch.zeros_like(p) for p in parameters] for objective in method.objectives}
    statistics = {}
    for term in method.losses(student, teacher, batch):
        term.loss.backward(retain_graph=term.retain_graph)
        losses[term.objective] += term.loss.detach()
        for total, parameter in zip(gradients[term.objective], parameters, strict=True):
            if parameter.grad is not None:
                total += parameter.grad
                parameter.grad = None
        statistics |= term.statistics
    return losses, gradients, statistics


class LiveSavedBytes(torch.autograd.graph.saved_tensors_hooks):
    """Counts the bytes of storages that graphs keep alive for their backwards, parameters excluded."""

    def __init__(self, model):
        self.parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
        self.holders = {}
        self.live = self.peak = 0
        super().__init__(self._pack, lambda saved: saved.tensor)

    def __enter__(self):
        super().__enter__()
        return self

    def _pack(self, tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() in self.parameters:
            return SimpleNamespace(tensor=tensor.detach())
        # detached: a node that saves its own output would keep itself alive through us
        return _Saved(self, tensor.detach(), storage.data_ptr(), storage.nbytes())


class _Saved:
    def __init__(self, counter, tensor, key, nbytes):
        self.counter, self.tensor, self.key, self.nbytes = counter, tensor, key, nbytes
        counter.holders[key] = counter.holders.get(key, 0) + 1
        if counter.holders[key] == 1:
            counter.live += nbytes
            counter.peak = max(counter.peak, counter.live)

    def __del__(self):
        self.counter.holders[self.key] -= 1
        if self.counter.holders[self.key] == 0:
            self.counter.live -= self.nbytes
