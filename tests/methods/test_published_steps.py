"""FixMatch, UniMatch V1 and V2 against the steps in published.py, and V1's re-ordered schedule."""

import copy

import pytest
import torch
from torch import nn

from pos_hf.methods import get_method
from tests.methods import published
from tests.methods.tiny import LiveSavedBytes, TinyNet, run_step, tiny_batch, tiny_student, with_labeled

THRESHOLD = 0.6
STEPS = {
    "fixmatch": ({}, published.fixmatch_v2),
    "fixmatch_student": ({"teacher": "student"}, published.fixmatch_v1),
    "unimatch_v1": ({}, published.unimatch_v1),
    "unimatch_v2": ({}, published.unimatch_v2),
}


def relative_error(ours, theirs):
    scale = max(1.0, max(t.abs().max().item() for t in theirs))
    return max((a - b).abs().max().item() for a, b in zip(ours, theirs, strict=True)) / scale


@pytest.mark.parametrize("labeled", [3, 2], ids="{}+3".format)
@pytest.mark.parametrize("case", STEPS)
def test_losses_gradients_and_batchnorm_equal_the_published_step(case, labeled):
    options, published_step = STEPS[case]
    method = get_method(case.removesuffix("_student"), threshold=THRESHOLD, **options)
    student, batch = tiny_student(), with_labeled(tiny_batch(), labeled)
    teacher = tiny_student().eval().requires_grad_(False) if method.uses_teacher else None
    reference = copy.deepcopy(student)

    torch.manual_seed(1)
    losses, gradients, statistics = run_step(method, student, teacher, batch)
    torch.manual_seed(1)
    loss_x, loss_u, total = published_step(reference, teacher, batch, THRESHOLD)
    parameters = list(reference.parameters())

    def gradient(loss):
        return torch.autograd.grad(loss, parameters, retain_graph=True, materialize_grads=True)

    assert 0.05 < statistics["kept_share"] < 0.95  # the threshold decides something
    assert abs(losses["supervised"] - loss_x.item()) < 1e-9
    assert abs(losses["unsupervised"] - loss_u.item()) < 1e-9
    assert relative_error(gradients["supervised"], gradient(loss_x)) < 1e-9
    assert relative_error(gradients["unsupervised"], gradient(loss_u)) < 1e-9
    uniform = [(s + u) / 2 for s, u in zip(gradients["supervised"], gradients["unsupervised"], strict=True)]
    assert relative_error(uniform, gradient(total)) < 1e-9
    if not method.uses_teacher:  # V2's networks have no BatchNorm: what ours does there is in test_methods.py
        for ours, theirs in zip(student.buffers(), reference.buffers(), strict=True):
            assert torch.equal(ours, theirs)
    assert student.training


def test_v1_named_terms_add_up_to_the_unsupervised_loss():
    losses, _, statistics = run_step(
        get_method("unimatch_v1", threshold=0.3), tiny_student(), None, tiny_batch()
    )
    strong = statistics["strong_1_loss"] + statistics["strong_2_loss"]
    torch.testing.assert_close(losses["unsupervised"], statistics["feature_loss"] / 2 + strong / 4)


def test_v2_named_terms_add_up_to_the_unsupervised_loss():
    method, teacher = get_method("unimatch_v2", threshold=0.3), tiny_student().eval()
    losses, _, statistics = run_step(method, tiny_student(), teacher, tiny_batch())
    strong = statistics["strong_1_loss"] + statistics["strong_2_loss"]
    torch.testing.assert_close(losses["unsupervised"], strong / 2)


def naive_v1_step(student, batch, threshold):
    """Both forwards, then two backwards: gradients of L_x and L_u by the published script's order."""
    loss_x, loss_u, _ = published.unimatch_v1(student, None, batch, threshold)
    parameters = list(student.parameters())
    supervised = torch.autograd.grad(loss_x, parameters, retain_graph=True)
    return supervised, torch.autograd.grad(loss_u, parameters)


def test_v1_reordered_schedule_gives_the_naive_gradients_and_bit_equal_batchnorm():
    student, batch = tiny_student(), tiny_batch()
    naive = copy.deepcopy(student)
    torch.manual_seed(2)
    _, gradients, _ = run_step(get_method("unimatch_v1", threshold=THRESHOLD), student, None, batch)
    torch.manual_seed(2)
    supervised, unsupervised = naive_v1_step(naive, batch, THRESHOLD)
    assert relative_error(gradients["supervised"], supervised) < 1e-12
    assert relative_error(gradients["unsupervised"], unsupervised) < 1e-12
    for ours, theirs in zip(student.buffers(), naive.buffers(), strict=True):
        assert torch.equal(ours, theirs)


