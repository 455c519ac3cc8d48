"""How many records a second does every reader read, against plain loops over the same files?

    python benchmarks/readers.py                    # all formats, 2 minutes
    python benchmarks/readers.py text llava         # some of them
    python benchmarks/readers.py --tiny             # in seconds, to see that it runs

A plain loop is what one writes with the library of a format: `json`, `pyarrow.parquet`, `tarfile`, `html.parser`,
`pathlib`. It makes of every record what a document has, as a dict: an id, texts and pictures in order (of conversations
with their roles), and the rest; and it opens every picture with Pillow, as one does to see that it is one. It guards
nothing, counts nothing and checks nothing else. Where Hugging Face's `datasets` reads a format, the same is done with
the rows of `load_dataset(..., streaming=True)`. The seconds are those of this process's processor time; all sides read
in turns, and the median of the rounds counts.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Image as ImageFeature
from datasets import disable_progress_bars, load_dataset
from PIL import Image

from mm1.data.readers import make_reader
from mm1.data.readers.reader import Notes

WORDS = [
    "the",
    "quick",
    "brown",
    "fox",
    "jumps",
    "over",
    "the",
    "lazy",
    "dog",
    "and",
    "runs",
    "far",
    "away",
    "from",
    "there",
    "while",
    "it",
    "rains",
    "all",
    "day",
    "long",
]
Loop = Callable[[Path], Iterator[Any]]


def jpeg(random: np.random.Generator) -> bytes:
    """Return a picture of 320 x 240 pixels, about 10 KB."""
    noise = random.integers(0, 255, (12, 16, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(noise).resize((320, 240), Image.Resampling.BICUBIC).save(out, "JPEG", quality=85)
    return out.getvalue()


def text(random: np.random.Generator, words: int) -> str:
    """Return a sentence."""
    return " ".join(random.choice(WORDS, words))


def opened(data: bytes) -> bytes:
    """Return a picture whose header can be read, as everyone sees to it."""
    Image.open(io.BytesIO(data)).size  # noqa: B018
    return data


class Sources:
    """The same records in every format, below a folder."""

    def __init__(self, folder: Path, records: int) -> None:
        random = np.random.default_rng(0)
        self.folder, self.records = folder, records
        self.pictures = [jpeg(random) for _ in range(min(records, 200))]
        self.captions = [text(random, 12) for _ in range(records)]
        self.pages = [text(random, 300) for _ in range(records)]

    def picture(self, number: int) -> bytes:
        """Return the picture of a record."""
        return self.pictures[number % len(self.pictures)]

    def write(self, name: str) -> Path:
        """Write the source of a case and return its folder."""
        folder = self.folder / name
        folder.mkdir()
        getattr(self, f"write_{name.replace('-', '_').replace(' ', '_')}")(folder)
        return folder

    def write_webdataset(self, folder: Path) -> None:
        """A tar as img2dataset writes it."""
        with tarfile.open(folder / "00000.tar", "w") as tar:
            for number, caption in enumerate(self.captions):
                meta = {"caption": caption, "url": f"https://example.org/{number}.jpg", "width": 320, "height": 240}
                for end, content in (
                    ("jpg", self.picture(number)),
                    ("txt", caption.encode()),
                    ("json", json.dumps(meta).encode()),
                ):
                    member = tarfile.TarInfo(f"{number:09d}.{end}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))

    def write_captions(self, folder: Path) -> None:
        """Parquet of pictures and captions."""
        pictures = [self.picture(number) for number in range(self.records)]
        pq.write_table(pa.table({"jpg": pictures, "caption": self.captions}), folder / "0.parquet", row_group_size=500)

    def write_obelics(self, folder: Path) -> None:
        """Parquet of pages with one picture."""
        numbers = range(self.records)
        columns = {
            "images": pa.array([[None, self.picture(n), None] for n in numbers], pa.list_(pa.binary())),
            "texts": [[page[:400], None, page[400:]] for page in self.pages],
            "metadata": ['[null, {"src": "https://example.org/a.jpg"}, null]'] * self.records,
            "general_metadata": ['{"url": "https://example.org"}'] * self.records,
        }
        pq.write_table(pa.table(columns), folder / "0.parquet", row_group_size=500)

    def write_image_folder(self, folder: Path) -> None:
        """Pictures and captions in files."""
        for number, caption in enumerate(self.captions):
            (folder / f"{number:06d}.jpg").write_bytes(self.picture(number))
            (folder / f"{number:06d}.txt").write_text(caption)

    def write_mmc4(self, folder: Path) -> None:
        """Pages in JSON Lines with pictures in files."""
        self.write_pictures(folder)
        records = (
            {
                "text_list": [page[at : at + 200] for at in range(0, 1000, 200)],
                "image_info": [{"image_name": f"{number}.jpg", "matched_text_index": 2, "matched_sim": 0.3}],
            }
            for number, page in enumerate(self.pages)
        )
        self.write_lines(folder / "docs.jsonl", records)

    def write_llava(self, folder: Path) -> None:
        """Conversations in a JSON array with pictures in files."""
        self.write_pictures(folder)
        (folder / "data.json").write_text(json.dumps(list(self.conversations())))

    def write_llava_without_pictures(self, folder: Path) -> None:
        """Conversations in a JSON array."""
        (folder / "data.json").write_text(json.dumps(list(self.conversations(pictures=False))))

    def conversations(self, pictures: bool = True) -> Iterator[dict[str, Any]]:
        """Yield LLaVA's records."""
        for number, caption in enumerate(self.captions):
            asked = ("<image>\n" if pictures else "") + "What is this?"
            turns = [("human", asked), ("gpt", caption), ("human", "And what else?"), ("gpt", caption)]
            image = {"image": f"{number}.jpg"} if pictures else {}
            yield {"id": str(number), **image, "conversations": [{"from": who, "value": text} for who, text in turns]}

    def write_messages(self, folder: Path) -> None:
        """Conversations in parquet, with their pictures."""
        turns = [
            [{"role": "user", "content": "What is this?"}, {"role": "assistant", "content": caption}]
            for caption in self.captions
        ]
        pictures = pa.array([[self.picture(number)] for number in range(self.records)], pa.list_(pa.binary()))
        pq.write_table(pa.table({"messages": turns, "images": pictures}), folder / "0.parquet", row_group_size=500)

    def write_questions(self, folder: Path) -> None:
        """Questions in parquet, with their pictures."""
        pictures = [self.picture(number) for number in range(self.records)]
        columns = {"image": pictures, "question": ["What is this?"] * self.records, "answer": self.captions}
        pq.write_table(pa.table(columns), folder / "0.parquet", row_group_size=500)

    def write_html(self, folder: Path) -> None:
        """Pages in files, with one picture each."""
        self.write_pictures(folder)
        for number, page in enumerate(self.pages):
            paragraphs = "".join(f"<p>{page[at : at + 200]}</p>" for at in range(0, 1000, 200))
            markup = f"<html><title>{number}</title><body><img src='{number}.jpg'>{paragraphs}</body></html>"
            (folder / f"{number:06d}.html").write_text(markup)

    def write_text_lines(self, folder: Path) -> None:
        """Texts in JSON Lines."""
        self.write_lines(folder / "a.jsonl", ({"text": page, "url": "https://example.org"} for page in self.pages))

    def write_text_parquet(self, folder: Path) -> None:
        """Texts in parquet."""
        table = pa.table({"text": self.pages, "url": ["https://example.org"] * self.records})
        pq.write_table(table, folder / "a.parquet", row_group_size=500)

    def write_text_files(self, folder: Path) -> None:
        """Texts in files."""
        for number, page in enumerate(self.pages):
            (folder / f"{number:06d}.txt").write_text(page)

    def write_pictures(self, folder: Path) -> None:
        """Pictures that records name."""
        for number in range(self.records):
            (folder / f"{number}.jpg").write_bytes(self.picture(number))

    def write_lines(self, file: Path, records: Iterator[dict[str, Any]]) -> None:
        """JSON Lines."""
        file.write_text("".join(json.dumps(record) + "\n" for record in records))


