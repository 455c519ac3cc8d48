"""tuxpaint, openclipart, gimp-help and wordnet, from small packages in the layout of the real ones."""

import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as Pillow

from mm1.corpora import build_corpus, openclipart, tuxpaint
from mm1.corpora.drawings import bounded
from mm1.data.corpus import open_split
from mm1.document import Document
from mm1.errors import UserError
from mm1.processing.images import decode_image
from tests.corpora.fake_sources import (
    clip_svg,
    needs_dpkg,
    put_gimp_help,
    put_openclipart,
    put_tuxpaint,
    put_wordnet,
    write_deb,
)

pytestmark = needs_dpkg


@pytest.fixture
def downloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MM1_DATA", str(tmp_path))
    return tmp_path / "downloads"


def documents(corpus: str, *splits: str) -> dict[str, Document]:
    return {document.id: document for split in splits for document in open_split(f"{corpus}/{split}")}


def counts(reasons: dict[str, Any]) -> dict[str, int]:
    return {reason: entry["count"] for reason, entry in reasons.items()}


def size(document: Document) -> tuple[int, int]:
    return Pillow.open(io.BytesIO(document.images[0].read())).size


def test_tuxpaint(downloads: Path) -> None:
    put_tuxpaint(downloads)
    info = build_corpus("tuxpaint", heldout=0.4)
    found = documents("tuxpaint", "train", "heldout")
    assert len(found) == 33
    ape = found["animals/ape.png"]
    assert (ape.text, ape.kind) == (" An ape—not a monkey.", "caption")
    assert ape.meta == {"caption": "An ape—not a monkey.", "category": "animals", "folder": "animals"}
    assert size(ape) == (256, 128)
    assert found["animals/ape_mirror.png"].text == ape.text
    assert size(found["animals/ape_mirror.png"]) == (30, 30)
    assert found["food/fruit/fruit3.png"].meta["folder"] == "food/fruit"
    bee = decode_image(found["animals/bee.svg"].images[0].read())
    assert 250 <= bee.width == bee.height <= 256  # the diamond, without the rim of its page
    assert (bee.getpixel((128, 128)), bee.getpixel((0, 0))) == ((200, 30, 30), (255, 255, 255))
    assert counts(info["skipped"]) == {
        "a symbol (symbols is off)": 1,
        "damaged picture": 1,
        "no description": 1,
        "nothing to be seen on white": 1,
        "the same drawing is there as SVG": 1,
    }
    assert info["licence"] == "GPL-2 (copyright file of tuxpaint-stamps-default 2022.06.04-1)"
    assert build_corpus("tuxpaint", symbols=True)["skipped"].keys().isdisjoint({"a symbol (symbols is off)"})
    assert "symbols/alphabets/a.png" in documents("tuxpaint", "train", "heldout")


def test_variants_share_a_split(downloads: Path) -> None:
    put_tuxpaint(downloads)
    build_corpus("tuxpaint", heldout=0.4)
    train, heldout = (
        {tuxpaint.caption_key(d.meta["caption"]) for d in open_split(f"tuxpaint/{split}")}
        for split in ("train", "heldout")
    )
    assert train
    assert heldout
    assert not train & heldout
    assert tuxpaint.caption_key("A red apple.") == tuxpaint.caption_key("The Red Apple!")


