"""FSDP2 through accelerate on gloo: accelerate shards on accelerators alone, PyTorch on any device."""

from typing import Any

from accelerate import PartialState
from accelerate.utils import DistributedType


def fsdp2_arguments() -> dict[str, Any]:
    """Of POSConfig, fresh ones: transformers writes into them."""
    return {
        "fsdp": True,
        "fsdp_config": {"version": 2},
        "accelerator_config": {"gradient_accumulation_kwargs": {"sync_each_batch": True}},
    }


def pretend_to_be_gpus() -> None:
    """From now on accelerate takes gloo processes for the kind that it shards on; everything else is real."""
    original = PartialState.__init__

    def init(self: PartialState, *args: object, **kwargs: object) -> None:
        original(self, *args, **kwargs)
        if self.distributed_type == DistributedType.MULTI_CPU:
            self.distributed_type = DistributedType.MULTI_GPU

    PartialState.__init__ = init
