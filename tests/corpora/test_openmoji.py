import io
import re
from collections import defaultdict
from pathlib import Path

import emoji
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow

from mm1.corpora import build_corpus
from mm1.corpora.openmoji import variant_key
from mm1.corpora.sprites import plain_code, read_svgs
from mm1.data.corpus import open_split
from mm1.errors import UserError
from tests.corpora.fake_sources import put_emoji_groups, put_openmoji

TONES = ("1F3FB", "1F3FC", "1F3FD", "1F3FE", "1F3FF")
SURFERS = ["1F3C4", *(f"1F3C4-{tone}-200D-{sign}-FE0F" for tone in TONES for sign in ("2640", "2642"))]
SURFERS += [f"1F3C4-{tone}" for tone in TONES]


def code_of(characters: str) -> str:
    return plain_code("-".join(f"{ord(character):04X}" for character in characters))


def bare_name(name: str) -> str:
    """An English name without skin tone and gender."""
    name = re.sub(r"(medium-light|medium-dark|light|medium|dark)_skin_tone|facing_right", "", name.strip(":"))
    gender = r"^(wo)?m[ae]n_|^person_|^people_|_(wo)?m[ae]n\b|^(older|old)_(wo)?man|^(Mrs|Mx|Santa)(?=_Claus)"
    return re.sub(gender, "", name).strip("_,")


def test_variants_by_name_are_variants_by_code() -> None:
    """The names tell independently of the code points what is a variant of what."""
    keys = defaultdict(set)
    for characters, known in emoji.EMOJI_DATA.items():
        if known["status"] == emoji.STATUS["fully_qualified"] and len(code_of(characters).split("-")) > 1:
            keys[bare_name(known["en"])].add(variant_key(code_of(characters)))
    several = {name: found for name, found in keys.items() if len(found) > 1 and name}
    assert len(keys) > 300
    assert several == {}


TONED = sorted(c for c, known in emoji.EMOJI_DATA.items() if len(c) > 1 and {f"{ord(x):04X}" for x in c} & set(TONES))


@given(st.sampled_from(TONED), st.lists(st.sampled_from(TONES), min_size=2, max_size=2))
def test_skin_tones_never_change_the_key(characters: str, tones: list[str]) -> None:
    points = code_of(characters).split("-")
    supply = iter(tones)
    recolored = [next(supply) if point in TONES else point for point in points]
    plain = [point for point in points if point not in TONES]
    assert variant_key("-".join(points)) == variant_key("-".join(recolored)) == variant_key("-".join(plain))


@pytest.mark.parametrize(
    ("codes"),
    [
        ("1F385", "1F936", "1F9D1-200D-1F384"),
        ("1F934", "1F478", "1FAC5-1F3FE"),
        ("1F46B", "1F46C", "1F9D1-1F3FB-200D-1F91D-200D-1F9D1-1F3FF"),
        ("1F491", "1F468-200D-2764-200D-1F468", "1F469-1F3FB-200D-2764-200D-1F468-1F3FF"),
        ("1F46A", "1F468-200D-1F469-200D-1F467", "1F9D1-200D-1F9D2-200D-1F9D2"),
        ("1F469-200D-1F9AF-200D-27A1", "1F468-1F3FD-200D-1F9AF", "1F9D1-200D-1F9AF"),
    ],
)
def test_known_variants(codes: tuple[str, ...]) -> None:
    assert len({variant_key(code) for code in codes}) == 1


def test_different_emoji_have_different_keys() -> None:
    codes = ["1F436", "1F431", "2640", "2642", "27A1", "1F3FB", "1F3FF", "1F1E9-1F1EA", "1F1EB-1F1F7", "1F9D1", "1F9D2"]
    assert len({variant_key(code) for code in codes}) == len(codes)


def test_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MM1_DATA", str(tmp_path))
    put_openmoji(tmp_path / "downloads", *SURFERS, "E000")
    put_emoji_groups(tmp_path / "downloads")
    info = build_corpus("openmoji", size=24, heldout=0.4)
    splits = {split: list(open_split(f"openmoji/{split}")) for split in ("train", "heldout")}
    keys = [{document.meta["variant_of"] for document in documents} for documents in splits.values()]
    assert keys[0]
    assert keys[1]
    assert not keys[0] & keys[1]
    assert info["skipped"] == {"no name": {"count": 1, "examples": ["E000"]}}
    documents = {document.id: document for split in splits.values() for document in split}
    assert len(documents) == 28 + len(SURFERS)
    surfer = documents["1F3C4-1F3FD-200D-2640"]
    assert surfer.text == " woman surfing medium skin tone"
    assert surfer.meta["names"]["de"] == "surferin mittlere hautfarbe"
    assert len(surfer.meta["names"]) == 14
    assert (surfer.meta["group"], surfer.meta["subgroup"]) == ("People & Body", "person-sport")
    assert documents["2600"].meta["group"] == "Travel & Places"
    picture = Pillow.open(io.BytesIO(surfer.images[0].read()))
    assert (picture.size, picture.mode, picture.getpixel((0, 0))) == ((24, 24), "RGB", (255, 255, 255))
    assert picture.getpixel((12, 12)) == (200, 30, 30)
    info = build_corpus("openmoji", size=24, skin_tones=False)
    assert sum(split["documents"] for split in info["splits"].values()) == 28 + 1
    assert info["skipped"]["has a skin tone (skin_tones is off)"]["count"] == 15


def test_missing_drawing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MM1_DATA", str(tmp_path))
    put_openmoji(tmp_path / "downloads")
    with pytest.raises(UserError, match="no drawing 1F9FF"):
        read_svgs({"1F9FF"})
