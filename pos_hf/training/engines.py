"""Which engines give both gradients exactly, and what is said to the others."""

from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import nn

from pos_hf.errors import InputError

from .arguments import POSConfig

DATA_PARALLEL = (DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)
EXACT_ENGINES = (DistributedType.NO, *DATA_PARALLEL, DistributedType.FSDP)


def refuse_inexact_engine(accelerator: Accelerator, args: POSConfig) -> None:
    """Stop before training on an engine whose gradients cannot be held apart exactly.

    Args:
        accelerator: of the Trainer.
        args: of the run.

    Raises:
        InputError: in one sentence, with what to use instead.
    """
    engine = accelerator.distributed_type
    if engine not in EXACT_ENGINES:
        raise InputError(
            f"{engine.value} does not give both gradients exactly; use one process, DDP or FSDP2"
        )
    if args.n_gpu > 1:
        raise InputError(
            f"nn.DataParallel over {args.n_gpu} GPUs does not give both gradients exactly; start one process "
            "a GPU with accelerate launch or torchrun"
        )
    if engine == DistributedType.FSDP:
        if accelerator.state.fsdp_plugin.fsdp_version != 2:
            raise InputError("FSDP1 flattens parameters across the two gradients; set fsdp_version: 2")
        if args.load_best_model_at_end:
            raise InputError(
                "load_best_model_at_end cannot fill a teacher that FSDP2 has sharded; leave it False, take "
                "teacher/ of the best checkpoint"
            )
        every_batch = accelerator.gradient_state.plugin_kwargs.get("sync_each_batch", False)
        if args.gradient_accumulation_steps > 1 and not every_batch:
            raise InputError(
                "FSDP2 hides gradients between synchronised micro-batches: with accumulation set "
                "accelerator_config to {gradient_accumulation_kwargs: {sync_each_batch: true}}"
            )


def synchronise_batch_norm(model: nn.Module, args: POSConfig) -> nn.Module:
    """Make every BatchNorm see the images of all processes, where `sync_batch_norm` asks for it.

    Args:
        model: changed in place; its weights keep their names.
        args: of the run.

    Returns:
        The model.

    Raises:
        InputError: the processes have no GPU, for which alone PyTorch has it.
    """
    if not args.sync_batch_norm or args.world_size == 1:
        return model
    if args.device.type == "cpu":
        raise InputError("sync_batch_norm needs GPUs, PyTorch has none for CPUs: set it to false")
    return nn.SyncBatchNorm.convert_sync_batchnorm(model)
