"""Two real processes compare their batches as one, and train as one process does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mm1.encoder.contrastive import Temperature, sigmoid_loss, softmax_loss
from mm1.encoder.pretrain import pretrain_encoder
from mm1.recipe import EncoderRecipe, load_recipe
from tests.encoder.gather_ranks import write_gradients
from tests.encoder.test_contrastive import ALONE, batch, gradient
from tests.train.forked import on_ranks
from tests.train.test_ranks import run_on_two


def test_losses_over_two_ranks_are_those_of_the_whole_batch(tmp_path: Path) -> None:
    on_ranks(2, write_gradients, tmp_path)
    ranks = [torch.load(tmp_path / f"rank-{rank}.pt") for rank in range(2)]
    for kind, loss in (("softmax", softmax_loss), ("sigmoid", sigmoid_loss)):
        images, texts = batch(7, 6)
        temperature = Temperature(5.0, -2.0 if kind == "sigmoid" else None, 100).double()
        total, rows = loss(images, texts, temperature, ALONE)
        total.backward()
        for local in (True, False):
            parts = [results[f"{kind}/{local}"] for results in ranks]
            assert sum(part["total"] for part in parts).item() == pytest.approx(total.item(), rel=1e-12)
            assert torch.allclose(torch.cat([part["rows"] for part in parts]), rows)
            assert torch.allclose(torch.cat([part["images"] for part in parts]), gradient(images))
            assert torch.allclose(torch.cat([part["texts"] for part in parts]), gradient(texts))
            assert torch.allclose(sum(part["log_scale"] for part in parts), gradient(temperature.log_scale))


@pytest.mark.parametrize("kind", ["clip", "aim"])
def test_two_ranks_train_as_one(kind: str, encoder_recipe: Path, data: Path, tmp_path: Path) -> None:
    settings = [f"objective.kind={kind}", "objective.head_depth=1", "data.crop_area=[0.5,1]", "train.steps=6"]
    one, two = tmp_path / "one", tmp_path / "two"
    pretrain_encoder(load_recipe(str(encoder_recipe), settings, schema=EncoderRecipe), one)
    arguments = [argument for setting in settings for argument in ("--set", setting)]
    result = run_on_two(["encoder", encoder_recipe, "--to", two, *arguments], tmp_path / "log", data)
    assert result.returncode == 0, result.stderr
    for name in ("loss", "grad_norm", "tokens", "images"):
        ours, theirs = (
            [json.loads(line)[name] for line in (run / "metrics.jsonl").read_text().splitlines()] for run in (two, one)
        )
        assert ours == pytest.approx(theirs, rel=2e-4), name
    our_weights, their_weights = (load_file(run / "model" / "model.safetensors") for run in (two, one))
    shapes = [{name: t.shape for name, t in weights.items()} for weights in (our_weights, their_weights)]
    assert shapes[0] == shapes[1]
    for name in their_weights:
        if not name.endswith("k_proj.bias"):  # attention does not depend on it: its gradient is rounding
            assert torch.allclose(our_weights[name], their_weights[name], atol=1e-4), name
