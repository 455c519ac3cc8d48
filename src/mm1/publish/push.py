"""Publishes a model: its files and its card, in a folder or on the Hub."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import ModelCard

from mm1.errors import UserError, in_one_line
from mm1.files import whole_folder
from mm1.model import MM1Config
from mm1.model.resolve import model_hash, resolve_model
from mm1.model.tensor_files import TensorFiles
from mm1.places import ModelName, parse_model_name
from mm1.processing.processor import MM1Processor
from mm1.progress import console, terminal
from mm1.publish.card import UNKNOWN_LICENCE, CardSubject, renamed, write_card
from mm1.publish.contents import CARD, model_files, stage
from mm1.publish.facts import RunFacts, read_facts, run_of
from mm1.publish.hub import upload
from mm1.publish.private import check_private
from mm1.publish.whole import check_whole, count_parameters
from mm1.remote.folders import upload as to_store


@dataclass(frozen=True)
class Target:
    """Where a model is pushed to.

    Attributes:
        folder: A folder that doesn't exist, or None.
        repository: `owner/name` on the Hub, or None.
        address: An address in a store where nothing is, or None.
        revision: Branch on the Hub.
    """

    folder: Path | None = None
    repository: str | None = None
    revision: str | None = None
    address: str | None = None

    @property
    def name(self) -> str:
        """What the model is called there."""
        if self.address is not None:
            return self.address.rstrip("/").rpartition("/")[2]
        return self.repository or (self.folder or Path()).absolute().name


def parse_target(text: str, revision: str | None = None) -> Target:
    """Return what `--to` means: `owner/name` is on the Hub, unless `owner` is a folder.

    An address is in a store; all else is a folder.

    Raises:
        UserError: If a folder exists already, or has a revision.
    """
    name = parse_model_name(text)
    if name.kind == "hub" and "/" in name.place:
        if revision and name.version:
            raise UserError(f"--to {text} and --revision {revision} both name a revision: give one of them")
        return Target(repository=name.place, revision=revision or name.version)
    if revision:
        raise UserError(f"--revision {revision}: {text} is a folder, and folders have no revisions: leave it out")
    if name.kind == "address":
        return Target(address=text)
    folder = Path(text).expanduser()
    if folder.exists():
        raise UserError(f"{folder} exists already: give --to another folder, or remove this one")
    return Target(folder=folder)


def push(
    model: str,
    to: str,
    *,
    licence: str = UNKNOWN_LICENCE,
    private: bool = True,
    revision: str | None = None,
    dry_run: bool = False,
) -> str:
    """Publish a model, and return where it is.

    Args:
        model: Its name (see `mm1.places.MODEL_HELP`).
        to: See `parse_target`.
        licence: Of the model, as the Hub writes it (`apache-2.0`).
        private: Whether a new repository of the Hub is private.
        revision: Branch on the Hub.
        dry_run: Whether all is made and checked, and then thrown away.

    Raises:
        UserError: If there is no such model, it isn't whole, a file tells of this machine, or the target refuses.
    """
    target = parse_target(to, revision)
    folder = resolve_model(model)
    name = parse_model_name(model)
    processor = check_whole(folder, model)
    files, others = model_files(folder)
    if others:
        console.print(f"left out, since no part of the model: {', '.join(others)}")
    own = next((file for file in files if file.name == CARD), None)
    text = _kept_card(own, target, licence) if own is not None else None
    if text is None:
        text = str(write_card(_subject(name, folder, processor, target, licence)))
    others_than_card = [file for file in files if file.name != CARD]

    def fill(place: Path, *, linked: bool) -> None:
        stage(others_than_card, place, linked=linked)
        (place / CARD).write_text(text, "utf-8")
        check_private(place)

    if target.folder is not None and not dry_run:
        try:
            with whole_folder(target.folder) as partial:
                fill(partial, linked=False)
        except OSError as error:
            raise UserError(f"{target.folder}: the model could not be written ({error}): free some space") from error
        return str(target.folder)
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        fill(place, linked=True)
        if dry_run:
            for file in sorted(place.iterdir()):
                console.print(f"{file.stat().st_size:>15,} bytes  {file.name}")
            terminal().print(text, soft_wrap=True)
            return f"nowhere (dry run); it would go to {to}"
        if target.address is not None:
            to_store(place, target.address, last="config.json")
            return target.address
        assert target.repository is not None
        return upload(
            place, target.repository, private=private, revision=target.revision, message=f"{target.name}, by mm1 push"
        )


def _subject(name: ModelName, folder: Path, processor: MM1Processor, target: Target, licence: str) -> CardSubject:
    run = run_of(name)
    facts: RunFacts | None = None
    if run is not None:
        scores = name.scores() if name.kind == "step" else run / "scores"
        facts = read_facts(run, scores=scores, model_hash=model_hash(folder))
        if facts.stale_scores:
            console.print(f"{facts.stale_scores} scores are of other weights than these, so the card leaves them out")
        for corpus in (corpus for each in facts.lineage() for corpus in each.corpora if corpus.licence is None):
            console.print(f"the licence of {corpus.name} is not known here: the corpus is not in MM1_DATA")
    if licence == UNKNOWN_LICENCE:
        console.print("no licence is chosen: name the model's with --licence, such as --licence apache-2.0")
    config = MM1Config.from_pretrained(folder)
    parameters = count_parameters(TensorFiles(folder))
    step = int(str(name.version)) if name.kind == "step" else None
    placed = target.repository is None
    return CardSubject(target.name, placed, config, processor, parameters, licence, facts, step)


def _kept_card(file: Path, target: Target, licence: str) -> str:
    """Return the card that a folder has already, which its author may have edited, with the model's new name.

    Raises:
        UserError: If its metadata can't be read.
    """
    text = file.read_text("utf-8")
    try:
        card = ModelCard(text, ignore_metadata_errors=False)
    except Exception as error:  # YAML's and the library's own
        raise UserError(f"{file}: its metadata can't be read ({in_one_line(error)}): correct it") from None
    console.print(f"{file} is kept as the card")
    if licence != UNKNOWN_LICENCE:
        card.data["license"] = licence
        text = str(card)
    return renamed(text, target.name)
