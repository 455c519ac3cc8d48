"""Experts spread over ranks: gradients, losses, checkpoints and failures, on real processes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mm1.recipe import load_recipe
from mm1.train.pretrain import pretrain
from tests.conftest import breaking_at

from .expert_ranks import CASES, exchange_checkpoints, write_differences
from .forked import end, on_ranks, start_ranks
from .test_ranks import column, lines_of

EXPERTS = ["model.language_model.num_experts=4", "model.language_model.sparse_every=1"]


@pytest.mark.parametrize(
    ("ranks", "cases"),
    [
        (2, ["plain", "recomputed", "kept", "accumulated", "gathered", "one_rank_gets_none", "eager", "bf16"]),
        (4, [name for name in CASES if name not in ("kept", "gathered", "eager")]),
    ],
)
def test_losses_and_gradients_are_those_of_one_process(ranks: int, cases: list[str], tmp_path: Path) -> None:
    """With packed rows and padding, pictures on some ranks, the routers' losses, and a rank that gets no token."""
    on_ranks(ranks, write_differences, tmp_path / "found.json", cases)
    found = json.loads((tmp_path / "found.json").read_text())
    assert list(found) == cases
    for name, differences in found.items():
        if name == "bf16":
            assert max(differences["loss"], differences["routers"]) < 1e-3
            assert differences["norm"] < 1e-2
        else:
            assert max(differences.values()) < 2e-6, name


def test_checkpoints_load_however_experts_are_spread(tmp_path: Path) -> None:
    """From each of 1, 2 and 4 ranks to each, over each of 1, 2 and 4 ranks where there are so many."""
    (tmp_path / "checkpoints").mkdir()
    for ranks in (1, 4, 2, 4, 1):
        on_ranks(ranks, exchange_checkpoints, tmp_path)
    names = [path.name for path in (tmp_path / "checkpoints").iterdir()]
    assert len(names) == 1 + 3 + 2 + 3 + 1


def test_a_run_is_trained_resumed_and_exported(recipe_file: Path, data: Path, tmp_path: Path) -> None:
    """Begun on one rank, gone on with on two, among which the experts are spread."""
    one, two = tmp_path / "one", tmp_path / "two"
    settings = [*EXPERTS, "train.micro_batch_size=1"]  # the routers' losses are those of a micro-batch
    pretrain(load_recipe(str(recipe_file), settings), one)
    with breaking_at(6):
        pretrain(load_recipe(str(recipe_file), settings), two)
    arguments = ["pretrain", recipe_file, "--to", two, *(part for setting in settings for part in ("--set", setting))]
    assert end(start_ranks(2, arguments, tmp_path / "log")) == [0, 0]
    assert "resuming from step 4" in (tmp_path / "log.0").read_text()
    for name in ("loss", "grad_norm", "router/balance", "router/z", "router/fullest_expert"):
        assert column(two, name) == pytest.approx(column(one, name), rel=5e-4), name
    assert all(1 <= line["router/fullest_rank"] <= 2 for line in lines_of(two)[4:])
    ours, theirs = (load_file(run / "model" / "model.safetensors") for run in (two, one))
    assert {name: value.shape for name, value in ours.items()} == {name: v.shape for name, v in theirs.items()}
    for name in theirs:
        if not name.endswith("k_proj.bias"):
            assert torch.allclose(ours[name], theirs[name], atol=2e-4), name


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (["train.expert_parallel=3"], "train.expert_parallel 3 does not divide the 4 experts of a layer"),
        (["train.expert_parallel=4"], "train.expert_parallel 4 does not divide the 2 ranks that share the model"),
    ],
)
def test_experts_that_cant_be_spread_are_one_sentence(
    settings: list[str], sentence: str, recipe_file: Path, data: Path, tmp_path: Path
) -> None:
    settings = [*EXPERTS, *settings]
    arguments = ["pretrain", recipe_file, "--to", tmp_path / "run", *(p for s in settings for p in ("--set", s))]
    assert end(start_ranks(2, arguments, tmp_path / "log")) == [2, 2]
    said = "".join((tmp_path / f"log.{rank}").read_text() for rank in (0, 1))
    assert sentence in said
    assert "Traceback" not in said
