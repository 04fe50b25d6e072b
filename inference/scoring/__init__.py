"""How good predictions of classes are: what was mixed up, whether probabilities are frequencies, and their repair."""

from inference.scoring.confusion import Confusion, confusion
from inference.scoring.proper import brier_score, log_score
from inference.scoring.reliability import Reliability, reliability
from inference.scoring.rescaling import Platt, platt, temperature

__all__ = [
    "Confusion",
    "Platt",
    "Reliability",
    "brier_score",
    "confusion",
    "log_score",
    "platt",
    "reliability",
    "temperature",
]
