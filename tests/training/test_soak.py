"""A long run with evaluations and checkpoints neither grows nor leaves files open."""

import os
from pathlib import Path

import pytest
from transformers import TrainerCallback

from pos_hf.data import DataArguments
from pos_hf.runs.config import ModelArguments
from pos_hf.runs.train import run_training
from pos_hf.training import POSConfig, POSTrainer

STEPS, WARM_UP, EVERY = 2_000, 200, 20
TINIEST = {
    "group_norm_groups": 4,
    "aspp_channels": 8,
    "low_level_channels": 4,
    "decoder_channels": 8,
    "backbone_config": {
        "model_type": "resnet",
        "layer_type": "basic",
        "embedding_size": 8,
        "hidden_sizes": [8, 8, 8, 8],
        "depths": [1, 1, 1, 1],
        "out_indices": [1, 4],
    },
}


class Footprint(TrainerCallback):
    """Resident memory in MiB and the number of open files, every `EVERY` steps."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, float, int]] = []

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step % EVERY == 0:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            memory = pages * os.sysconf("SC_PAGE_SIZE") / 2**20
            self.seen.append((state.global_step, memory, len(os.listdir("/proc/self/fd"))))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads Linux's process files")
def test_memory_and_open_files_stay_where_they_were_after_200_of_2000_steps(tmp_path, monkeypatch):
    footprint = Footprint()
    prepare = POSTrainer._prepare_for_training

    def watched(trainer, *args, **kwargs):
        trainer.add_callback(footprint)
        return prepare(trainer, *args, **kwargs)

    monkeypatch.setattr(POSTrainer, "_prepare_for_training", watched)
    run_training(
        ModelArguments(model="deeplabv3plus_tiny", model_options=TINIEST),
        DataArguments(num_unlabeled=16, num_test=2, crop_size=16, selection_share=0),
        POSConfig(
            output_dir=str(tmp_path / "run"),
            use_cpu=True,
            disable_tqdm=True,
            max_steps=STEPS,
            per_device_train_batch_size=2,
            eval_strategy="steps",
            eval_steps=100,
            save_steps=100,
            save_total_limit=2,
            logging_steps=10,
        ),
    )
    steps, memory, files = zip(*footprint.seen, strict=True)
    assert steps[-1] == STEPS
    warm = steps.index(WARM_UP)
    print(f"\nresident memory {memory[warm]:.1f} MiB after {WARM_UP} steps, {memory[-1]:.1f} after {STEPS}")
    assert max(memory[warm:]) < 1.02 * memory[warm]
    assert set(files[warm:]) == {files[warm]}
