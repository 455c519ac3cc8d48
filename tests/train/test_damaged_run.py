"""Files of a run that were damaged between two calls: a sentence names the file; mended, the run goes on."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mm1.errors import UserError
from mm1.recipe import load_recipe
from mm1.train.pretrain import pretrain
from tests.conftest import breaking_at


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("recipe.yaml", b"name: \x1b\n", r"recipe.yaml: the run's recipe is damaged \(.*\): restore it, or choose"),
        ("recipe.yaml", b"name: [\n", r"recipe.yaml: the run's recipe is damaged \(.*\): restore it, or choose"),
        ("recipe.yaml", b"\xff\xfe\n", r"recipe.yaml: the run's recipe is damaged \(.*\): restore it, or choose"),
        ("recipe.yaml", b"", r"recipe.yaml: the run's recipe is damaged \(it has no keys\): restore it, or choose"),
        ("checkpoints/step-000008/state.json", b"", r"step-000008: the checkpoint .* damaged .*: remove this folder"),
        ("checkpoints/step-000008/state.json", b'{"step": 8', "step-000008: the checkpoint .* is damaged"),
        ("plan/pieces.npy", b"", r"pieces.npy: the file is missing or damaged .*: remove the folder .*run/plan"),
        ("tokenizer/tokenizer.json", b"{", r"run/tokenizer: no tokenizer .*: remove this folder, .* it anew"),
        ("tokenizer/tokenizer_config.json", b"{}", "run/tokenizer: the tokenizer has no .*: remove this folder"),
    ],
)
def test_a_damaged_file_of_a_run_is_named(
    data: Path, recipe_file: Path, tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    run, recipe = tmp_path / "run", load_recipe(str(recipe_file))
    with breaking_at(10):
        pretrain(recipe, run)
    file = run / name
    whole = file.read_bytes()
    file.write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        pretrain(recipe, run)
    assert "\n" not in str(error.value)
    if name == "recipe.yaml":
        file.write_bytes(whole)
    else:
        shutil.rmtree(file.parent)
    with breaking_at(11):
        pretrain(recipe, run)
