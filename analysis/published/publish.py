"""Writing a published folder: runs without what names the machine, tables, figures, summary, manifest."""

from __future__ import annotations

import getpass
import re
import shutil
import socket
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ablations.plan import MAKER, MANIFEST, is_published
from analysis.comparison import stored
from analysis.design import signatures
from analysis.figures.catalogue import DIFFERENCES, Drawing, drawings
from analysis.plan_file import FOLDER as PLANS
from analysis.published.detections import pack
from analysis.published.manifest import Made, PublishError, contents, read_manifest, write_manifest
from analysis.published.summary import PROVENANCE, SUMMARY, counted_runs, evidence, lacking, summary
from analysis.report.files import Kind, replaced, write_figures
from analysis.runs import load_runs
from analysis.stopping import Plan
from analysis.study import Costs, Study, open_study
from analysis.tables.cells import NOT_RUN, QUOTED_ROW
from yolor_core.errors import RunError, counted, some_of
from yolor_core.evaluation.engine import Truth
from yolor_core.runs import LOST
from yolor_core.runs.directory import RunDirectory, unreadable, why, write_json

PICTURES = "validation-images.csv"  # of photographs: which picture an image_id is
ENTRIES = frozenset({MANIFEST, SUMMARY, PROVENANCE, PICTURES, "runs", "tables", "figures", PLANS})
FOLDER = Kind("a published folder", MAKER, MANIFEST, ENTRIES)
FEW = 5  # runs or files named in one line
MOST = 50_000_000  # bytes of a published folder
SMALL = 200_000  # bytes of the raw priors that are published; at paper scale they are many times that
ONE = (("commit", "commits"), ("source_hash", "yolor_core sources"), ("fingerprint", "data"))
OF_THE_MACHINE = ("host", "pid", "jobs", "heartbeat", "lease")  # fields that name it or its processes
ABSOLUTE = re.compile(r"(?<![\w.:/~-])(?:~|[A-Za-z]:)?[/\\](?:[^\s/\\:;,'\"]+[/\\])*([^\s/\\:;,'\"]*)")
HIDDEN = "-"


@dataclass(frozen=True)
class Published:
    """What was written."""

    folder: Path
    runs: int
    tables: int
    figures: int
    files: int
    bytes: int
    failed: tuple[str, ...] = ()  # figures that could not be drawn, and why


