#!/usr/bin/env bash
# signac: the runs that are not done. `$ne` leaves out those that have no state yet, and `$not` of a job's document returns every run,
# the done ones too, unless another part of the query asks for a document.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder"
"$folder/bin/pip" install -q --disable-pip-version-check signac==2.4.1
cd "$folder"
mkdir study
bin/python - <<'PYTHON'
import json
import subprocess

import signac

STATES = ["done", "failed", None, "running", "done", None]  # by seed; None: waits to be started, has no document
project = signac.init_project("study")
for seed, state in enumerate(STATES):
    job = project.open_job({"seed": seed, "arm": "implicit" if seed % 2 else "base"})
    job.init()
    if state:
        job.document["state"] = state

QUERIES = {
    "failed": ({"doc.state": "failed"}, [1]),
    "arm not base": ({"$not": {"sp.arm": "base"}}, [1, 3, 5]),
    "state not done ($ne)": ({"doc.state": {"$ne": "done"}}, [1, 3]),
    "state not done ($nin)": ({"doc.state": {"$nin": ["done"]}}, [1, 3]),
    "not (state done)": ({"$not": {"doc.state": "done"}}, [0, 1, 2, 3, 4, 5]),
    "base, not (state done)": ({"sp.arm": "base", "$not": {"doc.state": "done"}}, [0, 2, 4]),
    "no state": ({"doc.state": {"$exists": False}}, [2, 5]),
    "not (has a state)": ({"$not": {"doc.state": {"$exists": True}}}, [0, 1, 2, 3, 4, 5]),
    # A second part that holds for every run: now documents are read.
    "not (state done), and no error": ({"$and": [{"$not": {"doc.state": "done"}}, {"doc.error": {"$exists": False}}]}, [1, 2, 3, 5]),
}
print("states by seed:", STATES)
for name, (query, expected) in QUERIES.items():
    seeds = sorted(job.sp.seed for job in project.find_jobs(query))
    print(f"{name}: {seeds}")
    assert seeds == expected, name
command = ["../bin/signac", "find", json.dumps(QUERIES["not (state done)"][0])]
listed = subprocess.run(command, cwd="study", check=True, capture_output=True, text=True).stdout.split()
print("on the command line, not (state done):", len(listed), "runs of", len(STATES))
assert len(listed) == len(STATES)
print("signac", signac.__version__)
PYTHON
