"""openclipart: drawings from the Open Clip Art Library with the titles of their makers.

Source: the Debian package `openclipart-svg`, public domain. The quality of titles varies: some name the collection
instead of the drawing, some come from the template, some are Italian, French or Spanish. Named rules clean the titles,
and each rule counts its changes.
"""

from __future__ import annotations

import html
import re
import xml.etree.ElementTree as Xml
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from mm1.corpora.drawings import BlankError, check_size, png, render_cut
from mm1.corpora.heldout import check_share, is_held_out
from mm1.corpora.material import Material
from mm1.data.readers.layout import caption_parts
from mm1.data.skips import Skips
from mm1.document import Document, Image
from mm1.errors import UserError
from mm1.fetch.debian import fetch_deb, package_name, read_deb, read_licence
from mm1.progress import track

PACKAGE = "openclipart-svg"
MOST_ALIKE = 15  # a title or description of more drawings than this belongs to the collection, not to the drawing
LONGEST_DESCRIPTION = 25  # words; a longer description is cut to its first sentence

_FOLDER = "usr/share/openclipart/svg/"
_LICENCE = r"(creative commons Public Domain Dedication)"
_DC = "{http://purl.org/dc/elements/1.1/}"
_WORK = ".//{http://web.resource.org/cc/}Work"

