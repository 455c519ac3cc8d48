"""Jobs on a SLURM cluster, through submitit: any `mm1` command, on many ranks, requeued until it is complete.

    mm1 launch --> RUN/slurm/JOB_submission.sh --sbatch, srun--> one task a rank --> python -m mm1 COMMAND
               <-- RUN/slurm/JOB_RANK_log.err                    (a `Launched`)

A task is one rank. It sets the environment as torchrun does and runs the command in a separate process, so that signals
and exit codes pass through. SLURM sends SIGUSR2 some time before the time limit and, if the cluster is configured so,
before pre-emption. The task then sends SIGTERM to the command; training saves a checkpoint and exits with 75; submitit
requeues the job, which resumes from the checkpoint.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mm1.errors import UserError
from mm1.progress import console

_STOPPED = (os.EX_TEMPFAIL, -signal.SIGTERM)
"""Exit codes of a command that was asked to stop: it saved a checkpoint, or training had not begun."""


@dataclass(frozen=True)
class Resources:
    """The resources that a job asks for.

    Attributes:
        name: The job's name.
        nodes: Number of machines.
        gpus_per_node: GPUs per machine; also the ranks per machine, unless `tasks_per_node` is given.
        tasks_per_node: Ranks per machine, for training on CPUs.
        cpus_per_task: Cores per rank, and threads per rank.
        minutes: The time limit.
        grace: Seconds before the time limit at which the job is asked to save.
        requeues: How often the job may reach the time limit and resume.
        partition: SLURM's partition; None: the default one.
        sbatch: Other options of `sbatch`, such as `{"account": "vision"}`.
        setup: Shell lines that run before the command, such as `module load cuda`.
    """

    name: str = "mm1"
    nodes: int = 1
    gpus_per_node: int = 0
    tasks_per_node: int | None = None
    cpus_per_task: int = 1
    minutes: int = 60
    grace: int = 120
    requeues: int = 20
    partition: str | None = None
    sbatch: dict[str, Any] = field(default_factory=dict)
    setup: tuple[str, ...] = ()

    @property
    def ranks_per_node(self) -> int:
        """Tasks on each machine."""
        return self.tasks_per_node or max(1, self.gpus_per_node)


def sbatch_script(command: list[str], folder: Path, resources: Resources) -> str:
    """Return the script that `submit` passes to `sbatch`; works without a cluster.

    Args:
        command: The arguments after `mm1`.
        folder: The folder for the script, the logs and submitit's files.
        resources: The resources to ask for.
    """
    executor = _slurm_executor(folder, resources)
    shebang, script = executor._make_submission_file_text(executor._submitit_command_str, "").split("\n", 1)
    return f"{shebang}\n# Each task runs: {shlex.join(_with_python(command))}\n{script}"


def submit(command: list[str], folder: Path, resources: Resources) -> str:
    """Put a job in SLURM's queue.

    Args:
        command: The arguments after `mm1`.
        folder: The folder for the script, the logs and submitit's files; all nodes must see it.
        resources: The resources to ask for.

    Returns:
        The job's number.

    Raises:
        UserError: If this machine can't submit jobs, or SLURM refuses the job.
    """
    submitit = _submitit()
    require_slurm()
    executor = _slurm_executor(folder, resources)
    try:
        return str(executor.submit(Launched(tuple(command), resources)).job_id)
    except submitit.core.utils.FailedJobError as error:
        raise UserError(f"SLURM refused the job: {' '.join(str(error).split())}") from None


def require_slurm() -> None:
    """Check that this machine can submit jobs.

    Raises:
        UserError: If it can't.
    """
    _submitit()
    if shutil.which("sbatch") is None:
        raise UserError(
            "the command sbatch is not on this machine: run this on a node that submits jobs, or run the job here "
            "(mm1 launch: add --local; mm1 study: leave --slurm out)"
        )


def run_here(command: list[str], folder: Path, resources: Resources) -> None:
    """Run a job on this machine as a cluster does, requeues included, and wait until it ends.

    Args:
        command: The arguments after `mm1`.
        folder: The folder for the logs and submitit's files.
        resources: The resources of the job, which must have one node.

    Raises:
        UserError: If there are several nodes, or the job failed or was stopped.
    """
    submitit = _submitit()
    if resources.nodes > 1:
        raise UserError(f"--nodes {resources.nodes}: --local runs on this machine only: leave --nodes out, or --local")
    executor = submitit.LocalExecutor(folder.absolute(), max_num_timeout=resources.requeues)
    executor.update_parameters(
        timeout_min=resources.minutes,
        tasks_per_node=resources.ranks_per_node,
        gpus_per_node=resources.gpus_per_node,
        signal_delay_s=resources.grace,
        setup=list(resources.setup),
    )
    job = executor.submit(Launched(tuple(command), resources))
    console.print(f"job {job.job_id}; its log: {job.paths.stderr}", soft_wrap=True)
    job.wait()
    if not all(job.task(rank).paths.result_pickle.is_file() for rank in range(job.num_tasks)):
        raise UserError(f"job {job.job_id} did not finish: read the reason in {job.paths.stderr}")


@dataclass(frozen=True)
class Launched:
    """One task of a job: runs the command as one rank. submitit stores it and calls it on every node.

    Args:
        command: The arguments after `mm1`.
        resources: The job's resources.
    """

    command: tuple[str, ...]
    resources: Resources

    def __call__(self) -> int:
        """Run the command until it ends, or until it has saved and the job can be requeued.

        Returns:
            0 if the command finished; 75 if it saved, on every rank but the first, which requeues the job and doesn't
            return.

        Raises:
            SystemExit: With the command's exit code if it failed, with 75 if the job was stopped for good.
        """
        submitit = _submitit()
        task = submitit.JobEnvironment()
        submitit.helpers.TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)
        threads = str(self.resources.cpus_per_task)
        process = subprocess.Popen(_with_python(self.command), env={"OMP_NUM_THREADS": threads, **os.environ})
        requeue_signal = signal.Signals[f"SIG{task.USR_SIG}"]
        requeue: Any = signal.getsignal(requeue_signal)  # submitit's handler
        asked: set[int] = set()

        def ask_to_stop(number: int, frame: Any) -> None:
            asked.add(number)
            process.terminate()

        for number in (signal.SIGTERM, requeue_signal):
            signal.signal(number, ask_to_stop)
        code = process.wait()
        if code not in _STOPPED:
            return sys.exit(code) if code else 0
        if task.global_rank > 0:
            return os.EX_TEMPFAIL
        if task.cluster == "slurm":
            # SIGTERM without the requeue signal: the user cancelled the job, or SLURM itself requeues it if the task is
            # still running after the grace time.
            until = time.monotonic() + self.resources.grace
            while requeue_signal not in asked and time.monotonic() < until:
                time.sleep(0.1)
        if requeue_signal in asked:
            requeue(requeue_signal, None)
        sys.exit(os.EX_TEMPFAIL)

    def checkpoint(self) -> Any:
        """Return what runs after a requeue: the same command, which resumes from its checkpoint."""
        return _submitit().helpers.DelayedSubmission(self)


def _with_python(command: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "mm1", *command]


def _slurm_executor(folder: Path, resources: Resources) -> Any:
    """Return submitit's executor for a job, with one task per rank; if one fails, all of them end."""

    class Executor(_submitit().SlurmExecutor):  # type: ignore[misc]  # submitit is loaded late: Any
        @classmethod
        def affinity(cls) -> int:
            """Report that SLURM is available, so that a script can be written without it."""
            return 1

    executor = Executor(folder.absolute(), max_num_timeout=resources.requeues)
    executor.update_parameters(
        job_name=resources.name,
        nodes=resources.nodes,
        ntasks_per_node=resources.ranks_per_node,
        gpus_per_node=resources.gpus_per_node or None,
        cpus_per_task=resources.cpus_per_task,
        partition=resources.partition,
        time=resources.minutes,
        signal_delay_s=resources.grace,
        setup=list(resources.setup),
        # srun does not inherit the number of cores from sbatch.
        srun_args=["--kill-on-bad-exit=1", f"--cpus-per-task={resources.cpus_per_task}"],
        additional_parameters={"requeue": True, **resources.sbatch},
    )
    return executor


def _submitit() -> Any:
    try:
        import submitit
    except ModuleNotFoundError:
        raise UserError("mm1 launch needs the package submitit: run pip install 'mm1[slurm]'") from None
    return submitit
