"""Out of memory: the sentence names a size that does fit."""

from __future__ import annotations

import re
import resource
from pathlib import Path
from typing import Any

import pytest
import torch

from mm1 import cli
from mm1.errors import UserError
from mm1.recipe import load_recipe
from mm1.train.loop import Trainer
from mm1.train.memory import is_out_of_memory
from mm1.train.objective import Losses
from mm1.train.pretrain import pretrain
from tests.train.forked import mm1

SETTINGS = ["train.batch_size=256", "train.steps=2", "train.warmup_steps=1"]
SETTINGS += ["model.language_model={hidden_size: 192, num_layers: 4, num_heads: 4}"]


def limited() -> None:
    """`mm1`, with 400 MiB for the training, once all else is in memory: 256 sequences take several times that."""
    run = Trainer.run

    def with_limit(self: Trainer) -> dict[str, Any]:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (400 << 20), resource.RLIM_INFINITY))
        return run(self)

    setattr(Trainer, "run", with_limit)  # noqa: B010 - mypy refuses a method that is assigned to
    cli.main()


def test_a_process_that_is_refused_memory_names_a_size(recipe_file: Path, data: Path, tmp_path: Path) -> None:
    settings = [argument for setting in SETTINGS for argument in ("--set", setting)]
    arguments = ["pretrain", recipe_file, "--to", tmp_path / "run", *settings]
    result = mm1(*arguments, program=limited, environment={"COLUMNS": 300})
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    said = re.search(r"on cpu with train.micro_batch_size 256[;\s].*: set train.micro_batch_size: (\d+)", result.stderr)
    assert said, result.stderr
    assert 1 <= int(said[1]) < 256


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), MemoryError()]
)
def test_sizes_are_tried_by_halves(
    recipe_file: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    from mm1.train import pretrain as module

    loss, sizes = module.language_model_loss, []

    def limited(model, processor, batch, *rest) -> Losses:
        sizes.append(len(batch["input_ids"]))
        if sizes[-1] > most:
            raise error
        return loss(model, processor, batch, *rest)

    monkeypatch.setattr(module, "language_model_loss", limited)
    recipe = load_recipe(str(recipe_file), ["train.batch_size=8"])
    most = 3
    with pytest.raises(UserError, match=r"train.micro_batch_size 8; 2 fits .*: set train.micro_batch_size: 2$"):
        pretrain(recipe, tmp_path / "some")
    assert sizes == [8, 4, 2, 2, 2, 2]
    most = 0
    with pytest.raises(UserError, match=r"and not even 1 fits: set train.activation_checkpointing: true"):
        pretrain(recipe, tmp_path / "none")


def test_a_trial_that_breaks_for_another_reason_says_so(
    recipe_file: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mm1.train import pretrain as module

    errors = iter([MemoryError(), RuntimeError("could not create a primitive")])

    def broken(*_) -> Losses:
        raise next(errors)

    monkeypatch.setattr(module, "language_model_loss", broken)
    recipe = load_recipe(str(recipe_file), ["train.batch_size=8"])
    with pytest.raises(UserError, match=r"size 8 \(.* could not create a primitive\): set \S+_size: 4, or"):
        pretrain(recipe, tmp_path / "run")


def test_other_errors_stay_what_they_are() -> None:
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
