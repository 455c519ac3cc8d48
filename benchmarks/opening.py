"""How long does a split of 2 billion documents take to open, and what does one document cost beyond its bytes?

    python benchmarks/opening.py               # 20,000 files of 100,000 rows; 1 GB of disk
    python benchmarks/opening.py --tiny        # the same in seconds, to see that it runs

The split is one real Arrow file that is linked as often as it takes; its `batches.npy` is written by the code that
builds corpora. Every figure comes from a process of its own. `pread` reads the same pictures from a descriptor that is
open, which is the least that reading can cost; the difference is what the store adds: the search, opening files, Arrow,
Python objects. Both are in the page cache, and the processor's time counts, which other work on the machine disturbs
less. Bytes from disk are `read_bytes` of /proc/self/io after the file's pages were given up (POSIX_FADV_DONTNEED):
Linux only.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mm1.data import batches
from mm1.data.batches import write_batches
from mm1.data.corpus import Split, write_corpus
from mm1.document import Document, Image, Text

SEED = 0


def documents(count: int, picture_bytes: int) -> Iterator[Document]:
    """Yield captioned pictures whose bytes are random."""
    noise = random.Random(SEED)
    for number in range(count):
        picture = Image(noise.randbytes(picture_bytes), f"https://example.org/{number}.jpg")
        caption = Text(f" a caption of some words, number {number}")
        yield Document(f"shard/{number}", "caption", (picture, caption), {"width": 500, "height": 375})


def link_files(directory: Path, files: int) -> float:
    """Link a split's only file so often, and write `batches.npy`; return the seconds that one file took."""
    info = json.loads((directory / "corpus.json").read_text())
    for number in range(1, files):
        os.link(directory / "train" / "00000.arrow", directory / "train" / f"{number:05d}.arrow")
    for count in ("documents", "images", "characters"):
        info["splits"]["train"][count] *= files
    (directory / "corpus.json").write_text(json.dumps(info))
    # All are one file, so it is stepped through once; a real corpus takes so long for each of its files.
    start = time.perf_counter()
    found = batches._batches_of(str(directory / "train" / "00000.arrow"))
    seconds = time.perf_counter() - start
    batches._batches_of = lambda file: found
    write_batches(directory / "train")
    return seconds


def resident() -> dict[str, int]:
    """Return this process's resident memory in bytes, and its share of the pages of mapped corpora."""
    found = {"resident": 0, "of_corpus": 0, "share_of_corpus": 0}
    of_corpus = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        name, _, rest = line.partition(":")
        if "-" in name and " " in name:
            of_corpus = line.endswith((".arrow", batches.FILE))
        elif name == "Rss":
            found["resident"] += int(rest.split()[0]) * 1024
            found["of_corpus"] += of_corpus * int(rest.split()[0]) * 1024
        elif name == "Pss":
            found["share_of_corpus"] += of_corpus * int(rest.split()[0]) * 1024
    return found


def open_split(directory: Path) -> dict[str, Any]:
    """Open a split in a fresh process."""
    start, processor = time.perf_counter(), time.process_time()
    split = Split(directory / "train")
    seconds, processor = time.perf_counter() - start, time.process_time() - processor
    return {"documents": len(split), "seconds": seconds, "processor": processor, **resident()}


def read_random(directory: Path, count: int) -> dict[str, float]:
    """Return the microseconds of the processor for a random document, and for its picture's bytes by `pread`."""
    split = Split(directory / "train")
    rows = np.random.default_rng(SEED).integers(len(split), size=count).tolist()
    chosen = [split[row] for row in rows]
    start = time.process_time()
    for row in rows:
        split[row]
    documents = time.process_time() - start
    file = directory / "train" / "00000.arrow"
    content = file.read_bytes()
    places = [(content.find(d.images[0].data or b""), len(d.images[0].data or b"")) for d in chosen[:500]]
    descriptor = os.open(file, os.O_RDONLY)
    start = time.process_time()
    for place, length in places:
        os.pread(descriptor, length, place)
    pread = (time.process_time() - start) / len(places)
    return {"document": 1e6 * documents / count, "pread": 1e6 * pread}


def read_in_order(directory: Path, count: int) -> dict[str, float]:
    """Return the microseconds of the processor for a document in a pass over the first ones."""
    split = Split(directory / "train")
    for _ in range(2):
        start = time.process_time()
        for _, _ in zip(range(count), split, strict=False):
            pass
    return {"document": 1e6 * (time.process_time() - start) / count}


def share(directory: Path, count: int, read: Any, end: Any) -> dict[str, int]:
    """Read the same documents as another process, and say when both have read how much memory it is."""
    split = Split(directory / "train")
    for row in np.random.default_rng(SEED).integers(len(split), size=count).tolist():
        split[row]
    read.wait()
    found = resident()
    end.wait()
    return found


