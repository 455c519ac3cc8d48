"""A study's runs as jobs of a SLURM cluster, one job a training: `mm1 launch`, for each that is not there.

Jobs end on their own; the same `mm1 study run FILE --slurm ...` submits again what is neither done nor in the queue,
and writes the pages from what is there.
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
"""File below a run's `slurm` with the number of the job that makes it."""


@dataclass(frozen=True)
class Submitted:
    """What became of the runs that are not done.

    Attributes:
        jobs: Number of the job -> runs of one training, of those submitted now.
        queued: The same of those that a job in the queue makes already.
    """

    jobs: dict[str, list[StudyRun]]
    queued: dict[str, list[StudyRun]]


def resources_from(settings: Mapping[str, Any]) -> Resources:
    """Return what jobs ask for, from `--slurm key=value` settings.

    Args:
        settings: The options of `mm1 launch` by name (`nodes`, `gpus_per_node`, `cpus_per_task`, `time` in minutes,
            ...); whatever else there is goes to `sbatch`, such as `account`.

    Raises:
        UserError: If a value is of the wrong type.
    """
    known = {field.name for field in fields(Resources)} - {"sbatch", "name"}
    own = {("minutes" if key == "time" else key.replace("-", "_")): value for key, value in settings.items()}
    if isinstance(own.get("setup"), str):
        own["setup"] = [own["setup"]]
    mine = {key: value for key, value in own.items() if key in known}
    others = {key: value for key, value in own.items() if key not in known}
    try:
        return TypeAdapter(Resources).validate_python({**mine, "sbatch": others})
    except ValidationError as error:
        first = error.errors()[0]
        key = "time" if first["loc"][0] == "minutes" else first["loc"][0]
        raise UserError(f"--slurm {key}={first['input']}: {first['msg'][0].lower()}{first['msg'][1:]}") from None


def submit_runs(study: str, runs: Sequence[StudyRun], resources: Resources) -> Submitted:
    """Put a job in SLURM's queue for every training with runs that are neither done nor in the queue.

    Args:
        study: Its name, for the jobs'.
        runs: As planned.
        resources: What each job asks for.

    Raises:
        UserError: If this isn't a machine that submits jobs, or SLURM refuses one or can't say what is queued.
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
        named = replace(resources, name=f"mm1-{study}-{directory.name}")
        job = submit(make_command(group), folder, named)
        write_text(number, job + "\n")
        jobs[job] = group
    return Submitted(jobs, queued)


def _in_queue(job: str) -> bool:
    """Whether SLURM still has a job, waiting or running; one that it has forgotten has ended."""
    try:
        found = subprocess.run(["squeue", "--noheader", f"--jobs={job}"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise UserError("squeue isn't here: whether a run's job is still in the queue can't be told") from None
    if found.returncode and "Invalid job id" not in found.stderr:
        raise UserError(f"squeue failed, so nothing was submitted twice: {' '.join(found.stderr.split())}")
    return bool(found.stdout.strip())
