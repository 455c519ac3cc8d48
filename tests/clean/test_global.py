"""Cleaning a corpus: global steps, their counts, parallel and interrupted runs."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image as PILImage

from mm1.clean import DEFAULT_STEPS, StepConfig, clean, job
from mm1.clean.database import decide_in_database, open_database
from mm1.clean.duplicates import ExactDuplicates, RepeatedImages
from mm1.clean.minhash import bands_for, ngram_hashes, signature, token_hashes
from mm1.clean.perceptual import difference_hash, nearest
from mm1.clean.text import TextLength
from mm1.data.corpus import Split, write_corpus
from mm1.document import Document, Image, Text
from mm1.errors import UserError
from tests.data.sample_sources import picture

WORDS = [f"w{n}ord" for n in range(2000)]


def corpus(directory: Path, documents: Iterable[Document]) -> Path:
    write_corpus(directory, {"train": documents}, licence="CC0", sources=["made up"])
    return directory


def cleaned(tmp_path: Path, documents: Iterable[Document], *steps: StepConfig) -> tuple[list[Document], list[dict]]:
    info = clean(corpus(tmp_path / "from", documents), tmp_path / "to", steps, workers=1)
    return list(Split(tmp_path / "to" / "train")), info["splits"]["train"]["cleaning"]


def prose(draw: random.Random, words: int) -> list[str]:
    return [draw.choice(WORDS) for _ in range(words)]


def photo(number: int, size: tuple[int, int] = (120, 90)) -> PILImage.Image:
    y, x = np.mgrid[0:90, 0:120]
    planes = ((x * number + y * 3) % 256, (x * x // (number + 3) + y) % 256, (y * number + x) % 256)
    return PILImage.fromarray(np.stack(planes, -1).astype(np.uint8)).resize(size)


def encoded(image: PILImage.Image, format_: str = "PNG") -> bytes:
    out = io.BytesIO()
    image.save(out, format_)
    return out.getvalue()


def test_exact_duplicates_keep_the_first(tmp_path: Path) -> None:
    one, other = Image(picture(1)), Image(picture(2))
    documents = [
        Document("a", "caption", (one, Text(" A ramp"))),
        Document("b", "caption", (other, Text(" A ramp"))),
        Document("c", "caption", (Image(picture(1), "elsewhere"), Text(" a  RAMP ")), {"other": 1}),
        Document("d", "caption", (one, Text(" a ramp."))),
        Document("e", "caption", (one, Text(" a ramp"))),
    ]
    kept, (counts,) = cleaned(tmp_path, documents, "exact-duplicates")
    assert [document.id for document in kept] == ["a", "b", "d"]
    assert counts["documents"] == 2
    assert counts["reasons"] == {"the same as one before": {"count": 2, "examples": ["c", "e"]}}


def test_repeated_images_are_counted_over_documents(tmp_path: Path) -> None:
    banner, twice = Image(picture(1), "banner.png"), Image(picture(2))
    by_address = [Image(picture(3 + n), "https://ads.example.org/x.png") for n in range(4)]
    documents = [
        Document(f"{n}", "interleaved", (banner, Text(" a\n"), twice, twice, by_address[n], Text(f" {n}\n")))
        if n < 4
        else Document(f"{n}", "caption", (twice, Text(" c")))
        for n in range(8)
    ]
    documents[3] = Document("3", "interleaved", (banner, Text(" a\n"), by_address[3], Text(" 3\n")))
    kept, (counts,) = cleaned(tmp_path, documents, {"repeated-images": {"max_documents": 3}})
    assert [len(document.images) for document in kept] == [2, 2, 2, 0, 1, 1, 1, 1]
    assert kept[0].parts == (Text("a\n"), twice, twice, Text(" 0\n"))
    assert counts["images"] == 8
    again, _ = cleaned(tmp_path / "again", documents, {"repeated-images": {"max_documents": 4}})
    assert [len(document.images) for document in again] == [4, 4, 4, 2, 1, 1, 1, 1]


def test_global_steps_spill_to_the_disk(tmp_path: Path) -> None:
    """Half a million hashes (24 MB of them, more with what it takes to group them) in 40 MB of DuckDB's memory."""
    draw = np.random.default_rng(0)
    count, schema = 500_000, RepeatedImages.schema
    keys = draw.integers(0, 2**63, (count, 2), dtype=np.uint64)
    keys[:1100] = np.arange(100, dtype=np.uint64).repeat(11)[:, None]
    buffer = pa.py_buffer(keys.tobytes())
    columns = [
        pa.array(np.arange(count)),
        pa.array(np.zeros(count, np.int32)),
        pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), count, [None, buffer]),
    ]
    (tmp_path / "facts").mkdir()
    pq.write_table(pa.table(columns, schema=schema), tmp_path / "facts" / "0.parquet")
    with open_database(tmp_path, tmp_path / "facts", "40MB", workers=1) as database:
        decide_in_database(RepeatedImages(max_documents=10).decide(database), tmp_path / "decision", database)
    assert pq.read_table(tmp_path / "decision")["row"].to_pylist() == list(range(1100))


