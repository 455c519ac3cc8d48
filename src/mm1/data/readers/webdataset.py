"""WebDataset tars as img2dataset writes them: `000000012.jpg`, `.txt`, `.json` one after another.

Members with the same name up to the first dot of the file name make one sample (the WebDataset convention; the
members of img2dataset 1.4x: github.com/rom1504/img2dataset, writer.py). The caption is the `.txt`, or else the
`caption` of the `.json`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from mm1.data.readers.layout import caption_parts, parse_json
from mm1.data.readers.opening import decode
from mm1.data.readers.pictures import PICTURE_SUFFIXES, take_picture
from mm1.data.readers.reader import Notes, Reader, Shard
from mm1.data.readers.samples import Sample, read_samples
from mm1.document import Document
from mm1.errors import UserError
from mm1.processing.signatures import HEAD_BYTES, no_text

FIRST_DOT, LAST_DOT = "first-dot", "last-dot"
_NOT_META = {"caption", "exif", "key"}


@dataclass(frozen=True)
class WebDataset(Reader):
    """Captioned pictures in tars.

    Attributes:
        key: Where a sample's name ends: at the `first-dot` of the file's name, as the WebDataset library has it, or at
            the `last-dot`, for names such as `frame.0001.jpg`.
    """

    suffixes: ClassVar[tuple[str, ...]] = (".tar", ".tgz", ".tbz2", ".txz", ".tzst")
    packable: ClassVar[tuple[str, ...]] = (".tar",)
    key: str = FIRST_DOT

    def __post_init__(self) -> None:
        if self.key not in (FIRST_DOT, LAST_DOT):
            raise UserError(f"option 'key' of format 'webdataset' must be {FIRST_DOT} or {LAST_DOT}: '{self.key}'")

    def read(self, shard: Shard, notes: Notes) -> Iterator[Document]:
        """Yield a caption document for every sample of the tars."""
        for file in shard.files:
            name = shard.name(file)
            for key, sample in read_samples(file, name, notes, last_dot=self.key == LAST_DOT):
                document = _document(f"{name}/{key}", key, sample, notes)
                if document is not None:
                    yield document


def _document(where: str, key: str, whole: Sample, notes: Notes) -> Document | None:
    sample = whole.members
    suffix = next((suffix for suffix in sample if f".{suffix}" in PICTURE_SUFFIXES), None)
    if suffix is None:
        notes.skipped.add("sample without a picture", f"{where} ({', '.join(whole.endings)})")
        return None
    meta: dict[str, Any] = {}
    if "json" in sample:
        try:
            meta = parse_json(sample["json"])
            if not isinstance(meta, dict):
                raise ValueError
        except ValueError:
            notes.changed.add("broken .json beside a picture: taken without it", where)
            meta = {}
    caption = ""
    for suffix_ in ("txt", "caption"):
        content = sample.get(suffix_, b"")
        other = no_text(content[:HEAD_BYTES])
        if other is not None:
            notes.skipped.add(f"caption that is no text: it is {other}", where)
            return None
        caption = caption.strip() or decode(content, notes, where)
    caption = caption.strip() or str(meta.get("caption") or "")
    if not caption.strip():
        notes.skipped.add("sample without a caption", where)
        return None
    address = meta.get("url")
    picture = take_picture(sample[suffix], address if isinstance(address, str) else f"{key}.{suffix}", notes, where)
    if picture is None:
        return None
    kept = {name: value for name, value in meta.items() if name not in _NOT_META}
    return Document(where, "caption", caption_parts(picture, caption), {**kept, "key": key})
