"""Networks whose weights transformers saves under the names of earlier versions: DINOv2 among them."""

import pytest
import torch
from safetensors.torch import load_file

from pos_hf.data import DataArguments, PairedDataset, load_data
from pos_hf.errors import InputError
from pos_hf.evaluation import load_for_inference
from pos_hf.models import build_model, default_image_processor
from pos_hf.training import POSConfig, POSTrainer

DATA = DataArguments(dataset="shapes", num_labeled=4, num_unlabeled=8, num_test=1, crop_size=28)


def make_trainer(folder, method, **arguments) -> POSTrainer:
    torch.manual_seed(0)
    rows = load_data(DATA)
    options = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2, "per_device_train_batch_size": 2}
    args = POSConfig(str(folder), method=method, use_cpu=True, report_to=[], **(options | arguments))
    return POSTrainer(
        build_model("dinov2_dpt_tiny", rows.id2label),
        args,
        PairedDataset.from_arguments(rows, DATA, seed=0),
        processing_class=default_image_processor(),
    )


@pytest.mark.parametrize("method", ["supervised", "unimatch_v2"])
def test_a_resumed_dinov2_goes_on_from_its_weights(tmp_path, method):
    whole = make_trainer(tmp_path, method)
    whole.train()
    saved = load_file(tmp_path / "checkpoint-2" / "model.safetensors")
    assert saved.keys() == whole.model.state_dict().keys()
    resumed = make_trainer(tmp_path, method)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    for name, value in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], value), name
    # the checkpoint is a model folder all the same
    model, _ = load_for_inference(str(tmp_path / "checkpoint-4"), "cpu", trust_remote_code=True)
    for name, value in whole.model.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name


def test_weights_under_other_names_are_refused_and_not_passed_over(tmp_path):
    make_trainer(tmp_path, "supervised").train()
    whole = make_trainer(tmp_path, "supervised")
    folder = tmp_path / "checkpoint-2"
    whole.model.save_pretrained(folder)  # as transformers does by itself
    (folder / "manifest.json").unlink(missing_ok=True)
    with pytest.raises(InputError, match=r"checkpoint-2/model\.safetensors holds \d+ weights under names"):
        whole.train(resume_from_checkpoint=str(folder))
