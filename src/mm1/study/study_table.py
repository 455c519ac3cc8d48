"""The table of the packaged studies."""

from __future__ import annotations

from rich.table import Table

from mm1.study.schema import load_study, packaged_studies


def study_table() -> Table:
    """Return a table of the packaged studies with their questions and numbers of runs."""
    table = Table(title="Studies", title_justify="left")
    for column in ("study", "question", "runs"):
        table.add_column(column)
    for name in packaged_studies():
        study = load_study(name)
        table.add_row(name, study.question, str(len(study.arms()) * len(study.seeds)))
    return table
