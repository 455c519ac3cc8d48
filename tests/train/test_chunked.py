"""A training whose loss is computed in chunks is the one with whole logits, sharded and not, tied and not."""

from __future__ import annotations

from pathlib import Path

import pytest

from mm1.model import loss
from mm1.recipe import load_recipe
from mm1.train.pretrain import pretrain
from tests.train import chunked_ranks
from tests.train.forked import end, start_ranks
from tests.train.test_ranks import column


@pytest.mark.parametrize("tied", ["true", "false"])
def test_two_sharded_ranks_train_as_one_with_whole_logits(
    tied: str, recipe_file: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = [f"model.language_model.tie_embeddings={tied}", "train.z_loss=0.01", "train.steps=6"]
    recipe = load_recipe(str(recipe_file), settings)
    pretrain(recipe, tmp_path / "whole")
    command = ["pretrain", recipe_file, "--to", tmp_path / "two", *(a for s in settings for a in ("--set", s))]
    ranks = start_ranks(2, command, tmp_path / "log", program=chunked_ranks.main)
    assert end(ranks) == [0, 0], (tmp_path / "log.0").read_text()
    with monkeypatch.context() as patch:
        patch.setattr(loss, "LOGITS_AT_ONCE", 4096)
        pretrain(recipe, tmp_path / "one")
    for name in ("loss", "grad_norm"):
        assert column(tmp_path / "one", name) == pytest.approx(column(tmp_path / "whole", name), rel=1e-4)
        assert column(tmp_path / "two", name) == pytest.approx(column(tmp_path / "whole", name), rel=2e-4)
