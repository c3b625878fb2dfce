"""Where the numbers of a published study come from: what was trained, by which code, on what, when."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from analysis.published.evidence import commit, environment
from analysis.study import Study
from analysis.tables.formats import MISSING
from yolor_core.runs.directory import RunDirectory

DIGITS = 12  # of a hash, where it is named for a reader


def origin(study: Study, runs: pd.DataFrame, bytes_: int) -> str:
    """A Markdown table. `runs` are those that count, `bytes_` the size of the files beside the summary."""
    seeds = sorted({int(seed) for seed in runs["seed"]})
    known = [environment(Path(path)) for path in runs["path"]]
    records = [RunDirectory(Path(path)).read_run() or {} for path in runs["path"]]
    days = sorted(str(r[name])[:10] for r in records for name in ("started", "ended") if r.get(name))
    own = dict(zip(runs["run"], runs["seconds"], strict=True))
    brought = sum(own.get(str(r.get("continues")), 0.0) for r in records)  # counted by the runs they continue
    hours = (runs["seconds"].sum() - brought) / 3600
    lines = {
        "runs": f"{len(runs)} finished, of {runs['experiment'].nunique()} experiments",
        "tables": ", ".join(study.filled),
        f"seed{'s' if len(seeds) > 1 else ''}": ", ".join(map(str, seeds)),
        "commit that trained": _commits(runs),
        "sources of yolor_core, SHA-256": _digits(runs["source_hash"]),
        "data": f"{_values(runs, 'data')}; SHA-256 {_digits(runs['fingerprint'])}",
        "trained": " to ".join(dict.fromkeys((days[0], days[-1]))) if days else MISSING,
        "training time": f"{hours:.1f} hours of one device, other work on the machine included",
        "device": _values(runs, "device"),
        "Python": ", ".join(dict.fromkeys(each["python"] for each in known)),
        "packages": ", ".join(dict.fromkeys(each["packages"].replace(";", ", ") for each in known)),
        "size": f"runs, tables and figures {bytes_ / 1e6:.2f} MB",
    }
    rows = [f"| {name} | {text} |" for name, text in lines.items()]
    return "\n".join(["| | |", "| --- | --- |", *rows])


def _digits(hashes: pd.Series) -> str:
    """The first digits of each hash that there is."""
    return ", ".join(dict.fromkeys(f"{str(value)[:DIGITS]}…" for value in hashes))


def _commits(runs: pd.DataFrame) -> str:
    named = (commit(of, dirty) for of, dirty in zip(runs["commit"], runs["dirty"], strict=True))
    return ", ".join(dict.fromkeys(named))


def _values(runs: pd.DataFrame, column: str) -> str:
    return ", ".join(dict.fromkeys(str(value) for value in runs[column]))
