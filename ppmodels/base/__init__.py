"""The contract: what a data set is and what a model is (`model`), and what a model may add (`abilities`).

This is all that `inference` knows of `ppmodels`, and all that a new model must know of the project.
"""

from ppmodels.base.abilities import (
    ApproximateEM,
    HasBlocks,
    HasCheck,
    HasClasses,
    HasEM,
    HasEvidence,
    HasGuide,
    HasLabels,
    HasNetwork,
    HasOptional,
    HasParts,
    HasPeak,
    HasPosterior,
    HasRestart,
    HasStatistics,
    HasSums,
    Peak,
    Theta,
)
from ppmodels.base.model import Data, Model, dims

__all__ = [
    "ApproximateEM",
    "Data",
    "HasBlocks",
    "HasCheck",
    "HasClasses",
    "HasEM",
    "HasEvidence",
    "HasGuide",
    "HasLabels",
    "HasNetwork",
    "HasOptional",
    "HasParts",
    "HasPeak",
    "HasPosterior",
    "HasRestart",
    "HasStatistics",
    "HasSums",
    "Model",
    "Peak",
    "Theta",
    "dims",
]
