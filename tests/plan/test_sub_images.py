"""Plans and batches of pictures that become several images."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as PILImage

from mm1.data.corpus import open_split, write_corpus
from mm1.document import Document, Image, Part, Text
from mm1.errors import UserError
from mm1.model.processor import recipe_processor
from mm1.plan import picture_sizes as sizes_module
from mm1.plan.loader import PlanDataset, build_loader
from mm1.plan.picture_sizes import picture_sizes, sizes_file
from mm1.recipe import load_recipe
from mm1.train.prepare import make_plan, open_sequences, prepare_plan
from tests.conftest import png

SIZES = [(16, 16), (40, 20), (20, 40), (100, 12), (48, 48), (3, 3)]
CUT = ["model.resolution.grid=dynamic", "model.resolution.min_tiles=2", "model.resolution.max_tiles=4"]
ROOM = ["data.sequence_length=96", "data.images_per_sequence=8"]


def picture(width: int, height: int) -> bytes:
    stream = io.BytesIO()
    PILImage.new("RGB", (width, height), (width, height, 9)).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Corpora whose pictures are of many sizes, one of them damaged."""
    monkeypatch.setenv("MM1_DATA", str(tmp_path / "data"))
    captions = [
        Document(
            f"c{n}", "caption", (Image(picture(*SIZES[n % len(SIZES)])), Text(" a square" + " and so on" * (n % 3)))
        )
        for n in range(30)
    ]
    captions.append(Document("bad", "caption", (Image(b"no picture"), Text(" a square"))))
    pages = []
    for n in range(20):
        parts: list[Part] = []
        for m in range(1 + n % 4):
            parts += [Image(picture(*SIZES[(n + m) % len(SIZES)])), Text(f" line {m}\n")]
        pages.append(Document(f"p{n}", "interleaved", tuple(parts)))
    for name, documents in (
        ("captions", captions),
        ("pages", pages),
        ("prose", [Document("t", "text", (Text("so"),))]),
    ):
        write_corpus(tmp_path / "data" / name, {"train": documents}, licence="none", sources=[])
    return tmp_path / "data"


def opened(recipe_file: Path, tmp_path: Path, *overrides: str) -> PlanDataset:
    recipe = load_recipe(str(recipe_file), [*CUT, *ROOM, *overrides])
    make_plan(recipe, tmp_path / "run")
    return open_sequences(tmp_path / "run")


def test_sizes_are_read_once_and_kept(sizes: Path) -> None:
    split = open_split("captions/train")
    found = picture_sizes(split)
    assert found[:6].tolist() == [list(size) for size in SIZES]
    assert found[-1].tolist() == [0, 0]
    (file,) = (sizes / "captions" / "index").glob("*-sizes-2.npy")
    made = file.stat().st_mtime_ns
    assert np.array_equal(picture_sizes(split), found)
    assert file.stat().st_mtime_ns == made


def test_what_is_planned_is_what_is_encoded(sizes: Path, recipe_file: Path, tmp_path: Path) -> None:
    dataset = opened(recipe_file, tmp_path, "model.resolution.max_pictures=2")
    plan, seen = dataset.plan, set()
    for number in range(len(plan)):
        sequence = dataset[number]
        images = len(sequence.pixel_values)
        assert sequence.tokens <= 96
        assert plan.count_images(number, number + 1) <= 8
        assert images == plan.count_images(number, number + 1) or sequence.bad_images
        assert (sequence.input_ids[sequence.image_positions] == dataset.processor.image_token_id).all()
        assert len(sequence.image_positions) == images * 4
        assert (sequence.input_ids == dataset.processor.image_token_id).sum() == images * 4
        for row in plan.pieces(number):
            document = dataset.splits[plan.source[number]][int(plan.document[row])]
            if plan.first[row] == 0 and plan.length[row] == len(dataset.processor.encode(document).input_ids):
                seen.add(document.id)
    assert {"c0", "c1", "p1", "p2"} <= seen


