"""Which extras of mm1 are installed, by what the installed package says of itself."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution

from packaging.requirements import Requirement

DEVELOPMENT = ("dev", "peers", "browser", "docs")
"""Extras of those who work on mm1."""


def extras() -> dict[str, list[str]] | None:
    """Return what each extra lacks: packages that are missing, or too old or new, with what is wanted.

    Returns:
        None if mm1 itself isn't an installed package, so that nothing says what its extras are.
    """
    try:
        mm1 = distribution("mm1")
    except PackageNotFoundError:
        return None
    wanted = [Requirement(text) for text in mm1.requires or ()]
    names = [name for name in mm1.metadata.get_all("Provides-Extra") or () if name not in DEVELOPMENT]
    return {name: list(_lacking([need for need in wanted if _of_extra(need, name)])) for name in names}


def _of_extra(need: Requirement, extra: str) -> bool:
    return (
        need.marker is not None and need.marker.evaluate({"extra": extra}) and not need.marker.evaluate({"extra": ""})
    )


def _lacking(needs: list[Requirement]) -> Iterator[str]:
    for need in needs:
        try:
            version = distribution(need.name).version
        except PackageNotFoundError:
            yield need.name
            continue
        if not need.specifier.contains(version, prereleases=True):
            yield f"{need.name}{need.specifier} (here: {version})"
