"""The budget of a training with adapters."""

from __future__ import annotations

import pytest

from mm1.recipe import load_recipe
from mm1.scaling.budget import make_budget
from mm1.scaling.gpus import gpu

pytest.importorskip("peft")


def test_only_what_trains_has_gradients_and_an_optimizer() -> None:
    settings = ["train.freeze=[vision,connector]", "train.batch_size=8", "train.micro_batch_size=null"]
    settings.append("model.language_model.num_layers=4")
    plain, lora = (
        make_budget(load_recipe("mm1-3b", [*settings, *more]), gpu("h200"), 1) for more in ([], ["train.lora.rank=16"])
    )
    # 4 layers of width 2560 with an FFN of 7040: four projections of attention, three of the FFN.
    adapters = 4 * 16 * (4 * (2560 + 2560) + 3 * (2560 + 7040))
    assert lora.memory.optimizer == 8 * adapters
    assert lora.memory.gradients == 4 * adapters
    assert lora.memory.weights == plain.memory.weights + 4 * adapters
    assert lora.flops["language_model"] < 0.75 * plain.flops["language_model"]
