"""What every method promises, and the steps of those without a published script in published.py."""

import copy
import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from pos_hf.errors import InputError
from pos_hf.methods import METHODS, StudentPair, base, get_method, predict_logits
from pos_hf.methods.confidence import RULES
from pos_hf.methods.mixing import random_boxes
from tests.methods.published import (
    confidences_and_labels,
    cutmix,
    flipped,
    ignore_map,
    labeled_loss,
    pixels,
    unlabeled_loss,
)
from tests.methods.tiny import CLASSES, SIZE, TinyNet, run_step, tiny_batch, tiny_student, with_labeled

EVERY_VARIANT = [
    *((name, {}) for name in METHODS),
    *(("unimatch_v2", {"threshold": rule, "distribution_alignment": True}) for rule in RULES),
    ("fixmatch", {"teacher": "student", "mixing": "classmix", "supervised_loss": "ohem"}),
    ("unimatch_v1", {"feature_branch": "joint_unlabeled", "partner": "flip"}),
    ("unimatch_v1", {"feature_branch": "separate"}),
    ("unimatch_v2", {"logit_adjustment": True}),
]


def student_for(method):
    return StudentPair(tiny_student(), tiny_student()) if method.num_students == 2 else tiny_student()


def teacher_for(method):
    return tiny_student().eval().requires_grad_(False) if method.uses_teacher else None


@pytest.mark.parametrize("labeled", [3, 2], ids="{}+3".format)
@pytest.mark.parametrize(("name", "options"), EVERY_VARIANT, ids=str)
def test_every_term_is_finite_and_its_statistics_are_detached_scalars(name, options, labeled):
    method = get_method(name, **options)
    student = student_for(method)
    seen = set()
    for term in method.losses(student, teacher_for(method), with_labeled(tiny_batch(), labeled)):
        seen.add(term.objective)
        assert term.loss.dim() == 0 and term.loss.isfinite() and term.loss.requires_grad
        term.loss.backward(retain_graph=term.retain_graph)
        for value in term.statistics.values():
            assert value.dim() == 0 and value.isfinite() and not value.requires_grad
    assert seen == set(method.objectives)
    assert all(p.grad is None or p.grad.isfinite().all() for p in student.parameters())


def on_meta(batch):
    return {
        group: {name: value.to("meta") for name, value in tensors.items()} for group, tensors in batch.items()
    }


@pytest.mark.parametrize(("name", "options"), EVERY_VARIANT, ids=str)
def test_no_method_waits_for_the_device(name, options):
    """Tensors without data: anything that must know a value on the host (item, bool, nonzero, cpu) raises."""
    method = get_method(name, **options).to("meta")
    student, teacher = student_for(method).to("meta"), teacher_for(method)
    run_step(method, student, teacher and teacher.to("meta"), on_meta(tiny_batch()))


@pytest.mark.parametrize("name", [name for name in METHODS if name != "supervised"])
def test_an_unlabeled_half_of_padding_labels_changes_nothing_supervised(name):
    method = get_method(name)
    student, batch = student_for(method), tiny_batch()
    batch["labeled"]["labels"].fill_(255)
    losses, gradients, _ = run_step(method, student, teacher_for(method), batch)
    assert losses["supervised"] == 0
    assert not any(g.any() for g in gradients["supervised"])


@pytest.mark.parametrize("name", ["fixmatch", "unimatch_v2"])
def test_strong_views_leave_the_running_statistics_to_the_labeled_images(name):
    method = get_method(name)
    student, batch = tiny_student(), tiny_batch()
    alone = copy.deepcopy(student)
    predict_logits(alone, batch["labeled"]["pixel_values"])
    norms = [module for module in student.modules() if isinstance(module, nn.BatchNorm2d)]
    run_step(method, student, teacher_for(method), batch)
    moments = [n for n, _ in student.named_buffers() if "running" in n or "tracked" in n]
    assert len(moments) == 3 * len(norms) == 6
    for buffer in moments:
        assert torch.equal(student.get_buffer(buffer), alone.get_buffer(buffer)), buffer
    assert all(norm.track_running_stats for norm in norms)


