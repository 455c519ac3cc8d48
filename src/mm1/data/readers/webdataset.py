"""WebDataset tars as img2dataset writes them: `000000012.jpg`, `.txt`, `.json` one after another.

Members with the same name up to the first dot of the file name make one sample (the WebDataset convention; the
members of img2dataset 1.4x: github.com/rom1504/img2dataset, writer.py). The caption is the `.txt`, or else the
`caption` of the `.json`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from mm1.data.readers.captions import CaptionReader
from mm1.data.readers.layout import parse_json
from mm1.data.readers.opening import decode_caption
from mm1.data.readers.picture_folder import NOWHERE
from mm1.data.readers.pictures import PICTURE_SUFFIXES
from mm1.data.readers.reader import Notes, Shard
from mm1.data.readers.rows import Place, documents_of
from mm1.data.readers.samples import Sample, read_samples
from mm1.data.readers.values import LeftOutError
from mm1.document import Document
from mm1.errors import UserError

KEYS = ("first-dot", "last-dot")
_NOT_META = {"caption", "exif", "key"}


@dataclass(frozen=True)
class WebDataset(CaptionReader):
    """Captioned pictures in tars.

    Attributes:
        key: Where the name of a sample ends: at the `first-dot` of a file's name, as the WebDataset library has it, or
            at the `last-dot`, for names such as `frame.0001.jpg`.
    """

    suffixes: ClassVar[tuple[str, ...]] = (".tar", ".tgz", ".tbz2", ".txz", ".tzst")
    packable: ClassVar[tuple[str, ...]] = (".tar",)
    key: str = "first-dot"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.key not in KEYS:
            raise UserError(f"key is '{self.key}': choose one of {', '.join(KEYS)}")

    def read(self, shard: Shard, notes: Notes) -> Iterator[Document]:
        """Yield a caption document for every sample of the tars."""
        for file in shard.files:
            name = shard.name(file)
            samples = read_samples(file, name, notes, last_dot=self.key == "last-dot")
            named = ((f"{name}/{sample.key}", sample) for sample in samples)
            yield from documents_of(named, self._documents, notes, NOWHERE)

    def _documents(self, sample: Sample, place: Place) -> list[Document]:
        """Return the documents of a sample: one, or one for every caption of a list."""
        end = next((end for end in sample.members if f".{end}" in PICTURE_SUFFIXES), None)
        if end is None:
            raise LeftOutError("sample without a picture", ", ".join(sample.endings))
        meta = _meta(sample.members["json"], place) if "json" in sample.members else {}
        texts = (sample.members[end] for end in ("txt", "caption") if end in sample.members)
        decoded = (decode_caption(content, place.notes, place.name) for content in texts)
        text = next((text for text in decoded if text.strip()), "")
        if not text and "caption" not in meta:
            raise LeftOutError("sample without a caption")
        address = meta.get("url")
        source = address if isinstance(address, str) else f"{sample.key}.{end}"
        kept = {name: value for name, value in meta.items() if name not in _NOT_META}
        return self.captioned(sample.members[end], source, text or meta["caption"], place, {**kept, "key": sample.key})


def _meta(content: bytes, place: Place) -> dict[str, Any]:
    try:
        meta = parse_json(content)
    except ValueError:
        meta = None
    if isinstance(meta, dict):
        return meta
    place.change("broken .json beside a picture: taken without it")
    return {}