def publish(
    study: Study,
    made: Made,
    target: Path,
    dirty: bool = False,
    incomplete: bool = False,
    most: int = MOST,
) -> Published:
    """Write the evidence of a study into the folder `target`, in place of an older one.

    Tables and figures are made from the published copies of the runs, so that they can be made again.

    Args:
        study: of `analysis.study.open_study`.
        made: how it was opened.
        target: a new or empty folder, or a published one.
        dirty: whether runs of changed code are published.
        incomplete: whether seeds that were asked for may be missing.
        most: bytes of the whole folder.

    Raises:
        PublishError: no finished runs; runs of different code or data (unless `made.mixed`); runs of a
            changed working tree (unless `dirty`); a seed that was asked for and has not finished (unless
            `incomplete`); a plan whose looks the runs do not give again; more than `most` bytes.
        NotAReportError: `target` holds something else.
    """
    if study.refused:
        raise PublishError("; ".join(study.refused.values()))
    of_plans = {run for plan in plans_behind(study) for run in plan.runs(study.everything)["run"]}
    every = study.everything.sort_values("run")
    lost = every[every["state"].isin(LOST) & every["run"].isin({*study.runs["run"], *of_plans})]
    runs = every[every["state"].eq("done") & every["run"].isin({*counted_runs(study)["run"], *of_plans})]
    runs = runs.drop_duplicates("run", ignore_index=True)
    _refuse(study, runs, made, dirty)
    if made.seeds is not None and not incomplete and (absent := lacking(study)):
        have = "has" if len(absent) == 1 else "have"
        raise PublishError(
            f"{counted(len(absent), 'run')} {have} not finished: {some_of(absent, FEW)}; "
            "finish them (`ablate status` shows their progress), or allow it with --incomplete"
        )
    earlier = {results for results in set(runs["path"].map(results_of)) if is_published(results)}
    with replaced(target, FOLDER) as folder:
        for name, path in zip(runs["run"], runs["path"], strict=True):
            if results_of(path) in earlier:  # as they are; their photographs may not be here
                shutil.copytree(path, folder / "runs" / str(name))
            else:
                copy_run(Path(path), folder / "runs" / str(name), made)
        for name, path in zip(lost["run"], lost["path"], strict=True):  # tables say what became of them
            copy_records(Path(path), folder / "runs" / str(name))
        for plan in plans_behind(study):
            (folder / PLANS).mkdir(exist_ok=True)
            shutil.copyfile(plan.path, folder / PLANS / plan.path.name)
        if (pictures := file_names(runs[~runs["path"].map(results_of).isin(earlier)])) is not None:
            pictures.to_csv(folder / PICTURES, index=False, lineterminator="\n")
        elif runs["fingerprint"].nunique(dropna=False) == 1:
            for known in sorted(results / PICTURES for results in earlier):
                if known.is_file():
                    shutil.copyfile(known, folder / PICTURES)
        copied = reopened(folder, made, study.costs)
        figures = write_figures(copied, folder, published_drawings(copied))
        for name, text in evidence(copied).items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8", newline="")
        (folder / SUMMARY).write_text(summary(copied), encoding="utf-8")
        files = write_manifest(folder, made)
        total = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        if total > most:
            order = sorted(files.items(), key=lambda item: (-int(item[1]["bytes"]), item[0]))
            largest = [f"{name} ({int(each['bytes']) / 1e6:.2f} MB)" for name, each in order[:FEW]]
            raise PublishError(
                f"the folder would have {total / 1e6:.1f} MB, more than {most / 1e6:g} MB; largest: "
                f"{', '.join(largest)}. Publish fewer seeds, a coarser --grid or a larger --every"
            )
    drawn = sum(each.nothing is None for each in figures)
    failed = tuple(f"{each.drawing.name}: {each.nothing}" for each in figures if each.failed)
    return Published(target, len(runs), len(copied.filled), drawn, len(files) + 1, total, failed)


def results_of(run: str) -> Path:
    """The folder of results that a run's folder is in."""
    return Path(run).parents[1]


def joined(runs: pd.DataFrame, folder: Path, every: int, grid: int) -> pd.DataFrame:
    """`runs` with those of a published folder, to publish both as one study; one that is in both counts once.

    Args:
        runs: of `analysis.runs.load_runs`.
        folder: a published one, without plans of seeds.
        every, grid: with which the two are to be published.

    Raises:
        PublishError: the folder is no published one or not as it was published; it was made with another
            `every` or `grid`; it has a plan; a finished run of both has other scores here than there.
    """
    made, files = read_manifest(folder)
    there = contents(folder)
    if changed := sorted(name for name in {*files, *there} if files.get(name) != there.get(name)):
        raise PublishError(f"{folder} is not as it was published: {some_of(changed, FEW)}")
    if (made.every, made.grid) != (every, grid):
        raise PublishError(
            f"{folder} was published with --every {made.every} --grid {made.grid}, and here it is "
            f"--every {every} --grid {grid}; one study has one of each"
        )
    if (folder / PLANS).is_dir():
        raise PublishError(
            f"{folder} has rows whose seeds were added by a rule ({PLANS}/); such a study is published from "
            "the results that its launch wrote"
        )
    earlier = load_runs(folder)
    finished = set(earlier.loc[earlier["state"].eq("done"), "run"])
    for name, path in runs.loc[runs["state"].eq("done") & runs["run"].isin(finished), ["run", "path"]].values:
        mine, theirs = Path(path), folder / "runs" / str(name)
        if RunDirectory(mine).read_evaluation() != RunDirectory(theirs).read_evaluation():
            raise PublishError(f"the run {name} has other scores in {mine} than in {theirs}")
    first = earlier["run"].isin(finished)  # before runs of here, and those before what was lost there
    return pd.concat([earlier[first], runs, earlier[~first]]).drop_duplicates("run", ignore_index=True)


