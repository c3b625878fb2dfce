"""A table: rows that compare experiments, and the paper's cells beside them.

One of your own is a Python file that defines `TABLE` or `TABLES`, and `EXPERIMENTS` outside any table::

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

import csv
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeVar

from pydantic import ValidationError

from ablations.experiments import Experiment
from yolor_core.config import explain
from yolor_core.errors import ConfigError, UnknownNameError
from yolor_core.tasks import TASKS

# Cosine between the gradients of two tasks on what they share, -1 to 1: mean over epochs and pairs of tasks.
CONFLICT = ("task cosine",)
COUNTED = ("parameters", "MFLOPs", "GFLOPs")  # of the full-size model; no training needed
QUOTED = ("FPS",)  # images per second on the paper's device: printed from the paper, never measured here


class Score(NamedTuple):
    """Where evaluation.json has a score."""

    task: str
    name: str


# Columns of measured scores, all in percent. Classification's are of images, embedding's of annotated boxes.
SCORES: dict[str, Score] = {
    column: Score(name, score) for name, task in TASKS.items() for column, score in task.columns.items()
}
ALL_DETECTION, CLASSIFICATION, EMBEDDING = (
    tuple(TASKS[name].columns) for name in ("detection", "classification", "embedding")
)
DETECTION = ALL_DETECTION[:6]  # what the paper prints
# Losses of the averaged model on the validation images after the last epoch, as metrics.jsonl calls them. No
# table of the paper has them: columns that `--metrics` adds to any table.
LOSSES = {f"val {term}": f"val/{term}" for term in ("loss", "box", "obj", "cls")}
METRICS = (*SCORES, *LOSSES, *CONFLICT, *COUNTED, *QUOTED)
_T = TypeVar("_T")


@dataclass(frozen=True)
class Row:
    """One row: its label as printed, the training behind it, and what that changes.

    A row without an experiment is quoted: other people's model, of which only the paper's cells are shown.
    `against` is the label of the row it is compared with. It may be several, for a row whose tasks have a
    control each: every score is compared with the first of them that has the task.
    """

    label: str
    experiment: Experiment | None
    change: str
    extra_parameters: int | None = None  # against `against`, full-size model; None where it is not stated
    against: str | tuple[str, ...] | None = None  # the table's first row if None
    fused: bool = False  # the paper counts this row with BatchNorm merged into the convolutions

    def __post_init__(self) -> None:
        if self.experiment is not None and not isinstance(self.experiment, Experiment):
            raise ConfigError(f"row {self.label!r}: {self.experiment!r} is no Experiment; one is needed")

    def lacks(self, metric: str) -> str | None:
        """The task without which this row has no such score; None where nothing is in the way."""
        if self.experiment is None:
            return None
        if metric in CONFLICT:
            return "second task" if len(self.experiment.tasks) < 2 else None
        task = "detection" if metric in LOSSES else SCORES[metric].task if metric in SCORES else None
        return None if task in self.experiment.tasks else task

    @property
    def slug(self) -> str | None:
        """The experiment's name; None for a quoted row."""
        return self.experiment.slug if self.experiment else None

    @property
    def epochs(self) -> int:
        """Epochs this row trains at the paper's scale; those inherited from another run are not counted."""
        if self.experiment is None:
            return 0
        phases = self.experiment.science.train.phases
        return sum(phase.epochs for phase in (phases[1:] if self.experiment.continues else phases))

    @property
    def cost(self) -> str:
        """What the row costs at the paper's scale, in words."""
        if self.experiment is None:
            return "nothing is trained"
        inherited = f" on top of {self.experiment.continues}" if self.experiment.continues else ""
        words = f"{self.epochs} epochs at {self.experiment.science.train.size} px{inherited}"
        if self.extra_parameters is None:
            return words
        return f"{words}; {self.extra_parameters:,} parameters more".replace(",", " ")