class Page(HTMLParser):
    """Texts and addresses of pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.items: list[Any] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take pictures."""
        if tag == "img":
            self.items.append(dict(attrs)["src"])

    def handle_data(self, data: str) -> None:
        """Take texts."""
        if data.strip():
            self.items.append(data.strip())


def samples_of_tar(folder: Path) -> Iterator[dict[str, Any]]:
    """By tarfile."""
    with tarfile.open(folder / "00000.tar") as tar:
        sample: dict[str, Any] = {}
        for member in tar:
            end = member.name.partition(".")[2]
            stream = tar.extractfile(member)
            assert stream is not None
            sample[end] = stream.read()
            if end == "json":
                yield {"jpg": sample["jpg"], "txt": sample["txt"].decode(), "json": json.loads(sample["json"])}


def rows_of_parquet(folder: Path) -> Iterator[dict[str, Any]]:
    """By pyarrow."""
    for file in folder.glob("*.parquet"):
        for batch in pq.ParquetFile(file).iter_batches(batch_size=32):
            yield from batch.to_pylist()


def rows_of_lines(folder: Path) -> Iterator[dict[str, Any]]:
    """By json."""
    for file in folder.glob("*.jsonl"):
        with open(file, encoding="utf-8") as stream:
            yield from map(json.loads, stream)


