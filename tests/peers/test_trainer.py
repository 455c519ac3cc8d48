"""The library's Trainer and switches around a model, written here: the library tests them with its own models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import Trainer, TrainingArguments

from mm1.model import MM1ForConditionalGeneration
from tests.peers.variants import VARIANTS, Tester

ROWS = 6


@pytest.fixture(params=["AveragePool", "Sparse"])
def model_and_rows(request: pytest.FixtureRequest) -> tuple[MM1ForConditionalGeneration, list[dict[str, torch.Tensor]]]:
    config, inputs = Tester(None, **VARIANTS[request.param]).prepare_config_and_inputs_for_common()
    inputs["labels"] = inputs["input_ids"]
    return MM1ForConditionalGeneration(config), [{n: t[i % 3] for n, t in inputs.items()} for i in range(ROWS)]


def trainer(model: Any, rows: Any, folder: Path, **settings: Any) -> Trainer:
    args = TrainingArguments(
        str(folder),
        max_steps=2,
        per_device_train_batch_size=2,
        per_device_eval_batch_size=2,
        report_to=[],
        use_cpu=True,
        remove_unused_columns=False,
        save_strategy="no",
        disable_tqdm=True,
    )
    return Trainer(model=model, args=args, train_dataset=rows, eval_dataset=rows, **settings)


def test_trains(model_and_rows: Any, tmp_path: Path) -> None:
    model, rows = model_and_rows
    assert np.isfinite(trainer(model, rows, tmp_path).train().training_loss)


def test_evaluates_with_metrics(model_and_rows: Any, tmp_path: Path) -> None:
    model, rows = model_and_rows
    found = trainer(model, rows, tmp_path, compute_metrics=lambda found: {"rows": len(found.label_ids)}).evaluate()
    assert found["eval_rows"] == ROWS


def test_predictions_are_the_logits(model_and_rows: Any, tmp_path: Path) -> None:
    model, rows = model_and_rows
    found: Any = trainer(model, rows, tmp_path).predict(rows)
    assert found.predictions.shape == (ROWS, len(rows[0]["input_ids"]), model.config.text_config.vocab_size)


@pytest.mark.parametrize("implementation", ["eager", "batched_mm", "grouped_mm"])
def test_experts_are_computed_as_asked_for(tmp_path: Path, implementation: str) -> None:
    config, _ = Tester(None, **VARIANTS["Sparse"]).prepare_config_and_inputs_for_common()
    MM1ForConditionalGeneration(config).save_pretrained(tmp_path)
    model = MM1ForConditionalGeneration.from_pretrained(tmp_path, experts_implementation=implementation)
    block = model.model.language_model.layers[1].mlp
    assert block.experts.config._experts_implementation == implementation
