"""Cross pseudo supervision: two students, each learning the other's hard labels of CutMix images."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, cat, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import SemanticSegmenterOutput

from pos_hf.methods.base import Batch, LossTerm, Method, predict_logits
from pos_hf.methods.mixing import box_mask, paste, random_boxes
from pos_hf.methods.pseudo_labels import PseudoLabels, pseudo_label_loss


class StudentPair(nn.Module):
    """Two networks trained as one student.

    In training mode the logits' rows are [first; second], [2N, C, H, W]; in evaluation mode they are the
    first network's, which is the one to deploy.

    Args:
        first: A segmentation model.
        second: The same architecture with another initialisation (at least of its head).
    """

    first: PreTrainedModel
    second: PreTrainedModel

    def __init__(self, first: PreTrainedModel, second: PreTrainedModel) -> None:
        super().__init__()
        self.first = first
        self.second = second

    def forward(self, pixel_values: Tensor) -> SemanticSegmenterOutput:
        logits = predict_logits(self.first, pixel_values)
        if self.training:
            logits = cat([logits, predict_logits(self.second, pixel_values)])
        return SemanticSegmenterOutput(logits=logits)


class CPS(Method):
    """Chen et al. (CVPR 2021), its CutMix variant on weak views; the student must be a `StudentPair`.

    Every pixel counts (no threshold). Both objectives are sums over the two networks, so a strategy balances
    the pair as one set of parameters, where the paper has two optimizers with fixed weights. The partner is
    the flipped batch; boxes are UniMatch's.
    """

    uses_teacher = False
    num_strong_views = 0
    num_students = 2

    def losses(self, student: nn.Module, teacher: nn.Module | None, batch: Batch) -> Iterator[LossTerm]:
        yield self.supervised_term(student, batch["labeled"])

        images, padding = batch["unlabeled"]["pixel_values"], batch["unlabeled"]["padding_mask"]
        box = box_mask(random_boxes(images), *images.shape[-2:])
        target_1, target_2 = self._targets(student, images, padding)
        logits_1, logits_2 = predict_logits(student, paste(images, images.flip(0), box)).chunk(2)
        loss_1 = pseudo_label_loss(logits_1, target_2.paste(target_2.flip(), box))
        loss_2 = pseudo_label_loss(logits_2, target_1.paste(target_1.flip(), box))
        statistics = {"first_loss": loss_1.detach(), "second_loss": loss_2.detach()}
        yield LossTerm("unsupervised", loss_1 + loss_2, statistics)

    def supervised_term(self, student: nn.Module, labeled: Mapping[str, Tensor]) -> LossTerm:
        """The supervised objective, summed over both networks."""
        logits_1, logits_2 = predict_logits(student, labeled["pixel_values"]).chunk(2)
        loss_1 = self.supervised_loss(logits_1, labeled["labels"])
        return LossTerm("supervised", loss_1 + self.supervised_loss(logits_2, labeled["labels"]))

    @torch.no_grad()
    def _targets(self, student: nn.Module, images: Tensor, padding: Tensor) -> list[PseudoLabels]:
        labels = predict_logits(student, images).argmax(1)
        return [PseudoLabels(one, (~padding).float(), ~padding) for one in labels.chunk(2)]
