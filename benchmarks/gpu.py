"""All that the first GPU has to tell, in one command, with a report in JSON and Markdown.

    [YOLOR_PEER=<checkout of the released branch `paper`>] python -m benchmarks.gpu [--minutes 9]
        [--device cuda] [--out gpu-report] [--parts training batches ...] [--tiny]

It needs one GPU, no network and no dataset. Parts run one after another, the most important first, each in a
process of its own with a limit. One that fails, that is stopped at its limit or for which no time is left is
named in the report with what it had; the rest goes on. The report is written after every part.

    part        what it tells                                                                 seconds at most
    device      what the figures depend on                                                                120
    training    images a second, share of the peak of a large matrix product, memory, by precision and
                memory format: csp-fast at 640 pixels and p6-light at 1280                                110
    tests       the tests marked `gpu`                                                                     90
    batches     memory and a cluster profile's `tflops` by images a GPU                                    60
    data        share of a training that waits for a decoded pack of built-in shapes                       60
    resume      a training killed and resumed beside two that were left alone                              60
    inference   agreement with the CPU, suppression, evaluation, `ablate speed`                            60
    ddp         DistributedDataParallel and its exchanges over one process                                 40
    shared      several trainings side by side at the profile `small`                                      70
    peer        a step against the released code's                                                         60
    compiled    training with `numerics.compile`                                                  what is left

With more than 9 minutes the limits grow in proportion. `--device cpu --tiny` runs every part on a CPU at 64
pixels in a minute or two, to try out the command itself; such figures mean nothing and are marked CPU. Exit
code 1: a part failed; 130, 143: interrupted, with the report of what there was.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).parent.parent
MINUTES = 9.0
LIMITS = {  # seconds of a part, in the order in which they run
    "device": 120.0, "training": 110.0, "tests": 90.0, "batches": 60.0, "data": 60.0, "resume": 60.0,
    "inference": 60.0, "ddp": 40.0, "shared": 70.0, "peer": 60.0, "compiled": float("inf"),
}  # fmt: skip
SHORTEST = 3.0  # seconds; with less left a part does not begin
BEGINS = "begins: "  # as a part says what it measures next
Record = dict[str, Any]

TITLES = {
    "device": "Device",
    "training": "Training steps",
    "tests": "Tests marked `gpu`",
    "batches": "Memory, throughput and `tflops` by images a GPU, at the numerics of the profile",
    "data": "Waiting for data: the loader on a decoded pack, mosaics included",
    "resume": "A training killed and resumed, compared with one left alone",
    "agreement": "Agreement of the network's outputs with the CPU's",
    "suppression": "Suppression of an image, from its candidates",
    "evaluation": "Evaluation of a split",
    "inference": "Inference, as `ablate speed`",
    "ddp": "DistributedDataParallel over one process",
    "shared": "Several trainings side by side, at the profile `small`: all of them together",
    "peer": "A training step against the released code's",
    "compiled": "Training steps, compiled",
}  # of the tables, in the order of the report


class Report:
    """What was found so far, in memory and in two files of a folder."""

    def __init__(self, folder: Path, command: str) -> None:
        self.folder = folder
        began = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        self.parts: dict[str, Record] = {}
        self.record: Record = {"command": command, "began": began, "parts": self.parts, "tables": {}}

    def add(
        self, part: str, state: str, seconds: float = 0.0, error: str = "", rows: Path | None = None
    ) -> None:
        """Note how a part ended, take over its rows, write the files."""
        self.parts[part] = {"state": state, "seconds": round(seconds, 1)} | (
            {"error": error} if error else {}
        )
        print(f"{part:10}{state:24}{seconds:6.0f} s  {error}", flush=True)
        for line in rows.read_text().splitlines() if rows and rows.is_file() else ():
            with contextlib.suppress(json.JSONDecodeError):  # the last line of a part that was killed
                row = json.loads(line)
                self.record["tables"].setdefault(row.pop("table"), []).append(row)
        self.write()

    @property
    def on(self) -> str:
        """GPU or CPU; nothing as long as no part could say."""
        return next((row["on"] for rows in self.record["tables"].values() for row in rows), "")

    def speeds(self) -> list[Record]:
        """A cluster profile's `tflops` by what a GPU is given; none of a CPU."""
        tables = self.record["tables"] if self.on == "GPU" else {}
        one = [{"profile": "paper", "runs_per_gpu": 1} | row for row in tables.get("batches", ())]
        rows = one + [{"profile": "small"} | row for row in tables.get("shared", ())]
        return [
            {key: row[key] for key in ("profile", "experiment", "images", "runs_per_gpu")}
            | {"tflops": round(row["TFLOP/s"], 2)}
            for row in sorted(rows, key=by_batch)
            if "TFLOP/s" in row
        ]

    def write(self) -> None:
        """Write report.json and report.md, each at once."""
        self.record |= {"on": self.on, "tflops": self.speeds()}
        for name, text in (("json", json.dumps(self.record, indent=1)), ("md", self.markdown())):
            partial = self.folder / f".report.{name}"
            partial.write_text(text + "\n", encoding="utf-8")
            partial.replace(self.folder / f"report.{name}")

    def markdown(self) -> str:
        """The report for people."""
        tables = self.record["tables"]
        name = next(
            (row["value"] for row in tables.get("device", ()) if row["fact"] == "device"), "unknown device"
        )
        lines = [
            f"# {self.on or 'Nothing measured'}: {name}",
            "",
            f"`{self.record['command']}`, {self.record['began']}",
        ]
        if self.on == "CPU":
            lines += ["", "**A CPU. These figures show that the command works and say nothing about a GPU.**"]
        rows = [{"part": part} | ended for part, ended in self.parts.items()]
        done = sum(ended["state"] == "done" for ended in self.parts.values())
        lines += ["", f"{done} of {len(LIMITS)} parts complete.", "", "## Parts", "", *table(rows)]
        lines += self.profile()
        for key, title in TITLES.items():
            if key in tables:
                # Batches are measured by their importance.
                rows = sorted(tables[key], key=by_batch) if key in ("batches", "shared") else tables[key]
                lines += ["", f"## {title}{' (CPU)' if self.on == 'CPU' else ''}", "", *table(rows)]
        return "\n".join(lines)

    def profile(self) -> list[str]:
        """The lines of a cluster profile to choose from."""
        if not self.speeds():
            return []
        return [
            "", "## For a cluster profile", "",
            "`tflops` counts as `ablate launch` does for its hours: steps alone, no waiting for data and no "
            "evaluation. Take the line of your model and of the images of a batch that a GPU has "
            "(`train.batch`, 64 at `paper` and 16 at `proxy`, divided by the GPUs of a run). Of `small` it "
            "is that of all runs on the GPU together.", "", "```toml",
            *map(line, self.speeds()), "```",
        ]  # fmt: skip


