"""HTML files: text and pictures in reading order.

Scripts, styles and what HTML itself marks as not the content (`nav`, forms' controls) are left out; elements that
begin a new line on the screen begin one here. Removing other boilerplate is cleaning's affair, not the reader's.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import ClassVar

from mm1.data.readers.layout import page_parts
from mm1.data.readers.pictures import PICTURE_SUFFIXES, PictureFolder
from mm1.data.readers.reader import Notes, Reader, Shard
from mm1.document import Document, Image, Kind

HTML_SUFFIXES = (".html", ".htm", ".xhtml")
MAX_FILE_BYTES = 64 * 2**20

_SILENT = {"script", "style", "noscript", "template", "svg", "math", "nav", "iframe", "select", "textarea", "button"}
_BLOCKS = {
    "address", "article", "aside", "blockquote", "body", "caption", "center", "dd", "details", "div", "dl", "dt",
    "fieldset", "figcaption", "figure", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "head", "header", "hr",
    "li", "main", "ol", "p", "pre", "section", "summary", "table", "tbody", "tfoot", "thead", "title", "tr", "ul",
}  # fmt: skip
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
        folder = PictureFolder(shard.root)
        for file in shard.files:
            name = shard.name(file)
            markup = _read(file, name, notes)
            if markup is None:
                continue
            page = _Page()
            page.feed(markup)
            page.close()
            page.end_line()
            items = [_take(item, folder, name, notes) if isinstance(item, _Source) else item for item in page.items]
            parts = page_parts(item for item in items if item is not None)
            if not parts:
                notes.skipped.add("page without text and usable pictures", name)
                continue
            kind: Kind = "interleaved" if any(isinstance(part, Image) for part in parts) else "text"
            yield Document(name, kind, parts, {"title": page.title} if page.title else {})


@dataclass(frozen=True)
class _Source:
    """Where an `<img>` says that its picture is."""

    address: str


class _Page(HTMLParser):
    """Collects lines of text and pictures; `<title>` apart."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.items: list[str | _Source] = []
        self.title = ""
        self._line: list[str] = []
        self._silent: list[str] = []
        self._pre = self._in_title = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _SILENT:
            self._silent.append(tag)
        if tag in _BLOCKS or tag == "br":
            self.end_line()
        elif tag in ("td", "th"):
            self._line.append(" ")
        elif tag == "img" and not self._silent:
            values = dict(attrs)
            address = (values.get("src") or values.get("data-src") or "").strip()
            if address:
                self.end_line()
                self.items.append(_Source(address))
        self._pre = self._pre or tag == "pre"
        self._in_title = self._in_title or tag == "title"

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag in _SILENT:
            self._silent.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag in self._silent:  # an unclosed element inside ends with it
            del self._silent[self._silent.index(tag) :]
        if tag in _BLOCKS:
            self.end_line()
        if tag == "pre":
            self._pre = False
        if tag == "title":
            self._in_title = False

    def handle_data(self, data: str) -> None:
        if self._in_title:
            self.title = f"{self.title} {data}".strip()[:1000]
        elif not self._silent:
            self._line.append(data if self._pre else re.sub(r"\s+", " ", data))

    def parse_marked_section(self, i: int, report: int = 1) -> int:
        """Take `<![...` of any sort for a comment, as browsers do; html.parser fails on unknown ones."""
        return self.parse_bogus_comment(i)

    def end_line(self) -> None:
        """Close the line of text that is being collected."""
        text = "".join(self._line)
        self._line.clear()
        if not self._pre:
            text = re.sub(" {2,}", " ", text)
        if text.strip():
            self.items.append(text)


def _take(source: _Source, folder: PictureFolder, name: str, notes: Notes) -> Image | None:
    address = source.address
    if address.startswith("/") and not address.startswith("//"):
        address = os.path.join(folder.root, address.lstrip("/"))  # from the root of the site
    return folder.take(address, notes, name, base=os.path.dirname(name))


def _read(file: str, name: str, notes: Notes) -> str | None:
    """Return the text of an HTML file: in the encoding that it declares, else UTF-8, else Windows-1252."""
    try:
        if os.path.getsize(file) > MAX_FILE_BYTES:
            notes.skipped.add(f"HTML file larger than {MAX_FILE_BYTES >> 20} MiB", name)
            return None
        content = Path(file).read_bytes()
    except OSError as error:
        notes.skipped.add("HTML file that can't be read", f"{name} ({error.strerror})")
        return None
    declared = _CHARSET.search(content[:2048])
    for encoding in ("utf-8-sig", declared.group(1).decode("ascii", "replace") if declared else "cp1252"):
        try:
            return content.decode(encoding)
        except (LookupError, ValueError):
            continue
    notes.changed.add("text in an unknown encoding: bad bytes replaced by U+FFFD", name)
    return content.decode("utf-8", "replace")
