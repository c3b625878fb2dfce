"""The paper's tables: one file per table, its printed cells in the CSV file beside it."""

from __future__ import annotations

from ablations.table import Table
from ablations.tables import (
    controls,
    table1,
    table2,
    table3,
    table3x,
    table4,
    table5,
    table6,
    table6x,
    table7,
    table8,
    table9,
    tablea1,
    tablea2,
)

# the ablation study: what `--all` and no name at all stand for
TABLES: tuple[Table, ...] = tuple(
    module.TABLE for module in (table1, table2, table3, table4, table5, table6, table7, table8)
)
# comparisons with other models: only when named
FURTHER: tuple[Table, ...] = tuple(module.TABLE for module in (table9, tablea1, tablea2))
# rows that the paper does not have, beside the rows of a table that it has: only when named
EXTENDED: tuple[Table, ...] = tuple(module.TABLE for module in (table3x, table6x, controls))
