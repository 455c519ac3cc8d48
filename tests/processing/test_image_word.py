"""`<image>` as a word: only pictures become placeholders, in every kind, whatever the tokenizer has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken
from transformers import PreTrainedTokenizerBase

from mm1.data.build import build_from
from mm1.data.corpus import Split
from mm1.processing.chat import default_chat_template
from mm1.processing.processor import build_processor
from mm1.processing.tokenizer import load_tokenizer
from tests.data.sample_sources import picture, write_files, write_lines, write_parquet
from tests.processing.sample_tokenizers import own, sentencepiece

CODE = "    <image href='a.png'/>\n    <image/> <image>"
ASKED, ANSWERED = "What does <image> do in SVG?", f"It shows <image>:\n{CODE}"


def turns(asked: str) -> list[dict[str, str]]:
    return [{"from": "human", "value": asked}, {"from": "gpt", "value": ANSWERED}]


RECORDS: dict[str, list[dict[str, Any]]] = {
    "text": [{"text": CODE}, {"text": "<image>"}],
    "llava": [
        {"conversations": turns(ASKED)},
        {"image": "a.png", "conversations": turns(f"<image>\n{CODE.splitlines()[0]}\n    <b>")},
        {"image": "a.png", "conversations": turns("What?")},
    ],
    "questions": [
        {"question": ASKED, "answer": "<image>"},
        {"image": "a.png", "question": "<image>\nWhat?", "answer": CODE},
    ],
}  # fmt: skip


def with_the_word(special: bool, folder: Path) -> PreTrainedTokenizerBase:
    tokenizer = own()
    tokenizer.add_tokens([AddedToken("<image>", special=special, normalized=False)], special_tokens=special)
    tokenizer.save_pretrained(folder)
    return load_tokenizer(folder)


TOKENIZERS: dict[str, Any] = {
    "without it": lambda folder: own(),
    "as a word": lambda folder: with_the_word(False, folder),
    "as a special token": lambda folder: with_the_word(True, folder),
    "SentencePiece": lambda folder: sentencepiece(folder, "<image>"),
}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_only_pictures_become_placeholders(tmp_path: Path, name: str) -> None:
    processor = build_processor(TOKENIZERS[name](tmp_path / "tokenizer"), 16, 4, chat_template=default_chat_template())
    write_files(tmp_path, {"a.png": picture(1)})
    for format_, records in RECORDS.items():
        write_lines(tmp_path / f"{format_}.jsonl", records)
    table = {"image": [picture(1)] * 2, "caption": ["the tag <image> here", "<image>a ramp"]}
    write_parquet(tmp_path / "captions.parquet", table)
    counts = {}
    for format_ in (*RECORDS, "captions"):
        (file,) = tmp_path.glob(f"{format_}.*")
        build_from(format_, [str(file)], tmp_path / "data" / format_, workers=1)
        documents = list(Split(tmp_path / "data" / format_ / "train"))
        placeholders = [int((processor.encode(d).input_ids == processor.image_token_id).sum()) for d in documents]
        assert placeholders == [4 * len(document.images) for document in documents]
        counts[format_] = [len(document.images) for document in documents]
        if format_ == "text":
            decoded = processor.tokenizer.decode(processor.encode(documents[0]).input_ids[1:-1])
            assert documents[0].text == CODE
            assert name == "SentencePiece" or decoded == CODE
    assert counts == {"text": [0, 0], "llava": [0, 1, 1], "questions": [0, 1], "captions": [1, 1]}
