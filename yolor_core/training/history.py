"""implicit.parquet and effects.parquet: what implicit knowledge is at every epoch, and what it does.

`epoch` counts finished epochs; 0 is the initial value. A run without implicit knowledge has empty tables.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from yolor_core.runs.files import write_atomically

NAME = pa.dictionary(pa.int32(), pa.string())


class History:
    """Collects the values of finished epochs and writes them whole."""

    schema: ClassVar[pa.Schema]
    names: ClassVar[tuple[str, ...]]  # columns that say what an item is
    numbers: ClassVar[Mapping[str, str]]  # columns of numbers, and the item's attribute of each

    def __init__(self, table: pa.Table | None = None) -> None:
        self.table = self.schema.empty_table() if table is None else table

    def read(self, path: Path, epochs: int) -> None:
        """Take over what was written to `path`, up to `epochs` finished epochs.

        A file that is lost or damaged costs its values and gives a warning; training can go on without them.
        """
        try:
            table = pq.read_table(path, schema=self.schema)
        except (OSError, pa.ArrowException) as error:
            lost = f"the values of epochs 0 to {epochs} are lost"
            warnings.warn(f"{path} cannot be read ({error}); {lost}", stacklevel=2)
            table = self.schema.empty_table()
        self.table = table.filter(pc.field("epoch") <= epochs)

    def add(self, epoch: int, items: Iterable[Any]) -> None:
        """Append items after `epoch` finished epochs; the numbers of an item are of equal length."""
        self.table = pa.concat_tables(
            [self.table, *(self._part(epoch, i) for i in items)]
        ).unify_dictionaries()

    def _part(self, epoch: int, item: Any) -> pa.Table:
        numbers = {column: np.ravel(getattr(item, name)) for column, name in self.numbers.items()}
        count = len(next(iter(numbers.values())))
        columns: dict[str, Any] = {"epoch": np.full(count, epoch, np.int32)}
        for name in self.names:
            columns[name] = pa.array([getattr(item, name)] * count, pa.string()).dictionary_encode()
        columns |= {"index": np.arange(count, dtype=np.int32), **numbers}
        return pa.table(columns, schema=self.schema)

    def write(self, path: Path) -> None:
        """Write the table."""
        write_atomically(path, lambda file: pq.write_table(self.table, file, compression="zstd"))


class ImplicitHistory(History):
    """g(z) of every site and level (`models.implicit_values`); index: place in the flattened g(z)."""

    names = ("site", "level", "form", "operator")
    numbers: ClassVar[Mapping[str, str]] = {"value": "values"}
    schema = pa.schema(
        {
            "epoch": pa.int32(),
            "site": NAME,
            "level": NAME,
            "form": NAME,
            "operator": NAME,
            "index": pa.int32(),
            "value": pa.float32(),
        }
    )


class EffectHistory(History):
    """What each site does to the raw predictions (`models.knowledge`); index: anchor x outputs + output."""

    names = ("site", "level")
    numbers: ClassVar[Mapping[str, str]] = {"before": "before", "after": "after"}
    schema = pa.schema(
        {
            "epoch": pa.int32(),
            "site": NAME,
            "level": NAME,
            "index": pa.int32(),
            "before": pa.float32(),
            "after": pa.float32(),
        }
    )
