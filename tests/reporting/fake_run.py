"""A run's folder made up with the contract's keys: a log, scores, scores of each image, settings and
examples."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from pos_hf.reporting import worst_images, write_examples

NAMES = ["background", "disc", "square", "ring", "cross"]
PALETTE = [[40, 44, 52], [224, 108, 117], [97, 175, 239], [152, 195, 121], [229, 192, 123]]
IMAGES = 12


def fake_log(random: np.random.Generator, steps: int, *, unlabeled: bool) -> list[dict]:
    log = []
    for step in range(10, steps + 1, 10):
        done = step / steps
        entry = {
            "step": step,
            "epoch": done,
            "loss": 2 - done,
            "supervised_loss": 1.6 * np.exp(-3 * done) + 0.1 * random.random(),
            "learning_rate": 1e-3 * (1 - done) ** 0.9,
        }
        if unlabeled:
            cosine = float(np.clip(random.normal(-0.1, 0.3), -0.95, 0.95))
            norms = random.lognormal(0.8, 0.4), random.lognormal(-1.2 + done, 0.6)
            entry |= {
                "unsupervised_loss": 0.5 * np.exp(-2 * done) + 0.05 * random.random(),
                "cosine": cosine,
                "min_cosine": float(abs(random.normal(0.2, 0.2))),
                "conflict_share": float(cosine < 0),
                "supervised_norm": norms[0],
                "unsupervised_norm": norms[1],
                "supervised_norm_variance": 0.8,
                "unsupervised_norm_variance": 0.2,
                "supervised_weight": 0.3 * norms[0] / norms[1],
                "unsupervised_weight": 0.7 * norms[0] / norms[1],
                "meo_gain": norms[0] / norms[1],
                "kept_share": 0.9 * done,
            }
        log.append(entry)
        if step % 50 == 0:
            scores = {"eval_mean_iou": 0.55 * done**0.5, "eval_student_mean_iou": 0.5 * done**0.5}
            if unlabeled:
                for key, value in (("precision", 0.9), ("coverage", 0.6 * done)):
                    scores[f"eval_pseudo_label_{key}"] = value
                    scores |= {f"eval_pseudo_label_{key}_{name}": value for name in NAMES}
                scores["eval_pseudo_label_alarm"] = float(step == 150)
            log.append({"step": step, **scores})
    return log


def fake_run(folder: Path, seed: int = 0, *, steps: int = 300, unlabeled: bool = True) -> Path:
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    log = fake_log(random, steps, unlabeled=unlabeled)
    (folder / "trainer_state.json").write_text(json.dumps({"log_history": log}))
    labeled = np.random.default_rng(99).integers(50, 500, (IMAGES, len(NAMES)))
    intersection = (labeled * (0.6 + 0.2 * unlabeled + 0.1 * random.random(labeled.shape))).astype(int)
    areas = np.stack([intersection, labeled, labeled], 1)
    iou = areas[:, 0].sum(0) / (2 * areas[:, 1] - areas[:, 0]).sum(0)
    metrics = {
        "mean_iou": iou.mean(),
        "mean_iou_absent_zero": iou.mean(),
        "overall_accuracy": 0.9,
        "images": IMAGES,
        "per_category_iou": dict(zip(NAMES, iou, strict=True)),
        "protocol": {
            "dataset": "shapes",
            "role": "test",
            "split_hash": "0123456789ab",
            "num_labeled": 12,
            "num_unlabeled": 300 * unlabeled,
            "method": "fixmatch" if unlabeled else "supervised",
            "strategy": "pos",
            "steps": steps,
            "seed": seed,
            "window": None,
        },
    }
    (folder / "metrics.json").write_text(json.dumps(metrics))
    np.savez(folder / "per_image.npz", ids=[f"shape_{i}" for i in range(IMAGES)], areas=areas)
    settings = {
        "method": "fixmatch" if unlabeled else "supervised",
        "training": {"max_steps": steps, "hub_token": "hf_secret", "output_dir": "/somewhere/private"},
    }
    (folder / "run.json").write_text(json.dumps(settings))
    rows, predictions = fake_scenes(random)
    write_examples(folder / "examples", rows[:6], predictions[:6], NAMES, PALETTE)
    worst = worst_images(areas)
    write_examples(
        folder / "worst", [rows[i] for i in worst], [predictions[i] for i in worst], NAMES, PALETTE
    )
    if unlabeled:
        (folder / "pseudo_labels").mkdir()
        for step in range(50, steps + 51, 50):  # one more than the log: of an overwritten, longer run
            Image.new("RGB", (528, 396), (step % 256, 90, 90)).save(
                folder / "pseudo_labels" / f"step-{step:06d}.png"
            )
    return folder


def fake_scenes(random: np.random.Generator) -> tuple[list[dict], list[np.ndarray]]:
    """Rows of squares, the same for every run, and predictions that are shifted by chance."""
    rows, predictions = [], []
    scene = np.random.default_rng(7)
    for i in range(IMAGES):
        truth = np.zeros((96, 96), np.uint8)
        for k in range(1, 5):
            y, x, r = scene.integers(15, 80, 3) // [1, 1, 4]
            truth[max(y - r, 0) : y + r, max(x - r, 0) : x + r] = k
        shift = int(random.integers(1, 6))
        image = Image.fromarray((np.array(PALETTE, np.uint8)[truth] * 0.6 + 50).astype(np.uint8))
        rows.append({"id": f"shape_{i}", "image": image, "mask": Image.fromarray(truth)})
        predictions.append(np.roll(truth, shift, 1))
    return rows, predictions