def test_minhash_estimates_jaccard_similarity() -> None:
    draw = np.random.default_rng(0)
    for share in (0.1, 0.5, 0.8, 0.95):
        shared, own = int(10_000 * share), 10_000 - int(10_000 * share)
        values = draw.integers(0, 2**63, shared + 2 * own, dtype=np.uint64)
        a, b = values[: shared + own], np.concatenate([values[:shared], values[shared + own :]])
        exact = shared / (shared + 2 * own)
        estimate = float((signature(a, 1024) == signature(b, 1024)).mean())
        assert abs(estimate - exact) < 4 * 0.5 / 32
    sequential = np.arange(5000, dtype=np.uint64)
    estimate = float(
        (signature(ngram_hashes(sequential, 2), 1024) == signature(ngram_hashes(sequential[2500:], 2), 1024)).mean()
    )
    assert abs(estimate - 2499 / 4999) < 0.06


def test_ngrams_are_told_apart_by_order_and_found_in_any_script() -> None:
    assert len(set(ngram_hashes(token_hashes("a b c a c b"), 3).tolist())) == 4
    assert ngram_hashes(token_hashes("Ab, cd!"), 2) == ngram_hashes(token_hashes("ab CD"), 2)
    assert len(token_hashes("港は町の下")) == 5
    assert len(ngram_hashes(token_hashes("two words"), 3)) == 0


def test_bands_find_pairs_above_the_threshold_and_few_below() -> None:
    bands, rows = bands_for(0.8, 128)
    assert bands * rows <= 128
    assert 1 - (1 - 0.85**rows) ** bands > 0.95
    assert 1 - (1 - 0.5**rows) ** bands < 0.2


