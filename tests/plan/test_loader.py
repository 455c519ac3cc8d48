from __future__ import annotations

import hashlib
import multiprocessing
from pathlib import Path

import numpy as np
import pytest
import torch

from mm1.data.corpus import open_split, write_corpus
from mm1.document import Document, Image, Text
from mm1.errors import UserError
from mm1.plan import loader
from mm1.plan.index import build_index
from mm1.plan.loader import PlanDataset, build_loader
from mm1.plan.micro_batches import image_rounds, step_shares
from mm1.plan.plan import write_plan
from mm1.plan.sources import Source
from mm1.processing.processor import MM1Processor, build_processor
from mm1.processing.tokenizer import train_tokenizer
from mm1.recipe import load_recipe
from tests.conftest import png

TENSORS = ("input_ids", "position_ids", "pixel_values", "image_positions", "target_positions", "target_ids")


@pytest.fixture
def processor() -> MM1Processor:
    return build_processor(train_tokenizer(["a red blue green yellow square Colour:"], 300), 16, 4)


def dataset_of(recipe_file: Path, tmp_path: Path, processor: MM1Processor, *overrides: str) -> PlanDataset:
    recipe = load_recipe(str(recipe_file), overrides)
    sources, splits = [], []
    for kind, mix in recipe.data.mixture.items():
        for entry in mix.sources:
            split = open_split(entry.corpus)
            index = build_index(split, processor.tokenizer)
            sources.append(Source(entry.corpus, kind, entry.weight, split.content_hash, index))
            splits.append(split)
    plan = write_plan(
        tmp_path / "plan",
        sources,
        recipe.data,
        tokenizer_fingerprint="t",
        tokens_per_image=4,
        batch_size=recipe.train.batch_size,
        steps=recipe.train.steps,
        seed=0,
    )
    return PlanDataset(plan, splits, processor, recipe.data.document_mask)


@pytest.fixture
def dataset(data: Path, recipe_file: Path, tmp_path: Path, processor: MM1Processor) -> PlanDataset:
    return dataset_of(recipe_file, tmp_path, processor)


def equal(one, other) -> bool:
    return all(torch.equal(torch.as_tensor(one[n]), torch.as_tensor(other[n])) for n in TENSORS)


def test_a_sequence_is_its_documents_one_after_another(dataset: PlanDataset) -> None:
    plan = dataset.plan
    for number in range(12):
        sequence, start = dataset[number], 0
        for row in plan.pieces(number):
            document = dataset.splits[plan.source[number]][int(plan.document[row])]
            first, length = plan.first[row], plan.length[row]
            encoded = dataset.processor.encode(document)
            here = slice(start, start + length)
            assert np.array_equal(sequence.input_ids[here], encoded.input_ids[first : first + length])
            assert np.array_equal(sequence.position_ids[here], np.arange(length))
            inside = encoded.target[first : first + length].copy()
            inside[0] = False
            targets = sequence.target_positions + 1
            assert np.array_equal(
                targets[(targets >= start) & (targets < start + length)] - start, np.flatnonzero(inside)
            )
            start += length
        assert sequence.tokens == start
        assert np.array_equal(sequence.target_ids, sequence.input_ids[sequence.target_positions + 1])
        images = sequence.input_ids[sequence.image_positions] == dataset.processor.image_token_id
        assert images.all()
        assert (
            len(images)
            == len(sequence.pixel_values) * 4
            == (sequence.input_ids == dataset.processor.image_token_id).sum()
        )


def test_without_document_mask_positions_run_on(data, recipe_file, tmp_path, processor) -> None:
    sequence = dataset_of(recipe_file, tmp_path, processor, "data.document_mask=false")[0]
    assert np.array_equal(sequence.position_ids[: sequence.tokens], np.arange(sequence.tokens))


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_the_same_from_any_start_with_any_workers(dataset: PlanDataset, workers: int) -> None:
    whole = list(build_loader(dataset, 0, 2))
    later = list(build_loader(dataset, 5, 2, workers=workers))
    assert len(whole) == 24
    assert len(later) == 14
    assert all(equal(a, b) for a, b in zip(whole[10:], later, strict=True))


def test_ranks_share_out_the_sequences_of_each_step(dataset: PlanDataset) -> None:
    alone = list(build_loader(dataset, 0, 4))
    halves = [list(build_loader(dataset, 0, 2, rank=rank, ranks=2)) for rank in (0, 1)]
    for step, batch in enumerate(alone):
        (shares,) = step_shares(dataset.plan, step, 2, 2) - 4 * step
        assert sorted(shares.flatten()) == [0, 1, 2, 3]
        for half, own in zip(halves, shares, strict=True):
            assert torch.equal(half[step]["input_ids"], batch["input_ids"][own])


def test_every_rank_knows_where_some_rank_has_images(dataset: PlanDataset) -> None:
    for step in range(12):
        batches = [list(build_loader(dataset, step, 1, rank=rank, ranks=2))[:2] for rank in (0, 1)]
        rounds = [any(len(own[number]["pixel_values"]) for own in batches) for number in range(2)]
        assert image_rounds(dataset.plan, step, 2, 1).tolist() == rounds


def digests(dataset: PlanDataset, first_step: int, rank: int, ranks: int, workers: int) -> dict[int, str]:
    """What each sequence of a rank is made of, by its number in the plan."""
    loader = build_loader(dataset, first_step, 1, workers=workers, rank=rank, ranks=ranks)
    steps = range(first_step, dataset.plan.info["steps"])
    numbers = [int(n) for step in steps for n in step_shares(dataset.plan, step, ranks, 1)[:, rank].flatten()]
    return {
        number: hashlib.sha256(b"".join(batch[name].numpy().tobytes() for name in TENSORS)).hexdigest()
        for number, batch in zip(numbers, loader, strict=True)
    }