def test_classmix_pastes_half_of_the_partners_classes_with_their_labels():
    batch, student, teacher = tiny_batch(), tiny_student(), tiny_student().eval()
    inputs = []
    student.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    method = get_method("fixmatch", threshold=0.0, mixing="classmix")
    losses, _, _ = run_step(method, student, teacher, batch)
    unlabeled = batch["unlabeled"]
    strong, padding = unlabeled["strong_pixel_values"][:, 0], unlabeled["padding_mask"]
    _, label = confidences_and_labels(teacher(unlabeled["pixel_values"]).logits)
    pasted = (inputs[1] != strong).all(1)
    for own in (0, 2):  # image 1 of 3 is its own partner
        partner = 2 - own
        classes = label[partner][~padding[partner]].unique()
        taken = [c for c in classes if pasted[own][(label[partner] == c) & ~padding[partner]].all()]
        assert len(taken) == len(classes) // 2
        whole = torch.isin(label[partner], torch.stack(taken)) & ~padding[partner]
        assert torch.equal(pasted[own], whole)
    pasted[1] = False
    mixed = [
        torch.where(pasted, flipped(v), v)
        for v in (label, torch.ones_like(strong[:, 0]), ignore_map(padding))
    ]
    expected = unlabeled_loss(student(inputs[1]).logits, *mixed, threshold=0.0)
    assert losses["unsupervised"].item() == pytest.approx(expected.item(), abs=1e-9)


def test_mean_teacher_equals_its_squared_error_and_ramp():
    method, batch = get_method("mean_teacher", ramp_up=0.4), tiny_batch()
    student, teacher = tiny_student(), tiny_student().eval()
    unlabeled = batch["unlabeled"]
    p = copy.deepcopy(student)(unlabeled["strong_pixel_values"][:, 0]).logits.softmax(1)
    # the labeled forward comes first, and each uses its own batch statistics
    q = teacher(unlabeled["pixel_values"]).logits.softmax(1)
    errors = [
        sum((p[n, c, i, j] - q[n, c, i, j]) ** 2 for c in range(CLASSES)).item()
        for n, i, j in pixels(unlabeled["padding_mask"])
        if not unlabeled["padding_mask"][n, i, j]
    ]
    for progress, ramp in [(0.0, math.exp(-5)), (0.1, math.exp(-5 * 0.75**2)), (0.4, 1.0), (1.0, 1.0)]:
        method.progress = progress
        losses, _, _ = run_step(method, student, teacher, batch)
        assert losses["unsupervised"].item() == pytest.approx(ramp * sum(errors) / len(errors), abs=1e-9)


def test_cutmix_seg_mixes_targets_and_scales_by_the_confident_share():
    method, batch = get_method("cutmix_seg", threshold=0.6), tiny_batch()
    student, teacher = tiny_student(), tiny_student().eval()
    unlabeled = batch["unlabeled"]
    boxes = unlabeled["cutmix_boxes"][:, 0]
    mixed = [
        cutmix(values, flipped(values), boxes)
        for values in (
            unlabeled["strong_pixel_values"][:, 0],
            teacher(unlabeled["pixel_values"]).logits.softmax(1),
            unlabeled["padding_mask"],
        )
    ]
    p, q, padding = copy.deepcopy(student)(mixed[0]).logits.softmax(1), mixed[1], mixed[2]
    valid = [(n, i, j) for n, i, j in pixels(padding) if not padding[n, i, j]]
    error = sum(((p[n, :, i, j] - q[n, :, i, j]) ** 2).sum().item() for n, i, j in valid) / len(valid)
    share = sum(q[n, :, i, j].max().item() >= 0.6 for n, i, j in valid) / len(valid)
    losses, _, statistics = run_step(method, student, teacher, batch)
    assert 0 < share < 1 and statistics["kept_share"].item() == pytest.approx(share)
    assert losses["unsupervised"].item() == pytest.approx(error * share, abs=1e-9)


def test_u2pl_averages_the_kept_pixels_and_scales_by_all_over_kept():
    method, batch = get_method("u2pl"), tiny_batch()
    student, teacher = tiny_student(), tiny_student().eval()
    unlabeled = batch["unlabeled"]
    boxes = unlabeled["cutmix_boxes"][:, 0]
    logits = teacher(unlabeled["pixel_values"]).logits.detach()
    padding = unlabeled["padding_mask"]
    entropy = torch.distributions.Categorical(logits=logits.movedim(1, -1)).entropy()
    limit = torch.quantile(entropy[~padding], 0.8)
    _, label = confidences_and_labels(logits)
    reliable = (entropy < limit) & ~padding
    label, reliable, padding = (cutmix(v, flipped(v), boxes) for v in (label, reliable, padding))
    strong = unlabeled["strong_pixel_values"][:, 0]
    strong_logits = copy.deepcopy(student)(cutmix(strong, flipped(strong), boxes)).logits
    mean = labeled_loss(strong_logits, torch.where(reliable, label, 255))
    losses, _, _ = run_step(method, student, teacher, batch)
    expected = mean * (~padding).sum() / reliable.sum()
    assert losses["unsupervised"].item() == pytest.approx(expected.item(), abs=1e-9)


