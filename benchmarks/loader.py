"""What does a batch cost beyond decoding, resizing and tokenizing?

    pip install webdataset                    # for the comparison
    python benchmarks/loader.py               # 1,500 pictures, five rounds, without and with two workers: 4 minutes
    python benchmarks/loader.py --tiny        # the same in seconds, to see that it runs

Every side takes the same made-up photographs (JPEG, 500 x 375) and captions, and does the same work on them, with the
same functions: decode (JPEG draft mode), lay on white, resize to a square of uint8, tokenize. They differ in what is
around it:

    bare          a loop over bytes in memory, in as many processes as there are workers: no file, no batch
    mm1           the loader over a plan: packed sequences with positions, targets and index tensors
    webdataset    tar files, `WebDataset`, batches of pictures and padded captions
    datasets      parquet files, `load_dataset(streaming=True)`, likewise

`webdataset, PIL as usual` decodes with `.decode("pil")`, without draft mode, as its examples do. A time is that of one
pass, the start and the end of worker processes included. Every round runs all sides, every other one in reverse order.
`cost` is time per picture over that of the bare loop with as many processes in the same round; `processor cost` is the
same of the processor's time in all processes together, which other work on the machine disturbs less. 1.0 would be no
cost at all. The median of the rounds counts.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import os
import platform
import resource
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image as PILImage
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase

from mm1.data.corpus import Split, open_split, write_corpus
from mm1.document import Document, Image, Text
from mm1.plan.index import build_index
from mm1.plan.loader import PlanDataset, build_loader
from mm1.plan.plan import write_plan
from mm1.plan.sources import Source
from mm1.processing.encode import tokenize_texts
from mm1.processing.images import decode_image, resize_to_square
from mm1.processing.processor import build_processor
from mm1.processing.tokenizer import train_tokenizer
from mm1.recipe import DataRecipe

SIZE, TOKENS_PER_IMAGE = 224, 64
IMAGES_A_BATCH = 64
PER_SHARD = 150
WHO = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
WORDS = ["a", "dog", "red", "house", "beside", "the", "river", "under", "tall", "trees", "while", "people", "walk"]

Run = Callable[[int], Iterable[Any]]
"""Gives the batches, with a number of worker processes."""


def photographs(count: int) -> list[tuple[bytes, str]]:
    """Return made-up photographs (smooth shapes with grain, about 60 KB) with captions of 5 to 25 words.

    300 of them (18 MB, more than the processor caches) are repeated with other captions.
    """
    random = np.random.default_rng(0)
    made = []
    for _ in range(min(count, 300)):
        coarse = PILImage.fromarray(random.integers(0, 256, (9, 12, 3), dtype=np.uint8)).resize((500, 375))
        grain = random.normal(0, 12, (375, 500, 1))
        stream = io.BytesIO()
        pixels = np.clip(np.asarray(coarse) + grain, 0, 255).astype(np.uint8)
        PILImage.fromarray(pixels).save(stream, "JPEG", quality=88)
        made.append(stream.getvalue())
    return [(made[n % len(made)], " " + " ".join(random.choice(WORDS, random.integers(5, 26)))) for n in range(count)]


class Work:
    """What has to be done with a sample, on every side."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer

    def __call__(self, data: bytes, text: str) -> tuple[np.ndarray, list[int]]:
        """Return pixels (3, SIZE, SIZE) uint8 and token ids."""
        return resize_to_square(decode_image(data, SIZE), SIZE), self.tokens(text)

    def tokens(self, text: str) -> list[int]:
        """Return token ids."""
        return tokenize_texts([text], self.tokenizer)[0]


