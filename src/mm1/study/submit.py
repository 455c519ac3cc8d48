"""Submits a study's runs to a SLURM cluster, one job per training.

The command doesn't wait for the jobs. `mm1 study run FILE --slurm ...`, called again, submits the runs that are neither
done nor in the queue, and writes the pages from the runs that are done.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from pydantic import TypeAdapter, ValidationError

from mm1.errors import UserError
from mm1.files import write_text
from mm1.launch import Resources, submit
from mm1.study.plan import StudyRun
from mm1.study.runner import by_directory, make_command
from mm1.train.run_directory import SCHEDULER_LOGS

JOB = "job"
"""File in a run's `slurm` folder with the number of the job that makes the run."""


@dataclass(frozen=True)
class Submitted:
    """The jobs of the runs that are not done.

    Attributes:
        jobs: The jobs submitted now: the job's number -> runs of one training.
        queued: The jobs that were in the queue already, in the same form.
    """

    jobs: dict[str, list[StudyRun]]
    queued: dict[str, list[StudyRun]]


def resources_from(settings: Mapping[str, Any]) -> Resources:
    """Return a job's resources from `--slurm key=value` settings.

    Args:
        settings: The options of `mm1 launch` by name (`nodes`, `gpus_per_node`, `cpus_per_task`, `time` in minutes,
            ...); others, such as `account`, are passed to `sbatch`.

    Raises:
        UserError: If a value is of the wrong type.
    """
    known = {field.name for field in fields(Resources)} - {"sbatch", "name"}
    renamed = {("minutes" if key == "time" else key.replace("-", "_")): value for key, value in settings.items()}
    if isinstance(renamed.get("setup"), str):
        renamed["setup"] = [renamed["setup"]]
    ours = {key: value for key, value in renamed.items() if key in known}
    sbatch = {key: value for key, value in renamed.items() if key not in known}
    try:
        return TypeAdapter(Resources).validate_python({**ours, "sbatch": sbatch})
    except ValidationError as error:
        first = error.errors()[0]
        key = "time" if first["loc"][0] == "minutes" else first["loc"][0]
        raise UserError(f"--slurm {key}={first['input']}: {first['msg'][0].lower()}{first['msg'][1:]}") from None


def submit_runs(study: str, runs: Sequence[StudyRun], resources: Resources) -> Submitted:
    """Submit a job for every training with runs that are neither done nor in the queue.

    Args:
        study: The study's name, which becomes part of the jobs' names.
        runs: The planned runs.
        resources: The resources of each job.

    Raises:
        UserError: If this machine can't submit jobs, SLURM refuses a job, or `squeue` fails.
    """
    jobs: dict[str, list[StudyRun]] = {}
    queued: dict[str, list[StudyRun]] = {}
    for group in by_directory(runs):
        directory = group[0].directory
        folder = directory / SCHEDULER_LOGS
        number = folder / JOB
        if number.is_file() and _in_queue(number.read_text().strip()):
            queued[number.read_text().strip()] = group
            continue
        job = submit(make_command(group), folder, replace(resources, name=f"mm1-{study}-{directory.name}"))
        write_text(number, job + "\n")
        jobs[job] = group
    return Submitted(jobs, queued)


def _in_queue(job: str) -> bool:
    """Return whether a job is waiting or running; a job that SLURM doesn't know any more has ended."""
    try:
        queue = subprocess.run(["squeue", "--noheader", f"--jobs={job}"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise UserError(
            f"the command squeue is not on this machine, so the state of job {job} is unknown: run this on a node that "
            "submits jobs"
        ) from None
    if queue.returncode and "Invalid job id" not in queue.stderr:
        raise UserError(
            f"squeue failed for job {job} ({' '.join(queue.stderr.split())}); the run was not submitted again: run "
            "the same command when squeue works"
        )
    return bool(queue.stdout.strip())
