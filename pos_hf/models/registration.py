"""Tells transformers' Auto classes about the package's models, which live in the modeling files.

Apart from `import pos_hf`, which must stay light: the two functions are called when transformers' own auto
modules are first imported. Configurations come without torch. (The backbones' files register themselves:
they must be known as remote code too.)
"""


def register_configs() -> None:
    """Make AutoConfig know the configurations, and let them travel with saved weights as remote code."""
    from transformers import AutoConfig

    from pos_hf.models.configuration_deeplabv3plus import DeepLabV3PlusConfig
    from pos_hf.models.configuration_dino_dpt import DinoDPTConfig

    for config_class in (DinoDPTConfig, DeepLabV3PlusConfig):
        AutoConfig.register(config_class.model_type, config_class, exist_ok=True)
        config_class.register_for_auto_class()


def register_models() -> None:
    """Make AutoModelForSemanticSegmentation know the models, and let them travel as remote code."""
    from transformers import AutoModelForSemanticSegmentation

    from pos_hf.models.modeling_deeplabv3plus import DeepLabV3PlusForSemanticSegmentation
    from pos_hf.models.modeling_dino_dpt import DinoDPTForSemanticSegmentation

    for model_class in (DinoDPTForSemanticSegmentation, DeepLabV3PlusForSemanticSegmentation):
        AutoModelForSemanticSegmentation.register(model_class.config_class, model_class, exist_ok=True)
        model_class.register_for_auto_class("AutoModelForSemanticSegmentation")
