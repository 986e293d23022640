"""The EMA teacher: a copy that follows the student. When to update it is the trainer's business."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import nn


@torch.no_grad()
def broadcast_buffers(model: nn.Module) -> None:
    """Give every rank rank 0's buffers (BatchNorm statistics), in place; one message a dtype.

    DDP does so only at the next synchronised forward, and never under `no_sync`, while checkpoints hold rank
    0's: without this a resumed run is not the uninterrupted one.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return
    buffers = [*model.buffers()]
    for dtype in dict.fromkeys(buffer.dtype for buffer in buffers):
        group = [buffer for buffer in buffers if buffer.dtype == dtype]
        flat = torch.cat([buffer.flatten() for buffer in group])
        dist.broadcast(flat, 0)
        for buffer, values in zip(group, flat.split([buffer.numel() for buffer in group]), strict=True):
            buffer.copy_(values.view_as(buffer))


class EMATeacher:
    """Exponential moving average of a student, in evaluation mode and without gradients.

    The published warm-up (UniMatch V2): decay r = min(1 - 1/(step+1), max_decay), so the teacher is the
    student after step 0 and reaches 0.996 at step 249. Frozen parameters, which are the student's from the
    start, are left alone. Float buffers are blended like parameters, all others copied: averaging integers
    truncates them.

    Args:
        student: The unwrapped model, on its device and with its first weights; it is deep-copied to `model`.
        max_decay: The decay's plateau.
    """

    def __init__(self, student: nn.Module, max_decay: float = 0.996) -> None:
        self.model: Any = copy.deepcopy(student).eval().requires_grad_(False)
        self.max_decay = max_decay

    def decay(self, step: int) -> float:
        """The teacher's share at the 0-based optimizer step `step`."""
        return min(1 - 1 / (step + 1), self.max_decay)

    @torch.no_grad()
    def update(self, student: nn.Module, step: int) -> None:
        """Move the teacher towards the unwrapped `student` after the 0-based optimizer step `step`."""
        broadcast_buffers(student)
        weight = 1 - self.decay(step)
        # apart: sharded parameters are DTensors, buffers are not, and one foreach call takes only one kind
        pairs = zip(self.model.parameters(), student.parameters(), strict=True)
        followed = [(ours, theirs) for ours, theirs in pairs if theirs.requires_grad]
        torch._foreach_lerp_([ours for ours, _ in followed], [theirs for _, theirs in followed], weight)
        for buffer, target in zip(self.model.buffers(), student.buffers(), strict=True):
            if buffer.is_floating_point():
                buffer.lerp_(target, weight)
            else:
                buffer.copy_(target)

    def state_dict(self) -> dict[str, Any]:
        """The teacher model's own state dict."""
        return self.model.state_dict()

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave, bit for bit."""
        self.model.load_state_dict(state_dict)
