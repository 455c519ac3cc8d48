"""tuxpaint: the stamps of Tux Paint, cut-out photographs and drawings for children, each with a sentence.

Source: the Debian package `tuxpaint-stamps-default`, GPL-2. A stamp is `NAME.png` or `NAME.svg`; the first line of
`NAME.txt` describes it in English (the other lines are translations).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mm1.corpora.drawings import BlankError, bounded, check_size, png, render_cut
from mm1.corpora.heldout import check_share, is_held_out
from mm1.corpora.material import Material
from mm1.data.readers.layout import caption_parts
from mm1.data.skips import Skips
from mm1.document import Document, Image
from mm1.errors import UserError
from mm1.fetch.debian import fetch_deb, package_name, read_deb, read_licence
from mm1.processing.images import ImageError
from mm1.progress import track

PACKAGE = "tuxpaint-stamps-default"

_FOLDER = "usr/share/tuxpaint/stamps/"
_MIRRORED = "_mirror"  # a stamp's mirror image, if it can't be computed; the stamp's text describes it


@dataclass(frozen=True, slots=True)
class Stamp:
    """One stamp.

    Attributes:
        name: The stamp's path below the folder of stamps, with the suffix.
        caption: The description.
        data: The content of the PNG or SVG file.
    """

    name: str
    caption: str
    data: bytes


def build(*, size: int = 256, symbols: bool = False, heldout: float = 0.1, seed: int = 0) -> Material:
    """Return the material of tuxpaint; splits `train` and `heldout`; stamps with equal descriptions share a split.

    Args:
        size: Most pixels of the longer side of a picture.
        symbols: Whether to include letters, digits, coins, notes and chessmen.
        heldout: Share of the descriptions that is held out.
        seed: The seed of the choice of held-out descriptions.
    """
    check_size(size)
    check_share(heldout)
    archive = fetch_deb(PACKAGE)
    skips = Skips()
    splits: dict[str, list[Stamp]] = {"train": [], "heldout": []}
    for stamp in _stamps(archive, symbols, skips):
        splits["heldout" if is_held_out(heldout, seed, caption_key(stamp.caption)) else "train"].append(stamp)
    if not any(splits.values()):
        raise UserError(f"{archive}: it has no stamps with descriptions: delete it to download it again")
    return Material(
        splits={split: _captions(stamps, size, split, skips) for split, stamps in splits.items()},
        licence=read_licence(archive),
        sources=[f"Debian package {package_name(archive)}: {_FOLDER}"],
        derived=f"The first line of a stamp's description is its caption. Pictures with more than {size} pixels a side "
        "are scaled down, SVG is rendered on white and cut to what is drawn. Stamps whose descriptions have the same "
        "words share a split.",
        skips=skips,
    )


def caption_key(caption: str) -> str:
    """Return a key shared by equal captions: the words without articles, case and punctuation."""
    words = re.findall(r"\w+", caption.casefold())
    return " ".join(word for word in words if word not in ("a", "an", "the", "some"))


def _stamps(archive: Path, symbols: bool, skips: Skips) -> Iterator[Stamp]:
    files = dict(read_deb(archive, lambda name: name.startswith(_FOLDER) and name.endswith((".png", ".svg", ".txt"))))
    for path, data in sorted(files.items()):
        name = path.removeprefix(_FOLDER)
        stem, _, suffix = path.rpartition(".")
        description = files.get(f"{stem.removesuffix(_MIRRORED)}.txt", b"")
        caption = description.decode("utf-8", "replace").partition("\n")[0].strip()
        if suffix == "txt":
            continue
        if name.startswith("symbols/") and not symbols:
            skips.add("a symbol (symbols is off)", name)
        elif not caption:
            skips.add("no description", name)
        elif suffix == "png" and f"{stem}.svg" in files:
            skips.add("the same drawing is there as SVG", name)
        else:
            yield Stamp(name, caption, data)


def _captions(stamps: list[Stamp], size: int, split: str, skips: Skips) -> Iterator[Document]:
    for stamp in track(stamps, f"tuxpaint: {split}"):
        try:
            if stamp.name.endswith(".svg"):
                picture = png(render_cut(stamp.data.decode("utf-8", "replace"), size))
            else:
                picture = bounded(stamp.data, size)
        except BlankError:
            skips.add("nothing to be seen on white", stamp.name)
            continue
        except (ImageError, ValueError, OSError):
            skips.add("damaged picture", stamp.name)
            continue
        folders = PurePosixPath(stamp.name).parts[:-1]
        meta = {"caption": stamp.caption, "category": folders[0], "folder": "/".join(folders)}
        yield Document(stamp.name, "caption", caption_parts(Image(picture), stamp.caption), meta)