DRAWINGS = {
    "food/apple_pie.svg": clip_svg("Apple Pie", "Apple Pie", "#010101"),
    "food/apple_pie_bw.svg": clip_svg("Apple Pie (B and W)", "", "#020202"),
    "food/lime.svg": clip_svg("LimeWedge3", "painter@example.org", "#030303", side=150),
    "signs_and_symbols/flags/samoa.svg": clip_svg("Samoa", "", "#0b0b0b"),
    "signs_and_symbols/flags/man.svg": clip_svg("isle_of_man", "The flag of the Isle of Man", "#040404"),
    "plants/tree1.svg": clip_svg("tree - RPG map elements", "Stands on a hill", "#050505"),
    "plants/tree2.svg": clip_svg("tree", "Stands on a hill", "#050505"),
    "recreation/dice.svg": clip_svg("Clipart by N. B. - piggybank", "", "#060606"),
    "computer/icon.svg": clip_svg("", "", "#070707"),
    "shapes/star_89pt27step.svg": clip_svg("", "", "#080808"),
    "shapes/x.svg": clip_svg("7 8", "", "#090909"),
    "shapes/snow.svg": clip_svg("Snow", "", "#ffffff"),
    "shapes/empty.svg": clip_svg("Nothing", "", "none"),
    "shapes/torn.svg": clip_svg("Torn")[:300],
    "shapes/flat.svg": clip_svg("Flat").replace(b'width="210mm"', b'width="0"'),
    **{
        f"signs/{name}.svg": clip_svg("Road Signs", "Signs of the UK", f"#0a0b{n:02x}")
        for n, name in enumerate([*(letter * 3 for letter in "abcdefghijklmno"), "no_entry02"])
    },
}


def test_openclipart(downloads: Path) -> None:
    put_openclipart(downloads, DRAWINGS)
    info = build_corpus("openclipart", size=64)
    found = documents("openclipart", "train", "heldout")
    captions = {name: document.meta["caption"] for name, document in found.items() if not name.startswith("signs/")}
    assert captions == {
        "food/apple_pie.svg": "Apple Pie",
        "food/apple_pie_bw.svg": "Apple Pie, black and white",
        "food/lime.svg": "Lime Wedge",
        "signs_and_symbols/flags/samoa.svg": "flag of Samoa",
        "signs_and_symbols/flags/man.svg": "The flag of the Isle of Man",
        "plants/tree1.svg": "tree: Stands on a hill",
        "recreation/dice.svg": "dice",
    }
    assert found["signs/no_entry02.svg"].text == " no entry"
    assert counts(info["skipped"]) == {
        "SVG that can't be rendered": 1,
        "damaged SVG": 1,
        "no title, and an icon": 1,
        "no title, and the file name isn't words": 1,
        "nothing to be seen on white": 2,
        "the same picture again": 1,
        "title without words": 1,
    }
    assert counts(info["changed"]) == {
        "caption: `flag of` put before a name in the folder of flags": 1,
        "collection's or template's title: file name taken": 17,
        "description: a collection's, removed": 16,
        "description: about the file and not the drawing, removed": 1,
        "title: black and white spelled out": 1,
        "title: name of the set removed": 1,
        "title: number of the drawing removed": 2,
        "title: underscores made spaces": 1,
        "title: words that ran together separated": 1,
    }
    lime = found["food/lime.svg"]
    assert lime.meta["keywords"] == ["things"]
    assert lime.meta["title"] == "LimeWedge3"
    # On its A4 page the drawing takes a corner; in the corpus it fills the picture.
    assert size(lime)[0] / size(lime)[1] == pytest.approx(2, abs=0.1)
    assert 50 <= size(lime)[0] <= 64
    assert info["licence"].startswith(
        "creative commons Public Domain Dedication (copyright file of openclipart-svg 1:0.18"
    )


@pytest.mark.parametrize(
    ("title", "description", "caption"),
    [
        ("Scalpel", "A simple shaded scalpel", "A simple shaded scalpel"),
        ("Lime (Wedge)", "Lime", "Lime (Wedge)"),
        ("Trip", "", "Trip"),
        ("Pong", "a classic game", "Pong: a classic game"),
    ],
)
def test_combined(title: str, description: str, caption: str) -> None:
    assert openclipart.combined(title, description) == caption


def test_openclipart_variants_share_a_key() -> None:
    key = openclipart.caption_key
    assert key("Teacup, black and white") == key("The teacup (Red)") == key("teacup 2")
    assert key("teacup") != key("teapot")