@dataclass(frozen=True)
class Table:
    """A table of the paper, or a user's own.

    `cells` is a CSV file with the column `row` and one column per metric: what the paper prints.
    Raises ConfigError for rows that repeat a label or compare with a row that is not there, and
    UnknownNameError for a metric that nothing measures.
    """

    name: str
    title: str
    rows: tuple[Row, ...]
    section: str = ""
    question: str = ""
    hypothesis: str = ""
    remarks: tuple[str, ...] = ()  # what the paper's own cells do not bear out, and other caveats
    notes: tuple[str, ...] = ()  # what must stand below the printed table, in every format
    metrics: tuple[str, ...] = DETECTION
    cells: Path | None = field(default=None, repr=False)
    extends: str | None = None  # name of the table whose rows are among these

    def __post_init__(self) -> None:
        self._check_types()
        labels = [row.label for row in self.rows]
        if not labels:
            raise ConfigError(f"table {self.name!r} has no rows")
        repeated = sorted({label for label in labels if labels.count(label) > 1})
        if repeated:
            raise ConfigError(f"table {self.name!r} lists a row twice: {', '.join(repeated)}")
        for row in self.rows:
            for label in self.compared(row):
                if label not in labels:
                    raise UnknownNameError(f"row of table {self.name!r} to compare with", label, labels)
        for metric in self.metrics:
            if metric not in METRICS:
                raise UnknownNameError("metric", metric, METRICS)

    @property
    def experiments(self) -> tuple[Experiment, ...]:
        """What its rows train, row by row; quoted rows have none."""
        return tuple(row.experiment for row in self.rows if row.experiment is not None)

    def _check_types(self) -> None:
        for name in ("name", "title"):
            if not isinstance(getattr(self, name), str):
                raise ConfigError(f"table {self.name!r}: {name} is {getattr(self, name)!r}; a text is needed")
        object.__setattr__(self, "rows", tuple(self.rows))
        for row in self.rows:
            if not isinstance(row, Row):
                raise ConfigError(f"table {self.name!r}: rows holds {row!r}; a Row(...) is needed")

    def compared(self, row: Row) -> tuple[str, ...]:
        """Labels of the rows that `row` is compared with; its own for a baseline."""
        if row.against is None:
            return (self.rows[0].label,)
        return (row.against,) if isinstance(row.against, str) else row.against or (self.rows[0].label,)

    def baseline(self, row: Row, metric: str | None = None) -> Row:
        """The row that `row` is compared with, in `metric` where it matters; itself for a baseline."""
        rows = [next(r for r in self.rows if r.label == label) for label in self.compared(row)]
        if metric is None:
            return rows[0]
        return next((other for other in rows if other.lacks(metric) is None), rows[0])

    def control(self, row: Row, metric: str) -> Row | None:
        """The row whose runs those of `row` are compared with in a score.

        None for a baseline, for a row of the same training as its baseline, and where one of them has no runs
        of ours or no such score.
        """
        other = self.baseline(row, metric)
        trained = None not in (row.slug, other.slug) and row.slug != other.slug
        return other if trained and row.lacks(metric) is other.lacks(metric) is None else None

    def paper(self) -> dict[str, dict[str, float]]:
        """The paper's cells, {row label: {metric: value}}; percent for AP. Empty where there are none.

        Raises ConfigError for a file that cannot be read, UnknownNameError for a row that the table lacks.
        """
        cells = {} if self.cells is None else read_cells(self.cells)
        labels = [row.label for row in self.rows]
        for label in cells:
            if label not in labels:
                raise UnknownNameError(f"row in {self.cells}", label, labels)
        return cells


def read_cells(path: Path) -> dict[str, dict[str, float]]:
    """Read a CSV of cells. An empty cell is left out; integers stay integers.

    Raises ConfigError naming the file, and the row and column where a cell is not a number.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            records = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cells {path}: {getattr(error, 'strerror', None) or error}") from None
    if any("row" not in record for record in records):
        raise ConfigError(f"cells {path}: has no column 'row'")
    return {
        record["row"]: {
            column: _number(text, f"cells {path}, row {record['row']!r}, column {column!r}")
            for column, text in record.items()
            if text and column != "row"
        }
        for record in records
    }


def _number(text: str, where: str) -> float:
    try:
        return int(text) if text.isdecimal() else float(text)
    except (ValueError, TypeError, AttributeError):
        raise ConfigError(f"{where}: {text!r} is not a number") from None


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
    tables = _several(space.get("TABLES", ()), Table, "TABLES", name)
    if "TABLE" in space:
        tables = (*_several([space["TABLE"]], Table, "TABLE", name), *tables)
    experiments = _several(space.get("EXPERIMENTS", ()), Experiment, "EXPERIMENTS", name)
    if not tables and not experiments:
        raise ConfigError(f"table file {name}: defines none of TABLE, TABLES and EXPERIMENTS")
    return tables, experiments


def _several(value: object, kind: type[_T], variable: str, file: str | Path) -> tuple[_T, ...]:
    items = value if isinstance(value, (list, tuple)) else [value]
    for item in items:
        if not isinstance(item, kind):
            raise ConfigError(
                f"table file {file}: {variable} holds a {type(item).__name__}; allowed is {kind.__name__}"
            )
    return tuple(items)


def _line(error: BaseException, path: Path) -> str:
    lines = [
        frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)
    ]
    return str(lines[-1]) if lines else "unknown"