def put_digests(queue, *args) -> None:
    torch.set_num_threads(1)
    queue.put(digests(*args))


def test_sequence_i_is_the_same_for_any_ranks_workers_and_restarts(data, recipe_file, tmp_path, processor) -> None:
    """In real processes: a process per rank, each with its own worker processes."""
    sizes = ["train.batch_size=6", "train.steps=4"]
    dataset = dataset_of(recipe_file, tmp_path, processor, *sizes)
    alone = digests(dataset, 0, 0, 1, 0)
    assert len(set(alone.values())) > 20
    context = multiprocessing.get_context("fork")
    for ranks, workers, first_step in ((1, 2, 1), (2, 0, 0), (2, 1, 3), (3, 2, 0), (3, 1, 2)):
        queue = context.Queue()
        arguments = [(queue, dataset, first_step, rank, ranks, workers) for rank in range(ranks)]
        processes = [context.Process(target=put_digests, args=some) for some in arguments]
        for process in processes:
            process.start()
        together = {number: value for _ in processes for number, value in queue.get(timeout=60).items()}
        for process in processes:
            process.join()
        assert together == {number: value for number, value in alone.items() if number >= first_step * 6}


def test_spawned_workers_give_the_same(dataset: PlanDataset) -> None:
    loader = build_loader(dataset, 10, 2, workers=1)
    loader.multiprocessing_context = "spawn"
    assert all(equal(a, b) for a, b in zip(loader, build_loader(dataset, 10, 2), strict=True))


def test_a_document_that_is_not_as_planned_is_named(dataset: PlanDataset, monkeypatch) -> None:
    (row, *_) = dataset.plan.pieces(0)
    document = dataset.splits[dataset.plan.source[0]][int(dataset.plan.document[row])]
    shorter = Document(document.id, document.kind, document.parts[:1])
    monkeypatch.setattr(type(dataset.splits[0]), "__getitem__", lambda *_: shorter)
    with pytest.raises(UserError, match=f"document '{document.id}': .* doesn't match the plan"):
        dataset[0]


def test_a_bad_picture_becomes_masked_padding_and_is_reported(monkeypatch, recipe_file, tmp_path, processor) -> None:
    monkeypatch.setenv("MM1_DATA", str(tmp_path / "data"))
    good = Document("good", "text", (Text("red and blue"),))
    bad = Document("bad", "caption", (Image(b"no picture"), Text(" a red square")))
    for name, document in (("captions", bad), ("pages", bad), ("prose", good)):
        write_corpus(tmp_path / "data" / name, {"train": [document]}, licence="none", sources=[])
    dataset = dataset_of(recipe_file, tmp_path, processor)
    sequence = dataset[0]
    assert dataset.plan.info["sources"]["captions/train"]["documents"] > 0
    assert len(sequence.target_positions) == len(sequence.pixel_values) == 0
    assert sequence.tokens == dataset.plan.length[0]
    assert (sequence.input_ids == processor.tokenizer.pad_token_id).all()
    assert "captions/train, document 'bad': not a readable picture" in sequence.bad_images[0]


def test_no_text_of_a_small_corpus_is_tokenized_anew(dataset: PlanDataset, monkeypatch) -> None:
    from_index = dataset.__getitems__(range(4))
    with monkeypatch.context() as patch:
        patch.setattr("mm1.plan.loader.keeps_from", lambda split: 1)
        assert equal(dataset.__getitems__(range(4)), from_index)
    monkeypatch.setattr("mm1.processing.encode.tokenize_texts", None)
    assert equal(dataset.__getitems__(range(4)), from_index)


def test_pieces_of_a_long_text_do_not_tokenize_all_of_it(monkeypatch, recipe_file, tmp_path, processor) -> None:
    monkeypatch.setattr("mm1.plan.lengths.SMALL_SPLIT", 0)
    monkeypatch.setenv("MM1_DATA", str(tmp_path / "data"))
    book = Text("".join(f"Once upon a time there were {n} squares. " for n in range(500)))
    page = [
        part for n in range(30) for part in (Image(png("red")), Text(f" {n} squares", n % 2 == 0), Text(" red" * 200))
    ]
    documents = [
        Document("book", "text", (book,)),
        Document("scrapbook", "text", (*page, book, *page[:9])),
        Document("short", "text", (Text("blue"),)),
    ]
    for name in ("captions", "pages", "prose"):
        write_corpus(tmp_path / "data" / name, {"train": documents}, licence="none", sources=[])
    dataset = dataset_of(recipe_file, tmp_path, processor, "train.steps=300")
    whole = {document.id: processor.encode(document) for document in documents}
    tokenized: list[str] = []
    tokenize = loader.tokenize_texts

    def noted(texts, by):
        tokenized.extend(texts)
        return tokenize(texts, by)

    monkeypatch.setattr(loader, "tokenize_texts", noted)
    seen = set()
    for number in range(len(dataset)):
        start, sequence = 0, dataset[number]
        for row in dataset.plan.pieces(number):
            first, length = int(dataset.plan.first[row]), int(dataset.plan.length[row])
            encoded = whole[documents[dataset.plan.document[row]].id]
            expected = encoded.input_ids[first : first + length]
            assert np.array_equal(sequence.input_ids[start : start + length], expected)
            targets = sequence.target_positions + 1 - start
            inside = encoded.target[first : first + length]
            assert np.array_equal(targets[(targets > 0) & (targets < length)], np.flatnonzero(inside[1:]) + 1)
            seen.add((int(dataset.plan.document[row]), first))
            start += length
    assert len(seen) > 500
    assert book.text not in tokenized
    assert max(map(len, tokenized)) == 800