def plans_behind(study: Study) -> list[Plan]:
    """Those by which seeds of the comparisons of the tables were added."""
    named = signatures(study.experiments, study.profile, study.overrides)
    own = {(named[arm], named[control]) for arm, control in study.comparisons}
    return [plan for plan in study.plans if any(plan.signed(pair) in own for pair in plan.pairs)]


def reopened(folder: Path, made: Made, costs: Costs) -> Study:
    """The study of a published folder, as it was opened to be published; `costs` counts parameters."""
    return open_study(
        folder,
        made.profile,
        made.tables,
        made.overrides,
        made.seeds,
        mixed=made.mixed,
        margin=made.margin,
        costs=costs,
    )


def published_drawings(study: Study) -> tuple[Drawing, ...]:
    """The catalogue; without figures that show images unless these are synthetic.

    Photographs have licences of their own, and a published folder does not say where they are.
    """
    synthetic = counted_runs(study)["data"].astype(str).str.startswith("shapes").all()
    return tuple(each for each in drawings(study) if synthetic or each.section != DIFFERENCES)


def file_names(runs: pd.DataFrame) -> pd.DataFrame | None:
    """image_id and file_name of validation photographs; None for shapes, several data, and no detections.

    Detections and the split say nothing without them to others who have the photographs.
    """
    detect = [Path(path) for path in runs["path"] if RunDirectory(Path(path)).detections.is_file()]
    one = runs["fingerprint"].nunique(dropna=False) == 1
    if not detect or not one or runs["data"].astype(str).str.startswith("shapes").any():
        return None
    return pictures_of(stored(detect[0])[0])


def pictures_of(annotations: Mapping[str, Any]) -> pd.DataFrame:
    """image_id and file_name of the pictures of an annotation file."""
    images = pd.DataFrame(annotations["images"])[["id", "file_name"]]
    return images.rename(columns={"id": "image_id"}).sort_values("image_id", ignore_index=True)


def _refuse(study: Study, runs: pd.DataFrame, made: Made, dirty: bool) -> None:
    if runs.empty:
        states = [each for filled in study.filled.values() for each in filled.status.items()]
        told_by_row = (f"{row}: {said}" for row, said in states if said not in (NOT_RUN, QUOTED_ROW))
        reasons = list(dict.fromkeys(told_by_row))  # rows of several tables are called baseline
        raise PublishError(
            f"no finished runs of tables {', '.join(made.tables)} at profile {made.profile}"
            + ("" if made.seeds is None else f" with seeds {', '.join(map(str, made.seeds))}")
            + (f" have a score: {'; '.join(reasons)}" if reasons else "")
        )
    for plan in plans_behind(study):
        for pair, told in plan.astray(study.wanted).items():
            raise PublishError(
                f"{' against '.join(pair)} has no interval by the plan {plan.path}: {told}. Publish from the "
                "folder, with the seeds, data and sources, that the launch had"
            )
    for column, what in () if made.mixed else ONE:
        groups = runs.groupby(column, dropna=False)["run"]
        if groups.ngroups > 1:
            parts = [f"{str(key)[:10]} ({len(names)} runs, e.g. {names.iloc[0]})" for key, names in groups]
            raise PublishError(
                f"the runs are of different {what}: {'; '.join(parts)}. Choose some with --source, "
                "--fingerprint or --seeds, or allow it with --mixed"
            )
    for found, what in (
        (runs["dirty"].eq(True), "are of code that is in no commit"),
        (~runs["dirty"].eq(False), "do not say which commit they are of (no checkout, e.g. from a wheel)"),
    ):
        if found.any() and not dirty:
            raise PublishError(
                f"{found.sum()} of {len(runs)} runs {what}, e.g. {runs.loc[found, 'run'].iloc[0]}; "
                "train them from a clean checkout, or allow it with --dirty"
            )


