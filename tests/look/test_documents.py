import base64
import html
import io
import re
from pathlib import Path
from typing import Literal

import pytest
from PIL import Image as Pillow
from rich.console import Console

from mm1.document import Document, Image, Text
from mm1.errors import UserError
from mm1.look.documents import show_text, write_html
from mm1.look.pictures import read_header


def png(width: int = 40, height: int = 30) -> bytes:
    out = io.BytesIO()
    Pillow.new("RGB", (width, height), "red").save(out, "PNG")
    return out.getvalue()


def page_document(id: str = "one", text: str = " red\n") -> Document:
    parts = (Text("Opening.\n", target=False), Image(png()), Text(text), Image(png(64, 64)), Text(" blue\n"))
    return Document(id, "interleaved", parts, {"convention": "color"})


def shown(documents: list[Document], limit: int = 3, color: bool = False) -> str:
    out = io.StringIO()
    system: Literal["auto", "standard"] = "standard" if color else "auto"
    show_text(documents, limit, Console(file=out, width=100, force_terminal=color or None, color_system=system))
    return out.getvalue()


def test_terminal_shows_parts_in_order() -> None:
    text = shown([page_document()])
    size = f"{len(png()) / 1024:.1f} KB"
    found = [
        text.index(piece)
        for piece in (
            "interleaved",
            "one",
            "Opening.",
            f"[picture 40x30 PNG {size}]",
            " red\n",
            "[picture 64x64 PNG",
            " blue\n",
            '"convention": "color"',
        )
    ]
    assert found == sorted(found)


def test_terminal_dims_what_is_not_learned() -> None:
    text = shown([page_document()], color=True)
    assert "\x1b[2mOpening." in text
    assert "\x1b[2m red" not in text


def test_terminal_shows_at_most_limit() -> None:
    documents = [page_document(f"document-{number}") for number in range(5)]
    assert re.findall(r"document-\d", shown(documents, limit=2)) == ["document-0", "document-1"]


def test_terminal_takes_text_literally() -> None:
    text = shown([page_document(text=" [red]not markup[/red] \x1b[31m\x07\n")])
    assert "[red]not markup[/red]" in text
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "\ufffd[31m" in text


def test_header_of_what_is_no_picture() -> None:
    assert str(read_header(b"x" * 2048)) == "unreadable picture, 2.0 KB"
    assert str(read_header(b"")) == "unreadable picture, 0.0 KB"
    bomb = png()[:16] + (60_000).to_bytes(4, "big") * 2 + png()[24:]
    assert read_header(bomb).format is None


def test_page_is_self_contained_and_shows_everything(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "page.html"
    write_html([page_document()], path, title="pages/train")
    page = path.read_text("utf-8")
    assert "<title>pages/train</title>" in page
    sources = re.findall(r'<img src="([^"]*)"', page)
    assert [base64.b64decode(source.removeprefix("data:image/png;base64,")) for source in sources] == [
        png(),
        png(64, 64),
    ]
    assert '<span class="given">Opening.\n</span>' in page
    assert "<span> red\n</span>" in page
    outside = page.replace("data:image/png;base64,", "")
    assert not re.search(r"https?://|src=\"(?!iVBOR)|<link|<script|@import|url\(", outside)
    assert [file.name for file in path.parent.iterdir()] == ["page.html"]


def test_page_escapes_everything(tmp_path: Path) -> None:
    evil = "<script>alert('x')</script>&amp;\""
    document = Document(evil, "text", (Text(evil), Image(b"<svg onload=alert(1)>")), {"note": evil})
    write_html([document], tmp_path / "page.html", title=evil)
    page = (tmp_path / "page.html").read_text("utf-8")
    assert "<script" not in page
    assert "<svg" not in page
    assert "unreadable picture" in page
    assert html.unescape(page).count("<script>alert('x')</script>") == 5


def test_page_shows_at_most_limit(tmp_path: Path) -> None:
    write_html((page_document(str(n)) for n in range(9)), tmp_path / "page.html", title="x", limit=4)
    page = (tmp_path / "page.html").read_text("utf-8")
    assert page.count("<article>") == 4
    assert "4 documents" in page


def test_page_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/page.html: the page can't be written"):
        write_html([], tmp_path / "file" / "page.html", title="x")
    (tmp_path / "page.html").mkdir()
    with pytest.raises(UserError, match="can't be written"):
        write_html([], tmp_path / "page.html", title="x")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["file", "page.html"]