def test_batches_hold_all_sub_images_in_reading_order(sizes: Path, recipe_file: Path, tmp_path: Path) -> None:
    dataset = opened(recipe_file, tmp_path)
    batch = next(iter(build_loader(dataset, 0, 4)))
    wanted = torch.cat([torch.from_numpy(dataset[number].pixel_values) for number in range(4)])
    assert torch.equal(batch["pixel_values"], wanted)
    assert len(batch["image_positions"]) == 4 * len(batch["pixel_values"])


def test_the_rule_is_part_of_the_plans_hash(sizes: Path, recipe_file: Path) -> None:
    hashes = set()
    for overrides in (
        [],
        ["model.resolution.fit=pad"],
        ROOM,
        [*ROOM, *CUT],
        [*ROOM, *CUT, "model.resolution.overview=none"],
    ):
        info = make_plan(load_recipe(str(recipe_file), overrides))
        hashes.add(info["hash"])
        assert ("resolution" in info["made_from"]) == (CUT[0] in overrides)
    assert len(hashes) == 4  # padding moves no token


def test_without_cutting_sizes_are_not_read(data: Path, recipe_file: Path, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr("mm1.plan.picture_sizes.picture_sizes", lambda split: pytest.fail("read"))
    assert make_plan(load_recipe(str(recipe_file)), tmp_path / "run")["images"] > 0


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.images_per_sequence=3", "images_per_sequence 3 is less than the 5 sub-images of one picture"),
        ("data.sequence_length=16", r"sequence_length 16 is shorter than one picture \(20 tokens\)"),
    ],
)
def test_a_picture_that_fits_no_sequence(data: Path, recipe_file: Path, override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_plan(load_recipe(str(recipe_file), [*CUT, *ROOM, "model.resolution.grid=2x2", override]))


def test_one_document_by_hand(monkeypatch, tmp_path: Path, recipe_file: Path) -> None:
    """20x20 pictures, 2x2: each is five images of four tokens. BOS, 20 image tokens, text, EOS."""
    monkeypatch.setenv("MM1_DATA", str(tmp_path / "data"))
    document = Document("d", "caption", (Image(png("red")), Text(" red")))
    for name in ("captions", "pages", "prose"):
        write_corpus(tmp_path / "data" / name, {"train": [document]}, licence="none", sources=[])
    recipe = load_recipe(str(recipe_file), [*CUT, *ROOM, "model.resolution.grid=2x2"])
    dataset = opened(recipe_file, tmp_path, "model.resolution.grid=2x2")
    words = len(dataset.processor.tokenizer(" red", add_special_tokens=False)["input_ids"])
    assert dataset.plan.length[0] == 1 + 20 + words + 1
    assert dataset.plan.images[0] == 5
    again = prepare_plan(
        recipe,
        tmp_path / "run",
        {name: open_split(name) for name in dataset.plan.info["sources"]},
        recipe_processor(recipe, dataset.processor.tokenizer),
    )
    assert again.hash == dataset.plan.hash


def test_sizes_of_several_processes_are_those_of_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    documents = [
        Document(str(n), "interleaved", tuple(Image(png("red", 3 + (n + i) % 9)) for i in range(n % 4)))
        for n in range(50)
    ]
    documents[3] = Document("bad", "interleaved", (Image(b"nothing"),))
    write_corpus(tmp_path / "c", {"train": documents}, licence="none", sources=[])
    split = open_split(str(tmp_path / "c" / "train"))
    known = [(3 + (n + i) % 9,) * 2 for n in range(50) for i in range(n % 4)]
    known[3:6] = [(0, 0)]
    assert list(map(tuple, picture_sizes(split, workers=1).tolist())) == known
    sizes_file(split).unlink()
    monkeypatch.setattr(sizes_module, "_ROWS_PER_UNIT", 7)
    measure, begun = sizes_module._measure, []

    def interrupted(reference: str, rows: range, file: Path) -> dict:
        begun.append(rows.start)
        if len(begun) == 4:
            raise KeyboardInterrupt
        return measure(reference, rows, file)

    monkeypatch.setattr(sizes_module, "_measure", interrupted)
    with pytest.raises(KeyboardInterrupt):
        picture_sizes(split, workers=1)
    monkeypatch.setattr(sizes_module, "_measure", measure)
    assert list(map(tuple, picture_sizes(split, workers=2).tolist())) == known
    assert not list((tmp_path / "c" / "index").glob("*.measuring"))
