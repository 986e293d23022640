"""Semi-supervised semantic segmentation with balanced gradients (POS+MEO) on the Hugging Face Trainer."""

__version__ = "0.1.0.dev0"
