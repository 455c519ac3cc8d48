"""HTML files: text and pictures in reading order.

Scripts, styles and what HTML itself marks as not the content (`nav`, forms' controls) are left out; elements that
begin a new line on the screen begin one here. Removing other boilerplate is cleaning's affair, not the reader's.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from html.parser import HTMLParser
from itertools import groupby
from typing import ClassVar

from mm1.data.readers.layout import page_parts
from mm1.data.readers.opening import UNREADABLE, TextStream, open_texts, read_up_to, why_unreadable
from mm1.data.readers.picture_folder import PictureFolder
from mm1.data.readers.pictures import PICTURE_SUFFIXES
from mm1.data.readers.reader import Notes, Reader, Shard
from mm1.data.readers.rows import Place, documents_of
from mm1.data.readers.values import LeftOutError, says_something
from mm1.document import Document, Image, Kind
from mm1.remote.opening import join

HTML_SUFFIXES = (".html", ".htm", ".xhtml")
MAX_FILE_BYTES = 64 * 2**20

_SILENT = {"script", "style", "noscript", "template", "svg", "math", "nav", "iframe", "select", "textarea", "button"}
_SHOWN_UNCLOSED = {"nav", "button", "svg", "math"}  # browsers show what follows; of others they show nothing
_BLOCKS = {
    "address", "article", "aside", "blockquote", "body", "caption", "center", "dd", "details", "div", "dl", "dt",
    "fieldset", "figcaption", "figure", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "head", "header", "hr",
    "li", "main", "ol", "p", "pre", "section", "summary", "table", "tbody", "tfoot", "thead", "title", "tr", "ul",
}  # fmt: skip
_LATE = ("data-src", "data-original", "data-lazy-src", "data-lazy")
_CHARSET = re.compile(rb"<meta[^>]{0,200}charset\s*=\s*[\"']?\s*([\w.:-]+)", re.IGNORECASE)


@dataclass(frozen=True)
class Html(Reader):
    """Pages in HTML files, with pictures in files beside or below them."""

    suffixes: ClassVar[tuple[str, ...]] = HTML_SUFFIXES
    packable: ClassVar[tuple[str, ...]] = HTML_SUFFIXES
    beside: ClassVar[tuple[str, ...]] = PICTURE_SUFFIXES
    files_per_shard: ClassVar[int] = 200

    def read(self, shard: Shard, notes: Notes) -> Iterator[Document]:
        """Yield an interleaved document for every page with pictures, a text document for the others."""
        for _, files in groupby(shard.files, os.path.dirname):
            folder = list(files)
            texts = (text for file in folder for text in open_texts(file, shard.name(file), self.takes, notes))
            pages = ((text.name, text) for text in texts)
            yield from documents_of(pages, _document, notes, PictureFolder.beside(folder[0], shard.root))


def _document(text: TextStream, place: Place) -> Document:
    """Return the document of a page."""
    page = _page(_read(text, place), place)
    items = [_take(item, place) if isinstance(item, _Picture) else item for item in page.items]
    parts = page_parts(item for item in items if item is not None)
    if not parts:
        raise LeftOutError("page without text and usable pictures")
    kind: Kind = "interleaved" if any(isinstance(part, Image) for part in parts) else "text"
    return Document(place.name, kind, parts, {"title": page.title} if page.title else {})


def _page(markup: str, place: Place) -> _Page:
    """Return a page that is read, with what follows an element that is left out and has no end."""
    shown: set[str] = set()
    while True:
        page = _Page(shown)
        page.feed(markup)
        page.close()
        page.end_line()
        unclosed = _SHOWN_UNCLOSED.intersection(page.silent)
        if not unclosed:
            return page
        shown |= unclosed
        place.change(f"{' and '.join(f'<{tag}>' for tag in sorted(unclosed))} without an end: read with what follows")


@dataclass(frozen=True)
class _Picture:
    """Where an `<img>` says that its picture is: the first address that leads to one counts."""

    addresses: tuple[str, ...]


class _Page(HTMLParser):
    """Collects lines of text and pictures; `<title>` apart.

    Args:
        shown: Elements that aren't left out here.
    """

    def __init__(self, shown: Iterable[str] = ()) -> None:
        super().__init__(convert_charrefs=True)
        self.silent: list[str] = []  # that are open
        self._left_out = _SILENT.difference(shown)
        self.items: list[str | _Picture] = []
        self.title = ""
        self._sources: list[str] = []  # of the `<picture>` that is open
        self._line: list[str] = []
        self._pre = self._in_title = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in self._left_out:
            self.silent.append(tag)
        if tag in _BLOCKS or tag == "br":
            self.end_line()
        elif tag in ("td", "th"):
            self._line.append(" ")
        elif tag == "source" and not self.silent:
            self._sources += _addresses(dict(attrs))
        elif tag == "img" and not self.silent:
            addresses = [address for address in (*_addresses(dict(attrs)), *self._sources) if address]
            if addresses:  # else there is nothing to see, and the line goes on
                self.end_line()
            # Where there is another, an address that holds its picture holds a placeholder.
            elsewhere = [address for address in addresses if not address.startswith("data:")]
            self.items.append(_Picture(tuple(elsewhere or addresses)))
            self._sources = []
        self._pre = self._pre or tag == "pre"
        self._in_title = self._in_title or tag == "title"

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag in self._left_out:
            self.silent.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag in self.silent:  # an unclosed element inside ends with it
            del self.silent[self.silent.index(tag) :]
        if tag in _BLOCKS:
            self.end_line()
        if tag == "pre":
            self._pre = False
        if tag == "title":
            self._in_title = False
        if tag in ("picture", "video", "audio"):
            self._sources = []

    def handle_data(self, data: str) -> None:
        if self._in_title:
            self.title = f"{self.title} {data}".strip()[:1000]
        elif not self.silent:
            self._line.append(data if self._pre else _collapsed(data))

    def parse_marked_section(self, i: int, report: int = 1) -> int:
        """Take `<![...` of any sort for a comment, as browsers do; html.parser fails on unknown ones."""
        return self.parse_bogus_comment(i)

    def end_line(self) -> None:
        """Close the line of text that is being collected."""
        if not self._line:
            return
        text = "".join(self._line)
        self._line.clear()
        if "  " in text and not self._pre:
            text = _collapsed(text)
        if says_something(text):
            self.items.append(text)


def _collapsed(text: str) -> str:
    """Return a text with every stretch of space as one."""
    words = " ".join(text.split())
    if not words:
        return text and " "
    return f"{' ' * text[0].isspace()}{words}{' ' * text[-1].isspace()}"


def _addresses(attributes: Mapping[str, str | None]) -> list[str]:
    """Return the addresses of an `<img>` or `<source>`, the best first: pages that load pictures late hide them."""
    named = {name: (attributes.get(name) or "").strip() for name in (*_LATE, "src", "data-srcset", "srcset")}
    late = [named[name] for name in _LATE]
    return [*late, *_of_set(named["data-srcset"]), named["src"], *_of_set(named["srcset"])]


def _of_set(value: str) -> list[str]:
    """Return the addresses of a `srcset`, such as `small.png 1x, large.png 2x`, the largest first."""
    candidates = re.findall(r"\s*(\S*[^\s,])(?:\s+([\d.]+)[wxh])?[^,]*(?:,|$)", value)
    return [address for address, _ in sorted(candidates, key=lambda one: -float(one[1] or 1))]


def _take(picture: _Picture, place: Place) -> Image | None:
    """Return the picture of the first address that leads to one; count why there is none."""
    if not picture.addresses:
        place.lose("img without an address")
        return None
    root = place.pictures.folders[-1]  # of the site, which addresses that begin with a slash are told from
    is_rooted = [address.startswith("/") and not address.startswith("//") for address in picture.addresses]
    addresses = [
        join(root, address.lstrip("/")) if rooted else address
        for address, rooted in zip(picture.addresses, is_rooted, strict=True)
    ]
    return place.picture_or_loss(addresses[0], others=addresses[1:])


def _read(text: TextStream, place: Place) -> str:
    """Return the markup: in UTF-8 (UTF-16 with its mark too), else the encoding that it declares, else Windows-1252.

    Raises:
        LeftOutError: If it can't be read.
    """
    try:
        content = read_up_to(text.stream, MAX_FILE_BYTES + 1)
    except UNREADABLE as error:
        raise LeftOutError(why_unreadable(error), str(error)) from None
    if len(content) > MAX_FILE_BYTES:
        raise LeftOutError(f"HTML file larger than {MAX_FILE_BYTES >> 20} MiB")
    declared = _CHARSET.search(content[:2048])
    named = declared.group(1).decode("ascii", "replace").lower() if declared else "cp1252"
    # Where the declaration can be read as it stands, what it says of wider characters is wrong.
    for encoding in ("utf-8-sig", "cp1252" if named.startswith(("utf-16", "utf-32")) else named):
        try:
            return content.decode(encoding)
        except (LookupError, ValueError):
            continue
    place.change("text in an unknown encoding: bad bytes replaced by U+FFFD")
    return content.decode("utf-8", "replace")
