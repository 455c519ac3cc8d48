"""What the pages take as given: small corpora, tiny trained runs, and files that stand for the reader's own."""

from __future__ import annotations

import gzip
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mm1.data.corpus import write_corpus
from mm1.document import Document, Image, Text
from tests.corpora.fake_hands import put_hands
from tests.corpora.fake_sources import (
    put_emoji_groups,
    put_gimp_help,
    put_openclipart,
    put_sources,
    put_tuxpaint,
)
from tests.data.sample_sources import picture, webdataset_members, write_every_format, write_lines, write_tar
from tests.docs.blocks import blocks
from tests.integration.test_command_line import SMALL

DEMO = [*SMALL, "train.steps=4", "train.batch_size=4", "corpora.pages.shots=8"]
"""The demo at a size that takes seconds."""


def prepare(home: Path, mm1: Callable[..., None]) -> None:
    """Make a folder with `data` and `runs`: corpora from small stand-ins of the packages, the demo's run and a chat's.

    Args:
        home: The new folder, which is the working directory.
        mm1: Calls a command.
    """
    data = home / "data"
    put_sources(data)
    for put in (put_emoji_groups, put_tuxpaint, put_openclipart, put_gimp_help, put_hands):
        put(data / "downloads")
    mm1("demo", *(word for setting in DEMO for word in ("--set", setting)))
    for corpus in ("chats", "rounds"):
        mm1("data", "build", corpus, "--set", "count=60")
    mm1("data", "build", "find", "--set", "count=30", "--set", "heldout=20")
    small = ("train.steps=3", "train.warmup_steps=1", "train.batch_size=2", "evaluate.limit=4")
    mm1("sft", "sft-demo", *(word for setting in small for word in ("--set", setting)))


def put_given(page: Path, home: Path) -> dict[str, Any]:
    """Put what a page takes as the reader's own into a folder; return the names that its Python takes as given."""
    for name in ("picture.png", "page.png", "shape.png", "red.png", "blue.png"):
        (home / name).write_bytes(picture(len(name), size=(64, 64)))
    (home / "picture.jpg").write_bytes(picture(3, size=(64, 64), format_="JPEG"))
    first = next((b for b in blocks(page) if b.kind == "yaml"), None)
    put = _OF_PAGES.get(page.name)
    return (put(home, first.content if first else "") if put else None) or {}


def _task(home: Path, task: str) -> None:
    (home / "my-signs.yaml").write_text(task)
    for name, count in (("test", 4), ("train", 12)):
        (home / "signs" / "pictures").mkdir(parents=True, exist_ok=True)
        lines = []
        for n in range(count):
            path = f"pictures/{name}-{n}.png"
            (home / "signs" / path).write_bytes(picture(n + 20 * count))
            lines.append({"image": path, "question": "what does it say?", "answer": ["stop", "stop sign"]})
        write_lines(home / "signs" / f"{name}.jsonl", lines)


PROSE = (
    "The heron stood on the left bank of the river and waited for small fish. A boat came down slowly, "
    "with two men who talked about the price of timber in the northern towns. Neither of them looked up. "
    "Towards evening it began to rain, first in single drops and then steadily, so the bird shook its "
    "wings, walked under an old willow near our garden wall, and slept there until somebody opened a "
    "window."
)


def _steps(home: Path, steps: str) -> None:
    (home / "steps.yaml").write_text(steps)
    pages = [
        Document(f"page/{n}", "interleaved", (Image(picture(n, size=(200, 160))), Text(f"{PROSE} Day {n}.")))
        for n in range(4)
    ]
    write_corpus(home / "data" / "web", {"train": pages}, licence="none", sources=["made up"])


def _examples(home: Path, _: str) -> None:
    (home / "examples").mkdir()
    (home / "examples" / "a.png").write_bytes(picture(1, size=(64, 64)))
    (home / "examples" / "a.txt").write_text("a ramp")


def _formats(home: Path, _: str) -> None:
    every = home / "every"
    write_every_format(every)
    for name, place in {
        "messages": "chats",
        "questions": "vqav2",
        "obelics": "obelics",
        "captions": "pairs",
        "folder": "photos",
        "html": "site",
    }.items():
        shutil.copytree(every / name, home / place)
    shutil.copy(every / "llava" / "data.json", home / "llava_v1_5_mix665k.json")
    shutil.copytree(every / "llava" / "images", home / "images" / "images")
    shutil.copytree(every / "mmc4" / "images", home / "images", dirs_exist_ok=True)
    for number in range(10):
        with zipfile.ZipFile(home / f"docs_shard_{number}_v2.jsonl.zip", "w") as packed:
            packed.write(every / "mmc4" / "docs.jsonl", "docs.jsonl")
    for number in range(42):
        write_tar(home / "shards" / f"{number:05}.tar", webdataset_members(2, first=2 * number))
    (home / "c4").mkdir()
    (home / "c4" / "0.json.gz").write_bytes(gzip.compress(b'{"text": "Some words."}\n'))
    (home / "notes").mkdir()
    (home / "notes" / "a.md").write_text("Notes.")
    (home / "stories.txt").write_text("One story.\nAnother.\n")


def _mine(home: Path, recipe: str) -> None:
    (home / "mine.yaml").write_text(recipe)


def _recipe(home: Path, _: str) -> None:
    (home / "my-recipe.yaml").write_text(json.dumps({"base": "demo", "name": "mine"}))


FORMATS = {
    "captions",
    "html",
    "image-folder",
    "llava",
    "messages",
    "mmc4",
    "obelics",
    "questions",
    "text",
    "webdataset",
}
_OF_PAGES: dict[str, Callable[[Path, str], dict[str, Any] | None]] = {
    "add-a-task.md": _task,
    "chat-with-a-model.md": _examples,
    "data-clean.md": _steps,
    "write-a-recipe.md": _mine,
    "look-at-a-plan.md": _recipe,
    **{f"data-{name}.md": _formats for name in FORMATS},
}
