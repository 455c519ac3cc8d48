"""The guard around every record of every format: it becomes documents, or it is counted with its place and a reason.

Whatever a record holds, it costs no other record: what fails on it is counted like every other reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from mm1.data.readers.layout import storable
from mm1.data.readers.picture_folder import MissingPictureError, NotFetched, PictureFolder
from mm1.data.readers.pictures import PictureError
from mm1.data.readers.reader import MISSING_KEPT, Notes
from mm1.data.readers.values import LeftOutError, says_something
from mm1.document import Document, Image, Text
from mm1.errors import UserError, in_one_line

Record = TypeVar("Record")


@dataclass(slots=True)
class Place:
    """Where a record stands: what it is called, where its losses are counted, where its pictures lie.

    Attributes:
        name: `file:line` or `file/key`: the id of the record's document.
        notes: The account of the shard.
        pictures: Where paths of pictures are told from.
    """

    name: str
    notes: Notes
    pictures: PictureFolder

    def picture(self, value: object, source: str | None = None, others: Sequence[object] = ()) -> Image:
        """Return the picture that a record holds.

        Args:
            value: What it holds (see `PictureFolder.picture`).
            source: The picture's address, if something else tells it.
            others: What is taken if that can't be.

        Raises:
            LeftOutError: If none can be taken: why not the first.
        """
        problem: PictureError | None = None
        for one in (value, *others):
            try:
                return self.pictures.picture(one, source)
            except PictureError as error:
                problem = problem or error
        self.notes.pictures_left_out += 1
        path = value.get("path") if isinstance(value, Mapping) else value
        path = path.address if isinstance(path, NotFetched) else path
        detail = path[:200] if isinstance(path, str) else ""
        if isinstance(problem, MissingPictureError) and len(self.notes.missing) < MISSING_KEPT:
            self.notes.missing.append((self.pictures.folders[0], detail))
        raise LeftOutError(str(problem), detail)

    def picture_or_loss(
        self, value: object, source: str | None = None, where: str = "", others: Sequence[object] = ()
    ) -> Image | None:
        """Return a picture that the document can do without; None, counted, if it can't be taken.

        Args:
            value: As of `picture`.
            source: Likewise.
            where: Its place in the record, put behind the record's.
            others: As of `picture`.
        """
        try:
            return self.picture(value, source, others)
        except LeftOutError as error:
            self.lose(error, where)
            return None

    def lose(self, reason: str | LeftOutError, where: str = "") -> None:
        """Count a part that the document lacks."""
        error = reason if isinstance(reason, LeftOutError) else LeftOutError(reason)
        self.notes.lost.add(error.reason, _example(self.name + where, error.detail))

    def change(self, reason: str, detail: str = "") -> None:
        """Count something that was put right."""
        self.notes.changed.add(reason, _example(self.name, detail))


def documents_of(
    records: Iterable[tuple[str, Record]],
    document_of: Callable[[Record, Place], Document | list[Document]],
    notes: Notes,
    pictures: PictureFolder,
) -> Iterator[Document]:
    """Yield the documents of records; count every record that becomes none.

    Args:
        records: Name and content of each.
        document_of: Makes the document of a record (or several, which count as so many records), or raises
            `LeftOutError`.
        notes: The account.
        pictures: Where paths of pictures are told from.
    """
    place = Place("", notes, pictures)  # one for all records: making as many costs as much as a text
    for name, record in records:
        place.name = name
        try:
            made = document_of(record, place)
            if isinstance(made, Document):
                documents = [_checked(made, notes)]
            else:
                documents = [_checked(one, notes) for one in made]
        except LeftOutError as error:
            notes.skipped.add(error.reason, _example(name, error.detail))
        except UserError:
            raise
        except Exception as error:
            # No record is known that comes here; tests see to it that none of theirs does.
            reason = f"{UNEXPECTED} ({type(error).__name__})"
            notes.skipped.add(reason, _example(name, in_one_line(error)))
        else:
            notes.documents += len(documents)
            yield from documents


UNEXPECTED = "record that the reader fails on"
"""Begins the reason of what no rule has foreseen."""


def _checked(document: Document, notes: Notes) -> Document:
    """Return a document as it is stored, which still says something.

    Raises:
        LeftOutError: If nothing is left of it, or of one of a conversation's answers.
    """
    document = storable(document, notes)
    says = [says_something(part.text) for part in document.parts if isinstance(part, Text) and part.target]
    if document.kind == "chat":
        if not all(says):
            raise LeftOutError("conversation with an empty answer")
    elif not any(says):
        if document.kind != "interleaved":
            raise LeftOutError("empty text")
        if not document.images:
            raise LeftOutError("page without text and usable pictures")
    return document


def _example(name: str, detail: str) -> str:
    return f"{name} ({detail})" if detail else name
