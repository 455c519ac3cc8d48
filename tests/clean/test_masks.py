"""A mask leaves what a cleaned copy has: the same documents, lengths and batches."""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.feather as feather
import pytest
import torch

from mm1.clean import clean, clean_in_place
from mm1.clean.masking import without_steps
from mm1.data import masks
from mm1.data.build import build_from
from mm1.data.corpus import Split, open_split, write_corpus
from mm1.data.masks import mask_file
from mm1.document import Document, Image, Part, Text
from mm1.errors import UserError
from mm1.plan.index import build_index
from mm1.plan.loader import PlanDataset, build_loader
from mm1.plan.plan import write_plan
from mm1.plan.sources import Source
from mm1.processing.processor import build_processor
from mm1.processing.tokenizer import train_tokenizer
from mm1.recipe import load_recipe
from tests.data.sample_sources import picture, write_files

STEPS = (
    {"image-size": {"min_side": 20, "max_aspect": 5.0}},
    {"image-address": {"words": ["logo"]}},
    "copies-in-document",
    {"repeated-images": {"max_documents": 60}},
    {"text-length": {"min_characters": 4}},
    "exact-duplicates",
)
PICTURES = [picture(n, (24, 24) if n % 4 else (10, 24)) for n in range(12)]


def page(draw: random.Random, number: int) -> Document:
    parts: list[Part] = []
    for _ in range(draw.randrange(7)):
        n = draw.randrange(12)
        address = "https://e.org/logo.png" if draw.random() < 0.1 else f"https://e.org/{n}.png"
        texts = (" a text", "more words", " ", "")
        parts.append(Image(PICTURES[n], address) if draw.random() < 0.5 else Text(draw.choice(texts), n % 3 > 0))
    return Document(f"p{number}", "interleaved", tuple(parts), {"n": number})


