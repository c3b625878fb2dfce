"""The paper's Tables 1-8: one file per table, its printed cells in the CSV file beside it."""

from __future__ import annotations

from ablations.table import Table
from ablations.tables import table1, table2, table3, table4, table5, table6, table7, table8

TABLES: tuple[Table, ...] = tuple(
    module.TABLE for module in (table1, table2, table3, table4, table5, table6, table7, table8)
)
