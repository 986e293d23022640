"""UniMatch V1: two strong views and a feature-perturbed weak view learn the student's own labels."""

from collections.abc import Generator, Iterator, Mapping
from typing import Literal

import torch
from torch import Tensor, cat, nn

from pos_hf.methods.base import Batch, LossTerm, predict_logits
from pos_hf.methods.confidence import Threshold
from pos_hf.methods.mixing import box_mask, paste
from pos_hf.methods.pseudo_labels import PseudoLabelMethod, PseudoLabels
from pos_hf.named import Spec


class UniMatchV1(PseudoLabelMethod):
    """Yang et al., UniMatch (CVPR 2023), as its published script: L_u = L_fp / 2 + (L_s1 + L_s2) / 4.

    Two BatchNorm modes make the labels: training mode, jointly with the labeled images, for the weak view;
    evaluation mode for the CutMix partner. The joint forward serves both objectives, so exact gradients need
    two backwards through it. They run before the strong views' forward, which frees the joint graph first:
    same gradients and BatchNorm statistics as the published order, 54% of its saved activations (ResNet-101).

    Args:
        threshold, supervised_loss, distribution_alignment, logit_adjustment: As in `PseudoLabelMethod`.
        feature_branch: Which forward carries the perturbed features. In brackets the step's FLOPs over the
            published single backward, for ResNet-101 at 321 pixels. "joint": as published (+36%).
            "joint_unlabeled": without the perturbed labeled rows, which the published code discards (+24%;
            the decoder's BatchNorm sees 3/4 of the rows). "separate": another forward of the weak view, so
            that no graph is shared and DDP reduces as usual (+12%; labeled and perturbed rows no longer share
            BatchNorm statistics).
        partner: What CutMix pastes. "second_draw": another random view of the same image, labeled by a
            forward in evaluation mode, as published. "flip": the image of the flipped batch with its labels
            of training mode (saves that forward, 6.5% of the published step; the author recommends it).
    """

    uses_teacher = False
    num_strong_views = 2

    def __init__(
        self,
        threshold: Threshold = 0.95,
        supervised_loss: Spec = "cross_entropy",
        distribution_alignment: bool = False,
        logit_adjustment: bool = False,
        feature_branch: Literal["joint", "joint_unlabeled", "separate"] = "joint",
        partner: Literal["second_draw", "flip"] = "second_draw",
    ) -> None:
        super().__init__(threshold, supervised_loss, distribution_alignment, logit_adjustment)
        self.feature_branch = feature_branch
        self.shared_forward = feature_branch != "separate"
        self.second_draw = partner == "second_draw"

    def losses(self, student: nn.Module, teacher: nn.Module | None, batch: Batch) -> Iterator[LossTerm]:
        unlabeled = batch["unlabeled"]
        partner_logits = self._evaluation_logits(student, batch["partner"]) if self.second_draw else None
        weak = yield from self._weak_terms(student, batch)
        if partner_logits is None:
            partner, partner_views = weak.flip(), unlabeled["strong_pixel_values"].flip(0)
        else:
            partner = self.pseudo_labels(partner_logits, batch["partner"]["padding_mask"], observe=False)
            partner_views = batch["partner"]["strong_pixel_values"]

        box_1, box_2 = box_mask(unlabeled["cutmix_boxes"], *weak.labels.shape[-2:]).unbind(1)
        strong_1 = paste(unlabeled["strong_pixel_values"][:, 0], partner_views[:, 0], box_1)
        strong_2 = paste(unlabeled["strong_pixel_values"][:, 1], partner_views[:, 1], box_2)
        logits_1, logits_2 = predict_logits(student, cat([strong_1, strong_2])).chunk(2)
        loss_1 = self.unsupervised_loss(logits_1, weak.paste(partner, box_1))
        loss_2 = self.unsupervised_loss(logits_2, weak.paste(partner, box_2))
        statistics = {"strong_1_loss": loss_1.detach(), "strong_2_loss": loss_2.detach()}
        yield LossTerm("unsupervised", (loss_1 + loss_2) / 4, statistics)

    @torch.no_grad()
    def _evaluation_logits(self, student: nn.Module, partner: Mapping[str, Tensor]) -> Tensor:
        training = [module for module in student.modules() if module.training]  # frozen parts are not
        student.eval()
        logits = predict_logits(student, partner["pixel_values"])
        for module in training:
            module.training = True
        return logits

    def _weak_terms(self, student: nn.Module, batch: Batch) -> Generator[LossTerm, None, PseudoLabels]:
        """Yield the supervised and the feature-perturbed term; return the weak view's labels.

        A generator of its own, so that the joint graph dies with its frame before the strong views' forward.
        """
        labeled, unlabeled = batch["labeled"], batch["unlabeled"]
        images = cat([labeled["pixel_values"], unlabeled["pixel_values"]])
        counts = [len(labeled["pixel_values"]), len(unlabeled["pixel_values"])]
        if self.feature_branch == "separate":
            labeled_logits, weak_logits = predict_logits(student, images).split(counts)
        else:
            first = 0 if self.feature_branch == "joint" else 1  # of the two groups to be perturbed
            logits = predict_logits(student, images, "channel_dropout", sum(counts[:first]))
            labeled_logits, weak_logits, *_, perturbed_logits = logits.split(counts + counts[first:])

        supervised_loss = self.supervised_loss(labeled_logits, labeled["labels"])
        weak = self.pseudo_labels(weak_logits, unlabeled["padding_mask"])
        yield LossTerm("supervised", supervised_loss, retain_graph=self.shared_forward)

        if self.feature_branch == "separate":
            logits = predict_logits(student, unlabeled["pixel_values"], "channel_dropout")
            perturbed_logits = logits[len(weak.labels) :]
        loss = self.unsupervised_loss(perturbed_logits, weak)
        statistics = {"kept_share": weak.kept_share(), "feature_loss": loss.detach()}
        yield LossTerm("unsupervised", loss / 2, statistics)
        return weak
