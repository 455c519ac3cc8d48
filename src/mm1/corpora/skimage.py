"""skimage: scikit-image's photographs with what its documentation says of them, to show a model what it never saw.

Source: the wheel of `scikit-image` (BSD-3-Clause), whose functions `skimage.data.NAME()` return a picture each. The
first line of the function's description is the caption. Only pictures whose description says that they are free are
taken.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from mm1.corpora.drawings import bounded, check_size
from mm1.corpora.material import Material
from mm1.data.readers.layout import caption_parts
from mm1.data.skips import Skips
from mm1.document import Document, Image
from mm1.errors import UserError
from mm1.fetch.pip import fetch_wheel, read_members

PACKAGE, VERSION = "scikit-image", "0.26.0"
# One of the wheels, whatever the machine: the pictures are the same in all.
PLATFORM = ("--platform", "manylinux_2_28_x86_64", "--python-version", "3.11", "--implementation", "cp")

_FOLDER = "skimage/data/"
_FUNCTIONS = f"{_FOLDER}_fetchers.py"
_FREE = re.compile(r"\bCC-?0\b|public\s+domain|No\s+(?:known\s+)?copyright\s+restrictions", re.IGNORECASE)


def build(*, size: int = 256) -> Material:
    """Return the material of skimage; one split, `heldout`: there are too few pictures to learn from.

    Args:
        size: Most pixels of the longer side of a picture.
    """
    check_size(size)
    wheel = fetch_wheel(PACKAGE, VERSION, PLATFORM)
    files = dict(read_members(wheel, lambda name: name.startswith(_FOLDER) and name.endswith((".py", ".png", ".jpg"))))
    skips = Skips()
    documents = list(_captions(files, wheel, size, skips))
    return Material(
        splits={"heldout": documents},
        licence="public domain or CC0, as the description of each picture says; descriptions: BSD-3-Clause",
        sources=[f"{PACKAGE} {VERSION} (PyPI): {_FOLDER}"],
        derived="The first line of a function's description is its picture's caption. Pictures with more than "
        f"{size} pixels a side are scaled down.",
        skips=skips,
    )


def _captions(files: dict[str, bytes], wheel: Path, size: int, skips: Skips) -> Iterator[Document]:
    if _FUNCTIONS not in files:
        raise UserError(f"{wheel}: it has no {_FUNCTIONS}: delete it to download it again")
    for function in ast.parse(files[_FUNCTIONS]).body:
        if not isinstance(function, ast.FunctionDef) or function.name.startswith("_"):
            continue
        description, picture = ast.get_docstring(function) or "", _picture_of(function)
        if picture is None or picture not in files:
            skips.add("no picture in the package", function.name)
        elif not (free := _FREE.search(description)):
            skips.add("its description names no licence", function.name)
        else:
            caption = description.partition("\n\n")[0].replace("\n", " ").strip()
            data = bounded(files[picture], size)
            meta = {"caption": caption, "licence": " ".join(free[0].split())}
            yield Document(function.name, "caption", caption_parts(Image(data), caption), meta)


def _picture_of(function: ast.FunctionDef) -> str | None:
    """Return the file of the one picture that a function loads."""
    loaded = [
        str(call.args[0].value)
        for call in ast.walk(function)
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "_load"
        if isinstance(call.args[0], ast.Constant)
    ]
    return f"{_FOLDER}{loaded[0].removeprefix('data/')}" if len(loaded) == 1 else None
