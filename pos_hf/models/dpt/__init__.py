"""DINOv2 (or any ViT backbone) with UniMatch V2's DPT head. Re-exports live in pos_hf.models."""
