"""The cache of blocks: bounded, shared, and whole or absent."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from mm1.remote import objects
from mm1.remote.blocks import Blocks, name_of
from mm1.remote.opening import open_binary
from tests.remote.server import Store


def used(folder: Path) -> int:
    """Return the bytes of all files, also while other processes remove some."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                total += (Path(place) / name).stat().st_size
    return total


def test_a_block_is_there_until_it_is_damaged(tmp_path: Path) -> None:
    cache, name = Blocks(tmp_path, 10**9), name_of("s3://b/k", 10, 1, 0)
    assert cache.get(name, 10) is None
    cache.put(name, b"0123456789")
    assert cache.get(name, 10) == b"0123456789"
    (file,) = (file for file in tmp_path.rglob("*") if file.is_file())
    for damaged in (b"", file.read_bytes()[:-1], file.read_bytes()[:-1] + b"x"):
        file.write_bytes(damaged)
        assert cache.get(name, 10) is None
        assert not file.exists()
        cache.put(name, b"0123456789")
    assert name_of("s3://b/k", 10, 2, 0) != name


def test_what_was_not_read_for_longest_goes(tmp_path: Path) -> None:
    size = 256 * 10_000  # ten blocks a folder
    cache = Blocks(tmp_path, size)
    names = [f"{0:02x}{number:030x}" for number in range(40)]
    for age, name in enumerate(names):
        cache.put(name, bytes(1000))
        file = tmp_path / "00" / name
        os.utime(file, (age, age))
        assert cache.get(names[0], 1000) is not None  # read all along
        assert used(tmp_path) <= size // 256
    kept = [name for name in names if cache.get(name, 1000)]
    assert kept[0] == names[0]
    assert kept[1:] == names[-len(kept) + 1 :]
    assert len(kept) >= 8


def test_many_processes_keep_the_bound_and_a_kill_leaves_whole_blocks(tmp_path: Path) -> None:
    size = 256 * 50_000
    code = (
        "import sys, random; from pathlib import Path; from mm1.remote.blocks import Blocks, name_of\n"
        f"cache = Blocks(Path(sys.argv[1]), {size})\n"
        "while True:\n"
        "    number = random.randrange(20000); name = name_of(number); data = cache.get(name, 4000)\n"
        "    assert data in (None, number.to_bytes(4) * 1000)\n"
        "    if data is None: cache.put(name, number.to_bytes(4) * 1000)\n"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) for _ in range(3)]
    try:
        deadline = time.monotonic() + 60
        while used(tmp_path) < 0.8 * size and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(0.5)
        assert [writer.poll() for writer in writers] == [None] * 3
    finally:
        for writer in writers:
            writer.kill()
            writer.wait()
    assert 0.8 * size <= used(tmp_path) <= 1.1 * size
    cache = Blocks(tmp_path, size)
    found = [(number, cache.get(name_of(number), 4000)) for number in range(20000)]
    assert all(data in (None, number.to_bytes(4) * 1000) for number, data in found)
    assert sum(data is not None for _, data in found) > 1000


def test_what_was_read_from_end_to_end_does_not_stay_in_memory(s3: Store) -> None:
    for number in range(10):
        s3.put(f"s3://data/{number}", bytes([number]) * 1000)
        with open_binary(f"s3://data/{number}") as stream:
            assert stream.read() == bytes([number]) * 1000
    assert len(objects._ahead) == 4
