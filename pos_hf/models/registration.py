"""Tells transformers' Auto classes about the package's models, which live in the modeling files.

Called when transformers' auto modules have just been imported, which happens halfway through many of its
imports: too early to import our classes, as `AutoModel.register` would need. So the names are added to the
tables from which transformers loads its own models on first use, and this package stands in for the modules
that it looks them up in.
"""

import sys

CONFIGS = {
    "aligned_xception": "AlignedXceptionConfig",
    "deep_stem_resnet": "DeepStemResNetConfig",
    "deeplabv3plus": "DeepLabV3PlusConfig",
    "dino_dpt": "DinoDPTConfig",
}
BACKBONES = {
    "aligned_xception": "AlignedXceptionBackbone",
    "deep_stem_resnet": "DeepStemResNetBackbone",
}
SEGMENTATION_MODELS = {
    "deeplabv3plus": "DeepLabV3PlusForSemanticSegmentation",
    "dino_dpt": "DinoDPTForSemanticSegmentation",
}


def register_configs() -> None:
    """Make AutoConfig know the configurations; imports none of them."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    CONFIG_MAPPING_NAMES.update(CONFIGS)
    for model_type in CONFIGS:
        sys.modules[f"transformers.models.{model_type}"] = sys.modules["pos_hf.models"]


def register_models() -> None:
    """Make AutoBackbone and AutoModelForSemanticSegmentation know the models; imports none of them."""
    from transformers.models.auto import modeling_auto

    for mapping, names in (
        (modeling_auto.MODEL_FOR_BACKBONE_MAPPING, BACKBONES),
        (modeling_auto.MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING, SEGMENTATION_MODELS),
    ):
        mapping._model_mapping.update(names)
        mapping._reverse_config_mapping.update({CONFIGS[model_type]: model_type for model_type in names})
