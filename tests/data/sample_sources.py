"""Small sources in every format, as users have them, written into a folder."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image as PILImage


def picture(number: int = 0, size: tuple[int, int] = (24, 16), format_: str = "PNG", mode: str = "RGB") -> bytes:
    """Return an encoded picture; different numbers give different pictures."""
    image = PILImage.linear_gradient("L").resize(size).rotate(number * 15, fillcolor=(number * 37) % 256)
    out = io.BytesIO()
    image.convert(mode).save(out, format_)
    return out.getvalue()


def write_tar(file: Path, members: Iterable[tuple[str, bytes]]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w:gz" if file.name.endswith("gz") else "w") as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return file


def webdataset_members(count: int, first: int = 0) -> list[tuple[str, bytes]]:
    members = []
    for number in range(first, first + count):
        key = f"{number:09d}"
        meta = {"caption": f"caption {number}", "url": f"https://example.org/{number}.jpg", "width": 24, "exif": "{}"}
        members += [
            (f"{key}.jpg", picture(number, format_="JPEG")),
            (f"{key}.txt", f"caption {number}".encode()),
            (f"{key}.json", json.dumps(meta, indent=4).encode()),
        ]
    return members


def write_lines(file: Path, records: Iterable[Any]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    return file


def write_parquet(file: Path, columns: Mapping[str, Any]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(dict(columns)), file)
    return file


def write_files(folder: Path, files: Mapping[str, bytes | str]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def write_every_format(folder: Path) -> dict[str, list[str]]:
    """Write one small source in every format that is read from files; return the patterns by format."""
    write_tar(folder / "tars" / "00000.tar", webdataset_members(4))
    write_tar(folder / "tars" / "00001.tar.gz", webdataset_members(3, first=4))
    write_parquet(
        folder / "obelics" / "0.parquet",
        {
            "images": pa.array([[picture(1), None, None], [None, picture(2), picture(3)]], pa.list_(pa.binary())),
            "texts": [[None, "First.", "Second."], ["Before.", None, None]],
            "metadata": ['[{"src": "https://example.org/a.png"}, null, null]', "null"],
            "general_metadata": ['{"url": "https://example.org"}', "{}"],
        },
    )
    write_parquet(folder / "captions" / "0.parquet", {"jpg": [picture(1), picture(2)], "txt": ["one", "two"]})
    write_files(folder / "mmc4" / "images", {"a.png": picture(1), "b.png": picture(2)})
    write_lines(
        folder / "mmc4" / "docs.jsonl",
        [
            {
                "text_list": ["One.", "Two.", "Three."],
                "image_info": [
                    {"image_name": "a.png", "matched_text_index": 1, "matched_sim": 0.3, "raw_url": "https://e.org/a"},
                    {"image_name": "b.png", "matched_text_index": 0, "matched_sim": 0.2},
                ],
                "url": "https://example.org/page",
            },
            {"text_list": ["Alone."], "image_info": []},
        ],
    )
    write_lines(folder / "text" / "a.jsonl", [{"text": "Some words.", "source": "here"}, {"text": "Other words."}])
    write_files(folder / "text", {"b.txt": "A file of its own.\nTwo lines.\n"})
    write_parquet(folder / "text" / "c.parquet", {"text": ["From parquet."], "n": [1]})
    write_files(folder / "llava", {"images/1.png": picture(1)})
    conversation = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A ramp."}]
    records = [
        {"id": "1", "image": "images/1.png", "conversations": conversation},
        {"id": "2", "conversations": [{"from": "human", "value": "Hello"}, {"from": "gpt", "value": "Hi."}]},
    ]
    write_files(folder / "llava", {"data.json": json.dumps(records)})
    rounds = [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "A ramp."}]
    write_lines(folder / "messages" / "a.jsonl", [{"messages": rounds}])
    pairs = [[{"user": "What?", "assistant": "A ramp.", "source": "here"}]]
    pictures = pa.array([[{"bytes": picture(1), "path": None}]])
    write_parquet(folder / "messages" / "b.parquet", {"images": pictures, "texts": pairs})
    write_parquet(folder / "questions" / "a.parquet", {"image": [picture(1)], "question": ["What?"], "answer": ["Yes"]})
    write_files(folder / "folder", {"a.png": picture(1), "a.txt": "a ramp\n", "sub/b.webp": picture(2, format_="WEBP")})
    write_files(folder / "folder", {"sub/b.json": json.dumps({"caption": "another"})})
    page = "<title>T</title><h1>Head</h1><p>Some <b>bold</b> text<img src='p/1.png' alt='x'>after<script>no</script>"
    write_files(folder / "html", {"a.html": page, "p/1.png": picture(1), "sub/b.htm": "<p>caf&eacute;</p>"})
    return {
        "webdataset": [str(folder / "tars")],
        "obelics": [str(folder / "obelics")],
        "captions": [str(folder / "captions" / "*.parquet")],
        "mmc4": [str(folder / "mmc4" / "docs.jsonl")],
        "text": [str(folder / "text")],
        "llava": [str(folder / "llava" / "data.json")],
        "messages": [str(folder / "messages")],
        "questions": [str(folder / "questions")],
        "image-folder": [str(folder / "folder")],
        "html": [str(folder / "html")],
    }
