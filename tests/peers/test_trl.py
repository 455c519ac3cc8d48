"""TRL trains MM1: supervised, by preferences, by rewards, with pictures; dense and sparse."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer

from tests.peers.builders import COLOURS, QUESTION, build, load, picture, save, weights

SETTINGS: dict[str, Any] = {
    "max_steps": 2,
    "learning_rate": 1e-2,
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 2,
    "logging_steps": 1,
    "report_to": [],
    "save_strategy": "no",
    "use_cpu": True,
    "bf16": False,
    "disable_tqdm": True,
    "gradient_checkpointing": False,
    "remove_unused_columns": False,
}
ASKED = [{"role": "user", "content": QUESTION}]


def answer(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def changed(before: dict[str, Any], model: Any) -> set[str]:
    after = weights(model)
    return {name for name in before if (before[name] != after[name]).any()}


def parts(names: set[str]) -> set[str]:
    """Return which parts of the model weights belong to."""
    return {part for part in ("vision_tower", "connector", "language_model") if any(part in name for name in names)}


@pytest.mark.parametrize("experts", [0, 4])
@pytest.mark.parametrize("checkpointing", [None, False, True])
def test_sft(tmp_path: Path, experts: int, checkpointing: bool | None) -> None:
    model, processor = build(experts)
    before = weights(model)
    rows = [{"messages": ASKED + answer(f"it is {c}"), "images": [picture(c)]} for c in COLOURS * 2]
    settings = SETTINGS | {"max_steps": 10}
    if checkpointing is not None:
        settings |= {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": checkpointing}}
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(str(tmp_path), max_length=None, **settings),
        train_dataset=Dataset.from_list(rows),
        processing_class=processor,
    )
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert all(math.isfinite(loss) for loss in losses)
    assert losses[-1] < losses[0]
    assert parts(changed(before, model)) == {"vision_tower", "connector", "language_model"}
    if experts:
        assert all(math.isfinite(entry["aux_loss"]) for entry in trainer.state.log_history if "loss" in entry)
        assert "model.language_model.layers.1.mlp.gate.weight" in changed(before, model)


@pytest.mark.parametrize("experts", [0, 4])
def test_dpo(tmp_path: Path, experts: int) -> None:
    model, processor = load(save(tmp_path / "model", experts))
    before = weights(model)
    rows = [
        {"prompt": ASKED, "chosen": answer(f"it is {c}"), "rejected": answer("it is it"), "images": [picture(c)]}
        for c in COLOURS * 2
    ]
    reference, _ = load(tmp_path / "model")
    trainer = DPOTrainer(
        model=model,
        ref_model=reference,
        args=DPOConfig(str(tmp_path), max_length=None, **SETTINGS),
        train_dataset=Dataset.from_list(rows),
        processing_class=processor,
    )
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert all(math.isfinite(loss) for loss in losses)
    if not experts:
        assert losses[0] == pytest.approx(math.log(2), abs=1e-3)  # the policy is the reference
    assert parts(changed(before, model)) == {"vision_tower", "connector", "language_model"}


@pytest.mark.parametrize("experts", [0, 4])
def test_grpo(tmp_path: Path, experts: int) -> None:
    model, processor = load(save(tmp_path / "model", experts))
    before = weights(model)
    rows = [{"prompt": ASKED, "image": picture(c)} for c in COLOURS * 2]

    def length(completions: list[list[dict[str, str]]], **_: Any) -> list[float]:
        return [float(len(completion[0]["content"])) for completion in completions]

    trainer = GRPOTrainer(
        model=model,
        reward_funcs=length,
        args=GRPOConfig(str(tmp_path), num_generations=2, max_completion_length=6, temperature=2.0, **SETTINGS),
        train_dataset=Dataset.from_list(rows),
        processing_class=processor,
    )
    trainer.train()
    rewards = [entry["reward"] for entry in trainer.state.log_history if "reward" in entry]
    assert rewards
    assert max(rewards) > 0
    assert "language_model" in parts(changed(before, model))


BY_NAME = """
import json
import sys
from datasets import Dataset
from PIL import Image
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

folder, out, settings = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
settings["trust_remote_code"] = True
asked = [{"role": "user", "content": "which colour is it?"}]
picture = Image.new("RGB", (20, 20), "red")
answer = lambda text: [{"role": "assistant", "content": text}]
rows = {
    SFTTrainer: {"messages": asked + answer("it is red"), "images": [picture]},
    DPOTrainer: {"prompt": asked, "chosen": answer("it is red"), "rejected": answer("it is it"), "images": [picture]},
}
for cls, config in ((SFTTrainer, SFTConfig), (DPOTrainer, DPOConfig)):
    data = Dataset.from_list([rows[cls]] * 4)
    trainer = cls(folder, args=config(out, max_length=None, **settings), train_dataset=data)
    trainer.train()
    trainer.save_model(out + "/" + cls.__name__)
    print("--", [entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
"""


def test_by_name_without_import_mm1(tmp_path: Path) -> None:
    """TRL loads model, processor and DPO's reference by itself; what it saves is such a folder again."""
    command = [sys.executable, "-c", BY_NAME, str(save(tmp_path / "model")), str(tmp_path), json.dumps(SETTINGS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = [json.loads(line.removeprefix("-- ")) for line in done.stdout.splitlines() if line.startswith("--")]
    assert len(found) == 2
    assert found[1][0] == pytest.approx(math.log(2), abs=1e-3)  # the policy is the reference
    for name in ("SFTTrainer", "DPOTrainer"):
        assert (tmp_path / name / "modeling_mm1.py").is_file()
        load(tmp_path / name)
