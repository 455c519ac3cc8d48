"""Shows documents: the first ones in the terminal, or on a self-contained HTML page with their pictures.

show_text(open_split("scenes/train"), limit=3)
write_html(open_split("scenes/train"), Path("scenes.html"), title="scenes/train")
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.rule import Rule
from rich.text import Text as Styled

from mm1.document import Document, Image, Text
from mm1.look.page import printable, write_page
from mm1.look.pictures import embedded, read_header
from mm1.progress import terminal


def show_text(documents: Iterable[Document], limit: int = 3, console: Console | None = None) -> None:
    """Print the first documents: kind, id, parts in order (text that isn't a target is dimmed), meta.

    Args:
        documents: A split, or any documents.
        limit: Most documents to print.
        console: The console to print to; default: standard output.
    """
    console = console or terminal()
    for document in islice(documents, limit):
        console.print(Rule(Styled.assemble((document.kind, "bold cyan"), "  ", printable(document.id)), align="left"))
        body = Styled()
        for part in document.parts:
            if isinstance(part, Text):
                body.append(printable(part.text), style="" if part.target else "dim")
            else:
                body.append(f"[{read_header(part.read())}]", style="green")
        console.print(body, soft_wrap=True)
        if document.meta:
            console.print(Styled(printable(_meta(document.meta)), style="dim italic"), soft_wrap=True)


def write_html(documents: Iterable[Document], path: Path, title: str, limit: int = 100) -> None:
    """Write one self-contained HTML page that shows documents with their pictures.

    Args:
        documents: A split, or any documents.
        path: The file to write; replaced if it exists.
        title: Heading of the page.
        limit: Most documents to show.

    Raises:
        UserError: If the file can't be written, or a picture's file can't be read.
    """
    shown = [_card(document) for document in islice(documents, limit)]
    write_page(path, "documents.html", title=title, documents=shown)


def _card(document: Document) -> dict[str, Any]:
    """Return a document's values for the template."""
    parts = [embedded(part) if isinstance(part, Image) else part for part in document.parts]
    meta = _meta(document.meta, indent=2) if document.meta else None
    return {"id": document.id, "kind": document.kind, "parts": parts, "meta": meta}


def _meta(meta: Any, indent: int | None = None) -> str:
    return json.dumps(dict(meta), ensure_ascii=False, indent=indent)
