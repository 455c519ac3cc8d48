from __future__ import annotations

import json
import multiprocessing
import shutil
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from mm1.data.corpus import open_split, write_corpus
from mm1.data.writer import ShardWriter, content_hash
from mm1.document import Document, Image, Part, Text
from mm1.errors import UserError
from mm1.plan import index as index_module
from mm1.plan.index import IMAGE, build_index, tokenizer_fingerprint
from mm1.plan.packing import cut_documents
from mm1.processing.encode import encode_document, tokenize_texts
from mm1.processing.tokenizer import train_tokenizer

TEXTS = ["a red blue green square", " wie schön! <image> <eos> 7\n", "", "word " * 300]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(["a red blue green yellow square word Colour:"], 320)


def documents(count: int = 50) -> list[Document]:
    made = []
    for i in range(count):
        parts: list[Part] = []
        for j in range(i % 5):
            parts += [Image(b"bytes"), Text(TEXTS[(i + j) % 4], target=(i + j) % 3 > 0)]
        made.append(Document(str(i), "interleaved", tuple(parts if i % 2 else parts[::-1])))
    return made


@pytest.fixture
def split(tmp_path: Path):
    """A split of two shards, so that rows lie in several Arrow chunks."""
    write_corpus(tmp_path / "corpus", {"train": []}, licence="none", sources=[])
    digests = []
    for number, some in enumerate((documents()[:17], documents()[17:])):
        writer = ShardWriter(tmp_path / "corpus" / "train" / f"{number:05d}.arrow")
        for document in some:
            writer.write(document)
        writer.finish()
        digests.append(writer.digests)
    file = tmp_path / "corpus" / "corpus.json"
    content = json.loads(file.read_text())
    content["splits"]["train"]["content_hash"] = content_hash(digests)
    file.write_text(json.dumps(content))
    return open_split(str(tmp_path / "corpus" / "train"))


def same(one, other) -> bool:
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in ("parts", "offsets", "target"))


def build_at_once(barrier, directory: Path, file: Path) -> int:
    split, tokenizer = open_split(str(directory)), PreTrainedTokenizerFast.from_pretrained(file)
    barrier.wait()
    return int(build_index(split, tokenizer).parts.sum())