def test_long_description_is_cut(downloads: Path) -> None:
    put_openclipart(downloads, {"a/flag.svg": clip_svg("Flag", "It is red. " + "And so on " * 20)})
    build_corpus("openclipart", size=16, heldout=0.0)
    assert open_split("openclipart/train")[0].meta["caption"] == "Flag: It is red."


def test_gimp_help(downloads: Path) -> None:
    put_gimp_help(downloads)
    info = build_corpus("gimp-help", heldout=0.3)
    pages = documents("gimp-help", "train", "heldout")
    assert set(pages) == {"blur.html", "again.html"}
    blur = pages["blur.html"]
    assert blur.kind == "interleaved"
    assert [image.path for image in blur.images] == ["images/orig.png", "images/blur.png"]
    assert blur.text == ("Blur\nFigure 3.14. Example of Blur.\n Original image\n Filter applied\nIt blurs … much.\n")
    texts = documents("gimp-help", "train-text", "heldout-text")
    assert texts["page3.html"].text == "Page 3\nText 3.\n"
    assert {document.kind for document in texts.values()} == {"text"}
    assert set(texts) == {"lost.html", *(f"page{number}.html" for number in range(12))}
    captions = documents("gimp-help", "train-captions", "heldout-captions")
    by_page = {document.meta["caption"]: document.meta["page"] for document in captions.values()}
    assert by_page == {"Repeated": "again.html", "Options": "one.html"}
    assert size(captions["images/wide.png"]) == (256, 13)
    assert counts(info["skipped"]) == {
        "caption that only says `original`": 1,
        "damaged page": 1,
        "damaged picture": 1,
        "icon below 64 pixels": 2,
        "page with fewer than 2 pictures": 1,
        "picture captioned before": 1,
        "picture without a caption": 1,
        "the picture's file is missing": 1,
    }
    assert info["licence"] == "GFDL-NIV-1.2+ (copyright file of gimp-help-common 2.10.34-2)"
    assert len(documents("gimp-help", "heldout-text")) not in (0, 13)
    build_corpus("gimp-help", images=1)
    assert "one.html" in documents("gimp-help", "train", "heldout")


def test_wordnet(downloads: Path) -> None:
    put_wordnet(downloads)
    info = build_corpus("wordnet", heldout=0.2)
    found = documents("wordnet", "train", "heldout")
    assert len(found) == 104
    assert found["noun/00002684"].text == "object, physical object (noun): a visible entity"
    assert found["verb/00055142"].text == 'a, b, c, d, e, f, g, h, i, j, k (verb): have "all the words"'
    assert found["adjective/00530354"].meta == {"words": ["galore"], "part_of_speech": "adjective"}
    assert found["adjective/00530354"].text.endswith('in abundance | plenty; "whisky galore"')
    assert found["adverb/00001740"].text == "a cappella (adverb): without musical accompaniment"
    assert 5 < info["splits"]["heldout"]["documents"] < 40
    assert info["licence"].startswith("WordNet3.0")


@pytest.mark.parametrize(
    ("corpus", "package"),
    [
        ("tuxpaint", "tuxpaint-stamps-default"),
        ("openclipart", "openclipart-svg"),
        ("gimp-help", "gimp-help-en"),
        ("wordnet", "wordnet-base"),
    ],
)
def test_package_of_another_sort(corpus: str, package: str, downloads: Path) -> None:
    write_deb(downloads / f"{package}_1_all.deb", {"usr/share/x": b""})
    with pytest.raises(UserError, match=r"it has no .* delete it to download it again"):
        build_corpus(corpus)
    assert [path.name for path in downloads.parent.iterdir()] == ["downloads"]


def test_small_pictures_are_left_as_they_are() -> None:
    jpeg = io.BytesIO()
    Pillow.new("RGB", (90, 30), (10, 20, 30)).save(jpeg, "JPEG")
    assert bounded(jpeg.getvalue(), 90) == jpeg.getvalue()
    smaller = Pillow.open(io.BytesIO(bounded(jpeg.getvalue(), 60)))
    assert (smaller.format, smaller.size) == ("JPEG", (60, 20))
