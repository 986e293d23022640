"""Two FSDP2 processes on gloo: the sharded pair against the whole one. Run by torch.distributed.run."""

import copy

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from pos_hf.balancing import GradientPair, pos

PAPER = pos(min_weight=0)


def losses(network: nn.Module, batch: torch.Tensor):
    """Two forwards, each right before its backward."""
    yield (network(batch[0]) - 1).square().mean()
    yield (network(batch[1])[:, 0] * 3).square().mean()


def integrate(network: nn.Module, batch: torch.Tensor) -> tuple:
    pair = GradientPair([*network.parameters()])
    for objective, loss in zip(("supervised", "unsupervised"), losses(network, batch), strict=True):
        pair.restore(objective)
        loss.backward()
        pair.capture(objective)
    gramian = pair.gramian()
    weights = PAPER(gramian)
    pair.combine(weights)
    return gramian, weights


def main() -> None:
    dist.init_process_group("gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    torch.manual_seed(0)
    # 5 rows do not divide by 2 ranks: shards of different sizes
    whole = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    sharded = copy.deepcopy(whole)
    mesh = init_device_mesh("cpu", (world,))
    for layer in (sharded[0], sharded[2], sharded):
        fully_shard(layer, mesh=mesh)
    batches = torch.randn(2, 2 * world, 4, dtype=torch.float64)
    expected, expected_weights = integrate(whole, batches)
    found, weights = integrate(sharded, batches[:, 2 * rank : 2 * rank + 2])
    torch.testing.assert_close(torch.stack(found), torch.stack(expected), rtol=1e-12, atol=0)
    torch.testing.assert_close(torch.stack(weights), torch.stack(expected_weights), rtol=1e-12, atol=0)
    for parameter, reference in zip(sharded.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad.full_tensor(), reference.grad, rtol=1e-12, atol=1e-15)
    optimizers = [torch.optim.SGD(network.parameters(), lr=0.1) for network in (sharded, whole)]
    for optimizer in optimizers:
        optimizer.step()
    for parameter, reference in zip(sharded.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(parameter.full_tensor(), reference.detach(), rtol=1e-12, atol=1e-15)
