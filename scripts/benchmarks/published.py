"""What a published training step does and costs (UniMatch V1 and V2), written anew from its description.

fp32 with materialised attention, float views on the wire, blocking copies, boolean-mask indexing,
denominators and losses read on the host, one backward of the summed loss, the optimizer's own defaults, and a
teacher updated tensor by tensor. The networks are ours: at the published sizes they are the same.
"""

import contextlib
import copy

import numpy as np
import torch
from data_pipeline import MEAN, STD, normalised, published_crop, published_item
from PIL import Image
from torch.nn import functional as F

from pos_hf.methods.mixing import box_mask

IGNORED = 255


class PublishedDataset(torch.utils.data.Dataset):
    """Labeled and unlabeled items as the published loaders make and send them.

    Args:
        images: paths of the pictures; the first `len(masks)` are labeled.
        masks: paths of the masks.
        crop: side of the crop in pixels.
        second_draw: V1's second stream, another draw of the same unlabeled image.
    """

    def __init__(self, images, masks, crop, second_draw):
        self.images, self.masks, self.crop, self.second_draw = images, masks, crop, second_draw

    def __len__(self):
        return 10**6

    def __getitem__(self, index):
        labeled = index % len(self.masks)
        image, mask = Image.open(self.images[labeled]).convert("RGB"), Image.open(self.masks[labeled])
        image, mask = published_crop(image, mask, self.crop, fill=IGNORED)
        path = self.images[index % len(self.images)]
        streams = [published_item(path, self.crop) for _ in range(1 + self.second_draw)]
        return normalised(image), torch.from_numpy(np.array(mask)).long(), *streams


def wire(batch):
    """One of our collated batches in the published form, so that both sides can train on the same images."""

    def stream(views):
        strong = (views["strong_pixel_values"] / 255 - MEAN) / STD
        boxes = box_mask(views["cutmix_boxes"], *views["padding_mask"].shape[-2:]).float()
        ignore = torch.where(views["padding_mask"], IGNORED, 0)
        weak = (views["pixel_values"] / 255 - MEAN) / STD
        return weak, strong[:, 0], strong[:, 1], ignore, boxes[:, 0], boxes[:, 1]

    labeled = (batch["labeled"]["pixel_values"] / 255 - MEAN) / STD
    streams = [stream(batch[group]) for group in ("unlabeled", "partner") if group in batch]
    return labeled, batch["labeled"]["labels"], *streams


