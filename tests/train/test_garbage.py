"""Garbage is collected where all ranks collect it, and as before once training has ended."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest

from mm1.recipe import load_recipe
from mm1.train import garbage
from mm1.train.loop import Trainer
from mm1.train.pretrain import pretrain
from tests.conftest import breaking_at


def test_collections_come_at_fixed_steps_and_never_between(
    recipe_file: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collections: list[tuple[int, Any]] = []
    steps: list[int] = []

    def noted(phase: str, info: dict[str, int]) -> None:
        if phase == "start" and gc.get_freeze_count():  # inside the loop
            collections.append((len(steps), info["generation"]))

    monkeypatch.setattr(garbage, "STEPS_BETWEEN", 4)
    step = Trainer._step

    def counted(self: Trainer, *args: Any) -> int:
        steps.append(1)
        [[] for _ in range(50_000)]  # more than collections by number would let pass
        return step(self, *args)

    monkeypatch.setattr(Trainer, "_step", counted)
    gc.callbacks.append(noted)
    try:
        pretrain(load_recipe(str(recipe_file), ["train.steps=12"]), tmp_path / "run")
    finally:
        gc.callbacks.remove(noted)
    assert collections == [(4, 2), (8, 2), (12, 2)]


def test_collections_by_number_are_back_however_training_ends(recipe_file: Path, data: Path, tmp_path: Path) -> None:
    assert gc.isenabled()
    with breaking_at(3):
        pretrain(load_recipe(str(recipe_file)), tmp_path / "run")
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0