# A run's files.


def copy_run(source: Path, target: Path, made: Made) -> None:
    """Write the publishable files of a finished run into the new folder `target`.

    Raises RunError where a file is missing or damaged.
    """
    old, new = RunDirectory(source), RunDirectory(target)
    evaluation = old.read_evaluation()
    if evaluation is None:
        raise RunError(f"{source} is no finished run: {', '.join(old.missing())}")
    copy_records(source, target)
    write_json(new.evaluation, evaluation)
    new.write_metrics(old.read_metrics())
    if old.detections.is_file():
        annotations, detections = stored(source)
        pack(detections, Truth.read(annotations), new.detections, made.grid)
    for path in (old.implicit, old.effects):
        if path.is_file():
            _thin(path, target / path.name, made.every)
    if old.dataset.is_file():
        shutil.copyfile(old.dataset, new.dataset)
    if old.priors.is_file() and old.priors.stat().st_size <= SMALL:
        shutil.copyfile(old.priors, new.priors)


def copy_records(source: Path, target: Path) -> None:
    """Write run.json and state.json of a run, finished or not, into the new folder `target`.

    Raises RunError where one is missing or damaged.
    """
    old, new = RunDirectory(source), RunDirectory(target)
    record, state = old.read_run(), old.read_state()
    if record is None or state is None:
        raise RunError(f"{source} is no run: {(old.run if record is None else old.state).name} is missing")
    target.mkdir(parents=True)
    names = {str(each["host"]) for each in (state, record) if each.get("host")}
    names |= {socket.gethostname(), socket.getfqdn()}
    with suppress(KeyError, OSError):  # a user without a name
        names.add(getpass.getuser())
    data = record["config"].get("data") or {}
    found = {str(data[key]) for key in ("root", "packs") if Path(data.get(key) or "").name}
    roots = sorted(found, key=len, reverse=True)  # one may be inside the other
    clean = scrub(record, names - {"localhost"}, roots)
    config = clean.pop("config")
    # What the signature is computed from must stay as it is, and has no paths.
    kept = {key: record["config"][key] for key in ("experiment", "science")}
    write_json(new.run, clean | {"config": kept | config | kept})
    write_json(new.state, scrub(state, names - {"localhost"}, roots))


def scrub(value: Any, names: Collection[str], roots: Iterable[str] = ()) -> Any:
    """A JSON value without what names the machine: its fields, paths but their last part, and `names`.

    roots: folders that texts may name, longest first, whatever letters are in them; of others a path ends at
    a space.
    """
    if isinstance(value, dict):
        return {key: scrub(each, names, roots) for key, each in value.items() if key not in OF_THE_MACHINE}
    if isinstance(value, list):
        return [scrub(each, names, roots) for each in value]
    if not isinstance(value, str):
        return value
    for root in roots:
        value = value.replace(root, Path(root).name)
    words = "|".join(map(re.escape, sorted(names, key=len, reverse=True)))
    text = ABSOLUTE.sub(lambda found: found[1] or HIDDEN, value)
    return re.sub(rf"(?<![\w-])(?:{words})(?![\w-])", HIDDEN, text) if words else text


def _thin(source: Path, target: Path, every: int) -> None:
    """Copy a parquet file's first, last and each `every`-th epoch. Raises RunError for a damaged file."""
    try:
        table = pq.read_table(source)
        epochs = sorted(set(table["epoch"].to_pylist()))
    except (OSError, KeyError, pa.ArrowException) as error:
        raise unreadable(source, why(error)) from None
    kept = [each for each in epochs if each % every == 0 or each in (epochs[0], epochs[-1])]
    rows = pc.is_in(table["epoch"], value_set=pa.array(kept, table["epoch"].type))
    pq.write_table(table.filter(rows), target, compression="zstd", compression_level=19)
