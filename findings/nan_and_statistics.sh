#!/usr/bin/env bash
# A NaN (a diverged run) in a parquet file of pyarrow: what duckdb's max is depends on the other columns of the query.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder"
"$folder/bin/pip" install -q --disable-pip-version-check duckdb==2.0.1 pyarrow==26.0.1
cd "$folder"
bin/python - <<'PYTHON'
import duckdb
import pyarrow
import pyarrow.parquet

runs = pyarrow.table({"run": ["a", "b", "c"], "AP": [0.3, float("nan"), 0.5]})
pyarrow.parquet.write_table(runs, "runs.parquet")
pyarrow.parquet.write_table(runs, "bare.parquet", write_statistics=False)
duckdb.sql("copy (select * from 'runs.parquet') to 'copy.parquet'")
found = {
    query: duckdb.sql(query).fetchall()
    for query in (
        "select max(AP) from 'runs.parquet'",
        "select max(AP), avg(AP) from 'runs.parquet'",
        "select max(AP) from 'copy.parquet'",
        "select max(AP) from 'bare.parquet'",
        "select run from 'runs.parquet' where AP > 0.6",
        "select run from 'copy.parquet' where AP > 0.6",
        "select run from 'runs.parquet' where AP > 0.4 order by run",
    )
}
for query, rows in found.items():
    print(f"{query:62}", rows)
answers = [repr(rows) for rows in found.values()]
assert answers == [
    "[(0.5,)]", "[(nan, nan)]", "[(nan,)]", "[(nan,)]", "[]", "[('b',)]", "[('b',), ('c',)]",
], answers
PYTHON