def read_from_disk(directory: Path, count: int, advice: str) -> dict[str, float]:
    """Return the bytes from disk and the milliseconds of a random document that isn't in the page cache.

    Args:
        directory: The corpus; its split has one file.
        count: Documents.
        advice: `as built`, `MADV_RANDOM alone` or `none`.
    """
    split = Split(directory / "train")
    if advice != "as built":
        batches._OpenFile._read_ahead = lambda *_: None  # type: ignore[method-assign]
    if advice == "none":
        batches._map = partial(_map_plainly, batches._map)
    rows = np.random.default_rng(SEED + 1).integers(len(split), size=count).tolist()
    descriptor = os.open(directory / "train" / "00000.arrow", os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    before, start = _read_bytes(), time.perf_counter()
    for row in rows:
        split[row]
    seconds = time.perf_counter() - start
    return {"bytes": (_read_bytes() - before) / count, "milliseconds": 1e3 * seconds / count}


def _map_plainly(map_file: Callable[..., Any], file: str, *, at_random: bool) -> Any:
    return map_file(file, at_random=False)


def pread_from_disk(directory: Path, count: int, size: int) -> dict[str, float]:
    """Return what `read_from_disk` does of as many bytes at random places, read by `pread`."""
    file = directory / "train" / "00000.arrow"
    places = np.random.default_rng(SEED + 1).integers(file.stat().st_size - size, size=count).tolist()
    descriptor = os.open(file, os.O_RDONLY)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
    before, start = _read_bytes(), time.perf_counter()
    for place in places:
        os.pread(descriptor, size, place)
    seconds = time.perf_counter() - start
    return {"bytes": (_read_bytes() - before) / count, "milliseconds": 1e3 * seconds / count}


def _read_bytes() -> int:
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("read_bytes")))


def alone(function: Callable[..., Any], *arguments: Any, start: str = "fork") -> Any:
    """Return what a function returns in a process of its own."""
    with multiprocessing.get_context(start).Pool(1) as pool:
        return pool.apply(function, arguments)


def together(directory: Path, count: int) -> list[dict[str, int]]:
    """Return what `share` returns in two processes at a time."""
    context = multiprocessing.get_context("fork")
    with context.Manager() as manager, context.Pool(2) as pool:
        read, end = manager.Barrier(2), manager.Barrier(2)
        results = [pool.apply_async(share, (directory, count, read, end)) for _ in range(2)]
        return [result.get() for result in results]


def main() -> None:
    """Build the corpora, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="small sizes")
    parser.add_argument("--folder", type=Path, help="where the corpora are made (default: a temporary folder)")
    options = parser.parse_args()
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # a long run shows what it has
    rows, files, pictures, count = (500, 20, 300, 100) if options.tiny else (100_000, 20_000, 10_000, 2_000)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        many, large = Path(folder) / "many", Path(folder) / "large"
        for directory, number, size in ((many, rows, 2_000), (large, pictures, 60_000)):
            write_corpus(directory, {"train": documents(number, size)}, licence="none", sources=[])
        seconds = link_files(many, files)
        measure(many, large, rows, files, seconds, count)


def measure(many: Path, large: Path, rows: int, files: int, seconds: float, count: int) -> None:
    """Print every figure of the two corpora."""
    table = (many / "train" / batches.FILE).stat().st_size
    print(f"batches.npy: {table / 1e6:,.1f} MB; {1e3 * seconds:,.1f} ms to step through a file of {rows:,} rows")
    opened = alone(open_split, many, start="spawn")  # with nothing of this process in its memory
    print(
        f"open {opened['documents']:,} documents in {files:,} files: {opened['seconds']:.3f} s "
        f"({opened['processor']:.3f} s of the processor)"
    )
    print(f"  resident: {opened['resident'] / 1e6:,.0f} MB in all, {opened['of_corpus'] / 1e6:,.1f} of the corpus")
    for what, directory in (("2 kB, 2 billion", many), ("60 kB, one file", large)):
        cost = alone(read_random, directory, count)
        print(f"random document ({what}): {cost['document']:.1f} us, its picture by pread {cost['pread']:.1f} us")
    print(f"documents in order (2 kB): {alone(read_in_order, many, min(rows, 20_000))['document']:.1f} us")
    for number, found in enumerate(together(many, count), 1):
        print(
            f"process {number} of two: {found['of_corpus'] / 1e6:,.1f} MB of the corpus resident, "
            f"its share {found['share_of_corpus'] / 1e6:,.1f} MB"
        )
    read = {
        advice: alone(read_from_disk, large, min(count, 200), advice)
        for advice in ("as built", "MADV_RANDOM alone", "none")
    }
    read["pread of 60 kB"] = alone(pread_from_disk, large, min(count, 200), 60_000)
    for advice, cost in read.items():
        print(f"from disk, {advice}: {cost['bytes'] / 1e3:,.0f} kB, {cost['milliseconds']:.2f} ms a document")


if __name__ == "__main__":
    main()
