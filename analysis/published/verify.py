"""Making every number of a published folder again, and comparing it with what is published.

CSV, JSON and Parquet are compared number by number, so that the last digit of a sum may be another on another
processor. Texts for readers are made again too: by the code that published them they have to come out the
same to the byte. Other code may word them otherwise; then the measured numbers in them are compared alone.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import pandas as pd

from ablations.plan import MANIFEST, cores
from analysis.errors import NothingToShow
from analysis.figures.style import words, words_in
from analysis.plan_file import FOLDER as PLANS
from analysis.plan_file import REMEDY
from analysis.published import publish as published
from analysis.published.check_run import NO_OUTPUTS, OF_A_RUN, check_run, of_photographs
from analysis.published.checks import Check
from analysis.published.manifest import Files, Made, PublishError, code_hash, contents, read_manifest
from analysis.published.summary import PROVENANCE, SUMMARY, counted_runs, evidence, summary
from analysis.report.files import csv_file
from analysis.runs import load_runs
from analysis.stopping import Plan
from analysis.study import Costs, Study
from yolor_core.data.load import load_images
from yolor_core.errors import RunError
from yolor_core.runs import LOST

FEWEST = 4  # tasks for each process, which needs seconds to start
SVG = ".svg"


def verify(
    folder: Path, costs: Costs, processes: int | None = None, data: Path | None = None
) -> Iterator[Check]:
    """Check a published folder; yields every kind of check, in a fixed order.

    Args:
        folder: written by `analysis.published.publish.publish`.
        costs: counts the parameters and FLOPs of a table; a function of a module, for other processes.
        processes: that share the work; by default as many as there are cores.
        data: folder of the photographs that runs were trained on, by default that of their name here.

    Raises:
        PublishError: the folder is no published one, or a process was ended from outside.
        DataError: `data` is no folder in COCO's layout, or lacks pictures.
    """
    made, files = read_manifest(folder)
    paths = sorted(path for path in (folder / "runs").glob("*") if path.is_dir())
    if data is not None:  # else it would only be said that the dataset is not here
        for config in of_photographs(paths, data):
            for split in ("train", "val"):
                load_images(config, split)
    yield _files(folder, files)
    if (folder / PLANS).is_dir():
        yield check_looks(folder)
    # The texts first, because they take longest.
    tasks = [(check_texts, folder, made, costs), *((check_run, path, data) for path in paths)]
    try:
        texts, *runs = run_tasks(tasks, processes)
    except BrokenProcessPool:
        raise PublishError(
            "a process of the check was ended from outside, perhaps for want of memory; nothing is decided"
        ) from None
    for place, (name, why) in enumerate(OF_A_RUN):
        check = Check(name, why)
        for run in runs:
            check.join(run[place])
        yield check
    same_code = made.sources == code_hash()
    for check in texts:
        if same_code:  # then other words are differences too
            check.differences, check.wording = check.differences + check.wording, []
        yield check


def conclusion(folder: Path, checks: Sequence[Check]) -> str:
    """What the checks of a folder say together, in a line that begins with its name."""
    if count := sum(len(check.differences) for check in checks):
        return f"{folder}: {count} difference{'s' if count != 1 else ''}"
    said = f"{folder}: verified"
    if left := [check for check in checks if check.not_derived and check.why != NO_OUTPUTS]:
        reasons = "; ".join(dict.fromkeys(check.why for check in left))
        said += f" but for {sum(check.not_derived for check in left)} values not re-derived ({reasons})"
    if count := sum(len(check.wording) for check in checks):
        commit = read_manifest(folder)[0].commit or "unknown"
        said += (
            f"; {count} place{'s are' if count != 1 else ' is'} worded or laid out otherwise by this version "
            f"of the code. Published by commit {commit}, which compares that too"
        )
    return said


def run_tasks(tasks: Sequence[tuple[Any, ...]], processes: int | None = None) -> list[Any]:
    """What each task, a function and its arguments, returns; by default on all cores, if there is enough.

    An interruption ends the processes.
    """
    count = max(1, min(cores(), len(tasks) // FEWEST)) if processes is None else processes
    if count == 1:
        return [function(*arguments) for function, *arguments in tasks]
    # A fork would copy the locks of the threads that numpy and pyarrow have started.
    context, quiet = multiprocessing.get_context("spawn"), (signal.SIGINT, signal.SIG_DFL)
    with ProcessPoolExecutor(count, context, signal.signal, quiet) as pool:
        try:
            return [each.result() for each in [pool.submit(*task) for task in tasks]]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for child in multiprocessing.active_children():
                child.terminate()
            raise


def _files(folder: Path, files: Files) -> Check:
    check, found = Check(f"files, by hash and size ({MANIFEST})"), contents(folder)
    for name in sorted({*files, *found}):
        if name not in found:
            check.fail(f"{name} is missing")
        elif name not in files:
            check.fail(f"{name} is not in {MANIFEST}")
        elif dict(files[name]) != found[name]:
            old, new = files[name].get("bytes"), found[name]["bytes"]
            said = "its bytes are others" if old == new else f"{new} bytes, not {old}"
            check.fail(f"{name} is not what {MANIFEST} says: {said}")
        else:
            check.done += 1
    return check


def check_looks(folder: Path) -> Check:
    """Every look of every plan, taken again at the runs."""
    check, runs = Check(f"looks of the plans, taken again at the runs ({PLANS})"), load_runs(folder)
    for path in sorted((folder / PLANS).iterdir()):
        try:
            plan = Plan.read(path)
        except RunError as error:
            check.fail(str(error).split(f". {REMEDY}")[0])
            continue
        check.done += sum(len(plan.going(look)) for look in plan.looks)
        for pair, why in plan.astray(runs).items():
            check.differences.append(f"{PLANS}/{path.name}: {' against '.join(pair)}: {why}")
    return check


# What follows from the runs together: tables, provenance, summary, data of the figures.


def check_texts(folder: Path, made: Made, costs: Costs) -> list[Check]:
    """Make every text of a published folder again and compare it."""
    rows = Check("runs, each behind a row of a table")
    tables = Check("tables in every format, made again from the runs")
    verdicts = Check(f"verdicts ({SUMMARY})")
    origin = Check(f"where each cell comes from ({PROVENANCE})")
    drawn = Check("data of the figures, and their captions")
    try:
        study = published.reopened(folder, made, costs)
        if study.refused:
            tables.fail(f"the tables cannot be made: {'; '.join(study.refused.values())}")
            return [rows, tables]
        lost = study.runs[study.runs["state"].isin(LOST)]  # published so that tables say so
        counted = {*counted_runs(study)["run"], *lost["run"]}
        for plan in published.plans_behind(study):
            counted |= {*plan.runs(study.everything)["run"]}
        for path in sorted((folder / "runs").glob("*")):
            rows.done += 1
            if path.name not in counted:
                rows.differences.append(f"runs/{path.name} has the settings of no row, or is not finished")
        if not counted:
            tables.fail(
                "no run has the settings that the tables have in this version of the code; check out "
                f"commit {made.commit or 'of provenance.csv'}, which published them"
            )
            return [rows, tables]
        texts = evidence(study) | {SUMMARY: summary(study)}
        again = {name: (text.encode(), None) for name, text in texts.items()} | _figures(drawn, study)
        found = {path.relative_to(folder).as_posix() for path in folder.glob("tables/*")}
        found |= {path.relative_to(folder).as_posix() for path in folder.glob("figures/*")}
        for name in sorted({*found, *again}):
            figure = name.startswith("figures/")
            check = drawn if figure else {SUMMARY: verdicts, PROVENANCE: origin}.get(name, tables)
            if name in again and (folder / name).is_file():
                old = (folder / name).read_bytes()
                if name.endswith(SVG):  # what is drawn has its numbers in the file beside it
                    old = words_in(old.decode(errors="replace")).encode()
                check.file(name, old, *again[name])
            else:
                said = f"{name} is {'missing' if name in again else 'not made from these runs'}"
                check.done += 1  # another version of the code may draw others
                (check.wording if figure else check.differences).append(said)
    except Exception as error:  # whatever a damaged file leads to, the other checks are told
        drawn.fail(f"cannot be made from these runs: {type(error).__name__}: {error}")
    return [rows, tables, verdicts, origin, drawn]


def _figures(check: Check, study: Study) -> dict[str, tuple[bytes, pd.DataFrame | None]]:
    """Of every figure that shows something, as a report has it.

    {path in the folder: content and numbers}; of an SVG file its `words` alone.
    """
    found: dict[str, tuple[bytes, pd.DataFrame | None]] = {}
    for drawing in published.published_drawings(study):
        try:
            frame = drawing.data(study)
            name, content = csv_file(frame, drawing.csv)
            found[name] = (content, frame)
            captions = words(drawing.title, drawing.caption, drawing.name)
            found[f"figures/{drawing.name}{SVG}"] = (captions.encode(), None)
        except NothingToShow:
            pass
        except Exception as error:  # one figure must not cost the check of the others
            check.fail(f"{drawing.csv} cannot be made: {type(error).__name__}: {error}")
    return found
