"""Which paper a method, a strategy, a network or a data set comes from. Keys are the names of `METHODS`, of
the strategies, and the `model_type`s of configurations."""

from typing import Any

METHODS = {
    "mean_teacher": "Tarvainen, Valpola. Mean teachers are better role models. NeurIPS 2017.",
    "cutmix_seg": (
        "French, Laine, Aila, Mackiewicz, Finlayson. Semi-supervised semantic segmentation needs "
        "strong, varied perturbations. BMVC 2020."
    ),
    "fixmatch": (
        "Sohn et al. FixMatch: Simplifying Semi-Supervised Learning with Consistency and Confidence. "
        "NeurIPS 2020."
    ),
    "unimatch_v1": (
        "Yang, Qi, Feng, Zhang, Shi. Revisiting Weak-to-Strong Consistency in Semi-Supervised "
        "Semantic Segmentation. CVPR 2023."
    ),
    "unimatch_v2": (
        "Yang, Zhao, Zhao. UniMatch V2: Pushing the Limit of Semi-Supervised Semantic Segmentation. "
        "TPAMI 2025."
    ),
    "cps": (
        "Chen, Yuan, Zeng, Wang. Semi-Supervised Semantic Segmentation with Cross Pseudo Supervision."
        " CVPR 2021."
    ),
    "u2pl": "Wang et al. Semi-Supervised Semantic Segmentation Using Unreliable Pseudo-Labels. CVPR 2022.",
    "augseg": (
        "Zhao et al. Augmentation Matters: A Simple-yet-Effective Approach to Semi-supervised "
        "Semantic Segmentation. CVPR 2023."
    ),
}
STRATEGIES = {
    "pos": (
        "Sun, Mai, Li, Chen, Wang. Two Losses, One Goal: Balancing Conflict Gradients for "
        "Semi-supervised Semantic Segmentation. ICCV 2025."
    ),
    "pcgrad": "Yu et al. Gradient Surgery for Multi-Task Learning. NeurIPS 2020.",
    "cagrad": (
        "Liu, Liu, Jin, Stone, Liu. Conflict-Averse Gradient Descent for Multi-task Learning. NeurIPS 2021."
    ),
    "imtl_g": "Liu et al. Towards Impartial Multi-task Learning. ICLR 2021.",
    "nash_mtl": "Navon et al. Multi-Task Learning as a Bargaining Game. ICML 2022.",
    "aligned_mtl": (
        "Senushkin, Patakin, Kuznetsov, Konushin. Independent Component Alignment for Multi-Task "
        "Learning. CVPR 2023."
    ),
    "conflict_free": (
        "Liu, Chu, Thuerey. ConFIG: Towards Conflict-free Training of Physics Informed Neural "
        "Networks. ICLR 2025."
    ),
    "dualproj": "Lopez-Paz, Ranzato. Gradient Episodic Memory for Continual Learning. NeurIPS 2017.",
}
NETWORKS = {
    "dino_dpt": "Ranftl, Bochkovskiy, Koltun. Vision Transformers for Dense Prediction. ICCV 2021.",
    "deeplabv3plus": (
        "Chen, Zhu, Papandreou, Schroff, Adam. Encoder-Decoder with Atrous Separable Convolution for "
        "Semantic Image Segmentation. ECCV 2018."
    ),
    "dinov2": "Oquab et al. DINOv2: Learning Robust Visual Features without Supervision. TMLR 2024.",
    "dinov2_with_registers": "Darcet et al. Vision Transformers Need Registers. ICLR 2024.",
    "dinov3_vit": "Simeoni et al. DINOv3. 2025.",
    "resnet": "He, Zhang, Ren, Sun. Deep Residual Learning for Image Recognition. CVPR 2016.",
    "deep_stem_resnet": "He, Zhang, Ren, Sun. Deep Residual Learning for Image Recognition. CVPR 2016.",
    "aligned_xception": "Chollet. Xception: Deep Learning with Depthwise Separable Convolutions. CVPR 2017.",
    "segformer": (
        "Xie et al. SegFormer: Simple and Efficient Design for Semantic Segmentation with Transformers. "
        "NeurIPS 2021."
    ),
}
DATASETS = {
    "pascal": [
        "Everingham, Van Gool, Williams, Winn, Zisserman. The Pascal Visual Object Classes (VOC) Challenge. "
        "IJCV 2010.",
        "Hariharan et al. Semantic Contours from Inverse Detectors. ICCV 2011.",
    ],
    "cityscapes": ["Cordts et al. The Cityscapes Dataset for Semantic Urban Scene Understanding. CVPR 2016."],
    "coco": ["Lin et al. Microsoft COCO: Common Objects in Context. ECCV 2014."],
    "ade20k": ["Zhou et al. Scene Parsing through ADE20K Dataset. CVPR 2017."],
    "camvid": [
        "Brostow, Fauqueur, Cipolla. Semantic object classes in video: A high-definition ground truth "
        "database. Pattern Recognition Letters 2009."
    ],
}
"""By the folder of a recipe in configs/."""


def references(strategy: str, method: str, config: dict[str, Any]) -> list[str]:
    """The papers behind a trained model; plain averages and networks that are not listed cite nothing.

    Args:
        strategy: Name of the strategy.
        method: Name of the method.
        config: The model's configuration, as in config.json.
    """
    backbone = (config.get("backbone_config") or {}).get("model_type", "")
    papers = (
        STRATEGIES.get(strategy),
        METHODS.get(method),
        NETWORKS.get(config.get("model_type", "")),
        NETWORKS.get(backbone),
    )
    return [paper for paper in papers if paper]
