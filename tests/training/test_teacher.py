"""The EMA teacher: decay, buffers, state, DTensor parameters and ranks."""

import copy

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from pos_hf.training.teacher import EMATeacher


class Student(nn.Module):
    """Parameters, BatchNorm (float and int64 buffers), a plain index buffer and a frozen layer."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.frozen = nn.Linear(2, 2).requires_grad_(False)
        self.register_buffer("index", torch.arange(49 * 49).view(49, 49))


def perturb(student):
    with torch.no_grad():
        for parameter in student.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter))
        student.norm.running_mean.add_(1)
        student.norm.num_batches_tracked.add_(1)


@pytest.mark.parametrize(
    ("step", "decay"), [(0, 0.0), (1, 0.5), (248, 1 - 1 / 249), (249, 0.996), (10_000, 0.996)]
)
def test_decay_follows_the_published_warm_up(step, decay):
    teacher = EMATeacher(nn.Linear(2, 2))
    assert teacher.decay(step) == pytest.approx(decay, abs=1e-15)
    assert teacher.decay(250) == 0.996 > teacher.decay(248)


def test_teacher_is_the_student_after_step_0_and_no_longer_follows_it_by_itself():
    student = Student()
    teacher = EMATeacher(student)
    perturb(student)
    assert not torch.equal(teacher.model.conv.weight, student.conv.weight)
    teacher.update(student, 0)
    for name, value in student.state_dict().items():
        assert torch.equal(teacher.model.state_dict()[name], value)
    assert not teacher.model.training
    assert not any(p.requires_grad for p in teacher.model.parameters())


def test_updates_equal_the_published_recursion_in_float64():
    student = Student().double()
    teacher = EMATeacher(student)
    floats = {n: v.clone() for n, v in student.state_dict().items() if v.is_floating_point()}
    for step in range(300):
        perturb(student)
        teacher.update(student, step)
        r = min(1 - 1 / (step + 1), 0.996)
        for name, value in floats.items():
            value.copy_(value * r + student.state_dict()[name] * (1 - r))
    for name, value in floats.items():
        torch.testing.assert_close(teacher.model.state_dict()[name], value, rtol=1e-12, atol=1e-12)
    assert teacher.model.norm.num_batches_tracked == 300  # copied, not averaged


def test_integer_buffers_and_frozen_parameters_are_untouched_by_2000_updates():
    student = Student()
    student.index += 1
    teacher = EMATeacher(student)
    for step in range(2000):
        teacher.update(student, step)
    assert torch.equal(teacher.model.index, student.index)
    assert teacher.model.index.dtype == torch.int64
    assert torch.equal(teacher.model.frozen.weight, student.frozen.weight)


def test_state_survives_a_checkpoint_bit_for_bit(tmp_path):
    student = Student()
    teacher = EMATeacher(student)
    for step in range(5):
        perturb(student)
        teacher.update(student, step)
    torch.save(teacher.state_dict(), tmp_path / "teacher.pt")
    resumed = EMATeacher(Student())
    resumed.load_state_dict(torch.load(tmp_path / "teacher.pt"))
    perturb(student)
    teacher.update(student, 5)
    resumed.update(student, 5)
    for name, value in teacher.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value)


def test_the_students_gradients_and_mode_are_left_alone():
    student = Student().train()
    student.conv.weight.grad = torch.ones_like(student.conv.weight)
    EMATeacher(student).update(student, 3)
    assert student.training and student.conv.weight.requires_grad
    assert torch.equal(student.conv.weight.grad, torch.ones_like(student.conv.weight))


def test_sharded_parameters_are_averaged_in_place(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        mesh = init_device_mesh("cpu", (1,))
        student = Student()
        teacher = EMATeacher(student)
        for model in (student, teacher.model):
            for name, parameter in list(model.named_parameters()):
                sharded = nn.Parameter(
                    distribute_tensor(parameter.detach(), mesh, [Shard(0)]), parameter.requires_grad
                )
                owner, _, leaf = name.rpartition(".")
                setattr(model.get_submodule(owner), leaf, sharded)
        with torch.no_grad():
            student.conv.weight.mul_(3)
            student.norm.running_mean.add_(1)
        expected = (teacher.model.conv.weight.full_tensor() + student.conv.weight.full_tensor()) / 2
        teacher.update(student, 1)
        assert isinstance(teacher.model.conv.weight, DTensor)
        torch.testing.assert_close(teacher.model.conv.weight.full_tensor(), expected)
        assert teacher.model.norm.running_mean.tolist() == [0.5] * 4
    finally:
        dist.destroy_process_group()


def _update_on_two_ranks(rank, store, results):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    torch.manual_seed(0)
    student = nn.BatchNorm1d(3)
    teacher = EMATeacher(copy.deepcopy(student))
    student.running_mean.fill_(rank + 1.0)  # BatchNorm saw other images on each rank
    student.num_batches_tracked.fill_(10 * rank + 7)
    teacher.update(student, 1)
    torch.save((student.state_dict(), teacher.state_dict()), results / f"{rank}.pt")
    dist.destroy_process_group()


def test_every_rank_averages_rank_0s_batchnorm_statistics(tmp_path):
    context = torch.multiprocessing.get_context("fork")
    ranks = [
        context.Process(target=_update_on_two_ranks, args=(rank, tmp_path / "store", tmp_path))
        for rank in (0, 1)
    ]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(60)
        assert process.exitcode == 0
    (student_0, teacher_0), (student_1, teacher_1) = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    for name in ("running_mean", "num_batches_tracked"):
        assert torch.equal(student_0[name], student_1[name])
        assert torch.equal(teacher_0[name], teacher_1[name])
    assert teacher_0["running_mean"].tolist() == [0.5, 0.5, 0.5]  # halfway from 0 to rank 0's 1
    assert teacher_0["num_batches_tracked"] == 7