def caption(draw: random.Random, number: int) -> Document:
    parts = (Image(PICTURES[draw.randrange(12)], "a.png"), Text(f" {draw.choice(['red', 'blue', 'green'])} square"))
    return Document(f"c{number}", "caption", parts, {})


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus, its cleaned copy, and its mask."""
    draw = random.Random(0)
    documents = [(page if number % 3 else caption)(draw, number) for number in range(700)]
    directory = tmp_path_factory.mktemp("masks") / "web"
    write_corpus(directory, {"train": documents}, licence="CC0", sources=["made up"])
    clean(directory, directory.with_name("copy"), STEPS, workers=1)
    clean_in_place(directory, STEPS, workers=1)
    return directory


def both(corpus: Path) -> tuple[Split, Split]:
    return Split(corpus.with_name("copy") / "train"), open_split(f"{corpus}/train@clean")


def test_the_documents_are_those_of_the_copy(corpus: Path) -> None:
    copy, masked = both(corpus)
    documents = list(copy)
    assert list(masked) == documents == [masked[row] for row in range(len(masked))]
    assert 0 < len(masked) < 600
    assert len({len(document.parts) for document in documents}) > 3
    assert masked.name == "web/train@clean"
    assert list(masked.without_pictures(0, 999)) == list(copy.without_pictures(0, 999))
    for start, stop in ((0, 7), (13, 140), (200, 200), (len(masked) - 3, 9999)):
        ids = [id for batch in masked.batches(start, stop) for id in batch.column("id").to_pylist()]
        assert ids == [document.id for document in documents[start:stop]]


def test_every_row_that_goes_says_the_step_and_the_reason(corpus: Path) -> None:
    table = pa.Table.from_batches(masks.read_mask(mask_file(corpus / "train", "clean")))
    assert len(table.filter(pc.equal(table["place"], -1))) == 700 - len(both(corpus)[1])
    assert set(table["step"].to_pylist()) == {s if isinstance(s, str) else next(iter(s)) for s in STEPS} - {
        "repeated-images"
    }
    reasons = set(table["reason"].to_pylist())
    assert "picture: a copy of one before" in reasons
    assert "a picture is missing: the document goes with it" in reasons


@pytest.mark.parametrize("workers", [1, 2])
def test_lengths_and_batches_are_those_of_the_copy(
    corpus: Path, recipe_file: Path, tmp_path: Path, workers: int
) -> None:
    processor = build_processor(train_tokenizer(["a text more words red blue green square"], 300), 16, 4)
    made = []
    for number, split in enumerate(both(corpus)):
        index = build_index(split, processor.tokenizer, workers)
        recipe = load_recipe(str(recipe_file), ["data.mixture.text.weight=0", "data.mixture.caption.weight=0"])
        plan = write_plan(
            tmp_path / str(number),
            [Source("web/train", "interleaved", 1.0, split.content_hash, index)],
            recipe.data,
            tokenizer_fingerprint="t",
            tokens_per_image=4,
            batch_size=2,
            steps=6,
            seed=0,
        )
        assert plan.info["made_from"]["content"] == {"web/train": split.content_hash}
        made.append((index, build_loader(PlanDataset(plan, [split], processor), 0, 2, workers=workers - 1)))
    for name in ("parts", "offsets", "target"):
        assert np.array_equal(getattr(made[0][0], name), getattr(made[1][0], name))
    for one, other in zip(made[0][1], made[1][1], strict=True):
        for key, value in one.items():
            assert torch.equal(value, other[key]) if torch.is_tensor(value) else value == other[key]


def test_a_mask_is_opened_from_what_was_made_of_it(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = open_split(f"{corpus}/train@clean")
    monkeypatch.setattr(masks, "_read", lambda *_: pytest.fail("read again"))
    assert open_split(f"{corpus}/train@clean").content_hash == before.content_hash != before.corpus
    clean_in_place(corpus, STEPS, workers=1)


def test_a_step_is_switched_off_without_reading(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(Split, "__getitem__", lambda *_: pytest.fail("read"))
        named = without_steps(corpus, "clean", ["exact-duplicates"], None)
    assert named == {"train": "web/train@clean-without-exact-duplicates"}
    fewer = STEPS[:-1]
    clean(corpus, corpus.with_name("fewer"), fewer, workers=1)
    masked = open_split(f"{corpus}/train@clean-without-exact-duplicates")
    assert list(masked) == list(Split(corpus.with_name("fewer") / "train"))
    with pytest.raises(UserError, match="the mask has no step 'exact-duplicate': did you mean exact-duplicates"):
        without_steps(corpus, "clean", ["exact-duplicate"], None)
    with pytest.raises(UserError, match="no split has a mask 'other'"):
        without_steps(corpus, "other", ["exact-duplicates"], None)


def texts(tmp_path: Path, count: int = 6) -> Path:
    documents = [Document(str(n), "text", (Text(f"words {n}"),)) for n in range(count)]
    write_corpus(tmp_path / "c", {"train": documents}, licence="", sources=[])
    return tmp_path / "c" / "train"


def write_mask(split: Path, columns: dict[str, list[int]], name: str = "theirs") -> None:
    file = mask_file(split, name)
    file.parent.mkdir(exist_ok=True)
    feather.write_feather(pa.table(columns), str(file), compression="uncompressed")


def test_masks_of_other_programs_are_read(tmp_path: Path) -> None:
    split = texts(tmp_path)
    write_mask(split, {"row": [4, 0, 4]})
    masked = open_split(f"{split}@theirs")
    assert [document.id for document in masked] == ["1", "2", "3", "5"]
    write_mask(split, {"row": [1], "place": [0]})
    os.utime(mask_file(split, "theirs"), (1, 1))
    assert [document.text for document in open_split(f"{split}@theirs")][:2] == ["words 0", ""]
    assert open_split(f"{split}@theirs").content_hash != masked.content_hash


def test_bad_masks_are_one_sentence(tmp_path: Path) -> None:
    split = texts(tmp_path)
    with pytest.raises(UserError, match="the split has no mask 'clean': it has none; `mm1 data clean --in-place`"):
        open_split(f"{split}@clean")
    for columns, message in (
        ({"row": [6]}, "the mask has the row 6, the split has 6"),
        ({"rows": [1]}, "the mask has no column 'row'"),
        ({"row": [0, 1, 2, 3, 4, 5]}, "the mask leaves no document"),
    ):
        write_mask(split, columns)
        with pytest.raises(UserError, match=message):
            open_split(f"{split}@theirs")
    mask_file(split, "theirs").write_bytes(b"nonsense")
    with pytest.raises(UserError, match=r"theirs.arrow: the mask can't be read"):
        open_split(f"{split}@theirs")
    with pytest.raises(UserError, match=r"no mask 'their': did you mean theirs"):
        open_split(f"{split}@their")
    chat = Document("a", "chat", (Text("b", target=False), Text("c")), {"turns": ["user", "assistant"]})
    write_corpus(tmp_path / "chat", {"train": [chat]}, licence="", sources=[])
    write_mask(tmp_path / "chat" / "train", {"row": [0], "place": [1]})
    with pytest.raises(UserError, match="document 'a': a mask takes a part from a conversation"):
        open_split(f"{tmp_path}/chat/train@theirs")[0]


def test_a_mask_of_other_documents_is_refused_and_another_split_keeps_it(tmp_path: Path) -> None:
    write_files(tmp_path / "texts", {"a.txt": "one", "b.txt": "one"})
    build_from("text", [str(tmp_path / "texts")], tmp_path / "c")
    clean_in_place(tmp_path / "c", ["exact-duplicates"], workers=1)
    build_from("text", [str(tmp_path / "texts" / "a.txt")], tmp_path / "c", split="heldout")
    assert len(open_split(f"{tmp_path}/c/train@clean")) == 1
    content = mask_file(tmp_path / "c" / "train", "clean").read_bytes()
    write_files(tmp_path / "texts", {"c.txt": "three"})
    build_from("text", [str(tmp_path / "texts")], tmp_path / "c")
    write_files(tmp_path / "c" / "train" / "masks", {"clean.arrow": content})
    with pytest.raises(UserError, match=r"clean.arrow: the mask was made for other documents"):
        open_split(f"{tmp_path}/c/train@clean")
