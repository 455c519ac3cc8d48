"""A model's folder loads where nobody writes `import mm1`, in processes that don't know it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image as PILImage
from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText, AutoProcessor, pipeline

from mm1.auto_map import CODE
from mm1.model import MM1Config, MM1ForConditionalGeneration, MM1Model, MM1Processor, build_model
from mm1.processing.chat import default_chat_template
from mm1.processing.processor import build_processor
from mm1.processing.tiles import TilingRule
from tests.processing.sample_tokenizers import own

from .builders import tiny_config, tiny_recipe
from .fresh_python import FreshPython, fresh_python

CLASSES = ["MM1Config", "MM1Model", "MM1ForConditionalGeneration", "MM1ForConditionalGeneration", "MM1Processor"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that cuts pictures and has a chat template."""
    processor = build_processor(
        own(), 16, 4, chat_template=default_chat_template(), resolution=TilingRule(grid="1x2", fit="pad")
    )
    model = build_model(
        tiny_recipe(language_model={"tie_embeddings": False}),
        vocab_size=len(processor.tokenizer),
        image_token_id=processor.image_token_id,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        seed=3,
    )
    folder = tmp_path_factory.mktemp("a.model-of") / "model"
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    PILImage.new("RGB", (30, 20), "red").save(folder.parent / "red.png")
    return folder


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FreshPython]:
    with fresh_python(tmp_path_factory.mktemp("python")) as python:
        yield python


def code_of(folder: Path) -> list[Any]:
    """Return what a folder says of its code."""
    maps = [json.loads((folder / name).read_text())["auto_map"] for name in ("config.json", "processor_config.json")]
    return [(folder / CODE).read_text(), *maps]


LOAD = """
import sys
from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText, AutoModelForMultimodalLM, AutoProcessor
autos = [AutoConfig, AutoModel, AutoModelForImageTextToText, AutoModelForMultimodalLM, AutoProcessor]
if sys.argv[2] == "backwards":
    autos.reverse()
found = {auto: auto.from_pretrained(sys.argv[1], trust_remote_code=True) for auto in autos}
print(*(type(found[auto]).__name__ for auto in sorted(autos, key=lambda auto: auto.__name__)))
for auto, what in found.items():
    what.save_pretrained(sys.argv[3] + "/" + auto.__name__)
found[AutoModelForImageTextToText].save_pretrained(sys.argv[3] + "/again")
found[AutoProcessor].save_pretrained(sys.argv[3] + "/again")
"""


def test_auto_classes(python: FreshPython, folder: Path, tmp_path: Path) -> None:
    """In either order; what they save is such a folder again, and each alone has the code that it names."""
    (said,) = python.run(LOAD, folder, "forwards", tmp_path, where=folder.parent)
    assert said.split() == CLASSES
    assert {file.name for file in (tmp_path / "again").iterdir()} == {file.name for file in folder.iterdir()}
    assert code_of(tmp_path / "again") == code_of(folder)
    assert all((some / CODE).is_file() for some in tmp_path.iterdir())
    (said,) = python.run(LOAD, tmp_path / "again", "backwards", tmp_path, where=tmp_path)
    assert said.split() == CLASSES


PIPELINE = """
import sys
from transformers import pipeline
pipe = pipeline("image-text-to-text", model=sys.argv[1], trust_remote_code=True, device="cpu")
content = [{"type": "image", "path": sys.argv[2]}, {"type": "text", "text": "What is this?"}]
print(repr(pipe(text=[{"role": "user", "content": content}], max_new_tokens=5, return_full_text=False)))
"""


def test_pipeline_from_within_the_folder(python: FreshPython, folder: Path) -> None:
    picture = folder.parent / "red.png"
    (here,) = python.run(PIPELINE, ".", picture, where=folder)
    content = [{"type": "image", "path": str(picture)}, {"type": "text", "text": "What is this?"}]
    known: Any = pipeline("image-text-to-text", model=str(folder), device="cpu")
    wanted = known(text=[{"role": "user", "content": content}], max_new_tokens=5, return_full_text=False)
    assert here == repr(wanted)


UNTRUSTED = """
import sys
from transformers import AutoModel, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer
for auto in (AutoProcessor, AutoModel, AutoModelForImageTextToText):
    try:
        auto.from_pretrained(sys.argv[1])
    except ValueError as error:
        print()
        print("--", "trust_remote_code=True" in str(error), "mm1" in sys.modules)
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
print()
print("--", type(tokenizer).__name__)
"""


def test_without_trust_nothing_is_run(python: FreshPython, folder: Path) -> None:
    """The library asks, and without a terminal says what to write."""
    said = [line for line in python.run(UNTRUSTED, folder, where=folder.parent) if line.startswith("--")]
    assert said == ["-- True False"] * 3 + ["-- TokenizersBackend"]


@pytest.mark.parametrize("trust", [None, False, True])
def test_registered_classes_come_first(folder: Path, trust: bool | None, capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever imports mm1 is asked nothing, and gets the package's classes whatever they answer."""
    autos: list[Any] = [AutoConfig, AutoModel, AutoModelForImageTextToText, AutoProcessor]
    classes = [type(auto.from_pretrained(folder, trust_remote_code=trust)) for auto in autos]
    assert classes == [MM1Config, MM1Model, MM1ForConditionalGeneration, MM1Processor]
    assert type(AutoModelForImageTextToText.from_config(tiny_config(), trust_remote_code=trust)) is classes[2]
    assert capsys.readouterr().out == ""


def test_folders_of_older_versions_are_mended(folder: Path, tmp_path: Path) -> None:
    model, processor = MM1ForConditionalGeneration.from_pretrained(folder), MM1Processor.from_pretrained(folder)
    old = tmp_path / "old"
    model.save_pretrained(old)
    processor.save_pretrained(old)
    (old / CODE).unlink()
    for name in ("config.json", "processor_config.json"):
        content = json.loads((old / name).read_text())
        content["auto_map"] = {"AutoProcessor": "Write `import mm1`--mm1.MM1Processor", "AutoConfig": "a/b--c.D"}
        (old / name).write_text(json.dumps(content))
    again = tmp_path / "again"
    AutoModelForImageTextToText.from_pretrained(old).save_pretrained(again)
    AutoProcessor.from_pretrained(old).save_pretrained(again)
    assert code_of(again) == code_of(folder)
    loaded = AutoModelForImageTextToText.from_pretrained(again).state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in model.state_dict().items())
