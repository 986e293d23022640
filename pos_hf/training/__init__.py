"""The Trainer, its arguments, the EMA teacher and what a run says about its gradients."""

from .arguments import POSConfig
from .teacher import EMATeacher
from .trainer import POSTrainer

__all__ = ["EMATeacher", "POSConfig", "POSTrainer"]
