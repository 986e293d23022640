"""The Auto classes know the models whatever is imported first."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CHECK = """
from transformers import AutoBackbone, AutoConfig, AutoModelForSemanticSegmentation
config = AutoConfig.for_model("dino_dpt", neck_hidden_sizes=[4, 4, 4, 4])
model = AutoModelForSemanticSegmentation.from_config(config)
assert type(model).__module__ == "pos_hf.models.modeling_dino_dpt"
backbone = AutoBackbone.from_config(AutoConfig.for_model("deep_stem_resnet", depths=[1, 1, 1, 1]))
assert type(backbone).__module__ == "pos_hf.models.modeling_deep_stem_resnet"
"""


@pytest.mark.parametrize(
    "imports",
    [
        "import pos_hf; from transformers import Trainer",
        pytest.param("from transformers import AutoModel; import pos_hf", marks=pytest.mark.slow),
        pytest.param("import pos_hf; from transformers import AutoFeatureExtractor", marks=pytest.mark.slow),
    ],
)
def test_models_are_known_after(imports):
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run(
        [sys.executable, "-c", f"{imports}\n{CHECK}"], check=True, env=environment, capture_output=True
    )
