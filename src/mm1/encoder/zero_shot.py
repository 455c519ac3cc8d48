"""Zero-shot classification: chooses the class whose name, in template sentences, is most similar to the picture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F

from mm1.encoder.features import Encoder
from mm1.errors import UserError


def class_names(labels: Sequence[str], file: str | None) -> list[str]:
    """Return the names of classes.

    Args:
        labels: The classes' labels.
        file: JSON file with an object of names by label; None: the labels are the names.

    Raises:
        UserError: If the file can't be read or lacks a label.
    """
    if file is None:
        return list(labels)
    try:
        names = json.loads(Path(file).read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: the names of classes can't be read ({error}): check `names`") from None
    if not isinstance(names, dict) or (missing := [label for label in labels if label not in names]):
        wrong = f"it has no name for '{missing[0]}'" if isinstance(names, dict) else "it is not a JSON object"
        raise UserError(f"{file}: {wrong}: give a name for every label")
    return [str(names[label]) for label in labels]


def class_features(encoder: Encoder, names: Sequence[str], templates: Sequence[str]) -> torch.Tensor:
    """Return (classes, D) unit features: the mean over the templates (arXiv 2103.00020 sec. 3.1.4).

    Args:
        encoder: An encoder with two towers.
        names: The classes' names.
        templates: Sentences in which `{}` stands for the name.
    """
    texts = [template.replace("{}", name) for template in templates for name in names]
    features = encoder.text_features(texts).reshape(len(templates), len(names), -1)
    return F.normalize(features.mean(0), dim=-1)
