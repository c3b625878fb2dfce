"""A study as a folder of static pages: tables, figures, and a page for every run and every experiment."""

from analysis.report.build import Written, write_report

__all__ = ["Written", "write_report"]