def by_batch(row: Record) -> tuple[str, int, int]:
    """Experiment, images, and how many runs share the GPU."""
    return row["experiment"], row["images"], row.get("runs_per_gpu", 1)


def line(speed: Record) -> str:
    """A line of a cluster profile, saying for what it is right."""
    shared = f" at small, runs_per_gpu = {speed['runs_per_gpu']}" if speed["profile"] == "small" else ""
    return f"tflops = {speed['tflops']:<8} # {speed['experiment']}, {speed['images']} images{shared}"


def table(rows: list[Record]) -> list[str]:
    """Rows as a table in Markdown, with a column for each key but "on"."""
    columns = list(dict.fromkeys(key for row in rows for key in row if key != "on"))
    cells = [[cell(row.get(column)) for column in columns] for row in rows]
    return ["| " + " | ".join(line) + " |" for line in (columns, ["---"] * len(columns), *cells)]


def cell(value: object) -> str:
    """Four digits of a number, yes or no, and text that breaks no table."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: ""}[value]
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return str(value).replace("|", "\\|").replace("\n", " ")


def run(part: str, options: argparse.Namespace, limit: float, work: Path, report: Report) -> None:
    """Run a part in a process group of its own, which ends with this process, and note how it ended."""
    rows, log = work / f"{part}.jsonl", options.out / f"{part}.log"
    command = [sys.executable, "-m", "benchmarks.gpu_parts", part, "--device", options.device]
    command += ["--work", str(work), "--results", str(rows), *(["--tiny"] if options.tiny else [])]
    start, state, error = time.monotonic(), "interrupted", ""
    with log.open("w") as file:
        process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
        )
        try:
            code = process.wait(timeout=None if limit == float("inf") else limit)
            state = "failed" if code else "done"
            error = f"exit code {code}: {last_line(log)}" if code else ""
        except subprocess.TimeoutExpired:
            state, error = f"stopped after {limit:.0f} s", f"at: {last_line(log, BEGINS)}"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            report.add(part, state, time.monotonic() - start, error, rows)


def last_line(log: Path, start: str = "") -> str:
    """The last line of a log that begins so, without the beginning."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines()]
    found = [line for line in lines if line and line.startswith(start)]
    return found[-1].removeprefix(start)[:300] if found else "nothing"


def run_all(options: argparse.Namespace, work: Path, report: Report) -> None:
    """Run the parts while there is time."""
    end = time.monotonic() + 60 * options.minutes
    for part in LIMITS:
        left = end - time.monotonic()
        if part not in options.parts:
            continue
        if part == "peer" and not os.environ.get("YOLOR_PEER"):
            report.add(part, "left out", error="YOLOR_PEER names no checkout of the released code")
        elif left < SHORTEST:
            report.add(part, "no time left", error=f"the time was over: --minutes {options.minutes:g}")
        else:
            run(part, options, min(left, LIMITS[part] * max(1, options.minutes / MINUTES)), work, report)
            if part == "device" and not report.on:
                raise SystemExit(f"no device to measure: {report.parts[part].get('error', '')}")


def terminated(*_: object) -> NoReturn:
    """End as for Ctrl-C, with the code of SIGTERM: a job's time may be over."""
    raise SystemExit(143)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--minutes", type=float, default=MINUTES, help="for all of it [default: 9]")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N or cpu [default: cuda]")
    parser.add_argument("--out", type=Path, default=Path("gpu-report"), help="folder [default: gpu-report]")
    parser.add_argument("--parts", nargs="+", choices=LIMITS, default=list(LIMITS), metavar="PART")
    parser.add_argument("--tiny", action="store_true", help="64 pixels, to try the command out")
    options = parser.parse_args()
    if not 0 < options.minutes < float("inf"):
        parser.error(f"--minutes {options.minutes}: allowed is a number above 0")
    options.out = options.out.absolute()
    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"--out {options.out}: {error.strerror}; allowed is a folder, which may be new")
    options.parts = ["device", *options.parts]
    return options


def main() -> int:
    """Run the parts; the exit code."""
    options = parse()
    report = Report(options.out, " ".join(["python -m benchmarks.gpu", *sys.argv[1:]]))
    signal.signal(signal.SIGTERM, terminated)
    try:
        with tempfile.TemporaryDirectory(prefix="gpu-report-") as work:
            run_all(options, Path(work), report)
    except KeyboardInterrupt:
        return 130
    finally:
        print(f"report: {options.out / 'report.md'}")
    return int(any(part["state"] == "failed" for part in report.parts.values()))


if __name__ == "__main__":
    sys.exit(main())
