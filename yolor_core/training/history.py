"""implicit.parquet: the effective representation g(z) of every site at every epoch."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from yolor_core.runs.directory import RunDirectory
from yolor_core.runs.files import write_atomically

SCHEMA = pa.schema(
    {
        "epoch": pa.int32(),  # epochs finished; 0 is the initial value
        "site": pa.dictionary(pa.int32(), pa.string()),
        "level": pa.dictionary(pa.int32(), pa.string()),
        "form": pa.dictionary(pa.int32(), pa.string()),
        "operator": pa.dictionary(pa.int32(), pa.string()),
        "index": pa.int32(),  # position in the flattened representation
        "value": pa.float32(),
    }
)


class ImplicitHistory:
    """Collects the values of finished epochs and writes them whole."""

    def __init__(self, table: pa.Table | None = None) -> None:
        self.table = SCHEMA.empty_table() if table is None else table

    @classmethod
    def read(cls, run: RunDirectory, epochs: int) -> ImplicitHistory:
        """What a run has written, up to `epochs` finished epochs.

        A file that is lost or damaged costs its values and gives a warning; training can go on without them.
        """
        try:
            table = pq.read_table(run.implicit, schema=SCHEMA)
        except (OSError, pa.ArrowException) as error:
            lost = f"the implicit values of epochs 0 to {epochs} are lost"
            warnings.warn(f"{run.implicit} cannot be read ({error}); {lost}", stacklevel=2)
            return cls()
        return cls(table.filter(pc.field("epoch") <= epochs))

    def add(self, epoch: int, values: Iterable[Any]) -> None:
        """Append the values after `epoch` finished epochs; each has site, level, form, operator, values."""
        parts = [self.table]
        for item in values:
            flat = np.asarray(item.values, np.float32).ravel()
            count = len(flat)
            columns: dict[str, Any] = {"epoch": np.full(count, epoch, np.int32)}
            for name in ("site", "level", "form", "operator"):
                columns[name] = pa.array([getattr(item, name)] * count, pa.string()).dictionary_encode()
            columns |= {"index": np.arange(count, dtype=np.int32), "value": flat}
            parts.append(pa.table(columns, schema=SCHEMA))
        self.table = pa.concat_tables(parts).unify_dictionaries()

    def write(self, run: RunDirectory) -> None:
        """Write implicit.parquet; a run without implicit knowledge has an empty table."""
        write_atomically(run.implicit, lambda file: pq.write_table(self.table, file, compression="zstd"))
