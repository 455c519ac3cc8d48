"""Paths in a line, as terminals, file managers and people write them; and what only looks like one."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from mm1.chat.lines import picture_path, read_line
from mm1.errors import UserError

NAMES = (
    "a.png", "my cat.JPG", "it's.webp", "x (1).jpeg", "é.png", "Screenshot 1.00.00\u202fPM.png", "100%.gif", "q?#.png",
    "picture",
)  # fmt: skip


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to be in, whose name has a space."""
    folder = tmp_path / "my pictures"
    folder.mkdir()
    for name in NAMES:
        (folder / unicodedata.normalize("NFC", name)).write_bytes(b"")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(folder))
    return folder


@pytest.mark.parametrize(
    ("line", "names", "text"),
    [
        ("{there}/a.png", ["a.png"], ""),
        ("{there}/a.png what is it?", ["a.png"], "what is it?"),  # ollama/ollama#1511: taken for a command
        ("what is in {there}/a.png?", ["a.png"], "what is in ?"),
        ("'{there}/my cat.JPG' what?", ["my cat.JPG"], "what?"),
        ('what? "{there}/my cat.JPG"', ["my cat.JPG"], "what?"),
        ("{escaped}/my\\ cat.JPG what?", ["my cat.JPG"], "what?"),
        ("{escaped}/x\\ \\(1\\).jpeg what?", ["x (1).jpeg"], "what?"),
        ("{there}/my cat.JPG what?", ["my cat.JPG"], "what?"),  # dropped by terminals that escape nothing
        ("{there}/my cat.JPG and {there}/a.png: alike?", ["my cat.JPG", "a.png"], "and : alike?"),
        ("'{there}/it'\\''s.webp' what?", ["it's.webp"], "what?"),  # as a shell quotes
        ("file://{quoted}/my%20cat.JPG what?", ["my cat.JPG"], "what?"),
        ("file://localhost{quoted}/a.png", ["a.png"], ""),
        ("file://{quoted}/q%3F%23.png", ["q?#.png"], ""),
        ("file://{quoted}/100%25.gif", ["100%.gif"], ""),
        ("~/a.png ./a.png a.png", ["a.png"] * 3, ""),
        ("(a.png)", ["a.png"], "()"),
        ("A.PNG? no: my\\ cat.JPG", ["my cat.JPG"], "A.PNG? no:"),
        ("{there}/Screenshot 1.00.00\u202fPM.png hm", ["Screenshot 1.00.00\u202fPM.png"], "hm"),
        ("{there}/e\u0301.png", ["é.png"], ""),  # as macOS writes letters with accents
        ("./picture what?", ["picture"], "what?"),
        ("what's a.png? it's a cat's", ["a.png"], "what's ? it's a cat's"),
        ("'a.png' or \"a.png\"", ["a.png", "a.png"], "or"),
    ],
)
def test_paths_are_found(there: Path, line: str, names: list[str], text: str) -> None:
    places = {"there": str(there), "escaped": str(there).replace(" ", "\\ "), "quoted": str(there).replace(" ", "%20")}
    found = read_line(line.format(**places))
    assert [path.resolve() for path in found.pictures] == [there / name for name in names]
    assert found.text == text


@pytest.mark.parametrize(
    "line",
    [
        "what's in the cat's box and/or picture?",  # `picture` is a file here, and a word
        "is 'picture' a word?",
        r"\frac{1}{2} is a half",
        "/usr is a folder, ../ too",
        "say \"a\" and 'b'",
        "see https://example.org/page",
        "two  spaces stay",
        "version 1.png2 and x.png.txt",
    ],
)
def test_text_stays_text(there: Path, line: str) -> None:
    found = read_line(line)
    assert (found.text, found.pictures, found.unknown) == (line, (), ())


@pytest.mark.parametrize("line", ["/none/b.png what?", "what is ./b.jpeg", "'~/b c.png' hm", "file:///none/b.png"])
def test_a_path_without_a_file_is_an_error(there: Path, line: str) -> None:
    """A model that doesn't see the picture makes an answer up (ollama/ollama#1559)."""
    with pytest.raises(UserError, match="no such file: check the path"):
        read_line(line)


def test_the_web_is_not_asked(there: Path) -> None:
    with pytest.raises(UserError, match="not fetched from the web"):
        read_line("https://example.org/b.png what?")


def test_a_bare_name_without_a_file_is_named(there: Path) -> None:
    found = read_line("describe b.png")
    assert (found.text, found.unknown) == ("describe b.png", ("b.png",))


def test_a_path_by_itself(there: Path) -> None:
    assert picture_path("my cat.JPG") == Path("my cat.JPG")
    assert picture_path("'my cat.JPG'") == Path("my cat.JPG")
    with pytest.raises(UserError, match="none: no such file"):
        picture_path("none")
