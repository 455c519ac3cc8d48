"""Corpora by reference: the same documents as copied ones, to the byte, or one sentence about a source file."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from mm1.clean import clean, read_steps
from mm1.data import sources
from mm1.data.build import build_from
from mm1.data.corpus import Split
from mm1.data.located import SHORTEST_TEXT, Located, LocatedText
from mm1.data.readers import READERS
from mm1.data.sources import SourceError
from mm1.document import Image
from mm1.errors import UserError
from mm1.plan.index import build_index
from mm1.plan.loader import PlanDataset, build_loader
from mm1.plan.picture_sizes import picture_sizes
from mm1.plan.plan import write_plan
from mm1.plan.sources import Source
from mm1.processing.processor import build_processor
from mm1.processing.tokenizer import train_tokenizer
from mm1.recipe import load_recipe
from tests.data.sample_sources import (
    picture,
    webdataset_members,
    write_every_format,
    write_files,
    write_lines,
    write_parquet,
    write_tar,
)

LONG = "Words of a long text, ä, 水. " * 60
REFERRED = {  # pictures and texts of `write_every_format` and `write_long_texts` that lie in files as they are
    "webdataset": (4, 0),  # not those of the packed tar
    "obelics": (3, 0),
    "captions": (2, 0),
    "mmc4": (2, 0),
    "text": (0, 4),
    "llava": (1, 0),
    "messages": (1, 0),
    "questions": (1, 0),
    "image-folder": (2, 0),
    "html": (1, 0),
    "hub": (0, 0),
}


def write_long_texts(folder: Path) -> None:
    records = [{"text": LONG.strip() + " 1", "n": 1}, {"text": "short"}, {"text": LONG + "ends in space "}]
    write_lines(folder / "d.jsonl", records)
    write_files(folder, {"e.txt": f"\n{LONG} 2\n", "f.txt": f"{LONG} 3\n".encode("utf-16")})
    write_parquet(folder / "g.parquet", {"text": [f"{LONG} {number}." for number in range(2)]})


def build_both(tmp_path: Path, format_: str, **options: Any) -> tuple[Split, Split]:
    """Return a corpus of a format, copied and by reference."""
    patterns = write_every_format(tmp_path / "from") | {"hub": [str(tmp_path / "from" / "captions")]}
    write_long_texts(tmp_path / "from" / "text")
    if format_ == "mmc4":
        options = {"pictures": str(tmp_path / "from" / "mmc4" / "images")}
    for name, in_place in (("copied", False), ("referring", True)):
        build_from(format_, patterns[format_], tmp_path / name, workers=1, options=options, in_place=in_place)
    return Split(tmp_path / "copied" / "train"), Split(tmp_path / "referring" / "train")


@pytest.mark.parametrize("format_", READERS)
def test_it_has_the_same_documents_as_a_copied_one(tmp_path: Path, format_: str) -> None:
    copied, referring = build_both(tmp_path, format_)
    assert referring.content_hash == copied.content_hash
    assert list(referring) == list(copied) == [referring[row] for row in range(len(copied))]
    assert list(referring.without_pictures(0, 99)) == list(copied.without_pictures(0, 99))
    assert np.array_equal(picture_sizes(referring), picture_sizes(copied))
    located = referring.info["located"]
    assert (located["pictures"], located["texts"]) == REFERRED[format_]
    stored = sum(entry["count"] for entry in referring.info["stored"].values())
    assert located["pictures"] + stored >= referring.info["images"]
    assert {key: value for key, value in referring.info.items() if key not in ("located", "stored", "built")} == {
        key: value for key, value in copied.info.items() if key != "built"
    }
    referring.check_sources()


def test_texts_are_read_wherever_only_texts_are(tmp_path: Path) -> None:
    copied, referring = build_both(tmp_path, "text")
    tokenizer = train_tokenizer([LONG], 300)
    one, other = build_index(copied, tokenizer), build_index(referring, tokenizer)
    assert np.array_equal(one.parts, other.parts)
    assert one.long_texts is not None
    assert other.long_texts is not None
    assert np.array_equal(one.long_texts.ids, other.long_texts.ids)
    assert referring.info["stored"] == {
        "long text that lies in no source file as it is (packed, encoded, cut or put together)": {
            "count": 2,
            "examples": ["d.jsonl:3", "f.txt"],
        }
    }


def test_what_is_stored_is_small(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", [("a.png", picture(1, (400, 400), "BMP")), ("a.txt", b"a ramp")])
    build_from("webdataset", [str(tmp_path / "0.tar")], tmp_path / "to", in_place=True)
    assert (tmp_path / "to" / "train" / "000000.arrow").stat().st_size < 5000 < (tmp_path / "0.tar").stat().st_size
    document = Split(tmp_path / "to" / "train")[0]
    assert isinstance(document.images[0].data, Located)


CAPTIONS_ALONE = ("data.mixture.interleaved.weight=0", "data.mixture.text.weight=0", "data.mixture.caption.weight=1")


def dataset_of(split: Split, recipe_file: Path, plan: Path) -> PlanDataset:
    processor = build_processor(train_tokenizer(["caption 0 1 2 3 4 5 6 7 8 9"], 300), 16, 4)
    made = write_plan(
        plan,
        [Source("c/train", "caption", 1.0, split.content_hash, build_index(split, processor.tokenizer))],
        load_recipe(str(recipe_file), CAPTIONS_ALONE).data,
        tokenizer_fingerprint="t",
        tokens_per_image=4,
        batch_size=2,
        steps=3,
        seed=0,
    )
    return PlanDataset(made, [split], processor)


def test_batches_are_those_of_a_copied_one(tmp_path: Path, recipe_file: Path) -> None:
    one, other = (
        dataset_of(split, recipe_file, tmp_path / f"plan-{split.directory.parent.name}")
        for split in build_both(tmp_path, "webdataset")
    )
    assert one.plan.hash == other.plan.hash
    batches = zip(build_loader(one, 0, 2), build_loader(other, 0, 2, workers=1), strict=True)
    for batch, again in batches:
        for key, value in batch.items():
            assert torch.equal(value, again[key]) if torch.is_tensor(value) else value == again[key]


def tar_of(tmp_path: Path) -> tuple[Path, Split]:
    file = write_tar(tmp_path / "data" / "raw" / "0.tar", webdataset_members(3))
    build_from("webdataset", [str(file)], tmp_path / "data" / "c", in_place=True)
    return file, Split(tmp_path / "data" / "c" / "train")


def test_it_moves_with_the_files_beside_it(tmp_path: Path) -> None:
    _, split = tar_of(tmp_path)
    documents = list(split)
    assert list(split.info["located"]["files"]) == ["../raw/0.tar"]
    (tmp_path / "data").rename(tmp_path / "moved")
    assert list(Split(tmp_path / "moved" / "c" / "train")) == documents
    (tmp_path / "moved" / "c").rename(tmp_path / "elsewhere")
    with pytest.raises(SourceError, match="raw/0.tar: a corpus refers to this file, and it can't be opened"):
        Split(tmp_path / "elsewhere" / "train")[0]


@pytest.mark.parametrize("harm", ["gone", "shorter", "touched", "other"])
def test_a_source_that_is_not_what_it_was_is_one_sentence(tmp_path: Path, harm: str) -> None:
    file, split = tar_of(tmp_path)
    sources._opened.cache_clear()
    if harm == "gone":
        file.unlink()
    elif harm == "shorter":
        os.truncate(file, 2000)
    elif harm == "touched":
        os.utime(file, (1, 1))
    else:
        write_tar(file, webdataset_members(4))
    message = "it can't be opened" if harm == "gone" else "has changed since a corpus was built"
    for look in (split.check_sources, lambda: split[0], lambda: list(split)):
        with pytest.raises(SourceError, match=f"raw/0.tar: .*{message}.*build the corpus again"):
            look()


def test_a_picture_that_goes_missing_in_training_is_an_unreadable_one(tmp_path: Path, recipe_file: Path) -> None:
    write_files(tmp_path / "f", {f"{n}.png": picture(n) for n in range(4)} | {f"{n}.txt": f"{n}" for n in range(4)})
    build_from("image-folder", [str(tmp_path / "f")], tmp_path / "c", in_place=True)
    split = Split(tmp_path / "c" / "train")
    dataset = dataset_of(split, recipe_file, tmp_path / "plan")
    whole = dataset[0]
    sources._opened.cache_clear()
    (tmp_path / "f" / "2.png").unlink()
    masked = dataset[0]
    assert len(masked.pixel_values) == len(whole.pixel_values) - 1
    assert len(masked.bad_images) == 1
    assert "f/2.png: a corpus refers to this file, and it can't be opened" in masked.bad_images[0]
    assert np.array_equal(masked.position_ids, whole.position_ids)


def test_sources_inside_of_the_corpus_are_refused(tmp_path: Path) -> None:
    write_tar(tmp_path / "c" / "0.tar", webdataset_members(1))
    with pytest.raises(UserError, match=r"0\.tar: it lies in the folder of the corpus, which a build replaces"):
        build_from("webdataset", [str(tmp_path / "c" / "0.tar")], tmp_path / "c", in_place=True)
    assert (tmp_path / "c" / "0.tar").is_file()


def test_cleaning_keeps_references(tmp_path: Path) -> None:
    copied, referring = build_both(tmp_path, "webdataset")
    (tmp_path / "steps.yaml").write_text("- exact-duplicates\n- image-size:\n    min_side: 10\n")
    for split in (copied, referring):
        directory = split.directory.parent
        clean(directory, tmp_path / "sub" / f"{directory.name}-clean", read_steps(tmp_path / "steps.yaml"), workers=1)
    one, other = (Split(tmp_path / "sub" / f"{name}-clean" / "train") for name in ("copied", "referring"))
    assert one.content_hash == other.content_hash
    assert other.info["located"]["pictures"] == 4
    shutil.rmtree(tmp_path / "referring")
    assert list(one) == list(other)


def test_the_columns_are_as_documented(tmp_path: Path) -> None:
    _, split = tar_of(tmp_path)
    part = next(split.batches()).column("parts")[0].as_py()[0]
    assert part["text"] is None
    assert part["image"] is None
    content = (tmp_path / "data" / "raw" / "0.tar").read_bytes()
    at = part["at"]
    assert content[at["offset"] : at["offset"] + at["length"]] == split[0].images[0].data
    assert at["file"] == "../raw/0.tar"
    assert at["column"] is None


def test_places_travel_with_values() -> None:
    import pickle

    for value in (Located(b"x", sources.Location("f", 1, 1)), LocatedText("x", sources.Location("f", 1, 1, "[]"))):
        again = pickle.loads(pickle.dumps(value))
        assert again == value
        assert again.location == value.location
    assert Image(Located(b"x", sources.Location("f", 1, 1))) == Image(b"x")
    assert len(LONG) > SHORTEST_TEXT
    assert json.dumps(LocatedText("x", sources.Location("f", 1, 1))) == '"x"'
    assert pa.array([Located(b"x", sources.Location("f", 1, 1))], pa.large_binary())[0].as_py() == b"x"