def collate(samples: list[tuple[np.ndarray, list[int]]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Stack pictures and pad captions."""
    longest = max(len(ids) for _, ids in samples)
    ids = torch.tensor([ids + [0] * (longest - len(ids)) for _, ids in samples])
    return torch.from_numpy(np.stack([pixels for pixels, _ in samples])), ids


def mm1(folder: Path, samples: list[tuple[bytes, str]], tokenizer: PreTrainedTokenizerBase) -> tuple[Run, int]:
    """The loader over a plan of about one epoch, and how many pictures that is."""
    documents = (Document(str(n), "caption", (Image(d), Text(t))) for n, (d, t) in enumerate(samples))
    write_corpus(folder / "corpus", {"train": documents}, licence="none", sources=["made up"])
    return planned(folder, open_split(str(folder / "corpus" / "train")), tokenizer)


def planned(folder: Path, split: Split, tokenizer: PreTrainedTokenizerBase) -> tuple[Run, int]:
    """The loader over a plan of about one epoch of a split, and how many pictures that is."""
    index = build_index(split, tokenizer)
    recipe = DataRecipe.model_validate(
        {
            "sequence_length": 2048,
            "images_per_sequence": 16,
            "mixture": {"caption": {"weight": 1, "sources": [{"corpus": split.name}]}},
        }
    )
    plan = write_plan(
        folder / "plan",
        [Source(split.name, "caption", 1, split.content_hash, index)],
        recipe,
        tokenizer_fingerprint="",
        tokens_per_image=TOKENS_PER_IMAGE,
        batch_size=IMAGES_A_BATCH // 16,
        steps=max(1, len(split) // IMAGES_A_BATCH),
        seed=0,
    )
    dataset = PlanDataset(plan, [split], build_processor(tokenizer, SIZE, TOKENS_PER_IMAGE))
    return lambda workers: build_loader(dataset, 0, IMAGES_A_BATCH // 16, workers=workers), plan.info["images"]


def write_tars(folder: Path, samples: list[tuple[bytes, str]]) -> list[str]:
    """Write samples as WebDataset has them; return the files."""
    files = []
    for number, start in enumerate(range(0, len(samples), PER_SHARD)):
        files.append(str(folder / f"{number:05d}.tar"))
        with tarfile.open(files[-1], "w") as tar:
            for n, (data, text) in enumerate(samples[start : start + PER_SHARD], start):
                for suffix, content in (("jpg", data), ("txt", text.encode())):
                    entry = tarfile.TarInfo(f"{n:08d}.{suffix}")
                    entry.size = len(content)
                    tar.addfile(entry, io.BytesIO(content))
    return files


def webdataset(files: list[str], work: Work, usual: bool) -> Run:
    """`WebDataset` over tar files."""
    import webdataset as wds

    def same_work(sample: dict[str, Any]) -> tuple[np.ndarray, list[int]]:
        return work(sample["jpg"], sample["txt"].decode())

    def usual_work(sample: dict[str, Any]) -> tuple[np.ndarray, list[int]]:
        return resize_to_square(sample["jpg"], SIZE), work.tokens(sample["txt"])

    def run(workers: int) -> Iterable[Any]:
        dataset = wds.WebDataset(files, shardshuffle=False)
        dataset = dataset.decode("pil").map(usual_work) if usual else dataset.map(same_work)
        return DataLoader(dataset, batch_size=IMAGES_A_BATCH, num_workers=workers, collate_fn=collate)

    return run


def streaming(folder: Path, samples: list[tuple[bytes, str]], work: Work) -> Run:
    """Hugging Face `datasets` streaming from parquet files."""
    from datasets import load_dataset

    for number, start in enumerate(range(0, len(samples), PER_SHARD)):
        some = samples[start : start + PER_SHARD]
        table = pa.table({"image": [data for data, _ in some], "text": [text for _, text in some]})
        pq.write_table(table, folder / f"{number:05d}.parquet")

    files = [str(file) for file in sorted(folder.glob("*.parquet"))]
    rows = load_dataset("parquet", data_files=files, split="train", streaming=True)

    def worked(batch: list[dict[str, Any]]) -> tuple[torch.Tensor, torch.Tensor]:
        return collate([work(row["image"], row["text"]) for row in batch])

    return lambda workers: DataLoader(rows, batch_size=IMAGES_A_BATCH, num_workers=workers, collate_fn=worked)


def bare(samples: list[tuple[bytes, str]], work: Work) -> Run:
    """The work and nothing else."""

    def loop(some: list[tuple[bytes, str]]) -> None:
        for data, text in some:
            work(data, text)

    def run(workers: int) -> Iterable[Any]:
        if workers == 0:
            loop(samples)
            return ()
        context = multiprocessing.get_context("fork")  # as `DataLoader` starts its workers
        processes = [context.Process(target=loop, args=(samples[n::workers],)) for n in range(workers)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        return ()

    return run


def processor_seconds() -> float:
    """Return the processor's time of this process and of those that it started and that have ended."""
    return sum(time_.ru_utime + time_.ru_stime for time_ in map(resource.getrusage, WHO))


def spread(costs: np.ndarray) -> str:
    """Return median, lowest and highest."""
    return f"{np.median(costs):.3f} ({costs.min():.3f} to {costs.max():.3f})"


def main() -> None:
    """Run all sides in turns and print their figures with the machine they came from."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="in seconds; the figures mean nothing")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    samples = photographs(300 if arguments.tiny else 1500)
    tokenizer = train_tokenizer([text for _, text in samples], 400)
    work = Work(tokenizer)
    times: dict[tuple[str, int], list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sides = {
            "bare": (bare(samples, work), len(samples)),
            "mm1": mm1(folder, samples, tokenizer),
            "datasets": (streaming(folder, samples, work), len(samples)),
        }
        try:
            for side, usual in (("webdataset", False), ("webdataset, PIL as usual", True)):
                sides[side] = (webdataset(write_tars(folder, samples), work, usual), len(samples))
        except ImportError:
            print("webdataset is not installed: left out", file=sys.stderr)
        for number in range(1 if arguments.tiny else 5):
            turns = [(side, workers) for workers in arguments.workers for side in sides]
            for side, workers in turns if number % 2 == 0 else turns[::-1]:
                run, images = sides[side]
                began, began_processor = time.perf_counter(), processor_seconds()
                for _batch in run(workers):
                    pass
                both = (time.perf_counter() - began) / images, (processor_seconds() - began_processor) / images
                times.setdefault((side, workers), []).append(both)
    tokens = TOKENS_PER_IMAGE + float(np.mean([len(work.tokens(text)) for _, text in samples]))
    results = []
    for (side, workers), measured in times.items():
        costs = np.array(measured) / np.array(times["bare", workers])
        seconds = float(np.median(measured, axis=0)[0])
        results.append(
            {
                "side": side,
                "workers": workers,
                "images/s": round(1 / seconds, 1),
                "tokens/s": round(tokens / seconds),
                "cost": spread(costs[:, 0]),
                "processor cost": spread(costs[:, 1]),
            }
        )
    machine = {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    print(json.dumps({"machine": machine, "images": len(samples), "results": results}, indent=2))


if __name__ == "__main__":
    main()
