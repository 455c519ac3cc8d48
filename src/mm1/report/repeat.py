"""The commands that repeat a run in an empty folder, and the recipes that they need."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from mm1.report.read_run import Run, Score, mapping

_STARTS = (("vision",), ("language_model",), ())
"""Parts of the recipe's section `model` that may name a run to start from."""


@dataclass
class Repeat:
    """What repeats a run.

    Attributes:
        commands: The commands in order: (command, its effect).
        recipes: File -> text of every recipe that the commands name.
    """

    commands: list[tuple[str, str]] = field(default_factory=list)
    recipes: dict[str, str] = field(default_factory=dict)


def repeat(run: Run) -> Repeat:
    """Return the commands that repeat a run from recipes alone: data, the runs that it starts from, scores, report."""
    found = Repeat()
    steps: list[tuple[str, str]] = []
    corpora: dict[str, None] = {}
    again = f"{_shown(run.directory)}-again"
    _training(run.directory, run.recipe, run.recipe_text, again, found, steps, corpora)
    commit = run.environment.get("commit")
    if commit:
        name, plus, _ = str(commit).partition("+")
        without = " without its uncommitted changes" if plus else ""
        found.commands.append((f"git checkout {shlex.quote(name)}", f"the same code{without}, in its repository"))
    found.commands += [(f"mm1 data build {shlex.quote(corpus)}", "the data") for corpus in corpora]
    found.commands += steps
    found.commands.append((f"mm1 evaluate {shlex.quote(again)}{_scoring(run.scores)}", "scored in the same way"))
    found.commands.append((f"mm1 report {shlex.quote(again)}", "a page like this one"))
    width = max(len(command) for command, _ in found.commands)
    found.commands = [(command.ljust(width), effect) for command, effect in found.commands]
    return found


def _training(
    directory: Path,
    recipe: Mapping[str, Any],
    text: str,
    to: str,
    found: Repeat,
    steps: list[tuple[str, str]],
    corpora: dict[str, None],
) -> None:
    """Add the training of a run, and before it those of the runs that it starts from."""
    model = mapping(recipe, "model")
    for part in _STARTS:
        section = model if not part else mapping(model, part[0])
        start = section.get("from")
        if not isinstance(start, str):
            continue
        folder = _folder(start, directory)
        if folder is None:
            if start.startswith(("runs/", ".", "/")):
                steps.append((f"# {start}", "it starts from this run, which is not here any more"))
        elif not any(f" --to {shlex.quote(start)}" in command for command, _ in steps):
            own = (folder / "recipe.yaml").read_text(encoding="utf-8", errors="replace")
            content = yaml.safe_load(own)
            if isinstance(content, dict):
                _training(folder, content, own, start, found, steps, corpora)
    for corpus in _corpora(recipe):
        corpora[corpus] = None
    file = f"{Path(to).name.removesuffix('-again')}.yaml"
    found.recipes[file] = text
    steps.append((f"mm1 {_command(recipe)} {shlex.quote(file)} --to {shlex.quote(to)}", "trained in the same way"))


def _folder(start: str, directory: Path) -> Path | None:
    """Return the folder of a run that another starts from, if its recipe is here."""
    for folder in (Path(start), directory.parent / Path(start).name, directory.parent.parent / start):
        if (folder / "recipe.yaml").is_file():
            return folder
    return None


def _shown(directory: Path) -> str:
    """Return a run's directory without absolute paths of this machine."""
    here, there = Path.cwd(), directory.resolve()
    return str(there.relative_to(here) if there.is_relative_to(here) and there != here else Path("runs") / there.name)


def _command(recipe: Mapping[str, Any]) -> str:
    if "objective" in recipe:
        return "encoder"
    kinds = mapping(mapping(recipe, "data"), "mixture")
    return "sft" if mapping(kinds, "chat").get("weight") else "pretrain"


def _corpora(recipe: Mapping[str, Any]) -> list[str]:
    """Return the names of the recipe's corpora without duplicates; corpora given by path are left out."""
    names: dict[str, None] = {}
    for kind in mapping(mapping(recipe, "data"), "mixture").values():
        sources = kind.get("sources") if isinstance(kind, Mapping) else None
        for source in sources if isinstance(sources, list) else []:
            corpus = source.get("corpus") if isinstance(source, Mapping) else None
            if isinstance(corpus, str) and corpus.count("/") == 1 and not corpus.startswith(("/", ".")):
                names[corpus.partition("/")[0]] = None
    return list(names)


def _scoring(scores: list[Score]) -> str:
    """Return the options with which the run was scored, as far as all its results agree."""
    tasks = list(dict.fromkeys(score.task for score in scores))
    shots = sorted({score.shots for score in scores})
    options = [f"--tasks {shlex.quote(','.join(tasks))}", f"--shots {','.join(map(str, shots))}"] if scores else []
    for option in ("limit", "seed"):
        values = {score.protocol.get(option) for score in scores}
        if len(values) == 1 and (value := values.pop()):
            options.append(f"--{option} {value}")
    draws = max((len(score.protocol.get("shot_seeds") or ()) for score in scores), default=1)
    if draws > 1:
        options.append(f"--draws {draws}")
    return "".join(f" {option}" for option in options)
