"""A network, a dataset and a reference small enough to train in milliseconds. No test lives here."""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from datasets import Dataset, Features, Image, Value
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedConfig, PreTrainedModel, SegformerImageProcessor
from transformers.modeling_outputs import SemanticSegmenterOutput

from pos_hf.data import PairSampler
from pos_hf.training import POSConfig, POSTrainer

NUM_CLASSES = 3
SIZE = 8
TRAINERS_OWN = (
    "eval_dataset",
    "processing_class",
    "data_collator",
    "optimizer_cls_and_kwargs",
    "compute_metrics",
    "compute_loss_func",
    "preprocess_logits_for_metrics",
    "model_init",
)


class TinyConfig(PreTrainedConfig):
    model_type = "tiny_segmenter"


class TinySegmenter(PreTrainedModel):
    """Two convolutions without BatchNorm, and a parameter that no loss ever uses."""

    config_class = TinyConfig
    base_model_prefix = "backbone"
    main_input_name = "pixel_values"

    def __init__(self, config: TinyConfig) -> None:
        super().__init__(config)
        self.backbone = nn.Conv2d(3, 6, 3, padding=1)
        self.head = nn.Conv2d(6, NUM_CLASSES, 1)
        self.unused = nn.Parameter(torch.ones(3))
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        pass

    def get_input_embeddings(self) -> None:
        return None

    def forward(self, pixel_values: Tensor, **kwargs: Any) -> SemanticSegmenterOutput:
        features = self.backbone(pixel_values.to(self.dtype)).tanh()
        return SemanticSegmenterOutput(logits=self.head(features))


def tiny_model(dtype: torch.dtype = torch.float64) -> TinySegmenter:
    torch.manual_seed(0)
    config = TinyConfig(num_labels=NUM_CLASSES)
    return TinySegmenter(config).to(dtype)


