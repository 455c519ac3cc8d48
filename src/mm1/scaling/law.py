"""The learning-rate law: the best peak learning rate falls as a power of the decoder's size (paper sec. 3.4).

    ln(eta) = slope * ln(N) + intercept

N is the number of the decoder's parameters without embeddings (`mm1.model.sizes.non_embedding_parameters`). For a
sparse decoder it counts the dense backbone, with one expert per layer and no router, since the paper trains its sparse
models with the hyperparameters of their backbone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

WEIGHT_DECAY = 0.1
"""Weight decay as a multiple of the learning rate (paper sec. 3.4: lambda = 0.1 eta)."""


@dataclass(frozen=True)
class Law:
    """A log-linear law.

    Attributes:
        slope: Slope of ln(learning rate) over ln(N).
        intercept: Intercept of the same line.
    """

    slope: float
    intercept: float

    def __call__(self, non_embedding_parameters: float) -> float:
        """Return the peak learning rate for a decoder of N parameters."""
        return math.exp(self.slope * math.log(non_embedding_parameters) + self.intercept)


PAPER_LAW = Law(-0.4214, -0.5535)
"""The paper's law (sec. 3.4), fitted to sweeps at 9M, 85M, 302M and 1.2B."""