def rows_of_array(folder: Path) -> Iterator[dict[str, Any]]:
    """By json."""
    yield from json.loads((folder / "data.json").read_text(encoding="utf-8"))


def rows_of_files(ending: str) -> Callable[[Path], Iterator[dict[str, Any]]]:
    """By pathlib."""
    return lambda folder: ({"file": file, "text": ""} for file in sorted(folder.glob(f"*{ending}")))


Taken = tuple[list[Any], dict[str, Any]]
"""Texts and pictures in order, and what else is known."""

ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant"}


def take_page(row: dict[str, Any], folder: Path) -> Taken:
    """By html.parser."""
    page = Page()
    page.feed(row["file"].read_text(encoding="utf-8"))
    title, address, *texts = page.items
    return [opened((folder / address).read_bytes()), *texts], {"title": title}


def take_sample(row: dict[str, Any], _: Path) -> Taken:
    """Take a sample of a tar."""
    picture = row["jpg"]["bytes"] if isinstance(row["jpg"], dict) else row["jpg"]
    return [opened(picture), row["txt"].strip()], row["json"]


def take_obelics(row: dict[str, Any], _: Path) -> Taken:
    """Take OBELICS' page."""
    items = zip(row["images"], row["texts"], json.loads(row["metadata"]), strict=True)
    parts = [text if picture is None else (opened(picture), details["src"]) for picture, text, details in items]
    return [part for part in parts if part is not None], json.loads(row["general_metadata"])


def take_mmc4(row: dict[str, Any], folder: Path) -> Taken:
    """Take MMC4's page."""
    before: dict[int, list[bytes]] = {}
    for info in row["image_info"]:
        before.setdefault(info["matched_text_index"], []).append(opened((folder / info["image_name"]).read_bytes()))
    parts: list[Any] = []
    for number, text in enumerate(row["text_list"]):
        parts += [*before.get(number, ()), text.strip()]
    return parts, {}


def take_llava(row: dict[str, Any], folder: Path) -> Taken:
    """Take LLaVA's conversation."""
    parts: list[Any] = []
    for turn in row["conversations"]:
        role, text = ROLES[turn["from"]], turn["value"]
        if "<image>" in text:
            parts.append((role, opened((folder / row["image"]).read_bytes())))
            text = text.replace("<image>", "")
        parts.append((role, text.strip()))
    return parts, {"id": row["id"]}


def take_messages(row: dict[str, Any], _: Path) -> Taken:
    """Take TRL's conversation."""
    pictures = [("user", opened(picture)) for picture in row["images"]]
    return pictures + [(ROLES[turn["role"]], turn["content"].strip()) for turn in row["messages"]], {}


def take_text(row: dict[str, Any], _: Path) -> Taken:
    """Take a text."""
    text = row.pop("text")
    return [text.strip()], row


@dataclass(frozen=True)
class Case:
    """How a plain loop reads a source: its rows, and what it takes of each.

    Attributes:
        rows: By the library of the format.
        take: From a row, which is its own, and its folder.
        builder: What `datasets` calls the format; empty: it doesn't read it.
    """

    rows: Callable[[Path], Iterator[dict[str, Any]]]
    take: Callable[[dict[str, Any], Path], Taken]
    builder: str = ""

    def plain(self, folder: Path) -> Iterator[Any]:
        """Read by the library of the format."""
        return self._records(self.rows(folder), folder)

    def by_datasets(self, folder: Path) -> Iterator[Any]:
        """Read by `datasets`."""
        ends = {"json": "*.json*", "parquet": "*.parquet", "webdataset": "*.tar", "text": "*.txt"}
        options = {"sample_by": "document"} if self.builder == "text" else {}
        files = str(folder / ends[self.builder])
        rows = load_dataset(self.builder, data_files=files, split="train", streaming=True, **options)
        if self.builder == "webdataset":
            rows = rows.cast_column("jpg", ImageFeature(decode=False))
        return self._records(rows, folder)

    def _records(self, rows: Iterable[dict[str, Any]], folder: Path) -> Iterator[dict[str, Any]]:
        for number, row in enumerate(rows):
            parts, meta = self.take(row, folder)
            yield {"id": f"{folder.name}:{number}", "parts": parts, "meta": meta}