def test_near_duplicates_are_those_that_brute_force_finds(tmp_path: Path) -> None:
    draw = random.Random(3)
    texts: list[list[str]] = []
    for number in range(120):
        if number % 4 == 3:  # a changed copy of one before: 1, 5, 25 or 60 of 300 words changed
            words = list(draw.choice(texts))
            for place in draw.sample(range(len(words)), (1, 5, 25, 60)[number // 4 % 4]):
                words[place] = draw.choice(WORDS)
            texts.append(words)
        else:
            texts.append(prose(draw, 300))
    documents = [Document(f"{n}", "text", (Text(" ".join(words)),)) for n, words in enumerate(texts)]
    kept, (counts,) = cleaned(tmp_path, documents, {"near-duplicates": {"threshold": 0.7, "signature_length": 256}})
    sets = [set(zip(*(words[i:] for i in range(5)), strict=False)) for words in texts]
    gone = {n for n in range(120)} - {int(document.id) for document in kept}
    similar = {
        n: max((len(sets[n] & sets[m]) / len(sets[n] | sets[m]) for m in range(n)), default=0.0) for n in range(120)
    }
    assert {n for n, similarity in similar.items() if similarity > 0.8} <= gone
    assert gone <= {n for n, similarity in similar.items() if similarity > 0.55}
    assert len(gone) == counts["documents"] >= 10


def test_near_duplicates_go_through_chains_and_keep_the_first(tmp_path: Path) -> None:
    draw = random.Random(5)
    words = prose(draw, 400)
    chain = []
    for number in range(30):  # neighbours are alike, the ends are not
        words = list(words)
        words[number * 12] = f"changed{number}"
        chain.append(Document(f"c{number}", "text", (Text(" ".join(words)),)))
    other = Document("other", "text", (Text(" ".join(prose(draw, 400))),))
    short = [Document(f"s{n}", "text", (Text("same few words"),)) for n in range(2)]
    captions = [Document(f"p{n}", "caption", (Image(picture(n)), chain[0].parts[0])) for n in range(2)]
    kept, _ = cleaned(tmp_path, [other, *chain[::-1], *short, *captions], {"near-duplicates": {"threshold": 0.6}})
    assert [document.id for document in kept] == ["other", "c29", "s0", "s1", "p0", "p1"]


def test_difference_hash_is_that_of_imagehash() -> None:
    """Expected: imagehash 4.3.2, dhash and dhash_vertical, Pillow 13.0.0."""
    expected = {
        1: (0xDFDDF7FFB8A18FBB, 0xFFFFFFFEF8E1871F),
        2: (0xDEDCD9F3C79FBEBC, 0xFEFCF9F3E7CF9E3C),
        5: (0xCCDDD9D3D357C6CC, 0xCDDDD8831776666C),
    }
    for number, hash_ in expected.items():
        ours = difference_hash(encoded(photo(number)))
        assert ours is not None
        assert tuple(ours.tolist()) == hash_


def test_difference_hash_survives_scaling_and_compression_but_not_another_picture() -> None:
    gradient = PILImage.radial_gradient("L").crop((20, 0, 250, 200))
    original = difference_hash(encoded(gradient))
    smaller = difference_hash(encoded(gradient.resize((97, 84)), "JPEG"))
    other = difference_hash(encoded(photo(2)))
    assert original is not None
    assert smaller is not None
    assert other is not None
    assert nearest(original, smaller[None]) <= 8 < nearest(original, other[None])
    assert nearest(original, np.empty((0, 2), np.uint64)) == 129
    assert difference_hash(encoded(PILImage.new("RGB", (50, 50), "red"))) is None
    assert difference_hash(b"no picture") is None


def test_near_evaluation(tmp_path: Path) -> None:
    draw = random.Random(1)
    question = " ".join(prose(draw, 9))
    passage = prose(draw, 40)
    flat = encoded(PILImage.new("RGB", (50, 50), "red"))
    items = [
        Document("e1", "caption", (Image(encoded(photo(1))), Text(f" {question}?"))),
        Document("e2", "text", (Text(" ".join(passage)),)),
        Document("e3", "caption", (Image(flat), Text(" short"))),
    ]
    corpus(tmp_path / "evaluation", items)
    documents = [
        Document("picture", "caption", (Image(encoded(photo(1, (240, 180)), "JPEG")), Text(" other words"))),
        Document("question", "text", (Text(f"Before it. {question.upper()}! After it."),)),
        Document("passage", "text", (Text(" ".join([*prose(draw, 10), *passage[5:18], *prose(draw, 10)])),)),
        Document("bytes", "caption", (Image(flat), Text(" a red square"))),
        Document("red", "caption", (Image(encoded(PILImage.new("RGB", (51, 50), "red"))), Text(" short"))),
        Document("less", "text", (Text(" ".join([*prose(draw, 10), *passage[5:16], *prose(draw, 10)])),)),
        Document("other", "caption", (Image(encoded(photo(2))), Text(" fine"))),
    ]
    against = {"against": [str(tmp_path / "evaluation" / "train")]}
    kept, (counts,) = cleaned(tmp_path, documents, {"near-evaluation": against})
    assert [document.id for document in kept] == ["red", "less", "other"]
    assert {reason: entry["examples"] for reason, entry in counts["reasons"].items()} == {
        "a picture near one of an evaluation set": ["picture"],
        "a picture of an evaluation set": ["bytes"],
        "text of an evaluation set": ["question", "passage"],
    }
    only_text, _ = cleaned(tmp_path / "text", documents, {"near-evaluation": {**against, "max_distance": -1}})
    assert [document.id for document in only_text] == ["picture", "bytes", "red", "less", "other"]
    only_pictures, _ = cleaned(tmp_path / "pictures", documents, {"near-evaluation": {**against, "ngram": 0}})
    assert "passage" in {document.id for document in only_pictures}
    with pytest.raises(UserError, match="names no evaluation set"):
        cleaned(tmp_path / "none", documents, "near-evaluation")


def test_the_form_of_a_prompt_is_no_evaluation_text(tmp_path: Path) -> None:
    draw = random.Random(1)
    form = " ".join(prose(draw, 13))
    corpus(tmp_path / "evaluation", [Document(f"e{n}", "text", (Text(f"{form} {n}"),)) for n in range(11)])
    against = {"against": [str(tmp_path / "evaluation" / "train")]}
    kept, _ = cleaned(tmp_path, [Document("a", "text", (Text(form),))], {"near-evaluation": against})
    assert len(kept) == 1


def mixed(count: int) -> list[Document]:
    draw = random.Random(9)
    documents = []
    for number in range(count):
        size = draw.choice(((120, 110), (60, 60), (150, 140)))
        parts = (Image(picture(number % 23, size)), Text(f" {' '.join(prose(draw, 30))}\n"))
        documents.append(Document(f"{number}", "interleaved", parts * draw.choice((1, 1, 2))))
    documents[7] = Document("7", "interleaved", documents[3].parts)
    return documents


def test_steps_apply_to_what_those_before_left(tmp_path: Path) -> None:
    same = [Document(f"{n}", "interleaved", (Image(picture(1, (90 + n, 90))), Text(" a\n"))) for n in range(3)]
    kept, (size, exact) = cleaned(tmp_path, same, "image-size", "exact-duplicates")
    assert [document.id for document in kept] == ["0"]
    assert (size["images"], exact["documents"]) == (3, 2)
    kept, (exact, _) = cleaned(tmp_path / "other", same, "exact-duplicates", "image-size")
    assert len(kept) == 3
    assert exact["documents"] == 0


def test_processes_and_interruptions_make_no_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = corpus(tmp_path / "from", mixed(90))
    one = clean(source, tmp_path / "one", workers=1)
    monkeypatch.setattr(job, "ROWS_PER_UNIT", 20)
    steps = ["image-size", "near-duplicates"]
    two = clean(source, tmp_path / "two", steps, workers=2)
    assert two["splits"] == clean(source, tmp_path / "also-one", steps, workers=1)["splits"]
    whole, calls = job.clean_rows, []

    def counted(*arguments):
        calls.append(arguments[3])
        if len(calls) == 3:
            raise KeyboardInterrupt
        return whole(*arguments)

    monkeypatch.setattr(job, "clean_rows", counted)
    with pytest.raises(KeyboardInterrupt):
        clean(source, tmp_path / "three", workers=1)
    monkeypatch.setattr(job, "gather_facts", None)  # what was decided is not decided again
    three = clean(source, tmp_path / "three", workers=1)
    assert [rows.start for rows in calls] == [0, 20, 40, 40, 60, 80]
    assert three["splits"]["train"] == {**one["splits"]["train"]}
    assert clean(source, tmp_path / "three", workers=1) == three  # it is there: nothing is done
    assert len(calls) == 6
    assert sorted(path.name for path in tmp_path.iterdir()) == ["also-one", "from", "one", "three", "two"]


def test_every_document_is_kept_or_counted_once(tmp_path: Path) -> None:
    documents = mixed(90)
    kept, counts = cleaned(tmp_path, documents, *DEFAULT_STEPS)
    assert [entry["step"] for entry in counts] == list(DEFAULT_STEPS)
    assert len(kept) + sum(entry["documents"] for entry in counts) == 90
    info = json.loads((tmp_path / "to" / "corpus.json").read_text())
    assert info["licence"] == "CC0"
    assert info["sources"] == ["made up"]
    assert info["splits"]["train"]["cleaned_from"]["documents"] == 90
    by_id = {document.id: document for document in documents}
    assert all(set(document.images) <= set(by_id[document.id].images) for document in kept)


def test_mistakes(tmp_path: Path) -> None:
    source = corpus(tmp_path / "from", mixed(10))
    with pytest.raises(UserError, match="would replace its source"):
        clean(source, source)
    with pytest.raises(UserError, match="not a corpus"):
        clean(tmp_path / "nothing", tmp_path / "to")
    with pytest.raises(UserError, match="no split 'test'"):
        clean(source, tmp_path / "to", splits=["test"])
    with pytest.raises(UserError, match=r"to/train: no document is left, .*: 10x text-length: text below"):
        clean(source, tmp_path / "to", [{"text-length": {"min_characters": 10_000}}], workers=1)
    with pytest.raises(UserError, match="memory 'much': write it"):
        clean(source, tmp_path / "to", ["exact-duplicates"], workers=1, memory="much")
    assert not (tmp_path / "to").exists()


def test_a_row_that_a_step_fails_on_costs_that_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a step that looks at one document, and of one that looks at all; the account has every row."""

    def length_of(self: TextLength, document: Document, dropped: object) -> Document | None:
        if document.id == "b":
            raise IndexError("never seen before")
        return document

    facts_of = ExactDuplicates.facts

    def facts(self: ExactDuplicates, row: int, document: Document) -> Iterator[tuple[Any, ...]]:
        yield from facts_of(self, row, document)
        if document.id == "c":
            raise KeyError("nor this")

    monkeypatch.setattr(TextLength, "apply", length_of)
    monkeypatch.setattr(ExactDuplicates, "facts", facts)
    documents = [Document(id, "text", (Text(f"words of {id}"),)) for id in "abcde"]
    kept, counts = cleaned(tmp_path, documents, "text-length", "exact-duplicates")
    assert [document.id for document in kept] == ["a", "d", "e"]
    assert [count["documents"] for count in counts] == [1, 1]
    info = Split(tmp_path / "to" / "train").info
    assert (info["read"], info["documents"]) == (5, 3)
    assert info["skipped"] == {
        "exact-duplicates: the step fails on it (KeyError)": {"count": 1, "examples": ["c"]},
        "text-length: the step fails on it (IndexError)": {"count": 1, "examples": ["b"]},
    }