# Rules that correct titles, in this order: name of the rule, pattern, replacement.
_TITLE_RULES = (
    ("underscores made spaces", re.compile("_+"), " "),
    ("name of the set removed", re.compile(r" - (RPG map elements|body part|clothing|iconset)$"), ""),
    ("words that ran together separated", re.compile("(?<=[a-z])(?=[A-Z][a-z])"), " "),
    (
        "black and white spelled out",
        re.compile(r"\s*\(b ?(?:and|&) ?w\)|\s+\bb[&/]?[wn]$", re.IGNORECASE),
        ", black and white",
    ),
    ("number of the drawing removed", re.compile(r"[\s#-]*\d+$"), ""),
)
_FLAGS = "signs_and_symbols/flags/"
_SAYS_WHAT = re.compile(r"flag|map|arms|jack|ensign|pennant|banner|signal|sign\b", re.IGNORECASE)
_TEMPLATE = re.compile("^Clipart by ")
_ABOUT_THE_FILE = re.compile(
    r"@|https?:|www\.|public domain|creat(e|ed|ion) with|made (by|with|in)|converted|part of|released|licen[cs]e|"
    r"contact|copyright|HASH\(|inkscape|sodipodi|\bsvg\b|clip ?art",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Drawing:
    """One drawing.

    Attributes:
        name: The drawing's path below the library's folder.
        title: The `dc:title` in the file.
        description: The `dc:description` in the file; usually empty.
        keywords: The keywords in the file.
        svg: The file's content.
    """

    name: str
    title: str
    description: str
    keywords: tuple[str, ...]
    svg: bytes


def build(*, size: int = 256, heldout: float = 0.1, seed: int = 0) -> Material:
    """Return the material of openclipart; splits `train` and `heldout`; drawings of one thing share a split.

    Args:
        size: Most pixels of the longer side of a picture.
        heldout: Share of the captions that is held out.
        seed: The seed of the choice of held-out captions.
    """
    check_size(size)
    check_share(heldout)
    archive = fetch_deb(PACKAGE)
    skips, changed = Skips(), Skips()
    files = sorted(read_deb(archive, lambda name: name.startswith(_FOLDER) and name.endswith(".svg")))
    drawings = [
        drawing
        for name, svg in track(files, "openclipart: titles")
        if (drawing := _read(name.removeprefix(_FOLDER), svg, skips)) is not None
    ]
    if not drawings:
        raise UserError(f"{archive}: it has no drawings in {_FOLDER}: delete it to download it again")
    titles = Counter(drawing.title for drawing in drawings)
    descriptions = Counter(drawing.description for drawing in drawings)
    splits: dict[str, list[tuple[Drawing, str]]] = {"train": [], "heldout": []}
    for drawing in drawings:
        title = _title(drawing, titles[drawing.title], skips, changed)
        if title is not None:
            description = _description(drawing, descriptions[drawing.description], changed)
            caption = combined(title, description)
            if drawing.name.startswith(_FLAGS) and not _SAYS_WHAT.search(caption):
                changed.add("caption: `flag of` put before a name in the folder of flags", f"{drawing.name}: {caption}")
                caption = f"flag of {caption}"
            splits["heldout" if is_held_out(heldout, seed, caption_key(caption)) else "train"].append(
                (drawing, caption)
            )
    seen: set[bytes] = set()
    return Material(
        splits={split: _captions(chosen, size, split, skips, seen) for split, chosen in splits.items()},
        licence=read_licence(archive, _LICENCE),
        sources=[f"Debian package {package_name(archive)}: {_FOLDER}"],
        derived="A caption is the title, cleaned by rules, and the description if it says more; a collection's title "
        "is replaced by the file name where that is words. Drawings are rendered on white, without text, and cut to "
        "what is drawn. Captions with the same words share a split. Some titles are not English. Second names of a "
        "file (hard links) are not read.",
        skips=skips,
        changed=changed,
    )


def _read(name: str, svg: bytes, skips: Skips) -> Drawing | None:
    try:
        root = Xml.fromstring(svg)  # noqa: S314 - expat limits what entities may expand to
    except (Xml.ParseError, ValueError):
        skips.add("damaged SVG", name)
        return None
    work = root.find(_WORK)
    # Creator and publisher have titles as well; the work's are directly below the work.
    title, description = (_text(work, f"{_DC}{field}") for field in ("title", "description"))
    keywords = [] if work is None else [_one_line(item.text) for item in work.findall(f"{_DC}subject//*")]
    return Drawing(name, title, description, tuple(filter(None, keywords)), svg)


def _text(work: Xml.Element | None, path: str) -> str:
    return "" if work is None else _one_line(work.findtext(path))


def _one_line(text: str | None) -> str:
    return " ".join(html.unescape(text or "").split())


def _title(drawing: Drawing, alike: int, skips: Skips, changed: Skips) -> str | None:
    """Return the title after all rules; if there is none, count the reason and return None."""
    title = drawing.title
    if not title or alike > MOST_ALIKE or _TEMPLATE.match(title):
        reason = "collection's or template's title" if title else "no title"
        if drawing.name.startswith("computer/"):  # named after programs and actions
            skips.add(f"{reason}, and an icon", drawing.name)
            return None
        words = file_words(drawing.name)
        if words is None:
            skips.add(f"{reason}, and the file name isn't words", drawing.name)
            return None
        changed.add(f"{reason}: file name taken", drawing.name)
        title = words
    for rule, pattern, replacement in _TITLE_RULES:
        cleaned = pattern.sub(replacement, title).strip()
        if cleaned != title and cleaned:
            changed.add(f"title: {rule}", f"{drawing.name}: {title}")
            title = cleaned
    if not re.search(r"[^\W\d_]{2}", title):
        skips.add("title without words", f"{drawing.name}: {title}")
        return None
    return title


def file_words(name: str) -> str | None:
    """Return the words of a file name; None if the name doesn't consist of words.

    >>> file_words("transportation/aiga-symbols/aiga_first_aid_.svg")
    'first aid'
    >>> file_words("shapes/stars/star_89pt27step.svg") is None
    True
    """
    stem = re.sub("(?<=[a-z])(?=[A-Z])", " ", PurePosixPath(name).stem)
    words = [word.rstrip("0123456789") for word in re.split(r"[\s_.-]+", stem.lower())]
    words = [word for word in words if word not in ("", "aiga")]
    whole = all(len(word) > 2 and word.isalpha() for word in words if word not in ("a", "of", "and", "no", "in", "to"))
    return " ".join(words) if words and whole else None


def _description(drawing: Drawing, alike: int, changed: Skips) -> str:
    """Return the description after all rules; empty if none is left."""
    text = drawing.description
    if not text:
        return ""
    if alike > MOST_ALIKE:
        changed.add("description: a collection's, removed", drawing.name)
        return ""
    if _ABOUT_THE_FILE.search(text):
        changed.add("description: about the file and not the drawing, removed", f"{drawing.name}: {text[:100]}")
        return ""
    if len(text.split()) > LONGEST_DESCRIPTION:
        changed.add("description: first sentence taken", drawing.name)
        text = " ".join(re.split(r"(?<=[.!?])\s", text)[0].split()[:LONGEST_DESCRIPTION])
    return text


def combined(title: str, description: str) -> str:
    """Return the caption: title or description alone if it contains the words of the other, else both."""
    titled, described = set(caption_key(title).split()), set(caption_key(description).split())
    if described <= titled:
        return title
    return description if titled <= described else f"{title}: {description}"


def caption_key(caption: str) -> str:
    """Return a key shared by the captions of one thing: its words in alphabetical order, without remarks on colour."""
    plain = re.sub(r"\(.*?\)|, black and white", " ", caption.casefold())
    return " ".join(sorted(set(re.findall(r"[^\W\d_]+", plain)) - {"a", "an", "the"}))


def _captions(
    chosen: list[tuple[Drawing, str]], size: int, split: str, skips: Skips, seen: set[bytes]
) -> Iterator[Document]:
    for drawing, caption in track(chosen, f"openclipart: {split}"):
        try:
            picture = png(render_cut(drawing.svg.decode("utf-8"), size))
        except BlankError:
            skips.add("nothing to be seen on white", drawing.name)
            continue
        except ValueError:
            skips.add("SVG that can't be rendered", drawing.name)
            continue
        if picture in seen:
            skips.add("the same picture again", drawing.name)
            continue
        seen.add(picture)
        meta = {
            "caption": caption,
            "category": PurePosixPath(drawing.name).parts[0],
            "title": drawing.title,
            "keywords": list(drawing.keywords),
        }
        yield Document(drawing.name, "caption", caption_parts(Image(picture), caption), meta)