CASES = {
    "webdataset": Case(samples_of_tar, take_sample, "webdataset"),
    "captions": Case(rows_of_parquet, lambda row, _: ([opened(row["jpg"]), row["caption"].strip()], {}), "parquet"),
    "obelics": Case(rows_of_parquet, take_obelics, "parquet"),
    "image-folder": Case(
        rows_of_files(".jpg"),
        lambda row, _: ([opened(row["file"].read_bytes()), row["file"].with_suffix(".txt").read_text().strip()], {}),
    ),
    "mmc4": Case(rows_of_lines, take_mmc4, "json"),
    "llava": Case(rows_of_array, take_llava, "json"),
    "llava without pictures": Case(rows_of_array, take_llava, "json"),
    "messages": Case(rows_of_parquet, take_messages, "parquet"),
    "questions": Case(
        rows_of_parquet,
        lambda row, _: (
            [("user", opened(row["image"])), ("user", row["question"].strip()), ("assistant", row["answer"].strip())],
            {"answer": row["answer"]},
        ),
        "parquet",
    ),
    "html": Case(rows_of_files(".html"), take_page),
    "text lines": Case(rows_of_lines, take_text, "json"),
    "text parquet": Case(rows_of_parquet, take_text, "parquet"),
    "text files": Case(
        rows_of_files(".txt"),
        lambda row, _: ([(row["text"] or row["file"].read_text(encoding="utf-8")).strip()], {}),
        "text",
    ),
}


def reader_loop(format_: str) -> Loop:
    """Return the loop over a reader of this project."""

    def loop(folder: Path) -> Iterator[Any]:
        reader = make_reader(format_)
        for shard in reader.shards([str(folder)]):
            yield from reader.read(shard, Notes())

    return loop


def seconds(loop: Loop, folder: Path, records: int) -> float:
    """Return the processor time that a loop takes; all records must come out."""
    began = time.process_time()
    count = sum(1 for _ in loop(folder))
    took = time.process_time() - began
    assert count == records, f"{count} records of {records}"
    return took


def main() -> None:
    """Measure every case and print its figures with the machine they came from."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", choices=[[], *CASES], metavar="CASE", help=f"{', '.join(CASES)}")
    parser.add_argument("--records", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tiny", action="store_true", help="in seconds; the figures mean nothing")
    arguments = parser.parse_args()
    records, rounds = (50, 1) if arguments.tiny else (arguments.records, arguments.rounds)
    results: dict[str, Any] = {}
    disable_progress_bars()
    with tempfile.TemporaryDirectory() as place:
        sources = Sources(Path(place), records)
        for name in arguments.cases or CASES:
            folder, case = sources.write(name), CASES[name]
            loops = {"mm1": reader_loop(name.split(" ")[0]), "plain": case.plain}
            loops |= {"datasets": case.by_datasets} if case.builder else {}
            times: dict[str, list[float]] = {side: [] for side in loops}
            for _ in range(rounds + 1):
                for side, loop in loops.items():
                    times[side].append(seconds(loop, folder, records))
            medians = {side: statistics.median(some[1:]) for side, some in times.items()}  # the first fills the caches
            results[name] = {f"{side}, records/s": round(records / median) for side, median in medians.items()}
            others = {side: median for side, median in medians.items() if side != "mm1"}
            results[name] |= {f"mm1 over {side}": round(median / medians["mm1"], 2) for side, median in others.items()}
            print(f"{name}: {results[name]}", flush=True)
    machine = {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "load": os.getloadavg(),
    }
    print(json.dumps({"machine": machine, "records": records, "results": results}, indent=2))


if __name__ == "__main__":
    main()