def test_processes_that_start_at_once_take_turns(split, tokenizer, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager, ProcessPoolExecutor(4, mp_context=context) as pool:
        barrier = manager.Barrier(4)
        jobs = [pool.submit(build_at_once, barrier, split.directory, tmp_path / "tokenizer") for _ in range(4)]
        sums = {job.result() for job in jobs}
    assert sums == {int(build_index(split, tokenizer).parts.sum())}
    left = [path.suffix for path in (split.directory.parent / "index").iterdir()]
    assert sorted(left) == ["", ".lock"]  # nothing half done


def test_the_index_says_what_encoding_gives(split, tokenizer) -> None:
    index = build_index(split, tokenizer)
    assert len(index) == len(split) == 50
    pieces = cut_documents(index, 6, 100_000, 1000)
    for number, document in enumerate(split):
        encoded = encode_document(document, tokenizer, 3, 6)
        parts = index.parts[index.offsets[number] : index.offsets[number + 1]]
        assert [part == IMAGE for part in parts] == [isinstance(part, Image) for part in document.parts]
        assert pieces.length[number] == len(encoded.input_ids)
        assert pieces.target[number] == encoded.target.sum()
        assert pieces.images[number] == len(encoded.images)


def test_learned_tokens_of_pieces_are_those_of_the_encoded_document(split, tokenizer) -> None:
    pieces = cut_documents(build_index(split, tokenizer), 6, 40, 2)
    assert len(pieces) > 100
    for number in range(len(pieces)):
        encoded = encode_document(split[int(pieces.document[number])], tokenizer, 3, 6)
        first = pieces.first[number]
        assert pieces.target[number] == encoded.target[first + 1 : first + pieces.length[number]].sum()


def test_the_number_of_processes_and_of_rows_per_task_makes_no_difference(split, tokenizer, monkeypatch) -> None:
    alone = build_index(split, tokenizer, workers=1)
    for rows, characters in ((7, 1000), (20, 1)):
        monkeypatch.setattr(index_module, "_ROWS_PER_UNIT", rows)
        monkeypatch.setattr(index_module, "_ROWS_AT_ONCE", rows - 4)
        monkeypatch.setattr(index_module, "_CHARACTERS_PER_CALL", characters)
        for folder in (split.directory.parent / "index").iterdir():
            folder.rename(split.directory.parent / f"{folder.name}-{rows}")
        assert same(build_index(split, tokenizer, workers=2 if rows == 7 else 1), alone)


def test_some_documents_of_an_index(split, tokenizer) -> None:
    index = build_index(split, tokenizer)
    rows = np.array([30, 0, 9, 49, 9])
    some = index.take(rows)
    assert len(some) == 5
    for number, row in enumerate(rows):
        here = slice(*some.offsets[number : number + 2])
        there = slice(*index.offsets[row : row + 2])
        assert np.array_equal(some.parts[here], index.parts[there])
        assert np.array_equal(some.target[here], index.target[there])


def test_it_is_made_once_for_a_content_and_a_tokenizer(split, tokenizer, monkeypatch) -> None:
    first = build_index(split, tokenizer)
    monkeypatch.setattr(index_module, "run_units", lambda *_, **__: pytest.fail("counted again"))
    assert same(build_index(split, tokenizer), first)
    split.content_hash = "other"
    with pytest.raises(pytest.fail.Exception):
        build_index(split, tokenizer)


def test_a_call_of_the_tokenizer_leaves_its_fingerprint(tokenizer) -> None:
    before = tokenizer_fingerprint(tokenizer)
    tokenizer(["a", "red square"], padding="max_length", truncation=True, max_length=3)
    assert tokenizer_fingerprint(tokenizer) == before
    assert tokenizer_fingerprint(train_tokenizer(["another"], 320)) != before


def test_documents_without_parts_and_splits_without_documents(tmp_path, tokenizer) -> None:
    empty = [Document("a", "text", ()), Document("b", "text", ())]
    write_corpus(tmp_path / "corpus", {"train": empty, "none": []}, licence="none", sources=[])
    index = build_index(open_split(str(tmp_path / "corpus" / "train")), tokenizer)
    assert cut_documents(index, 6, 40, 2).length.tolist() == [2, 2]
    assert cut_documents(index, 6, 40, 2).target.tolist() == [1, 1]
    assert len(build_index(open_split(str(tmp_path / "corpus" / "none")), tokenizer)) == 0


def test_after_a_full_disk_the_same_call_goes_on(split, tokenizer, monkeypatch) -> None:
    whole = build_index(split, tokenizer)
    (split.directory.parent / "index").rename(split.directory.parent / "index-before")
    monkeypatch.setattr(index_module, "_ROWS_PER_UNIT", 10)
    started: list[range] = []
    count = index_module._count_unit

    def third_is_too_much(*arguments) -> dict:
        started.append(arguments[3])
        if len(started) == 3:
            raise OSError(28, "No space left on device")
        return count(*arguments)

    monkeypatch.setattr(index_module, "_count_unit", third_is_too_much)
    with pytest.raises(UserError, match="No space left on device.*run the same command again"):
        build_index(split, tokenizer)
    assert same(build_index(split, tokenizer), whole)
    assert [rows.start for rows in started] == [0, 10, 20, 20, 30, 40]
    assert sum(path.is_dir() for path in (split.directory.parent / "index").iterdir()) == 1


def test_the_tokens_of_long_texts_are_kept(tmp_path, tokenizer, monkeypatch) -> None:
    monkeypatch.setattr("mm1.plan.lengths.LONG", 60)
    monkeypatch.setattr("mm1.plan.lengths.SMALL_SPLIT", 0)
    monkeypatch.setattr(index_module, "_ROWS_PER_UNIT", 3)
    monkeypatch.setattr(index_module, "_ROWS_AT_ONCE", 2)
    made = documents(40)
    write_corpus(tmp_path / "corpus", {"train": made}, licence="none", sources=[])
    index = build_index(open_split(str(tmp_path / "corpus" / "train")), tokenizer, workers=1)
    assert index.long_texts is not None
    kept = 0
    for number, part in enumerate(part for document in made for part in document.parts):
        if isinstance(part, Text) and len(part.text) >= 60:
            assert index.long_texts[number].tolist() == tokenize_texts([part.text], tokenizer)[0]
            kept += 1
        else:
            with pytest.raises(KeyError):
                index.long_texts[number]
    assert kept == len(index.long_texts.parts) > 10


def test_the_tokens_of_all_texts_of_a_small_split_are_kept(tmp_path, tokenizer, monkeypatch) -> None:
    made = [*documents(20), Document("empty", "text", (Text(""), Image(b"no picture"), Text("end")))]
    write_corpus(tmp_path / "corpus", {"train": made}, licence="none", sources=[])
    split = open_split(str(tmp_path / "corpus" / "train"))
    index = build_index(split, tokenizer)
    assert index.long_texts is not None
    for row, document in enumerate(made):
        texts = [part.text for part in document.parts if isinstance(part, Text)]
        known = index.long_texts.between(int(index.offsets[row]), int(index.offsets[row + 1]))
        assert [ids.tolist() for ids in known] == tokenize_texts(texts, tokenizer)
    monkeypatch.setattr("mm1.plan.lengths.SMALL_SPLIT", 0)
    few = build_index(split, tokenizer)  # another folder, since the other has more tokens
    assert few.long_texts is not None
    assert len(few.long_texts.parts) == 0


@pytest.mark.parametrize("name", ["parts", "offsets", "target", "long_parts", "long_offsets", "long_ids"])
@pytest.mark.parametrize("share", [0.0, 0.5], ids=["empty", "cut"])
def test_a_damaged_index_is_named_and_is_made_again_once_it_is_removed(split, tokenizer, name, share) -> None:
    whole = build_index(split, tokenizer)
    file = index_module.index_folder(split, tokenizer) / f"{name}.npy"
    content = file.read_bytes()
    file.unlink()  # the index that is open keeps its own
    file.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError, match=rf"{name}.npy: .*: remove the folder {file.parent}, and run the same command"):
        build_index(split, tokenizer)
    shutil.rmtree(file.parent)
    assert same(build_index(split, tokenizer), whole)


def test_an_older_index_without_positions_of_long_texts_is_read(split, tokenizer) -> None:
    index = build_index(split, tokenizer)
    assert index.long_texts is not None
    assert len(index.long_texts.parts)
    next(split.directory.parent.glob("index/*/long_offsets.npy")).unlink()
    older = build_index(split, tokenizer).long_texts
    assert older is not None
    assert np.array_equal(older.offsets, index.long_texts.offsets)
