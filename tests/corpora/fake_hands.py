"""The packages of the corpus hands, small: every hand draws a thing in its colour and a shape of its own."""

import colorsys
import json
from pathlib import Path

from mm1.corpora.hands.sources import ICON_SETS, LANGUAGES, NAMES_PACKAGE, NAMES_VERSION, icon_name
from mm1.corpora.hands.vocabulary import MEANT, in_turn
from tests.corpora.fake_sources import put_wordnet, write_tar

SHAPES = (
    '<path d="M32 4 L60 60 L4 60 Z" {}/>',
    '<path d="M4 4 H60 V60 H4 Z" {}/>',
    '<path d="M32 4 L60 32 L32 60 L4 32 Z" {}/>',
    '<path d="M4 20 H60 V44 H4 Z" {}/>',
    '<circle cx="32" cy="32" r="28" {}/>',
)
ENDINGS = {"en": "", "de": "chen", "es": "ito", "fr": "ette"}
"""What makes a name of each language from the English one."""


def put_hands(downloads: Path) -> None:
    """Write fake icon sets, names in four languages, and a WordNet with the nouns of the things."""
    labels = [label for label, _ in in_turn()]
    for icons, shape in zip(ICON_SETS, SHAPES, strict=True):
        drawn = {}
        for n, label in enumerate(labels):
            red, green, blue = (round(255 * value) for value in colorsys.hsv_to_rgb(n / len(labels), 1, 0.8))
            drawn[icon_name(label)] = {"body": shape.format(f'fill="rgb({red},{green},{blue})"')}
        # One set knows a thing by another name.
        drawn["puppy"] = drawn.pop("dog")
        aliases = {"dog": {"parent": "puppy"}}
        table = {"icons": drawn, "aliases": aliases, "width": 64, "height": 64}
        name = icons.package.removeprefix("@").replace("/", "-")
        write_tar(downloads / f"{name}-{icons.version}.tgz", {"package/icons.json": json.dumps(table).encode()})
    members = {}
    for language in LANGUAGES:
        entries = [{"hexcode": f"{n:X}", "label": label + ENDINGS[language]} for n, label in enumerate(labels)]
        members[f"package/{language}/data.json"] = json.dumps(entries).encode()
    write_tar(downloads / f"{NAMES_PACKAGE}-{NAMES_VERSION}.tgz", members)
    _put_wordnet(downloads)


def _put_wordnet(downloads: Path) -> None:
    """Write the nouns: each first means a person, and then the thing."""
    data, index = [], []
    for n, (label, kind) in enumerate(in_turn()):
        word, person, thing = label.replace(" ", "_"), 10000000 + n, 20000000 + n
        data.append(f"{person} 18 n 01 {word} 0 000 | a person of that name  ")
        data.append(
            f"{thing} {kind.files[0]} n 01 {word} 0 000 | an item with {MEANT.get(label, 'a')} look; for show  "
        )
        index.append(f"{word} n 2 0 2 0 {person} {thing}  ")
    put_wordnet(downloads, data, index)
