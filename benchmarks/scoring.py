"""COCO scores: this project's engine against hotcoco, the fastest other evaluator known to us.

    [YOLOR_REAL_DATA=...] python benchmarks/scoring.py [--peer-python PATH] [--repeats N] [--shuffle]

hotcoco (`pip install hotcoco==1.3.0`, MIT) is no dependency of this project; PATH is the Python of an
environment that has it, by default the one that runs this. The truth and the 500,000 detections are those of
`bootstrap.py`, by image, category and score, or with --shuffle in no order. Each side works in a process of
its own, on 1 and on 2 threads, by turns:

* scoring: `match` + `score` against evaluate + accumulate + summarize, each from its own index of the truth;
  ours from the columns of the detections, hotcoco from the dataset that `load_res` has made of them;
* everything: the making of that index and dataset, too, from the same dictionary and columns;
* memory: how far the peak of resident memory rises, above what inputs, libraries and a first small call have
  taken.

The twelve numbers of both are compared with each other, and with pycocotools' at the end.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

ROOT = Path(__file__).parent.parent
SIDES = ("ours", "hotcoco")
ROW = "{:32s}{:>10s}{:>10s}{:>8s}{:>12s}"
Columns = dict[str, Any]  # image_id, category_id, boxes, scores
Prepare, Score = Callable[[Any, Columns], Any], Callable[[Any], list[float]]


def ours(threads: int) -> tuple[Prepare, Score]:
    """The index that scoring begins with, and scoring."""
    sys.path.insert(0, str(ROOT))
    from yolor_core.evaluation.detections import Detections
    from yolor_core.evaluation.engine import Truth, match, score

    def prepare(truth: Any, columns: Columns) -> Any:
        return Truth.read(truth), Detections(**columns)

    def run(prepared: Any) -> list[float]:
        return list(score(match(*prepared, threads), threads)["detection"].values())

    return prepare, run


def hotcoco(threads: int) -> tuple[Prepare, Score]:
    """The same of the peer, which was told the number of threads by RAYON_NUM_THREADS."""
    from hotcoco import COCO, COCOeval

    def prepare(truth: Any, columns: Columns) -> Any:
        index = COCO(truth)
        table = (columns[name] for name in ("image_id", "boxes", "scores", "category_id"))
        return index, index.load_res(np.column_stack([each.astype(np.float64) for each in table]))

    def run(prepared: Any) -> list[float]:
        evaluation = COCOeval(*prepared, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        with contextlib.redirect_stdout(io.StringIO()):
            evaluation.summarize()
        return [float(value) for value in evaluation.stats]

    return prepare, run


def memory(field: str) -> float:
    """MB of this process: VmRSS is now, VmHWM the peak."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) / 1024


def rise(before: float) -> float:
    """MB of the peak above `before`."""
    return memory("VmHWM") - before


def work(side: str, folder: Path, threads: int) -> None:
    """A side's process: does what stdin says, a word a line, and prints what came of it as JSON."""
    prepare, run = (ours if side == "ours" else hotcoco)(threads)
    truth = json.loads((folder / "truth.json").read_text())
    columns = dict(np.load(folder / "detections.npz"))
    few = {name: value[:1000] for name, value in columns.items()}
    run(prepare(truth, few))
    prepared: Any = None
    print("ready", flush=True)
    for line in sys.stdin:
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before = memory("VmRSS")
        used, clock = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        if line.strip() == "prepare":
            prepared = None
            prepared, numbers = prepare(truth, columns), []
        else:
            numbers = run(prepared)
        seconds, after = time.perf_counter() - clock, resource.getrusage(resource.RUSAGE_SELF)
        cpu = after.ru_utime - used.ru_utime + after.ru_stime - used.ru_stime
        told = {"clock": seconds, "cpu": cpu, "numbers": numbers, "memory": rise(before)}
        print(json.dumps(told), flush=True)


def ask(process: subprocess.Popen[str], word: str) -> dict[str, Any]:
    """What a side answers."""
    assert process.stdin and process.stdout
    process.stdin.write(f"{word}\n")
    process.stdin.flush()
    answer: dict[str, Any] = json.loads(process.stdout.readline())
    return answer


def compare(folder: Path, pythons: dict[str, str], threads: int, repeats: int) -> list[float]:
    """Print the ratios on so many threads; the twelve numbers."""
    processes = {}
    for side in SIDES:
        command = [pythons[side], __file__, "--work", side, "--folder", str(folder)]
        command += ["--threads", str(threads)]
        environment = os.environ | {"RAYON_NUM_THREADS": str(threads), "OMP_NUM_THREADS": "1"}
        processes[side] = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for side in SIDES:
        stdout = processes[side].stdout
        assert stdout and stdout.readline() == "ready\n", f"{pythons[side]} cannot score with {side}"
    for _ in range(repeats):
        for word in ("prepare", "score"):
            for side in SIDES:
                found.setdefault((side, word), []).append(ask(processes[side], word))
    for process in processes.values():
        assert process.stdin
        process.stdin.close()
        process.wait()

    def row(name: str, kind: str, words: tuple[str, ...], pick: Callable[[list[float]], float]) -> None:
        of = [[sum(found[side, word][i][kind] for word in words) for i in range(repeats)] for side in SIDES]
        unit = 1 if kind == "memory" else 1000
        mine, theirs = (pick(values) * unit for values in of)
        fastest = "" if kind == "memory" else f"{min(of[1]) / min(of[0]):.2f}"
        print(ROW.format(name, f"{mine:.0f}", f"{theirs:.0f}", f"{theirs / mine:.2f}", fastest))

    number = f", {threads} thread{'s' if threads > 1 else ''}"
    for what, words in (("scoring", ("score",)), ("everything", ("prepare", "score"))):
        row(f"{what}{number}, clock, ms", "clock", words, median)
        row(f"{what}{number}, processor, ms", "cpu", words, median)
        row(f"{what}{number}, memory, MB", "memory", words, lambda values: values[0])
    numbers = [found[side, "score"][0]["numbers"] for side in SIDES]
    differ = max(abs(a - b) for a, b in zip(*numbers, strict=True))
    print(f"{threads} threads: the twelve numbers of both differ by {differ:g} at most")
    assert differ <= 1e-12
    return list(numbers[0])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--shuffle", action="store_true")
    for hidden in ("--work", "--folder", "--threads"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work:
        work(given.work, Path(given.folder), int(given.threads))
        return

    sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]
    from bootstrap import DETECTIONS, detect, reference, val2017

    truth = val2017()
    found = detect(truth, DETECTIONS, 1, 0.060)
    columns = {name: getattr(found, name) for name in ("image_id", "category_id", "boxes", "scores")}
    if given.shuffle:
        order = np.random.default_rng(0).permutation(len(found))
        columns = {name: value[order] for name, value in columns.items()}
        found = type(found)(**columns)
    print(
        f"{len(truth['images'])} images, {len(truth['annotations'])} boxes, {len(found)} detections; ", end=""
    )
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print(ROW.format("", "ours", "hotcoco", "ratio", "of fastest"))
    pythons = {"ours": sys.executable, "hotcoco": given.peer_python}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "truth.json").write_text(json.dumps(truth))
        np.savez(folder / "detections.npz", **columns)
        numbers = [compare(folder, pythons, threads, given.repeats) for threads in (1, 2)]
    _, _, official = reference(truth, found)
    assert numbers == [official, official]
    print("ours and pycocotools' are equal, bit for bit")


if __name__ == "__main__":
    main()
