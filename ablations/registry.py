"""Which tables and experiments there are, and what an experiment is at a profile.

The paper's own are always there: its ablation study, Tables 1-8, which is what "all" means everywhere, and
Tables 9, A1 and A2, which have to be named. So have Tables 3x and 6x, which extend Tables 3 and 6 by rows
that the paper does not have, and the table of controls. A table of your own is a Python file, passed by path
wherever a table is accepted (see `ablations.table`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

from ablations.experiments import Experiment
from ablations.overrides import Override, override_science, parse_overrides
from ablations.profiles import profile_named
from ablations.table import Row, Table, load_file
from yolor_core.config import Science
from yolor_core.errors import ConfigError, UnknownNameError

APPENDIX = re.compile(r"A\d+")  # tables of the appendix


@dataclass(frozen=True)
class Selection:
    """Tables, and the experiments they and the caller name, each once, in order of first mention."""

    tables: tuple[Table, ...]
    experiments: tuple[Experiment, ...]
    named: frozenset[str] = frozenset()  # slugs that were asked for by name, not through a table

    def experiment(self, slug: str) -> Experiment:
        """Raises UnknownNameError listing the nearest slugs."""
        for experiment in self.experiments:
            if experiment.slug == slug:
                return experiment
        raise UnknownNameError("experiment", slug, [e.slug for e in self.experiments])

    def places(self, slug: str) -> list[tuple[Table, Row]]:
        """Every row that shows this experiment; of a table and its extension, that of the table alone."""
        found = [(table, row) for table in self.tables for row in table.rows if row.slug == slug]
        names = {table.name for table, _ in found}
        return [(table, row) for table, row in found if table.extends not in names]


@cache
def paper() -> Selection:
    """The ablation study: Tables 1-8 and their 19 experiments."""
    from ablations.tables import TABLES

    return Selection(TABLES, merge(e for table in TABLES for e in table.experiments))


@cache
def everything() -> Selection:
    """Every table that is here: 1-8, then 9, A1 and A2, then 3x, 6x and controls."""
    from ablations.tables import EXTENDED, FURTHER, TABLES

    found = (*TABLES, *FURTHER, *EXTENDED)
    return Selection(found, merge(e for table in found for e in table.experiments))


def tables() -> dict[str, Table]:
    """The tables of the ablation study by name, '1' to '8'."""
    return {table.name: table for table in paper().tables}


def experiments() -> dict[str, Experiment]:
    """The experiments of the ablation study by slug."""
    return {experiment.slug: experiment for experiment in paper().experiments}


def all_experiments() -> dict[str, Experiment]:
    """The experiments of every table by slug."""
    return {experiment.slug: experiment for experiment in everything().experiments}


def table_named(name: str) -> Table:
    """A table that is here, as '4', 'table4', 'A1', 'a1' or '3x'. Raises UnknownNameError."""
    known = {_short_table(table.name): table for table in everything().tables}
    short = _short_table(name)
    if short not in known:
        raise UnknownNameError("table", name, [table.name for table in known.values()])
    return known[short]


def _short_table(name: str) -> str:
    return name.upper().removeprefix("TABLE").strip(" -_")  # to compare with, not to print


def experiment_named(slug: str) -> Experiment:
    """An experiment of the paper. Raises UnknownNameError listing the nearest slugs."""
    known = all_experiments()
    if slug not in known:
        raise UnknownNameError("experiment", slug, known)
    return known[slug]


def select(names: Sequence[str] | Selection = ()) -> Selection:
    """Tables ('4', 'table4'), experiments (slugs) and Python files of them; Tables 1-8 if empty.

    A selection is given back as it is: a file that has run need not run again.

    Raises UnknownNameError for a name that is none of these, ConfigError for a broken file or for two
    experiments that share a slug and differ.
    """
    if isinstance(names, Selection):
        return names
    if not names:
        return paper()
    chosen: list[Table] = []
    found: list[Experiment] = []
    named: set[str] = set()
    own: list[Table] = []
    for name in dict.fromkeys(names):
        if name.endswith(".py"):
            more, extra = load_file(name)
            own.extend(more)
            chosen.extend(more)
            found.extend(experiment for table in more for experiment in table.experiments)
            found.extend(extra)
        elif name in all_experiments() or not _looks_like_table(name):
            found.append(_any_named(name))
            named.add(name)
        else:
            table = table_named(name)
            chosen.append(table)
            found.extend(table.experiments)
    names_used = [table.name for table in dict.fromkeys(chosen)]
    theirs = {_short_table(table.name) for table in everything().tables}
    for table in own:
        if _short_table(table.name) in theirs or names_used.count(table.name) > 1:
            raise ConfigError(f"two tables are named {table.name!r}; give yours another name")
    merge([*everything().experiments, *found])  # a user's slug must not hide one of the paper's
    return Selection(tuple(dict.fromkeys(chosen)), merge(found), frozenset(named))


def select_tables(names: Sequence[str] = ()) -> tuple[Table, ...]:
    """As `select`, for places where only tables make sense."""
    for name in names:
        if not name.endswith(".py"):
            table_named(name)
    return select(names).tables


def _looks_like_table(name: str) -> bool:
    short = _short_table(name)
    if short in {_short_table(table.name) for table in everything().tables}:
        return True
    return name.lower().startswith("table") or short[:1].isdigit() or bool(APPENDIX.fullmatch(short))


def _any_named(name: str) -> Experiment:
    known = all_experiments()
    if name not in known:
        names = [f"table{table.name}" for table in everything().tables]
        raise UnknownNameError("experiment or table", name, [*known, *names])
    return known[name]


def merge(found: Iterable[Experiment]) -> tuple[Experiment, ...]:
    """Each experiment once. Raises ConfigError where one slug stands for two different experiments."""
    known: dict[str, Experiment] = {}
    for experiment in found:
        other = known.setdefault(experiment.slug, experiment)
        if (other.science, other.continues) != (experiment.science, experiment.continues):
            raise ConfigError(
                f"two different experiments are named {experiment.slug!r}; every slug must be one training"
            )
    return tuple(known.values())


def resolve(experiment: str | Experiment, profile: str, overrides: Sequence[str | Override] = ()) -> Science:
    """The full science of an experiment (or the slug of one of the paper's) at a profile.

    `overrides` are `path=value` texts; those of `execution` and `data` are checked for form and left out.

    Raises UnknownNameError for an unknown slug, profile or field, ConfigError for a value not allowed.
    """
    if isinstance(experiment, str):
        experiment = experiment_named(experiment)
    science = profile_named(profile).scale.apply(experiment.science, profile)
    return override_science(science, as_overrides(overrides))


def as_overrides(overrides: Sequence[str | Override]) -> tuple[Override, ...]:
    """Texts parsed, parsed ones left as they are."""
    return tuple(o if isinstance(o, Override) else parse_overrides([o])[0] for o in overrides)
