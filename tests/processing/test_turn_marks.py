"""What chat templates of well-known families write around turns."""

from __future__ import annotations

import pytest

from mm1.processing.chat import chat_layout, default_chat_template, names_targets
from mm1.processing.processor import build_processor
from mm1.processing.turn_marks import turn_marks, written_tokens
from tests.model.saved.make_saved import CHATML, INSTRUCT
from tests.processing.sample_templates import BRACKETS, DEFAULT_SYSTEM, HEADERS, INST, NEXT_ONLY, NOTHING, TURNS
from tests.processing.sample_tokenizers import marked, own


@pytest.mark.parametrize("special", [True, False])
@pytest.mark.parametrize(
    ("template", "ends", "opening"),
    [
        (default_chat_template(), ["<eos>"], "<bos>USER:"),
        (CHATML, ["<|im_end|>"], "<|im_start|>user\n"),
        (DEFAULT_SYSTEM, ["<|im_end|>"], "<|im_start|>system\nBe short.<|im_end|>\n<|im_start|>user\n"),
        (HEADERS, ["<|eot_id|>"], "<bos><|start|>user<|end|>\n\n"),
        (TURNS, ["</turn>"], "<bos><turn>user\n"),
        (BRACKETS, ["<eos>"], "[user]"),
        (INST, ["<eos>"], "<bos>[INST]"),
        (INSTRUCT, [], "[user] "),
        (NEXT_ONLY, ["<|user|>"], "<|user|>"),
        (NOTHING, [], "\n# user\n"),
        ("{{ raise_exception('never') }}", [], None),
        ("{{ messages[", [], None),
    ],
)
def test_ends_and_openings(template: str, ends: list[str], opening: str | None, special: bool) -> None:
    words = marked(special)
    marks = turn_marks(template, words)
    assert words.convert_ids_to_tokens(list(marks.end_ids)) == ends
    assert (opening in marks.openings) if opening else not marks.openings


def test_generation_ends_at_eos_too() -> None:
    processor = build_processor(marked(), 16, 4, chat_template=HEADERS)
    ids = processor.tokenizer.convert_tokens_to_ids(["<eos>", "<|eot_id|>"])
    assert processor.end_token_ids == ids
    processor.chat_template = None
    assert processor.end_token_ids == ids[:1]


def test_a_template_by_name_is_one_of_several() -> None:
    """Some decoders bring several templates; the default one is meant."""
    processor = build_processor(marked(), 16, 4)
    processor.chat_template = {"default": CHATML, "tools": INST}
    assert processor.chat_layout is not None
    assert processor.chat_layout.template == CHATML
    assert processor.takes_turns


def test_special_tokens_that_only_the_vocabulary_knows_stay_whole() -> None:
    """A decoder's marks need not be among the tokenizer's named tokens."""
    words = marked()
    assert "<|eot_id|>" not in words.all_special_tokens
    layout = chat_layout(HEADERS, words)
    assert {"<|start|>", "<|end|>", "<|eot_id|>"} <= layout.ids.keys()
    assert "<turn>" not in layout.ids  # what a template doesn't write changes nothing
    assert written_tokens(default_chat_template(), words).keys() == {"<bos>", "<eos>", "<image>"}


def test_a_template_without_targets_takes_no_turns() -> None:
    processor = build_processor(own(), 16, 4, chat_template=INSTRUCT)
    assert not names_targets(INSTRUCT)
    assert not processor.takes_turns