def test_cps_students_learn_each_others_labels():
    first, second = tiny_student(), tiny_student()
    reference_1, reference_2 = copy.deepcopy(first), copy.deepcopy(second)
    batch = tiny_batch()
    images, padding = batch["unlabeled"]["pixel_values"], batch["unlabeled"]["padding_mask"]
    labeled = batch["labeled"]

    torch.manual_seed(3)
    losses, gradients, statistics = run_step(get_method("cps"), StudentPair(first, second), None, batch)
    torch.manual_seed(3)
    boxes = random_boxes(images)
    mixed = cutmix(images, flipped(images), boxes)
    losses_x, losses_u = [], []
    for own, other in ((reference_1, reference_2), (reference_2, reference_1)):
        confidence, label = confidences_and_labels(copy.deepcopy(other)(images).logits)
        target = [cutmix(v, flipped(v), boxes) for v in (label, confidence, ignore_map(padding))]
        losses_x.append(labeled_loss(copy.deepcopy(own)(labeled["pixel_values"]).logits, labeled["labels"]))
        losses_u.append(unlabeled_loss(own(mixed).logits, *target, threshold=0.0))
    assert losses["supervised"].item() == pytest.approx(sum(losses_x).item(), abs=1e-9)
    assert statistics["first_loss"].item() == pytest.approx(losses_u[0].item(), abs=1e-9)
    assert losses["unsupervised"].item() == pytest.approx(sum(losses_u).item(), abs=1e-9)
    expected = torch.autograd.grad(losses_u[0], list(reference_1.parameters()))
    for ours, theirs in zip(
        gradients["unsupervised"], expected, strict=False
    ):  # the first student's come first
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)


def test_a_student_pair_predicts_with_its_first_network_in_evaluation_mode():
    first, second = tiny_student(), tiny_student()
    pair = StudentPair(first, second).eval()
    images = torch.randn(2, 3, SIZE, SIZE, dtype=torch.float64)
    assert torch.equal(pair(images).logits, first(images).logits)
    assert len(pair.train()(images).logits) == 4


class ConstantTeacher(nn.Module):
    """Logits that do not depend on the image."""

    def __init__(self, peak):
        super().__init__()
        self.peak = peak

    def forward(self, pixel_values):
        logits = torch.zeros(len(pixel_values), CLASSES, SIZE, SIZE, dtype=torch.float64)
        logits[:, 1] = self.peak
        return SimpleNamespace(logits=logits)


@pytest.mark.parametrize(("peak", "injected"), [(80.0, 0.0), (0.0, 1.0)])
def test_augseg_injects_labeled_patches_where_the_teacher_is_uncertain(peak, injected):
    batch = tiny_batch()
    _, _, statistics = run_step(get_method("augseg"), tiny_student(), ConstantTeacher(peak), batch)
    assert statistics["injected_share"] == injected


def test_augseg_patch_carries_the_labeled_image_and_its_true_labels():
    batch = tiny_batch()
    batch["unlabeled"]["cutmix_boxes"].zero_()
    student = tiny_student()
    inputs = []
    student.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    torch.manual_seed(5)
    losses, _, _ = run_step(get_method("augseg"), student, ConstantTeacher(0.0), batch)
    strong, labeled = batch["unlabeled"]["strong_pixel_values"][:, 0], batch["labeled"]
    patched = (inputs[1] != strong).all(1)
    assert patched.any() and torch.equal(
        inputs[1].movedim(1, -1)[patched], labeled["pixel_values"].movedim(1, -1)[patched]
    )
    # an undecided teacher labels nothing else, so the loss is the patches' own, over all valid pixels
    labels = torch.where(patched, labeled["labels"], 255)
    logits = student(inputs[1]).logits
    valid = torch.where(patched, labeled["labels"] != 255, ~batch["unlabeled"]["padding_mask"])
    expected = labeled_loss(logits, labels) * (labels != 255).sum() / valid.sum()
    assert losses["unsupervised"].item() == pytest.approx(expected.item(), abs=1e-9)


