"""What goes wrong with stores: one sentence each, and never other bytes than the corpus was built from."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mm1.data.build import build_from
from mm1.data.corpus import Split
from mm1.data.sources import SourceError
from mm1.errors import UserError
from mm1.plan.loader import build_loader
from mm1.remote import store
from mm1.remote.errors import MissingError, RemoteError
from mm1.remote.objects import RemoteObject, State
from tests.data.sample_sources import picture, webdataset_members, write_tar
from tests.data.test_in_place import dataset_of
from tests.remote.conftest import forget
from tests.remote.server import Store, failing, slow

TAR = "s3://data/raw/0.tar"


def build(s3: Store, tmp_path: Path, samples: int = 3) -> Split:
    """Return a corpus by reference to a tar in the store."""
    s3.put(TAR, write_tar(tmp_path / "0.tar", webdataset_members(samples)).read_bytes())
    build_from("webdataset", [TAR], tmp_path / "c", in_place=True, workers=1)
    forget()
    s3.requests.clear()
    return Split(tmp_path / "c" / "train")


def uncached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MM1_CACHE_SIZE", "0")


def test_a_missing_bucket_is_one_sentence(s3: Store, tmp_path: Path) -> None:
    for pattern in ("s3://nowhere/0.tar", "s3://nowhere/*.tar", "s3://nowhere", "s3://nowhere/{0..3}.tar"):
        with pytest.raises(
            UserError, match=r"^s3://nowhere\S*: there is no bucket 'nowhere': check its name"
        ) as raised:
            build_from("webdataset", [pattern], tmp_path / "c")
        assert str(raised.value).count("s3://") == 1


@pytest.mark.parametrize("pattern", ["s3://data/0.tar", "s3://data/x/*.tar", "s3://data/folder"])
def test_a_missing_object_is_one_sentence(s3: Store, tmp_path: Path, pattern: str) -> None:
    with pytest.raises(UserError, match="nothing is there: check the address"):
        build_from("webdataset", [pattern], tmp_path / "c")


def test_a_folder_without_such_files_says_what_is_there(s3: Store, tmp_path: Path) -> None:
    s3.put("s3://data/a/b.parquet", b"x")
    with pytest.raises(UserError, match=r"there is no \.tar .* below it, only this: 1x .*\(\.parquet\)"):
        build_from("webdataset", ["s3://data/a"], tmp_path / "c")


def test_addresses_and_files_are_not_one_source(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="files and addresses can't be one source"):
        build_from("webdataset", ["s3://data/0.tar", str(tmp_path)], tmp_path / "c")


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("gs://data/0.tar", r"gcsfs is needed to read gs://: pip install 'mm1\[gcs\]'"),
        ("nosuch://data/0.tar", "nothing reads nosuch://: use one of s3://"),
        ("https://me:secret@host/0.tar", r"https://\.\.\.@host/0\.tar: a password in an address"),
    ],
)
def test_what_can_not_be_opened_says_what_to_do(tmp_path: Path, address: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as raised:
        build_from("webdataset", [address], tmp_path / "c")
    assert "secret" not in str(raised.value)


def test_missing_credentials_are_one_sentence(s3: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(
        RemoteError, match=r"may not be read \(.*credentials.*\): .* s3fs takes them from AWS_ACCESS_KEY"
    ):
        State.of(TAR)
    assert s3.requests == []


def test_refused_credentials_are_one_sentence(s3: Store) -> None:
    s3.rule = lambda request: 403
    with pytest.raises(RemoteError, match=r"s3://data/raw/0.tar: it may not be read \(.*\): check the credentials"):
        State.of(TAR)
    assert len(s3.requests) <= 2  # asking again would not help


def test_a_failing_object_is_tried_again(s3: Store, tmp_path: Path) -> None:
    split = build(s3, tmp_path)
    documents = list(split)
    forget()
    for name in (tmp_path / "cache").rglob("*"):
        if name.is_file():
            name.unlink()
    s3.rule = failing("0.tar", times=2)
    assert list(split) == documents
    assert len(s3.gets("0.tar")) >= 3


def test_a_slow_object_is_left_and_tried_again(s3: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    split = build(s3, tmp_path)
    uncached(monkeypatch)
    monkeypatch.setattr(store, "SLOWEST", 1)
    s3.rule = slow(3, "0.tar")
    with pytest.raises(SourceError, match=r"0\.tar: it could not be read in 3 tries \(no answer within 1 seconds\)"):
        split[0]
    s3.rule = lambda request: None
    assert split[0].id == "0.tar/000000000"


def test_a_changed_object_is_refused(s3: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    split = build(s3, tmp_path)
    documents = list(split)
    uncached(monkeypatch)
    data = (tmp_path / "0.tar").read_bytes()
    s3.put(TAR, data[:-1] + bytes([data[-1] ^ 1]))  # while it is open: same size, another etag
    for look in (lambda: split[0], split.check_sources, lambda: list(split)):
        with pytest.raises(
            SourceError, match=r"0\.tar: the file has changed since .*another etag.*build the corpus ag"
        ):
            look()
        forget()
    monkeypatch.delenv("MM1_CACHE_SIZE")
    assert list(split) == documents  # what is in the cache is what the corpus was built from


def test_an_object_that_vanishes_in_training_is_an_unreadable_picture(
    s3: Store, tmp_path: Path, recipe_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(4):
        s3.put(f"s3://data/f/{number}.png", picture(number))
        s3.put(f"s3://data/f/{number}.txt", str(number).encode())
    build_from("image-folder", ["s3://data/f"], tmp_path / "c", in_place=True, workers=1)
    dataset = dataset_of(Split(tmp_path / "c" / "train"), recipe_file, tmp_path / "plan")
    uncached(monkeypatch)
    whole = dataset[0]
    forget()
    s3.remove("s3://data/f/2.png")
    masked = dataset[0]
    assert len(masked.bad_images) == 1
    assert "f/2.png: a corpus refers to this file, and it can't be opened (nothing is there)" in masked.bad_images[0]
    assert len(masked.pixel_values) == len(whole.pixel_values) - 1
    assert np.array_equal(masked.position_ids, whole.position_ids)


def test_batches_of_forked_workers_are_those_of_files(s3: Store, tmp_path: Path, recipe_file: Path) -> None:
    split = build(s3, tmp_path)
    build_from("webdataset", [str(tmp_path / "0.tar")], tmp_path / "local")
    local = dataset_of(Split(tmp_path / "local" / "train"), recipe_file, tmp_path / "plan-local")
    dataset = dataset_of(split, recipe_file, tmp_path / "plan")
    assert dataset.plan.hash == local.plan.hash
    split.check_sources()  # as a training does, so that workers are forked from a process that has asked
    split[0]
    for batch, again in zip(build_loader(dataset, 0, 2, workers=2), build_loader(local, 0, 2), strict=True):
        for key, value in batch.items():
            assert torch.equal(value, again[key]) if torch.is_tensor(value) else value == again[key]
    split.check_sources()
    assert s3.gets("0.tar")


def test_pictures_are_read_by_range(s3: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    members = [(f"{n}.{end}", data) for n in range(30) for end, data in (("png", picture(n)), ("txt", b"words"))]
    members.insert(40, ("rest.bin", bytes(2**21)))
    s3.put(TAR, write_tar(tmp_path / "0.tar", members).read_bytes())
    build_from("webdataset", [TAR], tmp_path / "c", in_place=True, workers=1)
    forget()
    s3.requests.clear()
    split = Split(tmp_path / "c" / "train")
    split[29]
    (got,) = s3.gets("0.tar")
    first, last = map(int, got.headers["range"].removeprefix("bytes=").split("-"))
    assert first >= 2**21
    assert last - first < 2**18
    assert got.headers["if-match"]


def test_a_full_disk_is_said_once_and_reading_goes_on(s3: Store, tmp_path: Path) -> None:
    split = build(s3, tmp_path)
    documents = [document.text for document in split]
    # Files of this process may not grow beyond a kilobyte, which no block keeps to.
    code = (
        "import resource; from mm1.data.corpus import Split; from pathlib import Path\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1024, resource.RLIM_INFINITY))\n"
        f"print([document.text for document in Split(Path({str(tmp_path / 'c' / 'train')!r}))])"
    )
    environment = {**os.environ, "MM1_CACHE": str(tmp_path / "full")}
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert ran.stdout.strip() == str(documents), ran.stderr
    assert ran.stderr.replace("\n", " ").count("nothing more is kept in the cache (File too large)") == 1
    assert [file for file in (tmp_path / "full").rglob("*") if file.is_file()] == []


def test_an_object_that_is_cut_short_is_not_taken(s3: Store, tmp_path: Path) -> None:
    s3.put(TAR, bytes(1000))
    with pytest.raises(RemoteError, match="another etag|1,000 bytes"):
        RemoteObject(TAR, State(2000, 0)).read(0, 2000)
    with pytest.raises(MissingError):
        RemoteObject("s3://data/none", State(2000, 0)).read(0, 2000)


@pytest.mark.parametrize("size", ["lots", "10MB", "-1"])
def test_a_wrong_size_of_the_cache_is_one_sentence(monkeypatch: pytest.MonkeyPatch, size: str) -> None:
    monkeypatch.setenv("MM1_CACHE_SIZE", size)
    with pytest.raises(UserError, match=f"MM1_CACHE_SIZE is '{size}': give a size of at least 1GB"):
        RemoteObject("s3://data/x", State(10, 0)).read(0, 5)
