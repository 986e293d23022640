"""What a run shows on the Hub: its model card."""

from pos_hf.hub.model_card import write_model_card

__all__ = ["write_model_card"]