def test_augseg_adjusts_pseudo_labeled_pixels_alone():
    """Also with fewer labeled images, which take turns."""
    batch = with_labeled(tiny_batch(), 2)
    batch["unlabeled"]["cutmix_boxes"].zero_()
    method = get_method("augseg", threshold=0.5, logit_adjustment=True)
    student, inputs = tiny_student(), []
    student.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    torch.manual_seed(5)
    losses, _, _ = run_step(method, student, ConstantTeacher(3.0), batch)  # keeps class 1 everywhere
    patched = (inputs[1] != batch["unlabeled"]["strong_pixel_values"][:, 0]).all(1)
    logits, labels = student(inputs[1]).logits, batch["labeled"]["labels"][[0, 1, 0]]
    adjusted, padding = method.adjustment(logits), batch["unlabeled"]["padding_mask"]
    total = valid = 0.0
    for n, i, j in pixels(patched):
        if patched[n, i, j]:
            values, label, counts = logits[n, :, i, j], labels[n, i, j].item(), labels[n, i, j] != 255
        else:
            values, label, counts = adjusted[n, :, i, j], 1, not padding[n, i, j]
        if counts:
            total -= values.log_softmax(0)[label].item()
            valid += 1
    assert 0 < patched.sum() < (~padding).sum() and not torch.allclose(adjusted, logits)
    assert losses["unsupervised"].item() == pytest.approx(total / valid, abs=1e-9)


@pytest.mark.parametrize(("name", "options"), EVERY_VARIANT, ids=str)
def test_method_state_survives_a_checkpoint_bit_for_bit(name, options):
    method = get_method(name, **options)
    student, teacher = student_for(method), teacher_for(method)
    for _ in range(2):
        run_step(method, student, teacher, tiny_batch())
    resumed = get_method(name, **options)
    resumed.load_state_dict(copy.deepcopy(method.state_dict()))
    batch, twin = tiny_batch(), copy.deepcopy(student)
    results = []
    for one, net in ((method, student), (resumed, twin)):
        torch.manual_seed(4)
        losses, gradients, _ = run_step(one, net, teacher, batch)
        results.append((list(losses.values()), [g for group in gradients.values() for g in group]))
    assert results[0][0] == results[1][0]
    assert all(torch.equal(a, b) for a, b in zip(results[0][1], results[1][1], strict=True))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("unimatch_v3", {}, "unknown method 'unimatch_v3', did you mean 'unimatch_v"),
        (
            "fixmatch",
            {"treshold": 0.9},
            "unknown option 'treshold' of method 'fixmatch', did you mean 'threshold'",
        ),
        ("fixmatch", {"supervised_loss": "ohm"}, "unknown supervised loss 'ohm', did you mean 'ohem'"),
        ("fixmatch", {"mixing": "mixup"}, "mixing"),
        ("fixmatch", {"teacher": "none"}, "teacher"),
        ("unimatch_v1", {"feature_branch": "own"}, "feature_branch"),
        ("unimatch_v1", {"partner": "same"}, "partner"),
    ],
)
def test_an_unknown_name_or_option_is_answered_with_the_nearest(name, options, message):
    with pytest.raises(InputError, match=message):
        get_method(name, **options)


class LowResolutionModel(nn.Module):
    """A Hub-like model: logits at a quarter of the size, no feature perturbation, half precision."""

    def __init__(self, dtype=torch.float32):
        super().__init__()
        self.conv = nn.Conv2d(3, CLASSES, 4, stride=4)
        self.dtype = dtype

    def forward(self, pixel_values):
        return SimpleNamespace(logits=self.conv(pixel_values).to(self.dtype))


def test_foreign_logits_are_brought_to_the_input_size_in_float32():
    model, images = LowResolutionModel(torch.bfloat16), torch.randn(2, 3, 8, 12)
    logits = predict_logits(model, images)
    assert logits.shape == (2, CLASSES, 8, 12) and logits.dtype == torch.float32


def test_a_model_without_feature_perturbation_repeats_its_rows_and_says_so_once(monkeypatch):
    warnings = []
    monkeypatch.setattr(base.logger, "warning_once", warnings.append)
    model, images = LowResolutionModel(), torch.randn(4, 3, 8, 8)
    clean = predict_logits(model, images)
    assert torch.equal(predict_logits(model, images, "channel_dropout"), torch.cat([clean, clean]))
    assert torch.equal(predict_logits(model, images, "channel_dropout", 2), torch.cat([clean, clean[2:]]))
    assert torch.equal(predict_logits(model, images, "complementary_dropout"), clean)
    assert warnings[0] == "LowResolutionModel offers no feature perturbation: 'channel_dropout' is left out."


def test_predicting_leaves_the_wrappers_of_a_compiled_model_in_place():
    parallel = nn.DataParallel(TinyNet().double())
    compiled = torch.compile(parallel, backend="eager")
    images = torch.randn(2, 3, SIZE, SIZE, dtype=torch.float64)
    assert len(predict_logits(compiled, images, "channel_dropout")) == 4
    assert compiled._orig_mod is parallel
