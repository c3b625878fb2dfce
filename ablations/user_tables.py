"""A table of your own: a Python file that defines `TABLE` or `TABLES`, and `EXPERIMENTS` outside any table.

::

    from ablations.experiments import CSP_FAST
    from ablations.table import Row, Table
    from yolor_core.config import ImplicitConfig

    STRONG = ImplicitConfig(site="fa", operator="add", std=0.2)
    TABLE = Table("std", "Spread of the prior", rows=(
        Row("baseline", CSP_FAST, "no implicit knowledge"),
        Row("+ iFA, 0.2", CSP_FAST.plus(STRONG).named("csp-fast.add-fa-std02"), "ten times the spread"),
    ))
"""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from ablations.experiments import Experiment
from ablations.table import Table
from yolor_core.config import explain
from yolor_core.errors import ConfigError

_T = TypeVar("_T")


def load_file(name: str | Path) -> tuple[tuple[Table, ...], tuple[Experiment, ...]]:
    """Run a Python file and return its tables and the experiments it lists outside them.

    Raises ConfigError naming the file, and the line where it is known: no such file, an error while it runs,
    nothing defined, or something of the wrong type.
    """
    path = Path(name)
    try:
        source = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"table file {name}: {getattr(error, 'strerror', None) or error}") from None
    space: dict[str, object] = {"__name__": f"user_table_{path.stem}", "__file__": str(path)}
    try:
        exec(compile(source, str(path), "exec"), space)
    except SyntaxError as error:
        raise ConfigError(f"table file {name}, line {error.lineno}: {error.msg}") from None
    except (Exception, SystemExit) as error:
        text = explain(error) if isinstance(error, ValidationError) else str(error)
        raise ConfigError(
            f"table file {name}, line {_line(error, path)}: {type(error).__name__}: {text}"
        ) from None
    tables = tuple(_several(space.get("TABLES", ()), Table, "TABLES", name))
    if "TABLE" in space:
        tables = (*_several([space["TABLE"]], Table, "TABLE", name), *tables)
    experiments = tuple(_several(space.get("EXPERIMENTS", ()), Experiment, "EXPERIMENTS", name))
    if not tables and not experiments:
        raise ConfigError(f"table file {name}: defines none of TABLE, TABLES and EXPERIMENTS")
    return tables, experiments


def _several(value: object, kind: type[_T], variable: str, file: str | Path) -> Sequence[_T]:
    items: list[_T] = []
    for item in value if isinstance(value, (list, tuple)) else [value]:
        if not isinstance(item, kind):
            raise ConfigError(
                f"table file {file}: {variable} holds a {type(item).__name__}; allowed is {kind.__name__}"
            )
        items.append(item)
    return items


def _line(error: BaseException, path: Path) -> str:
    lines = [
        frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)
    ]
    return str(lines[-1]) if lines else "unknown"
