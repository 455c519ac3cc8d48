"""What the world is made from: five icon sets, the names of emoji, WordNet."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from mm1.corpora import wordnet
from mm1.errors import UserError
from mm1.fetch.npm import fetch_npm
from mm1.fetch.pip import read_members


@dataclass(frozen=True, slots=True)
class IconSet:
    """A set of drawings, which are those of one hand.

    Attributes:
        hand: The name of the hand.
        package: The package on npm.
        version: Its version.
        licence: Of the drawings, as the package states it.
    """

    hand: str
    package: str
    version: str
    licence: str


ICON_SETS = (
    IconSet("noto", "@iconify-json/noto", "1.2.9", "Apache-2.0 (Google)"),
    IconSet("twemoji", "@iconify-json/twemoji", "1.2.5", "CC-BY-4.0 (Twitter)"),
    IconSet("fluent", "@iconify-json/fluent-emoji-flat", "1.2.6", "MIT (Microsoft)"),
    IconSet("openmoji", "@iconify-json/openmoji", "1.2.29", "CC-BY-SA-4.0 (OpenMoji)"),
    IconSet("emojione", "@iconify-json/emojione", "1.2.3", "CC-BY-4.0 (EmojiOne)"),
)
NAMES_PACKAGE, NAMES_VERSION = "emojibase-data", "17.0.0"
LANGUAGES = ("en", "de", "es", "fr")


def licence() -> str:
    """Return the licences of all that the corpus holds."""
    drawings = "; ".join(f"{icons.hand}: {icons.licence}" for icons in ICON_SETS)
    return f"drawings: {drawings}; names: MIT (emojibase); glosses: {wordnet.licence()}"


def sources() -> list[str]:
    """Return the packages, as `corpus.json` names them."""
    packages = [(icons.package, icons.version) for icons in ICON_SETS] + [(NAMES_PACKAGE, NAMES_VERSION)]
    return [*(f"npm package {package} {version}" for package, version in packages), wordnet.source()]


def icon_name(label: str) -> str:
    """Return the name of a drawing by the English label of its emoji: `lady-beetle` for `lady beetle`."""
    return re.sub(r"[^a-z0-9]+", "-", label.lower()).strip("-")


def read_icons(icons: IconSet, names: Collection[str]) -> dict[str, str]:
    """Return the drawings of one set as SVG, by name; those that the set lacks are missing.

    Args:
        icons: The set.
        names: The names of the drawings.

    Raises:
        UserError: If the package can't be downloaded or read.
    """
    table = _read_json(icons.package, icons.version, "icons.json")
    found = {}
    for name in names:
        # An alias is another name for the same drawing (https://iconify.design/docs/types/iconify-json.html).
        drawn = table["icons"].get(table.get("aliases", {}).get(name, {}).get("parent", name))
        if drawn is not None:
            width, height = (drawn.get(side, table.get(side, 16)) for side in ("width", "height"))
            box = f"{drawn.get('left', 0)} {drawn.get('top', 0)} {width} {height}"
            found[name] = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{box}">{drawn["body"]}</svg>'
    return found


def read_labels(language: str) -> dict[str, str]:
    """Return the names of all emoji in a language, by code point sequence.

    Args:
        language: One of `LANGUAGES`.

    Raises:
        UserError: If the package can't be downloaded or read.
    """
    entries = _read_json(NAMES_PACKAGE, NAMES_VERSION, f"{language}/data.json")
    return {entry["hexcode"]: entry["label"] for entry in entries}


def _read_json(package: str, version: str, member: str) -> Any:
    archive = fetch_npm(package, version)
    for _, content in read_members(archive, member.__eq__):
        return json.loads(content)
    raise UserError(f"{archive}: it has no {member}: delete it to download it again")
