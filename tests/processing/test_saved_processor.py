"""A processor travels whole: saved and loaded in a new process, it does what it did, and so does one saved again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from mm1.processing.chat import default_chat_template
from mm1.processing.processor import MM1Processor, build_processor
from mm1.processing.tiles import TilingRule
from tests.model.saved.make_saved import CHATML
from tests.processing.behaviours import after_loading, behaviours
from tests.processing.sample_tokenizers import chatty, own, sentencepiece, with_rule, without_bos

Make = Callable[[Path], MM1Processor]


def changed(folder: Path) -> MM1Processor:
    """A processor that its user has set otherwise."""
    processor = build_processor(own(), 16, 4, mean=(0.5, 0.4, 0.3), std=(0.1, 0.2, 0.3))
    processor.tokenizer.padding_side, processor.tokenizer.truncation_side = "right", "left"
    processor.tokenizer.model_max_length = 77
    processor.chat_template = default_chat_template()
    return processor


KINDS: dict[str, Make] = {
    "own": lambda folder: build_processor(own(), 16, 4),
    "padded pictures": lambda folder: build_processor(own(), 16, 4, resolution=TilingRule(fit="pad")),
    "cut pictures": lambda folder: build_processor(own(), 16, 4, resolution=TilingRule(grid="2x2", overview="last")),
    "grids": lambda folder: build_processor(
        own(), 16, 4, resolution=TilingRule(grid="dynamic", fit="pad", min_tiles=1, max_tiles=3, min_side=30)
    ),
    "chat": lambda folder: build_processor(own(), 16, 4, chat_template=default_chat_template()),
    "chat, marks of its own": lambda folder: build_processor(chatty(), 16, 4, chat_template=CHATML),
    "decoder with BOS": lambda folder: build_processor(with_rule("<bos> $A", folder), 16, 4),
    "decoder with BOS and EOS": lambda folder: build_processor(with_rule("<bos> $A <eos>", folder), 16, 4),
    "decoder with EOS": lambda folder: build_processor(with_rule("$A <eos>", folder), 16, 4),
    "decoder without BOS": lambda folder: build_processor(without_bos(folder), 16, 4),
    "decoder that begins with a space": lambda folder: build_processor(sentencepiece(folder), 16, 4),
    "changed by its user": changed,
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[dict[str, Any], Path]]:
    """What every kind of processor does, and the folder that it was saved to after it did so."""
    place = tmp_path_factory.mktemp("processors")
    found = {}
    for number, (name, make) in enumerate(KINDS.items()):
        processor = make(place / f"decoder-{number}")
        found[name] = behaviours(processor), place / f"saved-{number}"
        processor.save_pretrained(found[name][1])
    return found


def test_saved_loaded_and_saved_again_a_processor_is_the_same(saved: dict[str, tuple[dict[str, Any], Path]]) -> None:
    before = [did for did, _ in saved.values()]
    folders = [folder for _, folder in saved.values()]
    loaded = after_loading(folders)
    again = after_loading([Path(f"{folder}-again") for folder in folders])
    for name, *found in zip(saved, before, loaded, again, strict=True):
        assert found[1] == found[0], name
        assert found[2] == found[0], name


def test_prompts_are_padded_on_the_left_and_begin_with_one_bos(saved: dict[str, tuple[dict[str, Any], Path]]) -> None:
    for name, (did, _) in saved.items():
        bos = did["a document"][0]
        side = "right" if name == "changed by its user" else "left"
        assert did["sides"][0] == side, name
        assert did["text"]["input_ids"] == did["text with BOS"]["input_ids"], name
        assert did["some with BOS"]["input_ids"] == did["text"]["input_ids"] * 2, name
        assert did["text"]["input_ids"] == [[bos, *did["text without BOS"]["input_ids"][0]]], name
        assert did["the tokenizer's text"]["input_ids"] == did["text"]["input_ids"][0], name


def test_the_tokenizer_alone_has_what_is_its_own(saved: dict[str, tuple[dict[str, Any], Path]]) -> None:
    """Some tools load no processor."""
    for name, (did, folder) in saved.items():
        tokenizer = AutoTokenizer.from_pretrained(folder)
        assert [tokenizer.padding_side, tokenizer.truncation_side] == did["sides"], name
        assert tokenizer("a red bus").input_ids == did["the tokenizer's text"]["input_ids"], name
        assert tokenizer(["a red bus", "a"], padding=True).data == did["the tokenizer's batch"], name
        assert tokenizer.chat_template == did["template"], name
        assert tokenizer.model_max_length == did["longest"], name


def test_a_decoders_template_is_not_saved(saved: dict[str, tuple[dict[str, Any], Path]]) -> None:
    for name in ("decoder with BOS", "decoder with BOS and EOS", "decoder with EOS"):
        assert not (saved[name][1] / "chat_template.jinja").exists()
        config = json.loads((saved[name][1] / "tokenizer_config.json").read_text())
        assert config.get("chat_template") is None


def test_a_template_that_was_taken_away_stays_away(tmp_path: Path) -> None:
    processor = build_processor(own(), 16, 4, chat_template=default_chat_template())
    processor.save_pretrained(tmp_path)
    processor.chat_template = None
    processor.save_pretrained(tmp_path)
    assert MM1Processor.from_pretrained(tmp_path).chat_template is None


def test_another_processor_s_template_is_not_saved(tmp_path: Path) -> None:
    """Two processors that share a tokenizer each save a template of their own."""
    plain = build_processor(own(), 16, 4)
    chat = build_processor(plain.tokenizer, 16, 4, chat_template=default_chat_template())
    for name, processor in (("plain", plain), ("chat", chat), ("plain again", plain)):
        processor.save_pretrained(tmp_path / name)
    loaded = [MM1Processor.from_pretrained(tmp_path / name) for name in ("plain", "chat", "plain again")]
    assert [processor.takes_turns for processor in loaded] == [False, True, False]


def test_what_the_last_call_padded_to_is_not_saved(tmp_path: Path) -> None:
    processor = build_processor(own(), 16, 4)
    processor(text="a red bus on a street", truncation=True, max_length=8, padding="max_length", pad_to_multiple_of=8)
    processor.save_pretrained(tmp_path)
    loaded: Any = MM1Processor.from_pretrained(tmp_path)
    assert (
        loaded(text="a red bus on a street", padding=True)["input_ids"]
        == processor(text="a red bus on a street")["input_ids"]
    )
    assert not loaded.tokenizer.init_kwargs.keys() & {"max_length", "stride", "pad_to_multiple_of"}
