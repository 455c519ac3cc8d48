"""A step waits for nothing that is on the device; what it skips, it skips there."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mm1.errors import UserError
from mm1.model import attention
from mm1.recipe import load_recipe
from mm1.train import optimizer
from mm1.train.loop import Trainer
from mm1.train.pretrain import pretrain
from tests.conftest import breaking_at
from tests.train.test_telemetry import lines_of


class Waits(TorchDispatchMode):
    """Notes operations that on a GPU make the host wait for the device."""

    waiting = ("_local_scalar_dense", "nonzero", "masked_select", "unique")

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name.startswith(self.waiting):
            frames = traceback.extract_stack()
            if not in_loader(frames):
                self.seen.append(f"{name} in {[frame.name for frame in frames[-12:]]}")
        return func(*args, **(kwargs or {}))


def in_loader(frames: traceback.StackSummary) -> bool:
    """Whether the loader works, whose tensors are the host's."""
    return any(frame.filename.endswith("plan/loader.py") for frame in frames)


def losses(run: Path) -> list[float]:
    return [line["loss"] for line in lines_of(run)]


@pytest.mark.parametrize("name", ["adamw", "adafactor"])
def test_a_step_reads_nothing_back(
    name: str, recipe_file: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, tolist, waits = Trainer._step, torch.Tensor.tolist, Waits()
    inside: list[bool] = []

    def watched(self: Trainer, *args: Any) -> int:
        with waits:
            inside.append(True)
            try:
                return step(self, *args)
            finally:
                inside.pop()

    def to_list(self: torch.Tensor) -> Any:
        if inside and not in_loader(traceback.extract_stack()):
            waits.seen.append("tolist")
        return tolist(self)

    def kernel(q: Any, k: Any, v: Any, borders: torch.Tensor, *_: Any, scale: float | None, **kwargs: Any) -> Any:
        """Stands in for the kernel of a GPU, which reads the borders there."""
        lengths = [int(length) for length in np.diff(borders.numpy()) if length]
        return attention.one_by_one(q, k, v, lengths, scaling=scale)

    monkeypatch.setattr(attention, "has_kernel", lambda *_: True)
    monkeypatch.setattr(attention, "varlen_attn", kernel)
    monkeypatch.setattr(Trainer, "_step", watched)
    monkeypatch.setattr(torch.Tensor, "tolist", to_list)
    settings = [f"train.optimizer={name}", "model.language_model.attention=varlen"]
    pretrain(load_recipe(str(recipe_file), settings), tmp_path / "run")
    assert waits.seen == []


def test_bad_steps_are_counted_when_the_log_is_read(
    recipe_file: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rare reads count, log and learn what a read after every step does."""
    backward = Trainer.backward

    def poisoned(self: Trainer, batch: Any, number: int, count: float) -> Any:
        losses = backward(self, batch, number, count)
        if number in bad:
            next(self.model.parameters()).grad.fill_(float("nan"))  # type: ignore[union-attr]  # made above
        return losses

    monkeypatch.setattr(Trainer, "backward", poisoned)
    bad = {2, 3, 7}
    pretrain(load_recipe(str(recipe_file)), tmp_path / "often")
    pretrain(load_recipe(str(recipe_file), ["train.log_every=6"]), tmp_path / "rarely")
    often, rarely = lines_of(tmp_path / "often"), lines_of(tmp_path / "rarely")
    assert [line["bad_steps"] for line in often] == [0, 0, 1, 2, 2, 2, 2, 3, 3, 3, 3, 3]
    assert [(line["step"], line["bad_steps"]) for line in rarely] == [(6, 2), (12, 3)]
    for line, same in zip(rarely, (often[5], often[11]), strict=True):
        assert line.keys() | {"loss/text"} == same.keys() | {"loss/text"}  # a kind is there if the window has it
        for key in ("grad_norm", "grad_norm/vision", "learning_rate", "tokens", "images"):
            assert line[key] == same[key], key
    bad = set(range(4, 100))
    with pytest.raises(UserError, match=r"step 7: the gradients of 3 steps in a row"):
        pretrain(load_recipe(str(recipe_file), ["train.log_every=100", "train.max_bad_steps=3"]), tmp_path / "all")


def test_a_run_begun_with_an_unfused_optimizer_goes_on(
    recipe_file: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = load_recipe(str(recipe_file))
    pretrain(recipe, tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(optimizer, "_FUSED", ())
        with breaking_at(6):
            pretrain(recipe, tmp_path / "run")
    pretrain(recipe, tmp_path / "run")
    assert losses(tmp_path / "run") == pytest.approx(losses(tmp_path / "whole"), rel=1e-5)
