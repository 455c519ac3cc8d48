"""A study's runs as jobs of a cluster that is stood in for by `sbatch` and `squeue` of a few lines."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from mm1.errors import UserError
from mm1.recipe import load_recipe
from mm1.study.plan import StudyRun
from mm1.study.run_table import submitted_table
from mm1.study.submit import resources_from, submit_runs


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cluster's folder: each script that was submitted, as NUMBER; `squeue` lists those that are there."""
    folder = tmp_path / "queue"
    (tmp_path / "bin").mkdir()
    folder.mkdir()
    scripts = {
        "sbatch": f'n=$(ls {folder} | wc -l); cp "$1" {folder}/$n; echo "Submitted batch job $n"',
        "squeue": f'for f in {folder}/*; do case "$*" in *--jobs=$(basename $f)) echo "$f RUNNING";; esac; done',
    }
    for name, content in scripts.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{content}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    return folder


def test_each_run_that_is_not_there_gets_one_job(tmp_path: Path, queue: Path, recipe_file: Path) -> None:
    recipe = load_recipe(str(recipe_file))
    runs = [StudyRun((("size", name),), 0, recipe, tmp_path / "runs" / name) for name in ("small", "large")]
    # Another way to score the large one: the same training, the same job.
    scored = recipe.evaluate.model_copy(update={"detailed_shots": 1})
    detailed = replace(runs[1], recipe=recipe.model_copy(update={"evaluate": scored}))
    runs.append(detailed)
    resources = resources_from({"gpus-per-node": 8, "time": 90, "account": "vision", "setup": "module load x"})
    submitted = submit_runs("sizes", runs, resources)
    assert submitted.jobs == {"0": [runs[0]], "1": [runs[1], detailed]}
    script = (queue / "1").read_text()
    for line in ("job-name=mm1-sizes-large", "gpus-per-node=8", "time=90", "account=vision"):
        assert f"#SBATCH --{line}" in script
    assert "module load x" in script
    files = [tmp_path / "runs" / f"large.{run.scores.name}.yaml" for run in runs[1:]]
    assert [file.read_text() for file in files] == [recipe.to_yaml(), detailed.recipe.to_yaml()]
    # One has left the queue without being done: it alone is submitted again.
    (queue / "0").rename(tmp_path / "ended")
    again = submit_runs("sizes", runs, resources)
    assert (list(again.queued), list(again.jobs.values())) == (["1"], [[runs[0]]])
    (tmp_path / "bin" / "squeue").write_text("#!/bin/sh\necho no contact >&2; exit 1\n")
    with pytest.raises(UserError, match=r"squeue failed for job \d+ \(no contact\)"):
        submit_runs("sizes", runs, resources)
    console = Console(record=True, width=200)
    console.print(submitted_table(again))
    said = console.export_text()
    assert "size=large, seed 0" in said
    assert "in the queue" in said


def test_a_wrong_setting_is_named() -> None:
    with pytest.raises(UserError, match="--slurm time=soon: input should be a valid integer"):
        resources_from({"time": "soon"})
