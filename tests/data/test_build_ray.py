"""Building, cleaning and indexing by Ray Data give the same bytes as in one process."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mm1.clean import clean
from mm1.data import engines
from mm1.data.build import build_from
from mm1.data.corpus import open_split
from mm1.errors import UserError
from mm1.plan import index
from mm1.plan.index import build_index
from mm1.processing.tokenizer import train_tokenizer
from tests.data.sample_sources import webdataset_members, write_every_format, write_tar

ray = pytest.importorskip("ray")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))  # Ray writes the token of its local cluster there
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
        yield
        ray.shutdown()


@pytest.mark.usefixtures("cluster")
def test_ray_makes_no_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "_ROWS_PER_UNIT", 4)
    for number in range(5):
        write_tar(tmp_path / "tars" / f"{number}.tar", webdataset_members(3, first=number))
    built = {}
    for engine in ("processes", "ray"):
        info = build_from("webdataset", [str(tmp_path / "tars")], tmp_path / engine, workers=1, engine=engine)
        steps: list[str | dict[str, Any]] = ["exact-duplicates", {"text-length": {"min_characters": 3}}]
        info_clean = clean(tmp_path / engine, tmp_path / f"{engine}-clean", steps, workers=1, engine=engine)
        info_clean["splits"]["train"].pop("cleaned_from")  # tells the name of the corpus
        split = open_split(str(tmp_path / f"{engine}-clean" / "train"))
        build_index(split, train_tokenizer(["a ramp"], 300), workers=2, engine=engine)
        (counted,) = filter(Path.is_dir, (tmp_path / f"{engine}-clean" / "index").iterdir())
        files = sorted((tmp_path / engine / "train").iterdir()) + sorted((tmp_path / f"{engine}-clean/train").iterdir())
        files += sorted(counted.iterdir())
        built[engine] = info["splits"], info_clean["splits"], [(file.name, file.read_bytes()) for file in files]
    assert len(built["ray"][2]) == 2 + 2 + 6  # an Arrow file and its batches of each, and the index
    assert built["ray"] == built["processes"]


@pytest.mark.usefixtures("cluster")
def test_a_user_error_arrives_as_it_is(tmp_path: Path) -> None:
    patterns = write_every_format(tmp_path / "other")["captions"]
    with pytest.raises(UserError, match="there is no column images; it has jpg, txt: .*an option$"):
        build_from("obelics", patterns, tmp_path / "to", engine="ray")


@pytest.mark.usefixtures("cluster")
def test_a_worker_that_dies_again_and_again_ends_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "_RETRIES", 1)
    with pytest.raises(engines.WorkerDied):
        engines.run_on_ray([partial(_note_and_die, tmp_path)], None, lambda: pytest.fail("nothing is done"))
    assert len(list(tmp_path.iterdir())) == 2


def _note_and_die(folder: Path) -> None:
    (folder / str(os.getpid())).touch()
    os._exit(1)
