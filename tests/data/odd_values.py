"""Values as tables and JSON files really have them where a text, a number or a picture belongs."""

from __future__ import annotations

import random
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa

NAN = float("nan")

ODD: list[Any] = [
    None, NAN, float("inf"), True, False, 0, -1, 7, 0.0, 2.5, 10**30, "", " \n", "nan", "\x00", "\ud800", "\ufefftext",
    "<image>", "<image>\nWhat?", "<image 2>", "<video>What?", "['Ants', 'Bees']", "{broken", "data:image/png;base64,!",
    "../../etc/passwd", "https://example.org/a.png", "file:///nowhere.png", "a\0b.png", "x" * 5000, "C:\\a.png",
    [], [None], [NAN], ["one", "two"], [["nested", ["deeply"]]], [[]], [0, 255], [1.5], [{"answer": None}], [{}],
    {}, {"en": "a"}, {"bytes": None, "path": None}, {"bytes": "no", "path": "a.png"}, {"url": "a.png"}, {"1": 2},
    {"type": "image"}, {"type": "image", "index": "0"}, {"type": "video"}, {"role": "tool"}, {"role": None, "from": 3},
    [{"type": "image", "image": 7}], [{"type": "text", "text": None}], [{"role": "user", "content": [[]]}],
]  # fmt: skip
"""What JSON can hold, NaN and Infinity included."""

ODD_IN_TABLES: list[Any] = [
    b"bytes", b"\xff\xfe", b"", date(2020, 1, 2), datetime(2020, 1, 2), timedelta(1), Decimal("2.50"), Decimal("NaN"),
    UUID(int=1), np.arange(3), np.float32(1.5), np.int64(3), np.bool_(True), {1: "int key"}, [b"a", b"b"],
]  # fmt: skip
"""What rows of tables hold besides."""


def deep(levels: int) -> Any:
    value: Any = "bottom"
    for _ in range(levels):
        value = [value]
    return value


def changed(record: Any, value: Any, draw: random.Random) -> Any:
    """Return a record in which one value, at any depth, is another, is missing, or comes twice."""
    if isinstance(record, dict) and record and draw.random() < 0.9:
        key = draw.choice(list(record))
        if draw.random() < 0.1:
            return {name: item for name, item in record.items() if name != key}
        return {**record, key: changed(record[key], value, draw)}
    if isinstance(record, list) and record and draw.random() < 0.8:
        place = draw.randrange(len(record))
        if draw.random() < 0.1:
            return [*record, record[place]]
        return [*record[:place], changed(record[place], value, draw), *record[place + 1 :]]
    return value


ODD_COLUMNS: dict[str, pa.Array] = {
    "beyond 9999": pa.array([2_932_897, 2**31 - 1, 0], pa.int32()).cast(pa.date32()),
    "far time": pa.array([2**62, 1, None], pa.timestamp("us")),
    "time zone": pa.array([1, 2, 3], pa.timestamp("us", tz="Mars/Olympus_Mons")),
    "nanoseconds": pa.array([1, 2, 3], pa.timestamp("ns")),
    "duration": pa.array([2**62, 1, None], pa.duration("s")),
    "time": pa.array([1, 2, 3], pa.time64("ns")),
    "decimal": pa.array([Decimal("1.5"), None, Decimal("2")]),
    "uuid": pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"0" * 16] * 3, pa.binary(16))),
    "map": pa.array([[(1, "a")], [], None], pa.map_(pa.int64(), pa.string())),
    "empty lists": pa.array([[], [], []], pa.list_(pa.null())),
    "null": pa.nulls(3),
    "bytes": pa.array([b"\xff", b"", None]),
    "bad text": pa.Array.from_buffers(
        pa.string(), 3, [None, pa.py_buffer(np.array([0, 1, 2, 3], np.int32).tobytes()), pa.py_buffer(b"\xffab")]
    ),
    "in a struct": pa.array([{"when": 2**31 - 1}] * 3, pa.struct([("when", pa.int32())])).cast(
        pa.struct([("when", pa.date32())])
    ),
    "dictionary": pa.array(["a", "b", "a"]).dictionary_encode(),
    "arrays": pa.array([[[1, 2], [3]], [], None], pa.list_(pa.list_(pa.float32()))),
    "nested": pa.array([[{"a": [{"b": None}]}], [], None]),
    "half": pa.array(np.array([1, 2, np.nan], np.float16)),
}
"""Columns of metadata of three rows; the last value of "beyond 9999" is the first day that Python knows as such."""
