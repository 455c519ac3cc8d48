"""The report of a run."""

from mm1.report.page import write_report

__all__ = ["write_report"]
