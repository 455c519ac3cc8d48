"""Does the memory of the global steps of cleaning stay bounded?

    python benchmarks/cleaning.py               # ten million hashes for each of three steps: 4 minutes, 3 GB of disk
    python benchmarks/cleaning.py --tiny        # the same in seconds, to see that it runs

The facts that a step gathers from documents are made up, then the step decides in DuckDB with a limit of 256 MB, in a
process of its own whose peak memory is read: once for a quarter of the hashes, once for all. Where everything fits the
limit the peak grows with the hashes; where it doesn't, the rest is on disk and the peak stays.

    repeated-images     a hash a picture, one in ten of them in more than ten documents
    exact-duplicates    a hash a document, one in ten of them a copy
    near-duplicates     14 hashes a document (the bands of its MinHash signature of 128 places), one in ten a near copy
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import re
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mm1.clean.database import decide_in_database, open_database
from mm1.clean.duplicates import ExactDuplicates, RepeatedImages
from mm1.clean.minhash import band_keys, bands_for
from mm1.clean.near_duplicates import NearDuplicates
from mm1.clean.step import GlobalStep

MEMORY = "256MB"
ROWS_AT_ONCE = 20_000  # as many facts as a unit of the job writes, or so

Facts = Iterator[list[pa.Array]]


def repeated_images(hashes: int, random: np.random.Generator) -> Facts:
    """Yield columns of `RepeatedImages`: 4 pictures a document, one in ten from 1,000 banners."""
    for start in range(0, hashes, ROWS_AT_ONCE):
        count = min(ROWS_AT_ONCE, hashes - start)
        keys = random.integers(0, 2**63, (count, 2), dtype=np.uint64)
        banners = random.random(count) < 0.1
        keys[banners] = random.integers(0, 1000, (int(banners.sum()), 1), dtype=np.uint64)
        place = np.arange(start, start + count)
        yield [pa.array(place // 4), pa.array((place % 4).astype(np.int32)), binary(keys)]


def exact_duplicates(hashes: int, random: np.random.Generator) -> Facts:
    """Yield columns of `ExactDuplicates`: one in ten is one of those before."""
    for start in range(0, hashes, ROWS_AT_ONCE):
        rows = np.arange(start, min(start + ROWS_AT_ONCE, hashes))
        copied = random.random(len(rows)) < 0.1
        content = np.where(copied, random.integers(0, start + 1, len(rows)), rows).astype(np.uint64)
        yield [pa.array(rows), binary(np.stack([content * np.uint64(0x9E3779B97F4A7C15), content], axis=1))]


def near_duplicates(hashes: int, random: np.random.Generator) -> Facts:
    """Yield columns of `NearDuplicates`: one in ten differs from its neighbour in 5 % of the signature."""
    step = NearDuplicates()
    bands, rows_a_band = bands_for(step.threshold, step.signature_length)
    documents = hashes // bands
    for start in range(0, documents, ROWS_AT_ONCE):
        rows = np.arange(start, min(start + ROWS_AT_ONCE, documents))
        signatures = random.integers(0, 2**32, (len(rows), step.signature_length), dtype=np.uint32)
        near = np.flatnonzero(random.random(len(rows) - 1) < 0.1) + 1
        changed = random.random((len(near), step.signature_length)) < 0.05
        signatures[near] = np.where(changed, signatures[near], signatures[near - 1])
        keys = [band_keys(signature, bands, rows_a_band) for signature in signatures]
        as_bytes = [signature.tobytes() for signature in signatures]
        yield [pa.array(rows), pa.array(as_bytes, pa.binary()), pa.array(keys, pa.list_(pa.uint64()))]


def binary(keys: np.ndarray) -> pa.Array:
    """Return (n, 2) uint64 as n values of 16 bytes."""
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(keys), [None, pa.py_buffer(keys.tobytes())])


STEPS: dict[str, tuple[GlobalStep, Callable[[int, np.random.Generator], Facts]]] = {
    "repeated-images": (RepeatedImages(), repeated_images),
    "exact-duplicates": (ExactDuplicates(), exact_duplicates),
    "near-duplicates": (NearDuplicates(), near_duplicates),
}


def decide(name: str, folder: Path) -> dict[str, Any]:
    """Let a step decide on the facts in a folder; return what it took. To be called in a fresh process."""
    before, began = peak_mib(), time.perf_counter()
    with open_database(folder, folder / "facts", MEMORY, None) as database:
        decide_in_database(STEPS[name][0].decide(database), folder / "decision.parquet", database)
    return {
        "dropped": pq.read_metadata(folder / "decision.parquet").num_rows,
        "seconds": round(time.perf_counter() - began, 1),
        "peak, MiB": round(peak_mib()),
        "of which there were before, MiB": round(before),
    }


def peak_mib() -> float:
    """Return this process's peak resident memory (ru_maxrss has that of the process that started it, on Linux)."""
    status = Path("/proc/self/status")
    if status.is_file():
        return int(re.findall(r"VmHWM:\s+(\d+) kB", status.read_text())[0]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    """Run all steps and print their figures with the machine they came from."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="in seconds; the figures mean nothing")
    arguments = parser.parse_args()
    hashes = 50_000 if arguments.tiny else 10_000_000
    results: dict[str, Any] = {}
    for name, (step, make) in STEPS.items():
        for count in (hashes // 4, hashes):
            with tempfile.TemporaryDirectory() as folder:
                (Path(folder) / "facts").mkdir()
                for number, columns in enumerate(make(count, np.random.default_rng(0))):
                    table = pa.table(columns, schema=step.schema)
                    pq.write_table(table, Path(folder) / "facts" / f"{number:06d}.parquet")
                # Spawned: memory of this process is not counted.
                with multiprocessing.get_context("spawn").Pool(1) as pool:
                    results[f"{name}, {count:,} hashes"] = pool.apply(decide, (name, Path(folder)))
    machine = {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    print(json.dumps({"machine": machine, "limit": MEMORY, "results": results}, indent=2))


if __name__ == "__main__":
    main()