class PublishedTraining:
    """A published run: networks, optimizer and one step.

    Args:
        workload: method and learning rates.
        model: the student with its first weights.
        total_steps: length of the schedule.
        section: `with section(name)` around each part of the step, for a breakdown of its time.
        threshold: confidence from which a pseudo-label counts.
        lag: steps by which the learning rate comes late; 1 is published.
    """

    def __init__(self, workload, model, total_steps, section=None, threshold=0.95, lag=1):
        self.model, self.method, self.threshold = model, workload.method, threshold
        self.total_steps, self.lag = total_steps, lag
        self.section = section or (lambda name: contextlib.nullcontext())
        self.device = next(model.parameters()).device
        self.teacher = (
            copy.deepcopy(model).eval().requires_grad_(False) if self.method == "unimatch_v2" else None
        )
        backbone, head = [], []
        for name, parameter in model.named_parameters():
            (backbone if name.startswith("backbone") else head).append(parameter)
        self.rates = workload.learning_rate, workload.learning_rate * workload.head_multiplier
        groups = [{"params": backbone, "lr": self.rates[0]}, {"params": head, "lr": self.rates[1]}]
        if self.method == "unimatch_v1":
            self.optimizer = torch.optim.SGD(groups, momentum=0.9, weight_decay=1e-4)
        else:
            self.optimizer = torch.optim.AdamW(groups, weight_decay=0.01)
        self.steps = 0

    def step(self, batch):
        """Train on one batch of the wire's form.

        Returns:
            (L_x, L_u, share of confident pixels) as host numbers.
        """
        with self.section("views"):
            images, labels, *streams = batch
            images, labels = images.to(self.device), labels.to(self.device)
            streams = [[tensor.to(self.device) for tensor in stream] for stream in streams]
        step = self._step_v1 if self.method == "unimatch_v1" else self._step_v2
        supervised, unsupervised, confident = step(images, labels, streams)
        with self.section("student"):
            loss = (supervised + unsupervised) / 2
            self.optimizer.zero_grad()
            loss.backward()
        with self.section("optimizer"):
            self.optimizer.step()
            rate = (1 - (self.steps + 1 - self.lag) / self.total_steps) ** 0.9
            for group, base in zip(self.optimizer.param_groups, self.rates, strict=True):
                group["lr"] = base * rate
        if self.teacher is not None:
            with self.section("ema"):
                self._update_teacher(min(1 - 1 / (self.steps + 1), 0.996))
        self.steps += 1
        loss.item()  # the logs of total, labeled and unlabeled loss are read in every step
        return supervised.item(), unsupervised.item(), confident.item()

    def _step_v2(self, images, labels, streams):
        (weak, strong_1, strong_2, ignore, box_1, box_2) = streams[0]
        with self.section("teacher"), torch.no_grad():
            confidence, pseudo = confidence_and_labels(self.teacher(weak).logits)
        with self.section("student"):
            paste_(strong_1, strong_1.flip(0), box_1)
            paste_(strong_2, strong_2.flip(0), box_2)
            self.model.train()
            logits_x = self.model(images).logits
            logits = self.model(
                torch.cat([strong_1, strong_2]), feature_perturbation="complementary_dropout"
            ).logits
            own = confidence, pseudo, ignore
            partner = [tensor.flip(0) for tensor in own]
            losses = [
                self._unlabeled_loss(
                    part, *(paste_(a.clone(), b, box) for a, b in zip(own, partner, strict=True))
                )
                for part, box in zip(logits.chunk(2), (box_1, box_2), strict=True)
            ]
            supervised = F.cross_entropy(logits_x, labels, ignore_index=IGNORED)
            return supervised, sum(losses) / 2, self._kept_share(confidence, ignore)

    def _step_v1(self, images, labels, streams):
        (weak, strong_1, strong_2, ignore, box_1, box_2), (other, other_1, other_2, ignore_mix, _, _) = (
            streams
        )
        with self.section("teacher"), torch.no_grad():
            self.model.eval()
            partner = *confidence_and_labels(self.model(other).logits), ignore_mix
        with self.section("student"):
            paste_(strong_1, other_1, box_1)
            paste_(strong_2, other_2, box_2)
            self.model.train()
            joint = self.model(torch.cat([images, weak]), feature_perturbation="channel_dropout").logits
            logits_x, logits_weak, _, logits_fp = joint.chunk(4)
            logits = self.model(torch.cat([strong_1, strong_2])).logits
            own = *confidence_and_labels(logits_weak.detach()), ignore
            losses = [
                self._unlabeled_loss(
                    part, *(paste_(a.clone(), b, box) for a, b in zip(own, partner, strict=True))
                )
                for part, box in zip(logits.chunk(2), (box_1, box_2), strict=True)
            ]
            supervised = F.cross_entropy(logits_x, labels, ignore_index=IGNORED)
            unsupervised = 0.25 * sum(losses) + 0.5 * self._unlabeled_loss(logits_fp, *own)
            return supervised, unsupervised, self._kept_share(own[0], ignore)

    def _unlabeled_loss(self, logits, confidence, labels, ignore):
        loss = F.cross_entropy(logits, labels, reduction="none")
        loss = loss * ((confidence >= self.threshold) & (ignore != IGNORED))
        return loss.sum() / (ignore != IGNORED).sum().item()

    def _kept_share(self, confidence, ignore):
        valid = ignore != IGNORED
        return ((confidence >= self.threshold) & valid).sum().item() / valid.sum()

    @torch.no_grad()
    def _update_teacher(self, decay):
        for kind in ("parameters", "buffers"):
            pairs = zip(getattr(self.teacher, kind)(), getattr(self.model, kind)(), strict=True)
            for old, new in pairs:
                old.copy_(old * decay + new.detach() * (1 - decay))


def confidence_and_labels(logits):
    return logits.softmax(dim=1).max(dim=1)[0], logits.argmax(dim=1)


def paste_(base, patch, box):
    """CutMix in place, by boolean-mask indexing, which waits for the device."""
    inside = box == 1 if base.dim() == 3 else box.unsqueeze(1).expand(base.shape) == 1
    base[inside] = patch[inside]
    return base
