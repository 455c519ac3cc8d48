import io
import itertools
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image as Pillow

from mm1.corpora import build_corpus
from mm1.corpora.conventions import CONVENTIONS
from mm1.corpora.easy_vqa import COLORS, SHAPES
from mm1.corpora.pages import OPENINGS
from mm1.data.corpus import open_split
from mm1.document import Document, Image, Text
from tests.corpora.fake_sources import put_easy_vqa, put_openmoji

PHRASES = {
    convention.name: {convention.phrase(color, shape): (color, shape) for color in COLORS for shape in SHAPES}
    for convention in CONVENTIONS
}


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Document]]:
    data = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MM1_DATA", str(data))
        put_easy_vqa(data / "downloads", train=60, test=200)
        put_openmoji(data / "downloads")
        build_corpus("pages", count=200, heldout=100, shots=24)
        return {split: list(open_split(f"pages/{split}")) for split in ("train", "heldout", "shots")}


def lines(document: Document) -> list[tuple[Image, list[Text]]]:
    """Return every picture with the texts up to the next one; an opening sentence is left out."""
    found: list[tuple[Image, list[Text]]] = []
    for part in document.parts:
        if isinstance(part, Image):
            found.append((part, []))
        elif found:
            found[-1][1].append(part)
    return found


def test_every_page_keeps_one_convention(pages: dict[str, list[Document]]) -> None:
    lengths: Counter[int] = Counter()
    for page in pages["train"]:
        assert page.kind == "interleaved"
        lengths[len(page.images)] += 1
        if not page.meta["convention"].startswith("album"):
            for _, (text,) in lines(page):
                assert text.target
                assert text.text.startswith(" ")
                assert text.text.endswith("\n")
                assert text.text[1:-1] in PHRASES[page.meta["convention"]]
    assert set(lengths) == set(range(2, 13))
    assert sum(lengths[n] for n in range(6, 13)) > sum(lengths[n] for n in range(2, 6))


def test_same_picture_same_color_and_shape_on_every_page(pages: dict[str, list[Document]]) -> None:
    """Pages that name both must agree on a picture: so what they say is the picture's, not the page's."""
    seen: dict[bytes, set[tuple[str, str]]] = {}
    for page in pages["train"]:
        phrases = PHRASES.get(page.meta["convention"], {})
        if len(phrases) == len(COLORS) * len(SHAPES):
            for image, (text,) in lines(page):
                seen.setdefault(image.read(), set()).add(phrases[text.text[1:-1]])
    assert len(seen) > 30
    assert {len(told) for told in seen.values()} == {1}


def test_albums(pages: dict[str, list[Document]]) -> None:
    albums = [page for page in pages["train"] if page.meta["convention"].startswith("album")]
    assert 0.15 < len(albums) / len(pages["train"]) < 0.35
    for page in albums:
        for _, texts in lines(page):
            assert [text.target for text in texts] == (
                [True] if page.meta["convention"] == "album: scenes" else [False, True]
            )
            assert texts[-1].text.endswith("\n")


def test_opening_tells_nothing(pages: dict[str, list[Document]]) -> None:
    words = {word.strip(".,").lower() for phrases in PHRASES.values() for phrase in phrases for word in phrase.split()}
    assert not (words - {"a", "of", "picture", "it", "is"}) & set(" ".join(OPENINGS).lower().replace(".", "").split())
    opened = Counter(page.meta["convention"] for page in pages["train"] if isinstance(page.parts[0], Text))
    for page in pages["train"]:
        if isinstance(page.parts[0], Text):
            assert page.parts[0].text.removesuffix("\n") in OPENINGS
    assert len(opened) > 10


def test_items_are_balanced_and_true(pages: dict[str, list[Document]]) -> None:
    assert Counter(d.meta["convention"] for d in pages["heldout"]) == {c.name: 5 for c in CONVENTIONS}
    assert Counter(d.meta["convention"] for d in pages["shots"]) == {c.name: 24 for c in CONVENTIONS}
    for item in pages["heldout"] + pages["shots"]:
        image, text = item.parts
        assert isinstance(image, Image)
        assert text == Text(f" {item.meta['answer']}\n")
        assert item.meta["answer"] in PHRASES[item.meta["convention"]]


def test_splits_share_no_picture(pages: dict[str, list[Document]]) -> None:
    pictures = {split: {image.data for d in documents for image in d.images} for split, documents in pages.items()}
    for one, other in itertools.combinations(pictures.values(), 2):
        assert not one & other


def test_conventions_can_be_told_apart() -> None:
    """Any two conventions say the same of at most one color in eight, so a few lines tell which it is."""
    for one, other in itertools.combinations(CONVENTIONS, 2):
        same = sum(one.phrase(c, s) == other.phrase(c, s) for c in COLORS for s in SHAPES)
        assert same <= len(SHAPES), (one.name, other.name)
    assert len({convention.name for convention in CONVENTIONS}) == len(CONVENTIONS) >= 12


def test_german_adjectives_agree() -> None:
    phrase = next(c.phrase for c in CONVENTIONS if c.name == "German color shape")
    assert phrase("red", "circle") == "roter Kreis"
    assert phrase("green", "triangle") == "grünes Dreieck"
    assert phrase("teal", "rectangle") == "türkisfarbenes Rechteck"


def test_albums_show_no_held_out_scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MM1_DATA", str(tmp_path))
    put_easy_vqa(tmp_path / "downloads")
    put_openmoji(tmp_path / "downloads")
    build_corpus("scenes", count=1, questions=1, heldout=300)
    build_corpus("pages", count=60, albums=1.0, heldout=18, shots=1)
    held_out = {document.meta["caption"] for document in open_split("scenes/heldout")}
    shown = {
        texts[0].text.strip()
        for page in open_split("pages/train")
        if page.meta["convention"] == "album: scenes"
        for _, texts in lines(page)
    }
    assert len(shown) > 50
    assert not shown & held_out


def test_pictures_at_another_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MM1_DATA", str(tmp_path))
    put_easy_vqa(tmp_path / "downloads")
    put_openmoji(tmp_path / "downloads")
    build_corpus("pages", count=8, heldout=18, shots=1, size=96)
    for split in ("train", "heldout", "shots"):
        for document in open_split(f"pages/{split}"):
            for image in document.images:
                assert Pillow.open(io.BytesIO(image.read())).size == (96, 96)
