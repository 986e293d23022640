"""Balancing two gradients: three inner products, a strategy, one update. Knows torch alone."""

from .gradients import OBJECTIVES, GradientPair, Objective, average_over_ranks
from .gramian import Gramian, gramian
from .strategies import (
    POS,
    STRATEGIES,
    Fixed,
    Strategy,
    Weights,
    fixed,
    get_strategy,
    pos,
    uniform,
)

__all__ = [
    "OBJECTIVES",
    "POS",
    "STRATEGIES",
    "Fixed",
    "GradientPair",
    "Gramian",
    "Objective",
    "Strategy",
    "Weights",
    "average_over_ranks",
    "fixed",
    "get_strategy",
    "gramian",
    "pos",
    "uniform",
]
