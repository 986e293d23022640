"""In training the teacher computes like the student, in evaluation both like the exported folder."""

import torch

from pos_hf.evaluation import evaluate_images

from .tiny import TinySegmenter, tiny_model, tiny_rows, tiny_trainer


def dtypes_in(model: torch.nn.Module) -> list[torch.dtype]:
    """Grows by the dtype of every output of the head."""
    seen: list[torch.dtype] = []
    model.head.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    return seen


def test_the_teacher_runs_under_the_students_autocast_within_its_noise(tmp_path):
    trainer = tiny_trainer(
        str(tmp_path), tiny_model(torch.float32), method="fixmatch", max_steps=2, bf16=True
    )
    student, teacher = dtypes_in(trainer.model), dtypes_in(trainer.teacher.model)
    trainer.train()
    assert teacher == [torch.bfloat16] * 2 and set(student) == {torch.bfloat16}
    images = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        mixed = trainer.teacher.model(images).logits
        with trainer.as_loaded():
            exact = trainer.teacher.model(images).logits
    assert mixed.dtype == torch.float32  # the loss is computed in it, as the student's
    torch.testing.assert_close(mixed, exact, rtol=2e-2, atol=2e-2)
    assert not torch.equal(mixed, exact)


def test_what_is_scored_in_training_is_what_is_saved(tmp_path):
    rows = tiny_rows()
    trainer = tiny_trainer(
        str(tmp_path),
        tiny_model(torch.float32),
        method="fixmatch",
        max_steps=2,
        bf16=True,
        eval_dataset=rows,
        eval_strategy="steps",
        eval_steps=2,
    )
    student, teacher = dtypes_in(trainer.model), dtypes_in(trainer.teacher.model)
    trainer.train()
    assert student[-1] == teacher[-1] == torch.float32
    trainer.save_model()
    scores = next(entry for entry in trainer.state.log_history if "eval_mean_iou" in entry)
    for folder, key in ((tmp_path, "eval_mean_iou"), (tmp_path / "student", "eval_student_mean_iou")):
        loaded = TinySegmenter.from_pretrained(folder)
        assert evaluate_images(loaded, rows, trainer.processing_class).scores()["mean_iou"] == scores[key]