class DeepNet(TinyNet):
    """A TinyNet whose encoder outweighs its decoder, as a ResNet's does (49.7 to 30.4 GFLOP an image)."""

    def __init__(self):
        super().__init__()
        layers = [
            nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU()) for _ in range(8)
        ]
        self.encoder.extend(layers)


def test_v1_reordered_schedule_saves_at_most_60_percent_of_the_naive_activations(capsys):
    student, batch = DeepNet().double(), tiny_batch()
    with LiveSavedBytes(student) as reordered:
        run_step(get_method("unimatch_v1", threshold=0.0), student, None, batch)
    assert reordered.live == 0

    with LiveSavedBytes(student) as naive:
        images = torch.cat([batch["labeled"]["pixel_values"], batch["unlabeled"]["pixel_values"]])
        joint = student(images, "channel_dropout").logits
        strong = student(batch["unlabeled"]["strong_pixel_values"].flatten(0, 1)).logits
        count = len(batch["labeled"]["labels"])
        for logits in (joint[:count], joint[3 * count :], *strong.chunk(2)):
            logits.log_softmax(1).logsumexp(1)
    ratio = reordered.peak / naive.peak
    with capsys.disabled():
        print(f"\nUniMatch V1, saved activations of the re-ordered over the naive schedule: {ratio:.1%}")
    assert ratio <= 0.6


@pytest.mark.parametrize("name", ["fixmatch", "unimatch_v2", "mean_teacher", "cutmix_seg", "u2pl", "augseg"])
def test_the_first_graph_is_freed_before_the_second_forward(name):
    student, teacher = tiny_student(), tiny_student().eval().requires_grad_(False)
    with LiveSavedBytes(student) as saved:
        live_at_forward = []
        student.register_forward_pre_hook(lambda *_: live_at_forward.append(saved.live))
        run_step(get_method(name), student, teacher, tiny_batch())
    assert live_at_forward == [0, 0]
    assert saved.peak > 0


def test_v1_leaves_frozen_parts_in_evaluation_mode():
    student = tiny_student()
    student.encoder.requires_grad_(False).eval()
    before = student.encoder[1].running_mean.clone()
    run_step(get_method("unimatch_v1", threshold=THRESHOLD), student, None, tiny_batch())
    assert student.training and student.decoder[1].training and not student.encoder[1].training
    assert torch.equal(student.encoder[1].running_mean, before)


def test_v1_separate_branch_shares_no_graph():
    student, method = tiny_student(), get_method("unimatch_v1", threshold=0.3, feature_branch="separate")
    assert not method.shared_forward
    with LiveSavedBytes(student) as saved:
        live_at_forward = []
        student.register_forward_pre_hook(lambda *_: live_at_forward.append(saved.live))
        for term in method.losses(student, None, tiny_batch()):
            assert not term.retain_graph
            term.loss.backward()
    assert live_at_forward == [0, 0, 0, 0]  # the partner's evaluation forward, joint, perturbed, strong


def test_v1_joint_unlabeled_branch_perturbs_only_the_unlabeled_rows():
    student, batch = tiny_student(), tiny_batch()
    rows = []
    student.classifier.register_forward_pre_hook(lambda _, inputs: rows.append(len(inputs[0])))
    run_step(get_method("unimatch_v1", feature_branch="joint_unlabeled"), student, None, batch)
    assert rows == [3, 9, 6]


def test_v1_flip_partner_needs_no_second_draw_and_no_evaluation_forward():
    student, batch = tiny_student(), tiny_batch()
    del batch["partner"]
    method = get_method("unimatch_v1", threshold=0.0, partner="flip")
    assert not method.second_draw and get_method("unimatch_v1").second_draw
    modes = []
    student.register_forward_pre_hook(lambda net, _: modes.append(net.training))
    losses, _, _ = run_step(method, student, None, batch)
    assert modes == [True, True]
    assert losses["unsupervised"] > 0


def test_an_unlabeled_batch_without_a_confident_pixel_gives_a_zero_gradient_not_none():
    student, teacher = tiny_student(), tiny_student().eval().requires_grad_(False)
    losses, gradients, _ = run_step(get_method("unimatch_v2", threshold=1.0), student, teacher, tiny_batch())
    assert losses["unsupervised"] == 0
    assert all(not g.any() for g in gradients["unsupervised"])
