"""How full are sequences, and how long does a plan take?

    python benchmarks/packing.py fill      # ours against first fit, best fit decreasing and cutting anywhere
    python benchmarks/packing.py plan      # plans of millions of documents: seconds and memory, by number of processes
    python benchmarks/packing.py index     # counting the tokens of 300,000 documents, by number of processes
    python benchmarks/packing.py fill --tiny     # the same in seconds, to see that it runs

Documents are made up: log-normal text lengths as captions, web pages and texts have them, sequences of 4,096 tokens
and 16 images of 144 tokens (the paper's). The fill is that of whichever limit binds, tokens or images.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mm1.data.corpus import open_split, write_corpus
from mm1.document import Document, Text
from mm1.files import hash_files
from mm1.plan.index import IMAGE, build_index
from mm1.plan.lengths import Index
from mm1.plan.packing import Pieces, cut_documents, pack
from mm1.plan.plan import write_plan
from mm1.plan.sources import Source
from mm1.processing.tokenizer import train_tokenizer
from mm1.recipe import DataRecipe

MAX_TOKENS, MAX_IMAGES, TOKENS_PER_IMAGE = 4096, 16, 144


def captions(documents: int, median: float, random: np.random.Generator) -> Index:
    """Return an index of documents of a picture and a text of about `median` tokens."""
    parts = np.full(2 * documents, IMAGE, dtype=np.int32)
    parts[1::2] = lengths(documents, median, 0.6, random)
    return Index(parts, np.arange(0, 2 * documents + 1, 2), parts != IMAGE)


def pages(documents: int, random: np.random.Generator) -> Index:
    """Return an index of web pages: pictures and texts in turn, 4 pictures on average, 30 at most."""
    offsets = np.concatenate([[0], np.cumsum(2 * np.minimum(random.geometric(0.25, documents), 30))])
    parts = lengths(int(offsets[-1]), 100, 1.0, random)
    parts[::2] = IMAGE
    return Index(parts, offsets, parts != IMAGE)


def texts(documents: int, random: np.random.Generator) -> Index:
    """Return an index of texts of 400 tokens in the median, some of them longer than a sequence."""
    parts = lengths(documents, 400, 1.3, random)
    return Index(parts, np.arange(documents + 1), parts != IMAGE)


def lengths(count: int, median: float, spread: float, random: np.random.Generator) -> np.ndarray:
    """Return log-normal lengths in tokens."""
    return np.clip(random.lognormal(np.log(median), spread, count), 3, 100_000).astype(np.int32)


def first_fit(pieces: Pieces, order: np.ndarray) -> int:
    """Return how many sequences first fit makes: each piece goes into the first one with room for it."""
    tokens, images = np.zeros(len(order), np.int64), np.zeros(len(order), np.int64)
    opened = 0
    for piece in order:
        length, pictures = pieces.length[piece], pieces.images[piece]
        fits = (tokens[:opened] + length <= MAX_TOKENS) & (images[:opened] + pictures <= MAX_IMAGES)
        place = int(np.argmax(fits)) if fits.any() else opened
        opened = max(opened, place + 1)
        tokens[place] += length
        images[place] += pictures
    return opened


def best_fit(pieces: Pieces, order: np.ndarray) -> int:
    """Return how many sequences best fit decreasing makes: the longest pieces first, each where least room is left."""
    tokens, images = np.zeros(len(order), np.int64), np.zeros(len(order), np.int64)
    opened = 0
    for piece in order[np.argsort(-pieces.length[order], kind="stable")]:
        length, pictures = pieces.length[piece], pieces.images[piece]
        after = tokens[:opened] + length
        fits = (after <= MAX_TOKENS) & (images[:opened] + pictures <= MAX_IMAGES)
        place = int(np.argmax(np.where(fits, after, 0))) if fits.any() else opened
        opened = max(opened, place + 1)
        tokens[place] += length
        images[place] += pictures
    return opened


def fill(tiny: bool) -> dict[str, Any]:
    """Fill and time per document of each way to pack, on four sorts of documents."""
    documents = 500 if tiny else 20_000
    random = np.random.default_rng(0)
    corpora = {
        "short captions": captions(documents, 12, random),
        "long captions": captions(documents, 110, random),
        "pages": pages(documents, random),
        "texts": texts(documents, random),
    }
    ways: dict[str, Callable[[Pieces, np.ndarray], int]] = {
        "ours": lambda pieces, order: len(pack(pieces, order, MAX_TOKENS, MAX_IMAGES)),
        "first fit": first_fit,
        "best fit decreasing": best_fit,
    }
    results: dict[str, Any] = {}
    for name, index in corpora.items():
        pieces = cut_documents(index, TOKENS_PER_IMAGE, MAX_TOKENS, MAX_IMAGES)
        order = random.permutation(len(pieces))
        fewest = max(pieces.length.sum() / MAX_TOKENS, pieces.images.sum() / MAX_IMAGES)
        results[name] = {"documents cut, ours": int((np.bincount(pieces.document) > 1).sum())}
        for way, function in ways.items():
            began = time.process_time()
            sequences = function(pieces, order)
            microseconds = (time.process_time() - began) / len(pieces) * 1e6
            results[name][way] = {"fill": round(fewest / sequences, 4), "us a document": round(microseconds, 1)}
        # The text as one stream, cut wherever a sequence is full: full by construction, at the documents' cost.
        ends = np.cumsum(pieces.length[order])
        cut = (ends - 1) // MAX_TOKENS != (ends - pieces.length[order]) // MAX_TOKENS
        results[name]["cut anywhere"] = {"fill, tokens": 1.0, "share of pieces cut": round(float(cut.mean()), 3)}
    return results


def plan(tiny: bool) -> dict[str, Any]:
    """Time and memory of plans by number of processes (their start included), and whether they are the same plan.

    The first mixture has the paper's kinds: 45 % captions, 45 % pages and 10 % texts. The second has one source, whose
    three epochs can be packed beside each other.
    """
    documents = 10_000 if tiny else 4_000_000
    steps = 2 if tiny else 900
    random = np.random.default_rng(0)
    kinds = [
        Source("captions", "caption", 1, "", captions(documents, 12, random)),
        Source("pages", "interleaved", 1, "", pages(documents // 4, random)),
        Source("texts", "text", 1, "", texts(documents // 4, random)),
    ]
    one = [Source("captions", "caption", 1, "", captions(documents, 12, random))]
    return {
        "45 % captions, 45 % pages, 10 % texts": by_processes(
            kinds, {"caption": 0.45, "interleaved": 0.45, "text": 0.1}, steps
        ),
        "one source, three epochs": by_processes(one, {"caption": 1.0}, 2 if tiny else 3 * documents // 16 // 512),
    }


def by_processes(sources: list[Source], weights: dict[str, float], steps: int) -> dict[str, Any]:
    """Return the figures of one plan made by one process and by as many as there are cores."""
    mixture = {s.kind: {"weight": weights[s.kind], "sources": [{"corpus": s.name}]} for s in sources}
    recipe = DataRecipe.model_validate({"mixture": mixture})
    results: dict[str, Any] = {}
    same = set()
    with tempfile.TemporaryDirectory() as folder:
        for workers in (1, os.cpu_count() or 1):
            before, began, began_cpu = peak_mib(), time.perf_counter(), time.process_time()
            made = write_plan(
                Path(folder) / f"plan-{workers}",
                sources,
                recipe,
                tokenizer_fingerprint="",
                tokens_per_image=TOKENS_PER_IMAGE,
                batch_size=512,
                steps=steps,
                seed=0,
                workers=workers,
            )
            seconds, cpu = time.perf_counter() - began, time.process_time() - began_cpu
            placed = sum(entry["documents"] for entry in made.info["sources"].values())
            same.add(hash_files([made.directory / name for name in ("sequences.npy", "pieces.npy")]))
            results |= {"documents": placed, "sequences": len(made), "fill": made.info["fill"]}
            results[f"{workers} processes"] = {
                "seconds": round(seconds, 2),
                "cpu seconds of this process": round(cpu, 2),
                "documents a minute": round(placed / seconds * 60),
                "memory of this process above the indexes, MiB": round(peak_mib() - before),
            }
    return {**results, "the same plan": len(same) == 1}


def index(tiny: bool) -> dict[str, Any]:
    """Documents a minute of which the tokens are counted, by number of processes (their start included)."""
    documents = 2_000 if tiny else 300_000
    random = np.random.default_rng(0)
    words = [
        "a",
        "red",
        "house",
        "stands",
        "beside",
        "the",
        "river",
        "under",
        "tall",
        "trees",
        "while",
        "people",
        "walk",
    ]
    made = (
        Document(str(n), "text", (Text(" ".join(random.choice(words, random.integers(5, 40)))),))
        for n in range(documents)
    )
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        write_corpus(Path(folder) / "corpus", {"train": made}, licence="none", sources=["made up"])
        split = open_split(str(Path(folder) / "corpus" / "train"))
        for workers in (1, os.cpu_count() or 1):
            # Another tokenizer for each, so that no index is there yet.
            tokenizer = train_tokenizer([" ".join(words)], 300 + workers)
            began = time.perf_counter()
            build_index(split, tokenizer, workers)
            seconds = time.perf_counter() - began
            results[f"{workers} processes"] = {"documents a minute": round(documents / seconds * 60)}
    return results


def peak_mib() -> float:
    """Return this process's peak resident memory."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def main() -> None:
    """Run one question and print its figures with the machine they came from."""
    questions: dict[str, Callable[[bool], dict[str, Any]]] = {"fill": fill, "plan": plan, "index": index}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("question", choices=questions)
    parser.add_argument("--tiny", action="store_true", help="in seconds; the figures mean nothing")
    arguments = parser.parse_args()
    machine = {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    print(json.dumps({"machine": machine} | questions[arguments.question](arguments.tiny), indent=2))


if __name__ == "__main__":
    main()
