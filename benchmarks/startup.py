"""How long `ablate` takes to answer, against the bare interpreter with the libraries of the command line.

    python benchmarks/startup.py [REPEATS]

Prints the median and the fastest of REPEATS (20) fresh processes each, and the ratio of the fastest to
`python -c "import click, pydantic"`. The aim is 0.2 s and a ratio below 3 for `--help` and `list`.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
REFERENCE = "import click, pydantic; pydantic.BaseModel"
RUN = "import sys; from ablations.cli import main; main(sys.argv[1:], prog_name='ablate')"


def seconds(arguments: list[str], repeats: int) -> list[float]:
    """Wall-clock seconds of each of `repeats` runs of the interpreter, after one that warms the caches."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, *arguments], env=environment, cwd=ROOT, stdout=subprocess.DEVNULL, check=True
        )
        times.append(time.perf_counter() - start)
    return times[1:]


def main() -> None:
    """Print one line per command."""
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    cases = {
        "python -c pass": ["-c", "pass"],
        "import click, pydantic": ["-c", REFERENCE],
        "ablate --help": ["-c", RUN, "--help"],
        "ablate list": ["-c", RUN, "list"],
        "ablate show 4": ["-c", RUN, "show", "4"],
    }
    measured = {name: seconds(arguments, repeats) for name, arguments in cases.items()}
    reference = min(measured["import click, pydantic"])
    print(f"{'command':24}{'median s':>10}{'fastest s':>11}{'ratio':>8}")
    for name, times in measured.items():
        fastest = min(times)
        print(f"{name:24}{statistics.median(times):>10.3f}{fastest:>11.3f}{fastest / reference:>8.2f}")


if __name__ == "__main__":
    main()
