"""What does it cost to train from where the data lies, on a disk and in a store?

    pip install webdataset megatron-energon   # for the comparison; neither brings another torch
    python benchmarks/remote.py               # 1,200 pictures, three rounds: minutes
    python benchmarks/remote.py --tiny        # 300 pictures, one round, to see that it runs

All sides read the same tars of made-up photographs (JPEG, 500 x 375, about 60 KB) with captions:

    copied                 the loader over a corpus that holds the pictures
    in place               the loader over a corpus by reference to the tars, on the disk
    in place, s3           the same, the tars in a store, with an empty cache: its first epoch
    in place, s3, cached   the same again, from the cache: later epochs
    webdataset, local      `WebDataset` over the tars on the disk
    webdataset, http       `WebDataset` over the addresses of the same objects, which it streams through curl
    energon, s3            `megatron-energon` over the same objects (`rclone://`, its way to S3)

images/s is wall time of one pass and includes, for all: reading, decoding (JPEG draft mode), laying on white, resizing
to a square of 224, tokenizing, batches, the start and the end of worker processes. For mm1 it includes packing into
sequences with positions. It includes no training. mm1 reads at random, in the order of its plan; the others read tars
from end to end, which needs fewer requests and gives no order but that of the tars.

The store is moto's server of S3's protocol behind a proxy that lets every request for contents wait (`--latency`, 20
ms), then sends it as fast as it can; both run in processes of their own and take processor time of the same machine,
which bounds what any side can reach. `requests` are those for contents in one pass. Every round runs all sides, every
other one in reverse order; the median counts.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from loader import IMAGES_A_BATCH, Run, Work, collate, photographs, planned, webdataset, write_tars

from mm1.data.build import build_from
from mm1.data.corpus import Split
from mm1.processing.tokenizer import train_tokenizer

BUCKET = "s3://data"
END = "end"
ROOT = Path(__file__).resolve().parent.parent
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}


def serve_slowly(milliseconds: float) -> None:
    """Serve until a line says `end`; one with a folder uploads it, an empty one asks for the count of requests."""
    sys.path.append(str(ROOT))
    from tests.remote.server import serve, slow

    with serve() as store:
        store.rule = slow(milliseconds / 1000, "")
        store.put(BUCKET)
        print(store.url, flush=True)
        for line in iter(sys.stdin.readline, f"{END}\n"):
            if folder := line.strip():
                store.upload(Path(folder), f"{BUCKET}/tars")
            print(len(store.gets("tars/")), flush=True)
            store.requests.clear()


class Server:
    """The server in its process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.url = self._ask(None)

    def _ask(self, line: str | None) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if line is not None:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        return self._process.stdout.readline().strip()

    def upload(self, folder: Path) -> None:
        """Put all files of a folder into the store."""
        self._ask(str(folder))

    def requests(self) -> int:
        """Return the number of requests for contents since this was asked last."""
        return int(self._ask(""))


