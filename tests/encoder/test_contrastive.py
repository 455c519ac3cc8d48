"""The contrastive losses against the published formulas in float64, and open_clip's values."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mm1.encoder.contrastive import Temperature, sigmoid_loss, softmax_loss
from mm1.train.parallel import World

ALONE = World(0, 1, torch.device("cpu"))
OPEN_CLIP_CASES = [("softmax", 3, 8, 16, 9.0, None), ("softmax", 4, 5, 4, 80.0, None), ("sigmoid", 5, 8, 16, 9.0, -4.0)]
"""Kind, seed, pairs, width, scale, bias."""


def batch(seed: int = 0, count: int = 6, width: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images, texts = (torch.randn(count, width, generator=generator, dtype=torch.float64) for _ in range(2))
    return F.normalize(images, dim=-1).requires_grad_(), F.normalize(texts, dim=-1).requires_grad_()


def gradient(tensor: torch.Tensor | None) -> torch.Tensor:
    assert tensor is not None
    assert tensor.grad is not None
    return tensor.grad


def softmax_reference(images: np.ndarray, texts: np.ndarray, scale: float) -> float:
    """CLIP's pseudocode (arXiv 2103.00020 fig. 3), the sum over the batch instead of the mean."""
    logits = scale * images @ texts.T

    def summed(rows: np.ndarray) -> float:
        return float(sum(np.log(np.exp(row).sum()) - row[i] for i, row in enumerate(rows)))

    return (summed(logits) + summed(logits.T)) / 2


def sigmoid_reference(images: np.ndarray, texts: np.ndarray, scale: float, bias: float) -> float:
    """SigLIP's equation 2 (arXiv 2303.15343), the sum over the batch instead of the mean."""
    total = 0.0
    for i, image in enumerate(images):
        for j, text in enumerate(texts):
            sign = 1 if i == j else -1
            total += math.log(1 + math.exp(-sign * (scale * float(image @ text) + bias)))
    return total


def numeric_gradient(function, values: np.ndarray, step: float = 1e-6) -> np.ndarray:
    gradient = np.zeros_like(values)
    for place in np.ndindex(values.shape):
        up, down = values.copy(), values.copy()
        up[place] += step
        down[place] -= step
        gradient[place] = (function(up) - function(down)) / (2 * step)
    return gradient


@pytest.mark.parametrize("local", [True, False])
@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_loss_and_gradients_are_the_published_ones(kind: str, local: bool) -> None:
    images, texts = batch()
    sigmoid = kind == "sigmoid"
    temperature = Temperature(7.0, -3.0 if sigmoid else None, 100).double()
    total, rows = (sigmoid_loss if sigmoid else softmax_loss)(images, texts, temperature, ALONE, local=local)
    x, y = images.detach().numpy(), texts.detach().numpy()

    def reference(images: np.ndarray = x, texts: np.ndarray = y, scale: float = 7.0, bias: float = -3.0) -> float:
        return sigmoid_reference(images, texts, scale, bias) if sigmoid else softmax_reference(images, texts, scale)

    assert total.item() == pytest.approx(reference(), rel=1e-6)  # the scale is kept as a float32 logarithm
    assert rows.sum().item() == pytest.approx(total.item(), rel=1e-12)
    total.backward()
    assert gradient(images).numpy() == pytest.approx(numeric_gradient(lambda v: reference(images=v), x), abs=1e-5)
    assert gradient(texts).numpy() == pytest.approx(numeric_gradient(lambda v: reference(texts=v), y), abs=1e-5)
    by_scale = numeric_gradient(lambda v: reference(scale=math.exp(v[0])), np.array([math.log(7.0)]))
    assert gradient(temperature.log_scale).numpy() == pytest.approx(by_scale, abs=1e-4)
    if sigmoid:
        by_bias = numeric_gradient(lambda v: reference(bias=v[0]), np.array([-3.0]))
        assert gradient(temperature.bias).numpy() == pytest.approx(by_bias, abs=1e-4)


@pytest.mark.parametrize("number", range(len(OPEN_CLIP_CASES)))
def test_losses_and_gradients_are_open_clips(number: int) -> None:
    theirs = json.loads((Path(__file__).parent / "golden" / "losses.json").read_text())[number]
    kind, seed, count, width, scale, bias = OPEN_CLIP_CASES[number]
    assert theirs["kind"] == kind
    images, texts = batch(seed, count, width)
    temperature = Temperature(scale, bias, 100).double()
    total, _ = (softmax_loss if kind == "softmax" else sigmoid_loss)(images, texts, temperature, ALONE)
    (total / count).backward()
    assert total.item() / count == pytest.approx(theirs["loss"], rel=1e-6)  # the scale is a float32 logarithm
    assert gradient(images).numpy() == pytest.approx(np.array(theirs["images"]), abs=1e-6)
    assert gradient(texts).numpy() == pytest.approx(np.array(theirs["texts"]), abs=1e-6)
    assert gradient(temperature.log_scale).item() == pytest.approx(theirs["log_scale"], rel=1e-5)


def test_captions_that_are_alike_give_the_gradient_of_shared_positives() -> None:
    """The diagonal as target, or all the same captions alike: the same gradients, so nothing is pushed apart."""
    images, texts = batch(1)
    same = torch.tensor([0, 1, 0, 2, 0, 1])
    alike = texts.detach()[same].requires_grad_()
    temperature = Temperature(5.0, None, 100).double()
    softmax_loss(images, alike, temperature, ALONE)[0].backward()
    logits = temperature(images @ alike.T)
    target = (same[:, None] == same).double()
    target /= target.sum(1, keepdim=True)
    shared = (F.cross_entropy(logits, target, reduction="sum") + F.cross_entropy(logits.T, target, reduction="sum")) / 2
    by_images, by_texts = torch.autograd.grad(shared, (images, alike))
    assert torch.allclose(gradient(images), by_images, atol=1e-9)
    # The text tower gets the sum over the captions that are one text.
    ours, theirs = (torch.zeros(3, alike.shape[1]).double().index_add(0, same, g) for g in (gradient(alike), by_texts))
    assert torch.allclose(ours, theirs, atol=1e-9)


def test_the_scale_is_clamped() -> None:
    temperature = Temperature(50.0, None, 20.0)
    temperature.clamp()
    assert temperature.scale().item() == pytest.approx(20.0)
    below = Temperature(10.0, None, 20.0)
    below.clamp()
    assert below.scale().item() == pytest.approx(10.0)
