"""The command line: one command for each job, no logic of its own.

Exit codes: 0: done. 2: the user's mistake, in one sentence on standard error. 130: stopped by Ctrl-C. 75 ("try again
later"): stopped by SIGTERM, which schedulers send before they take a machine away. The same command resumes.
"""

from __future__ import annotations

import errno
import logging
import os
import signal
import sys
import traceback
from typing import Annotated, Any, NoReturn

import typer
from rich.text import Text
from typer.core import TyperGroup

from mm1.cli import data, model, recipe, scale, study
from mm1.cli.addresses import refuse_addresses
from mm1.cli.caption import caption
from mm1.cli.chat import chat
from mm1.cli.demo import demo
from mm1.cli.doctor import doctor
from mm1.cli.evaluate import compare, evaluate, headline, report, score_encoder, tasks
from mm1.cli.export import export
from mm1.cli.launch import launch
from mm1.cli.publish import pull, push
from mm1.cli.serve import serve
from mm1.cli.show_tiles import show_tiles
from mm1.cli.train import encoder, pretrain, sft
from mm1.errors import Stopped, UserError
from mm1.progress import console
from mm1.ranks import end_process, end_rank, world_size
from mm1.version import __version__

PANELS = ("Start", "Data", "Train", "Evaluate", "Use", "Study", "Plan")
"""Panels of `mm1 --help`, in order."""


class _Group(TyperGroup):
    def list_commands(self, ctx: Any) -> list[str]:
        """Return the commands in the order of their panels."""
        # Typer's commands have a panel, of which click's type does not know.
        return sorted(self.commands, key=lambda name: PANELS.index(self.commands[name].rich_help_panel))  # type: ignore[attr-defined]

    def invoke(self, ctx: Any) -> Any:
        """Run a command; Ctrl-C outside of training (which saves first) stops it like everything else."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise Stopped from None


app = typer.Typer(cls=_Group, no_args_is_help=True, pretty_exceptions_enable=False)
app.command(rich_help_panel="Start")(demo)
app.command(rich_help_panel="Start")(doctor)
app.add_typer(recipe.app, name="recipe", rich_help_panel="Start")
app.add_typer(data.app, name="data", rich_help_panel="Data")
app.command(rich_help_panel="Train")(pretrain)
app.command(rich_help_panel="Train")(encoder)
app.command(rich_help_panel="Train")(sft)
app.command(rich_help_panel="Train", context_settings={"ignore_unknown_options": True})(launch)
app.command(rich_help_panel="Evaluate")(evaluate)
app.command(rich_help_panel="Evaluate")(score_encoder)
app.command(rich_help_panel="Evaluate")(compare)
app.command(rich_help_panel="Evaluate")(headline)
app.command(rich_help_panel="Evaluate")(report)
app.command(rich_help_panel="Evaluate")(tasks)
app.command(rich_help_panel="Use")(caption)
app.command(rich_help_panel="Use")(chat)
app.command(rich_help_panel="Use")(serve)
app.command(rich_help_panel="Use")(export)
app.command(rich_help_panel="Use")(push)
app.command(rich_help_panel="Use")(pull)
app.command(rich_help_panel="Use")(show_tiles)
app.add_typer(study.app, name="study", rich_help_panel="Study")
app.add_typer(scale.app, name="scale", rich_help_panel="Plan")
app.add_typer(model.app, name="model", rich_help_panel="Plan")
refuse_addresses(app)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"mm1 {__version__}")
        raise typer.Exit


@app.callback()
def mm1(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """MM1 (arXiv 2403.09611): build, ablate, train, evaluate and use multimodal language models."""


def main() -> None:
    """Run the command line; see the module's docstring for the exit codes."""
    # The libraries' own progress bars are off, here and in processes that the command starts. mm1 shows its own.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    # Threads that wait for others look some microseconds, then they sleep. By default they look for milliseconds, and
    # hold up those that still compute where another program uses a core: training falls to a third. At once asleep they
    # cost a quarter on an idle machine. libgomp itself looks so often where it knows of too few cores. Figures:
    # benchmarks/README.md. Read when torch is loaded, by every process of ours.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    # Where torchao is installed, transformers imports it, and it names its kernels for other machines every time.
    for name in ("torchao", "torch.utils._pytree"):
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        app(prog_name="mm1")
    except SystemExit as done:
        if world_size() > 1 and isinstance(done.code, int):
            end_rank(done.code)
        raise
    except UserError as error:
        console.print(Text("error:", "bold red"), str(error), soft_wrap=True)
        _exit(2)
    except Stopped as stopped:
        console.print("stopped; the same command resumes", style="yellow")
        _exit(os.EX_TEMPFAIL if stopped.signal_number == signal.SIGTERM else 130)
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            console.print(Text("error:", "bold red"), f"{error}: free some space and run the same command again")
            _exit(2)
        if world_size() == 1:
            raise
        traceback.print_exc()
        _exit(1)


def _exit(code: int) -> NoReturn:
    """Exit; one of several ranks does not wait for its threads, of which one may save together with a lost rank."""
    if world_size() > 1:
        end_process(code)
    sys.exit(code)
