"""Zero-shot classification: the class whose name, put into sentences, is nearest to the picture."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from mm1.encoder.features import Encoder


def class_features(encoder: Encoder, names: Sequence[str], templates: Sequence[str]) -> torch.Tensor:
    """Return (classes, D) unit features: the mean over the templates (arXiv 2103.00020 sec. 3.1.4).

    Args:
        encoder: Of two towers.
        names: Of the classes.
        templates: Sentences in which `{}` stands for the name.
    """
    texts = [template.replace("{}", name) for template in templates for name in names]
    features = encoder.text_features(texts).reshape(len(templates), len(names), -1)
    return F.normalize(features.mean(0), dim=-1)
