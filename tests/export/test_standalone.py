"""`mm1 export --standalone`: a folder that loads where mm1 is not installed, bit for bit the same."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mm1.auto_map import CODE
from mm1.errors import UserError
from mm1.export.export import export_model
from mm1.export.standalone import standalone_code
from mm1.model import build_model
from mm1.processing.chat import default_chat_template
from mm1.processing.processor import build_processor
from mm1.processing.tiles import TilingRule
from tests.model.builders import tiny_recipe
from tests.processing.sample_tokenizers import own

from .use import use

MODELS = {
    "dense, tiles": ({}, TilingRule(grid="dynamic", fit="pad")),
    "sparse": ({"num_experts": 4}, TilingRule()),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folders = []
    for language_model, rule in MODELS.values():
        processor = build_processor(own(), 16, 4, chat_template=default_chat_template(), resolution=rule)
        model = build_model(
            tiny_recipe(language_model={"tie_embeddings": False} | language_model),
            vocab_size=len(processor.tokenizer),
            image_token_id=processor.image_token_id,
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=0,
            seed=3,
        )
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    parameter.mul_(6.0)  # fresh weights are so small that every answer is the same
        folders.append(tmp_path_factory.mktemp("model"))
        model.save_pretrained(folders[-1])
        processor.save_pretrained(folders[-1])
    return folders


def test_answers_are_equal_where_mm1_is_not(models: list[Path], tmp_path: Path) -> None:
    folders = [tmp_path / f"standalone.{number}" for number in range(len(models))]
    for model, folder in zip(models, folders, strict=True):
        export_model(str(model), folder, standalone=True)
    command = [sys.executable, str(Path(__file__).with_name("use.py")), str(tmp_path), *map(str, folders)]
    modules = {**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1"}
    modules["OMP_NUM_THREADS"] = str(torch.get_num_threads())  # sums of other threads are rounded in another order
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=modules, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""  # no module of mm1 was imported
    for number, (model, folder) in enumerate(zip(models, folders, strict=True)):
        wanted = use(model)
        for name in (f"{number}.safetensors", f"again-{number}.safetensors"):
            found = load_file(tmp_path / name)
            assert found.keys() == wanted.keys()
            assert [key for key in wanted if not torch.equal(found[key], wanted[key])] == []
        # What was loaded from such a folder is saved as one.
        again = tmp_path / f"again-{number}"
        assert {file.name for file in again.iterdir()} == {file.name for file in folder.iterdir()}
        assert all((again / name).read_text() == (folder / name).read_text() for name in standalone_code())


def test_the_code_is_the_package_s(models: list[Path], tmp_path: Path) -> None:
    """It needs only what the library itself needs, and a folder changes its kind both ways."""
    code = standalone_code()
    needed: set[str] = set()
    for text in code.values():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                needed.add(str(node.module).split(".")[0])
            elif isinstance(node, ast.ImportFrom):
                assert f"{node.module}.py" in code
            elif isinstance(node, ast.Import):
                needed |= {alias.name.split(".")[0] for alias in node.names}
    libraries = {"torch", "transformers", "tokenizers", "huggingface_hub", "numpy", "PIL"}
    assert needed - set(sys.stdlib_module_names) == libraries | {"httpx", "pillow_heif"}  # the last two where asked for
    export_model(str(models[0]), tmp_path / "alone", standalone=True)
    assert (tmp_path / "alone" / CODE).read_text() != (models[0] / CODE).read_text()
    export_model(str(tmp_path / "alone"), tmp_path / "back")
    assert {file.name for file in (tmp_path / "back").iterdir()} == {file.name for file in models[0].iterdir()}
    assert (tmp_path / "back" / CODE).read_text() == (models[0] / CODE).read_text()


def test_what_cannot_be_written_is_refused(models: list[Path], tmp_path: Path) -> None:
    name = str(models[0])
    with pytest.raises(UserError, match="no such format: name one of hf"):
        export_model(name, None, "somewhere/else")  # the form of earlier versions
    with pytest.raises(UserError, match="the folder to write is missing"):
        export_model(name, None, standalone=True)
    with pytest.raises(UserError, match="exists already"):
        export_model(name, tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(UserError, match="no model of mm1"):
        export_model(str(tmp_path / "other"), tmp_path / "out", standalone=True)
    assert not (tmp_path / "out").exists()
