"""Jobs: a real one by submitit's local executor, and one on a cluster that consists of three shell scripts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from mm1.errors import UserError
from mm1.launch import Resources, run_here, sbatch_script, submit
from mm1.recipe import load_recipe
from mm1.train.checkpoint import checkpoints
from mm1.train.pretrain import pretrain

PATIENCE_SECONDS = 240


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "the job did not come so far"
        time.sleep(0.05)


def lines_of(run: Path) -> list[dict]:
    log = run / "metrics.jsonl"
    text = log.read_text() if log.is_file() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def children_of(process: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def longer_than(run: Path, lines: int) -> bool:
    return len(lines_of(run)) > lines


def childless(process: int) -> bool:
    return not children_of(process)


def command(recipe_file: Path, run: Path, steps: int) -> list[str]:
    settings = ("--set", f"train.steps={steps}", "--set", "train.checkpoint_every=100000")
    return ["pretrain", str(recipe_file), "--to", str(run), *settings]


def test_a_job_that_is_to_make_way_is_requeued_and_loses_nothing(recipe_file: Path, data: Path, tmp_path: Path) -> None:
    run, steps = tmp_path / "run", 80
    arguments = command(recipe_file, run, steps), run / "slurm", Resources(tasks_per_node=2)
    job = threading.Thread(target=run_here, args=arguments)
    job.start()
    wait_for(lambda: lines_of(run))
    (log,) = (run / "slurm").glob("*_0_log.out")
    for task in children_of(int(log.name.split("_")[0])):
        os.kill(task, signal.SIGUSR2)
    job.join(PATIENCE_SECONDS)
    assert not job.is_alive()
    assert "Requeued job" in log.read_text()
    assert "resuming from step" in log.with_suffix(".err").read_text()
    pretrain(load_recipe(str(recipe_file), [f"train.steps={steps}"]), tmp_path / "whole")
    whole = lines_of(tmp_path / "whole")
    assert [line["tokens"] for line in lines_of(run)] == [line["tokens"] for line in whole]
    assert [line["loss"] for line in lines_of(run)] == pytest.approx([line["loss"] for line in whole], rel=5e-3)


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cluster of one machine: a folder with `sbatch`, `srun`, `scontrol`, and what they were asked for."""
    folder = tmp_path / "cluster"
    folder.mkdir()
    scripts = {
        "sbatch": f'cp "$1" {folder}/script && echo "Submitted batch job 7"',
        # Options end where the program begins.
        "srun": 'while [ "${1#-}" != "$1" ]; do case "$1" in --output|--error) shift;; esac; shift; done; exec "$@"',
        "scontrol": f'echo "$@" >> {folder}/asked',
    }
    for name, content in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{content}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def start(cluster: Path) -> subprocess.Popen[str]:
    """Run the submitted script as SLURM would on a node."""
    given = {"JOB_ID": 7, "NTASKS": 1, "JOB_NUM_NODES": 1, "NODEID": 0, "PROCID": 0, "LOCALID": 0}
    environment = {**os.environ, **{f"SLURM_{name}": str(value) for name, value in given.items()}}
    environment["SLURM_JOB_NODELIST"] = "localhost"
    return subprocess.Popen(["bash", cluster / "script"], env=environment, stderr=subprocess.PIPE, text=True)


def test_on_a_cluster_signals_save_and_requeue_as_often_as_allowed(
    recipe_file: Path, data: Path, tmp_path: Path, cluster: Path
) -> None:
    run, asked = tmp_path / "run", cluster / "asked"
    resources = Resources(minutes=5, requeues=1)  # a job of minutes counts as one that ran into its limit
    assert submit(command(recipe_file, run, 10_000), run / "slurm", resources) == "7"
    steps = []
    for turn in range(2):
        before = len(lines_of(run))
        job = start(cluster)
        wait_for(partial(longer_than, run, before))
        (task,) = children_of(job.pid)  # bash's child: srun, which has become the task
        if turn == 0:  # SIGTERM comes first, and may be all that comes: it saves and waits
            os.kill(task, signal.SIGTERM)
            wait_for(lambda: checkpoints(run / "checkpoints"))
            wait_for(partial(childless, task))
            assert job.poll() is None
        os.kill(task, signal.SIGUSR2)
        _, log = job.communicate(timeout=PATIENCE_SECONDS)
        steps.append(json.loads((checkpoints(run / "checkpoints")[-1] / "state.json").read_text())["step"])
        assert steps[-1] == lines_of(run)[-1]["step"]
    assert f"resuming from step {steps[0]}" in log
    assert asked.read_text() == "requeue 7\n"
    assert job.returncode != 0
    assert "timed-out too many times" in log


def test_the_script_says_what_was_asked_for(tmp_path: Path) -> None:
    resources = Resources(
        name="mm1-run",
        nodes=2,
        gpus_per_node=8,
        cpus_per_task=12,
        minutes=90,
        grace=300,
        partition="gpu",
        sbatch={"account": "vision"},
        setup=("module load cuda",),
    )
    script = sbatch_script(["pretrain", "demo", "--set", "name=a b"], tmp_path / "slurm", resources)
    lines = script.splitlines()
    assert lines[0] == "#!/bin/bash"
    assert lines[1].endswith("-m mm1 pretrain demo --set 'name=a b'")
    asked = ["nodes=2", "ntasks-per-node=8", "gpus-per-node=8", "cpus-per-task=12", "time=90", "signal=USR2@300"]
    asked += ["partition=gpu", "account=vision", "requeue", "job-name=mm1-run", "open-mode=append"]
    for option in asked:
        assert f"#SBATCH --{option}" in lines
    (srun,) = (line for line in lines if line.startswith("srun"))
    assert "--kill-on-bad-exit=1" in srun
    assert lines.index("module load cuda") < lines.index(srun)
    assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0
    assert not (tmp_path / "slurm").exists()


def test_mistakes_are_named(recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="sbatch is not on this machine.*--local"):
        submit(["report", "run"], tmp_path / "slurm", Resources())
    with pytest.raises(UserError, match="--nodes 2: --local runs on this machine only"):
        run_here(["report", "run"], tmp_path / "slurm", Resources(nodes=2))
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(UserError, match=r"pip install 'mm1\[slurm\]'"):
        submit(["report", "run"], tmp_path / "slurm", Resources())


def test_a_command_that_fails_is_pointed_to_its_log(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"did not finish: read the reason in .*_0_log\.err") as failed:
        run_here(["report", str(tmp_path / "nowhere")], tmp_path / "slurm", Resources())
    log = Path(str(failed.value).split("the reason in ")[1])
    assert "error:" in log.read_text()
