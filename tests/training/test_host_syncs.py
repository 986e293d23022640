"""From batch to teacher update, a step asks for nothing that the accelerator has to be waited for."""

from functools import partialmethod

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from pos_hf.training.callbacks import KeepInStep

from .tiny import tiny_trainer


class NoHostSync(TorchDispatchMode):
    """Fails on every operation whose result or shape an accelerator would have to send to the host."""

    HOST_METHODS = (
        "item",
        "tolist",
        "cpu",
        "numpy",
        "nonzero",
        "__bool__",
        "__float__",
        "__int__",
        "__index__",
    )
    HOST_OPERATIONS = ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "equal", "is_nonzero")

    def __enter__(self):
        self.patches = pytest.MonkeyPatch()
        for name in self.HOST_METHODS:
            self.patches.setattr(torch.Tensor, name, partialmethod(self.refuse, name))
        return super().__enter__()

    def __exit__(self, *error):
        self.patches.undo()
        return super().__exit__(*error)

    @staticmethod
    def refuse(tensor, name, *args, **kwargs):
        raise AssertionError(f"{name} waits for the accelerator")

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        by_mask = name in ("index", "index_put", "index_put_", "_index_put_impl_") and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        if by_mask or name in self.HOST_OPERATIONS:
            raise AssertionError(f"{function} waits for the accelerator")
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "wait",
    [lambda x: x.sum().item(), lambda x: float(x[0]), lambda x: x[x > 0], lambda x: x.cpu(), torch.nonzero],
    ids=["item", "float", "mask", "cpu", "nonzero"],
)
def test_the_guard_notices_a_wait(wait):
    with pytest.raises(AssertionError, match="waits"), NoHostSync():
        wait(torch.ones(3))


SHORT = {name: {"name": name, "decay": 0.2} for name in ("freematch", "softmatch", "daw")}


@pytest.mark.parametrize(
    ("strategy", "strategy_options", "accumulation"),
    [("uniform", None, 1), ("pos", None, 2), ("pos", {"min_weight": 0}, 2)],
    ids=["uniform", "pos", "paper"],
)
@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("mean_teacher", {}),
        ("cutmix_seg", {}),
        ("fixmatch", {"mixing": "classmix", "threshold": SHORT["freematch"], "distribution_alignment": True}),
        ("fixmatch", {"teacher": "student", "threshold": SHORT["daw"], "supervised_loss": "ohem"}),
        ("unimatch_v1", {"partner": "flip", "threshold": SHORT["softmatch"]}),
        (
            "unimatch_v2",
            {"threshold": 0.36, "supervised_loss": {"name": "cross_entropy", "class_weights": "balanced"}},
        ),
        ("unimatch_v2", {"threshold": "corrmatch"}),
        ("unimatch_v2", {"threshold": "covar"}),
        ("u2pl", {}),
        ("augseg", {}),
    ],
    ids=str,
)
def test_a_step_never_waits_for_the_accelerator(
    tmp_path, method, options, strategy, strategy_options, accumulation
):
    trainer = tiny_trainer(
        str(tmp_path),
        method=method,
        method_options=options,
        strategy=strategy,
        strategy_options=strategy_options,
        gradient_accumulation_steps=accumulation,
        max_steps=2,
    )
    (hooks,) = (hook for hook in trainer.callback_handler.callbacks if isinstance(hook, KeepInStep))
    steps = (hooks, "on_pre_optimizer_step"), (hooks, "on_optimizer_step")
    watched = ((trainer, "training_step"), (trainer, "_get_grad_norm"), *steps)
    calls = []
    for owner, name in watched:
        setattr(owner, name, guarded(getattr(owner, name), calls))
    trainer.train()
    assert calls.count("training_step") == 2 * accumulation
    for _, name in watched[1:]:
        assert calls.count(name) == 2


def guarded(function, calls):
    def call(*args, **kwargs):
        calls.append(function.__name__)
        with NoHostSync():
            return function(*args, **kwargs)

    return call