@contextmanager
def server(milliseconds: float) -> Iterator[Server]:
    """Start the server; end it when the block ends."""
    command = [sys.executable, __file__, "--serve", "--latency", str(milliseconds)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Server(process)
        finally:
            # Workers that were forked meanwhile keep the pipe open, so its end would not come.
            process.communicate(f"{END}\n")


def energon(folder: Path, url: str, work: Work) -> Run:
    """Megatron Energon over a folder of tars that it has prepared."""
    from megatron import energon as library

    (folder / "rclone").mkdir(parents=True)
    (folder / "rclone" / "rclone.conf").write_text(
        "[local]\ntype = s3\nprovider = Other\naccess_key_id = test\nsecret_access_key = test\n"
        f"region = us-east-1\nendpoint = {url}\n"
    )
    os.environ["XDG_CONFIG_HOME"] = str(folder)

    class Encoder(library.DefaultTaskEncoder):
        def encode_sample(self, sample: Any) -> tuple[np.ndarray, list[int]]:
            return work(sample.image, sample.caption.decode())

        def batch(self, samples: list[Any]) -> Any:
            return collate(samples)

    def run(workers: int) -> Iterable[Any]:
        config = library.WorkerConfig(rank=0, world_size=1, num_workers=workers)
        dataset = library.get_val_dataset(
            "rclone://local/data/tars", worker_config=config, batch_size=IMAGES_A_BATCH, task_encoder=Encoder()
        )
        batches: Iterable[Any] = library.get_loader(dataset)
        return batches

    return run


def prepare_energon(tars: Path, names: list[str]) -> None:
    """Write what Energon needs beside the tars: its indexes, one split, and which member is what."""
    from megatron.energon.flavors.webdataset.prepare import WebdatasetPreparator

    WebdatasetPreparator.prepare_dataset(tars, names, split_parts_ratio=[("val", 1.0)], shuffle_seed=None, workers=1)
    (tars / ".nv-meta" / "dataset.yaml").write_text(
        "sample_type: {__module__: megatron.energon, __class__: CaptioningSample}\n"
        "field_map: {image: jpg, caption: txt}\n"
        "auto_decode: false\n"  # all sides decode by the same function
    )


def with_cache(run: Run, folder: Path, *, fresh: bool) -> Run:
    """Return a run that keeps what it reads in a folder, in a new one each time if it is to be empty."""

    def run_with_cache(workers: int) -> Iterable[Any]:
        os.environ["MM1_CACHE"] = tempfile.mkdtemp(dir=folder) if fresh else str(folder)
        return run(workers)

    return run_with_cache


def referring(folder: Path, sources: list[str]) -> Split:
    """Return a corpus by reference to tars."""
    # In processes of their own, so that this one and those that it forks have nothing of the tars in memory.
    build_from("webdataset", sources, folder / "corpus", in_place=True, workers=2)
    return Split(folder / "corpus" / "train")


def main() -> None:
    """Run all sides in turns and print a table with the machine that it came from."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="in a minute; the figures mean nothing")
    parser.add_argument("--images", type=int, default=1200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--latency", type=float, default=20, help="milliseconds that a request for contents waits")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve_slowly(arguments.latency)
        return
    torch.set_num_threads(1)
    os.environ.update(CREDENTIALS, TOKENIZERS_PARALLELISM="false")
    samples = photographs(300 if arguments.tiny else arguments.images)
    tokenizer = train_tokenizer([text for _, text in samples], 400)
    work = Work(tokenizer)
    with tempfile.TemporaryDirectory() as name, server(arguments.latency) as store:
        folder = Path(name)
        for part in ("tars", "copied", "local", "s3", "cold"):
            (folder / part).mkdir()
        os.environ.update(AWS_ENDPOINT_URL=store.url, MM1_CACHE=str(folder / "cache"))
        tars = write_tars(folder / "tars", samples)
        skipped = []
        try:
            prepare_energon(folder / "tars", [Path(file).name for file in tars])
        except ImportError:
            skipped.append("megatron-energon")
        store.upload(folder / "tars")
        build_from("webdataset", tars, folder / "copied" / "corpus", workers=1)
        of_s3, images = planned(folder / "s3", referring(folder / "s3", [f"{BUCKET}/tars/*.tar"]), tokenizer)
        sides: dict[str, tuple[Run, int]] = {
            "copied": planned(folder / "copied", Split(folder / "copied" / "corpus" / "train"), tokenizer),
            "in place": planned(folder / "local", referring(folder / "local", tars), tokenizer),
            "in place, s3": (with_cache(of_s3, folder / "cold", fresh=True), images),
            "in place, s3, cached": (with_cache(of_s3, folder / "cache", fresh=False), images),
        }
        try:
            addresses = [f"{store.url}/data/tars/{Path(file).name}" for file in tars]
            sides["webdataset, local"] = (webdataset(tars, work, False), len(samples))
            sides["webdataset, http"] = (webdataset(addresses, work, False), len(samples))
        except ImportError:
            skipped.append("webdataset")
        if "megatron-energon" not in skipped:
            sides["energon, s3"] = (energon(folder / "config", store.url, work), len(samples))
        for _batch in sides["in place, s3, cached"][0](arguments.workers):
            pass  # fills the cache
        rates: dict[str, list[tuple[float, int]]] = {side: [] for side in sides}
        for number in range(1 if arguments.tiny else arguments.rounds):
            for side in list(sides)[:: 1 if number % 2 == 0 else -1]:
                rates[side].append(one_pass(*sides[side], arguments.workers, store.requests))
    machine = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"
    print(f"{machine}; {len(samples)} pictures, {arguments.workers} workers, {arguments.latency:g} ms a request")
    for library in skipped:
        print(f"{library} is not installed: left out")
    print("| side | images/s | lowest to highest | of copied | requests |\n| --- | --- | --- | --- | --- |")
    base = np.median([rate for rate, _ in rates["copied"]])
    for side, passes in rates.items():
        each = np.array([rate for rate, _ in passes])
        middle = np.median(each)
        spread = f"{each.min():,.0f} to {each.max():,.0f}"
        print(f"| {side} | {middle:,.0f} | {spread} | {middle / base:.2f} | {passes[-1][1]:,} |")


def one_pass(run: Run, images: int, workers: int, requests: Callable[[], int]) -> tuple[float, int]:
    """Return images/s of a pass, and its requests for contents."""
    requests()
    began = time.perf_counter()
    for _batch in run(workers):
        pass
    return images / (time.perf_counter() - began), requests()


if __name__ == "__main__":
    main()
