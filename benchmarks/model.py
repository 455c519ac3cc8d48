"""How fast is the packed model, how much memory do learned-only logits save?

    python benchmarks/model.py throughput     # packed MM1 against LlavaForConditionalGeneration, padded or packed
    python benchmarks/model.py memory         # logits at learned positions against logits everywhere
    python benchmarks/model.py throughput --tiny     # the same in seconds, to see that it runs

    --size     small (384 wide, 6 layers), smollm2 (SmolLM2-135M's width and words, 12 layers)
    --dtype    float32, bfloat16 (autocast)

Both sides of a comparison have the same weights or sizes, see the same documents and are timed in turns in one
process (memory: one process each). `useful tokens` are those of documents, image tokens included and padding not.
"Packed by hand" is what the library's own classes do with packed rows: positions that begin again keep documents apart
by a mask, and logits are computed everywhere.
"""

from __future__ import annotations

import argparse
import functools
import json
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import CLIPVisionConfig, LlamaConfig

from mm1.model import MM1Config, MM1ForConditionalGeneration
from mm1.model.factory import swiglu_size
from mm1.model.llava import to_llava

IMAGE, PAD, BOS = 3, 0, 1
IMAGE_SIZE, PATCH = 64, 16
TOKENS_PER_IMAGE = (IMAGE_SIZE // PATCH) ** 2


def build(hidden: int, layers: int, vocabulary: int, **changes: Any) -> MM1ForConditionalGeneration:
    """Return a model that is a LLaVA too: MLP connector, one token per patch."""
    torch.manual_seed(0)
    vision = CLIPVisionConfig(
        image_size=IMAGE_SIZE,
        patch_size=PATCH,
        hidden_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=512,
    )
    text = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=swiglu_size(hidden),
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        num_key_value_heads=hidden // 64,
        pad_token_id=PAD,
        bos_token_id=BOS,
        eos_token_id=2,
        max_position_embeddings=8192,
    )
    settings: dict[str, Any] = {"connector": "mlp", "image_seq_length": TOKENS_PER_IMAGE, "image_token_id": IMAGE}
    return MM1ForConditionalGeneration(MM1Config(vision_config=vision, text_config=text, **(settings | changes)))


@dataclass
class Sample:
    """A document: its ids with image tokens in place, and its images `(n, 3, H, W)`."""

    ids: np.ndarray
    images: torch.Tensor


