"""What came out: reading runs, comparing them, and printing tables. Reads files only; never imports torch.

from analysis import open_study
study = open_study("results/published/mini", tables=[1, "controls"])
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from analysis.runs import load_runs
    from analysis.study import open_study

__all__ = ["load_runs", "open_study"]


def __getattr__(name: str) -> Any:
    """Loaded when they are first used: `ablate --help` must not wait for pandas."""
    if name == "load_runs":
        from analysis.runs import load_runs

        return load_runs
    if name == "open_study":
        from analysis.study import open_study

        return open_study
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