class TinyPairs(torch.utils.data.Dataset):
    """Random pairs in the form of `PairedDataset`'s items: no padding, every label valid.

    Only with a `second_draw`, UniMatch V1's partner, are there CutMix boxes: a partner from the flipped batch
    would depend on how the batch is cut up.
    """

    def __init__(
        self, num_labeled: int = 5, num_unlabeled: int = 24, second_draw: bool = False, size: int = SIZE
    ) -> None:
        self.second_draw = second_draw
        self.size = size
        self.labeled = [self._row(seed) for seed in range(num_labeled)]
        self.unlabeled = [self._row(1000 + seed) for seed in range(num_unlabeled)]

    def _row(self, seed: int) -> dict[str, Tensor]:
        rng = np.random.default_rng(seed)
        side = self.size
        weak = torch.from_numpy(rng.integers(0, 256, (3, side, side), dtype=np.uint8))
        noise = torch.from_numpy(rng.integers(0, 64, (2, 3, side, side), dtype=np.uint8))
        labels = torch.from_numpy(rng.integers(0, NUM_CLASSES, (side, side)))
        return {"weak": weak, "strong": (weak // 2) + noise, "labels": labels}

    def __len__(self) -> int:
        return len(self.unlabeled)

    def sampler(self, seed: int) -> PairSampler:
        return PairSampler(len(self.labeled), len(self.unlabeled), seed)

    def for_method(self, num_strong_views: int, second_draw: bool) -> "TinyPairs":
        return self

    def names(self, key: tuple[int, int, int]) -> dict[str, str]:
        return {"labeled": f"labeled_{key[1]}", "unlabeled": f"unlabeled_{key[2]}"}

    def __getitem__(self, key: tuple[int, int, int]) -> dict[str, dict[str, Tensor]]:
        _, labeled, unlabeled = key
        row, other = self.labeled[labeled], self.unlabeled[unlabeled]
        item = {
            "labeled": {"pixel_values": row["weak"], "labels": row["labels"]},
            "unlabeled": self._unlabeled(other, torch.zeros(2, 4, dtype=torch.int64)),
        }
        item["unlabeled"]["key"] = torch.tensor(key)
        if self.second_draw:
            boxes = torch.tensor([[unlabeled % 4, 1, 4, 5], [2, unlabeled % 3, 5, 3]])
            item["unlabeled"]["cutmix_boxes"] = boxes
            item["partner"] = self._unlabeled(self._row(2000 + unlabeled), boxes)
        return item

    @staticmethod
    def _unlabeled(row: dict[str, Tensor], boxes: Tensor) -> dict[str, Tensor]:
        return {
            "pixel_values": row["weak"],
            "strong_pixel_values": row["strong"],
            "cutmix_boxes": boxes,
            "padding_mask": torch.zeros_like(row["labels"], dtype=torch.bool),
        }


def tiny_rows(num_rows: int = 4) -> Dataset:
    """Rows of `id`, `image` and `mask`, of two sizes."""
    random = np.random.default_rng(0)
    sizes = [(SIZE, SIZE + 2 * (index % 2)) for index in range(num_rows)]
    features = Features({"id": Value("string"), "image": Image(), "mask": Image()})
    rows = {
        "id": [str(index) for index in range(num_rows)],
        "image": [random.integers(0, 256, (*size, 3)).astype(np.uint8) for size in sizes],
        "mask": [random.integers(0, NUM_CLASSES, size).astype(np.uint8) for size in sizes],
    }
    return Dataset.from_dict(rows, features=features)


def tiny_trainer(output_dir: str, model: PreTrainedModel | None = None, **arguments: Any) -> POSTrainer:
    """A trainer on `TinyPairs`; keyword arguments go to POSConfig, those named below to POSTrainer."""
    own = {
        name: arguments.pop(name)
        for name in ("method", "strategy")
        if not isinstance(arguments.get(name, ""), str)
    }
    own |= {name: arguments.pop(name) for name in TRAINERS_OWN if name in arguments}
    dataset = arguments.pop("train_dataset", None) or TinyPairs()
    callbacks = arguments.pop("callbacks", None)
    defaults = {
        "use_cpu": True,
        "disable_tqdm": True,
        "save_strategy": "no",
        "logging_steps": 1,
        "per_device_train_batch_size": 4,
        "max_steps": 5,
        "learning_rate": 0.05,
        "head_learning_rate_multiplier": 2.0,
        "method_options": {"threshold": 0.36},
    }
    if arguments.get("method") == "supervised":
        del defaults["method_options"]
    args = POSConfig(output_dir=output_dir, **(defaults | arguments))
    return POSTrainer(
        model or tiny_model(),
        args,
        dataset,
        callbacks=callbacks,
        **{"processing_class": SegformerImageProcessor(do_resize=False)} | own,
    )


def reference_trajectory(
    batches: list[dict[str, dict[str, Tensor]]], *, meo: bool, uniform: bool, optimizer: str, method: str
) -> dict[str, Tensor]:
    """Train on full batches with both gradients from `torch.autograd.grad` and Eq. 6 and 13 written out.

    Args:
        batches: one collated, normalised float64 batch a step.
        meo: apply Eq. 13.
        uniform: take the uniform average instead.
        optimizer: "sgd" or "adamw".
        method: "fixmatch", "unimatch_v2" or "unimatch_v1".

    Returns:
        The student's parameters after the last step.
    """
    student, teacher = tiny_model(), tiny_model()
    used = [p for name, p in student.named_parameters() if name != "unused"]
    state: list[tuple[Tensor, Tensor]] = [(torch.zeros_like(p), torch.zeros_like(p)) for p in used]
    rates = [
        0.05 if name.startswith("backbone") else 0.1
        for name, _ in student.named_parameters()
        if name != "unused"
    ]
    for step, batch in enumerate(batches):
        g_s, g_u = (
            torch.autograd.grad(loss, used) for loss in _reference_losses(student, teacher, batch, method)
        )
        flat_s, flat_u = (torch.cat([g.flatten() for g in gradient]) for gradient in (g_s, g_u))
        w_s, w_u = (0.5, 0.5) if uniform else _equation_6_and_13(flat_s, flat_u, meo)
        decay = (1 - step / len(batches)) ** 0.9
        with torch.no_grad():
            for index, parameter in enumerate(used):
                gradient = w_s * g_s[index] + w_u * g_u[index]
                rate = rates[index] * decay
                if optimizer == "sgd":
                    parameter -= rate * (gradient + 0.01 * parameter)
                else:
                    first, second = state[index]
                    first = 0.9 * first + 0.1 * gradient
                    second = 0.999 * second + 0.001 * gradient**2
                    state[index] = (first, second)
                    unbiased = first / (1 - 0.9 ** (step + 1))
                    scale = (second / (1 - 0.999 ** (step + 1))).sqrt() + 1e-8
                    parameter -= rate * 0.01 * parameter
                    parameter -= rate * unbiased / scale
            share = min(1 - 1 / (step + 1), 0.996)
            for old, new in zip(teacher.parameters(), student.parameters(), strict=True):
                old.copy_(share * old + (1 - share) * new)
    return {name: p.detach() for name, p in student.named_parameters()}


def _reference_losses(
    student: nn.Module, teacher: nn.Module, batch: dict[str, dict[str, Tensor]], method: str
) -> Iterator[Tensor]:
    labeled, unlabeled = batch["labeled"], batch["unlabeled"]
    yield F.cross_entropy(student(labeled["pixel_values"]).logits, labeled["labels"])
    views = 1 if method == "fixmatch" else 2
    labeler = student if method == "unimatch_v1" else teacher
    confidence, pseudo_labels = labeler(unlabeled["pixel_values"]).logits.softmax(1).max(1)
    strong = unlabeled["strong_pixel_values"].clone()
    targets = [(confidence.clone(), pseudo_labels.clone()) for _ in range(views)]
    if method == "unimatch_v1":
        partner = batch["partner"]
        pasted = student(partner["pixel_values"]).logits.softmax(1).max(1)
        for image, view in itertools.product(range(len(strong)), range(views)):
            top, left, height, width = unlabeled["cutmix_boxes"][image, view].tolist()
            box = (slice(top, top + height), slice(left, left + width))
            strong[image, view, :, *box] = partner["strong_pixel_values"][image, view, :, *box]
            for target, patch in zip(targets[view], pasted, strict=True):
                target.data[image, *box] = patch[image, *box]
    losses = [_masked_loss(student(strong[:, view]).logits, *targets[view]) for view in range(views)]
    unsupervised = sum(losses) / views
    if method == "unimatch_v1":  # the tiny network offers no feature perturbation: the weak view itself
        weak = _masked_loss(student(unlabeled["pixel_values"]).logits, confidence, pseudo_labels)
        unsupervised = weak / 2 + unsupervised / 2
    yield unsupervised


def _masked_loss(logits: Tensor, confidence: Tensor, labels: Tensor) -> Tensor:
    kept = (confidence.detach() >= 0.36).double()
    return (F.cross_entropy(logits, labels, reduction="none") * kept).mean()


def _equation_6_and_13(g_s: Tensor, g_u: Tensor, meo: bool) -> tuple[Tensor, Tensor]:
    cosine = g_s @ g_u / (g_s.norm() * g_u.norm())
    if cosine >= g_u.norm() / g_s.norm():
        alpha_u = torch.ones(()).double()
    elif cosine >= g_s.norm() / g_u.norm():
        alpha_u = torch.zeros(()).double()
    else:
        alpha_u = (g_s - g_u) @ g_s / (g_u - g_s).norm() ** 2
    gain = ((g_s + g_u) / 2).norm() / (alpha_u * g_u + (1 - alpha_u) * g_s).norm() if meo else 1.0
    return gain * (1 - alpha_u), gain * alpha_u