def samples(count: int, longest: int, vocabulary: int) -> list[Sample]:
    """Return documents of the three kinds, 45/45/10 by tokens: captions, interleaved pages, text.

    A caption is an image and 6 to 20 tokens, a page 2 to 6 images with 10 to 60 tokens after each, a text 100 to
    `longest` tokens (log-uniform): lengths as ragged as those of the mixture that the paper trains on.
    """
    random = np.random.default_rng(0)

    def words(low: int, high: int) -> np.ndarray:
        return random.integers(4, vocabulary, random.integers(low, high + 1))

    most_images = min(6, longest // (TOKENS_PER_IMAGE + 60))
    makers: dict[str, Callable[[], list[tuple[int, np.ndarray]]]] = {
        "caption": lambda: [(1, words(6, 20))],
        "page": lambda: [(1, words(10, 60)) for _ in range(random.integers(2, most_images + 1))],
        "text": lambda: [(0, words(*[int(np.exp(random.uniform(np.log(100), np.log(longest))))] * 2))],
    }
    tokens = dict.fromkeys(makers, 0)
    shares = {"caption": 0.45, "page": 0.45, "text": 0.1}
    result: list[Sample] = []
    while len(result) < count:
        kind = min(makers, key=lambda name: tokens[name] / shares[name])
        ids = [BOS]
        images = 0
        for has_image, text in makers[kind]():
            ids += [IMAGE] * (has_image * TOKENS_PER_IMAGE) + text.tolist()
            images += has_image
        result.append(Sample(np.array(ids), pictures(images, len(result))))
        tokens[kind] += len(ids)
    return [result[i] for i in random.permutation(count)]


def padded_batches(documents: list[Sample], batch_size: int) -> list[dict[str, torch.Tensor]]:
    """Return batches as LLaVA takes them: padded to the longest, labels everywhere but at images and padding."""
    batches = []
    for start in range(0, len(documents), batch_size):
        part = documents[start : start + batch_size]
        ids = np.full((len(part), max(len(d.ids) for d in part)), PAD)
        for row, document in zip(ids, part, strict=True):
            row[: len(document.ids)] = document.ids
        input_ids = torch.from_numpy(ids)
        batches.append(
            {
                "input_ids": input_ids,
                "attention_mask": (input_ids != PAD).long(),
                "labels": input_ids.masked_fill((input_ids == IMAGE) | (input_ids == PAD) | (input_ids == BOS), -100),
                **pixels(part),
            }
        )
    return batches


def packed_batches(documents: list[Sample], length: int, rows: int) -> list[dict[str, torch.Tensor]]:
    """Return the same documents packed into rows, with index tensors instead of masks."""
    lengths = [len(d.ids) for d in documents]
    sequences = first_fit(lengths, length)
    batches = []
    for start in range(0, len(sequences), rows):
        part = sequences[start : start + rows]
        ids = np.full((len(part), length), PAD)
        positions = np.zeros((len(part), length), dtype=np.int64)
        for row, members in enumerate(part):
            end = 0
            for member in members:
                begin, end = end, end + lengths[member]
                ids[row, begin:end] = documents[member].ids
                positions[row, begin:end] = np.arange(lengths[member])
        flat = torch.from_numpy(ids).flatten()
        target = ((flat != IMAGE) & (flat != PAD) & (flat != BOS)).nonzero().squeeze(1)
        batches.append(
            {
                "input_ids": torch.from_numpy(ids),
                "position_ids": torch.from_numpy(positions),
                "image_positions": (flat == IMAGE).nonzero().squeeze(1),
                "target_positions": target - 1,
                "target_ids": flat[target],
                **pixels([documents[member] for members in part for member in members]),
            }
        )
    return batches


def first_fit(lengths: list[int], room: int) -> list[list[int]]:
    """Return rows of documents, longest first, each in the first row with room: not as good as the loader."""
    rows: list[list[int]] = []
    left: list[int] = []
    for document in sorted(range(len(lengths)), key=lambda d: -lengths[d]):
        row = next((r for r, space in enumerate(left) if space >= lengths[document]), len(rows))
        if row == len(rows):
            rows.append([])
            left.append(room)
        rows[row].append(document)
        left[row] -= lengths[document]
    return rows


def pictures(count: int, seed: int) -> torch.Tensor:
    """Return random images."""
    return torch.randn(count, 3, IMAGE_SIZE, IMAGE_SIZE, generator=torch.Generator().manual_seed(seed))


def pixels(documents: list[Sample]) -> dict[str, torch.Tensor]:
    """Return the documents' images as the models take them, or nothing for none."""
    images = torch.cat([d.images for d in documents])
    return {"pixel_values": images} if len(images) else {}


def seconds(step: Callable[[], None]) -> float:
    """Return how long one call takes."""
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def packed_by_hand(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return a packed batch as LLaVA takes it: with labels in place of index tensors."""
    ids = batch["input_ids"]
    learned = torch.zeros(ids.numel(), dtype=torch.bool)
    learned[batch["target_positions"] + 1] = True
    names = ("input_ids", "position_ids", "pixel_values")
    kept: dict[str, torch.Tensor] = {name: batch[name] for name in names if name in batch}
    return {**kept, "labels": ids.masked_fill(~learned.view_as(ids), -100)}


SIZES = {
    "tiny": (64, 1, 512, 24, 256, 2, 1),
    "small": (384, 6, 8192, 192, 1024, 2, 3),
    "smollm2": (576, 12, 49_152, 24, 1024, 1, 3),
}
"""Width, layers and words of the decoder; documents; tokens and number of a batch's rows; turns."""


def throughput(size: str, dtype: torch.dtype) -> dict[str, Any]:
    """Forward and backward over the same documents, packed and padded, in turns."""
    hidden, layers, vocabulary, count, length, rows, turns = SIZES[size]
    ours = build(hidden, layers, vocabulary).train()
    llava = to_llava(ours)
    documents = samples(count, length - 1, vocabulary)
    useful = sum(len(d.ids) for d in documents)
    batch_size = max(1, round(rows * length / (useful / count)))  # as many tokens as a packed batch, on average
    packed = packed_batches(documents, length, rows)
    # LLaVA's trainer can group documents of like length, which saves padding and makes batches alike.
    grouped = padded_batches(sorted(documents, key=lambda d: len(d.ids)), batch_size)
    contestants: dict[str, tuple[Any, str, list[dict[str, torch.Tensor]]]] = {
        "packed, sdpa_packed": (ours, "sdpa_packed", packed),
        "packed, sdpa": (ours, "sdpa", packed),
        "LLaVA, packed by hand": (llava, "sdpa", [packed_by_hand(batch) for batch in packed]),
        "LLaVA, padded": (llava, "sdpa", padded_batches(documents, batch_size)),
        "LLaVA, padded, grouped by length": (llava, "sdpa", grouped),
    }

    def run(model: Any, attention: str, batches: list[dict[str, torch.Tensor]]) -> None:
        model.set_attn_implementation({"text_config": attention, "vision_config": "sdpa"})
        for batch in batches:
            with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
                loss = model(**batch, use_cache=False).loss
            loss.backward()
            model.zero_grad()

    times: dict[str, list[float]] = {name: [] for name in contestants}
    for model, attention, batches in contestants.values():
        run(model, attention, batches[:1])
    for _ in range(turns):
        for name, contestant in contestants.items():
            times[name].append(seconds(functools.partial(run, *contestant)))
    rates = {name: useful / float(np.median(values)) for name, values in times.items()}
    return {
        "documents": count,
        "useful tokens": useful,
        "share of tokens that are useful": {
            name: useful / sum(b["input_ids"].numel() for b in batches) for name, (_, _, batches) in contestants.items()
        },
        "useful tokens/s": rates,
        "packed over packed by hand": rates["packed, sdpa_packed"] / rates["LLaVA, packed by hand"],
        "packed over LLaVA": rates["packed, sdpa_packed"] / rates["LLaVA, padded"],
        "packed over LLaVA grouped by length": rates["packed, sdpa_packed"] / rates["LLaVA, padded, grouped by length"],
        "seconds of each turn": times,
    }


def memory(tiny: bool) -> dict[str, Any]:
    """Peak memory of one training step, each way in a process of its own."""
    peaks = {}
    for way in ("target", "all"):
        command = [sys.executable, __file__, f"memory-{way}", *(["--tiny"] if tiny else [])]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        peaks[way] = json.loads(done.stdout)
    before, target, everywhere = peaks["all"]["before"], peaks["target"]["peak"], peaks["all"]["peak"]
    return {
        "vocabulary": peaks["all"]["vocabulary"],
        "tokens": peaks["all"]["tokens"],
        "target tokens": peaks["all"]["target"],
        "MiB before the step": before,
        "peak MiB, logits at learned positions": target,
        "peak MiB, logits everywhere": everywhere,
        "saved MiB": everywhere - target,
    }


def memory_of(way: str, tiny: bool) -> dict[str, Any]:
    """Run one training step in this process and return its peak memory in MiB."""
    vocabulary, tokens = (512, 256) if tiny else (49_152, 4096)
    model = build(64 if tiny else 256, 1 if tiny else 2, vocabulary).train()
    images = int(0.7 * tokens) // TOKENS_PER_IMAGE
    text = tokens - images * TOKENS_PER_IMAGE - 1
    ids = np.array([BOS] + [IMAGE] * (images * TOKENS_PER_IMAGE) + [5] * text)
    (batch,) = packed_batches([Sample(ids, pictures(images, 0))], tokens, 1)
    target = len(batch["target_ids"])
    if way == "all":
        labels = torch.full((tokens,), -100)
        labels[batch.pop("target_positions") + 1] = batch.pop("target_ids")
        batch["labels"] = labels[None]
    before = peak_mib()
    model(**batch).loss.backward()
    return {"before": before, "peak": peak_mib(), "vocabulary": vocabulary, "tokens": tokens, "target": target}


def peak_mib() -> float:
    """Return this process's peak resident memory."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def main() -> None:
    """Run one question and print its figures with the machine they came from."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("question", choices=["throughput", "memory", "memory-target", "memory-all"])
    parser.add_argument("--size", choices=["small", "smollm2"], default="small")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--tiny", action="store_true", help="in seconds; the figures mean nothing")
    arguments = parser.parse_args()
    if arguments.question.startswith("memory-"):
        print(json.dumps(memory_of(arguments.question.removeprefix("memory-"), arguments.tiny)))
        return
    machine = {
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    if arguments.question == "memory":
        found = memory(arguments.tiny)
    else:
        found = throughput("tiny" if arguments.tiny else arguments.size, getattr(torch, arguments.dtype))
    print(json.dumps({"machine": machine} | found, indent=2))


if __name__ == "__main__":
    main()
