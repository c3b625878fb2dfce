"""From tables and seeds to runs: which trainings, where each one lives, and which must come first.

And what of this machine they may use, and which are not to be trained here: those that a cluster has, and
those of a published study.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from ablations.experiments import Experiment
from ablations.overrides import Override, override_data, override_execution
from ablations.planned import PlannedRun
from ablations.profiles import PROFILES, profile_named
from ablations.registry import Selection, all_experiments, as_overrides, resolve, select
from yolor_core.config import CocoConfig, DataConfig, Execution, RunConfig, Science
from yolor_core.data.layout import coco_config
from yolor_core.errors import ConfigError, UnknownNameError
from yolor_core.identity import run_id, signature
from yolor_core.runs import State
from yolor_core.runs.directory import read_json

MOST_SEEDS = 10_000
MAKER, MANIFEST = "ablate publish", "manifest.json"  # of a published study


def default_results() -> Path:
    """The results folder: what ABLATE_RESULTS names, or `results` here."""
    return Path(os.environ.get("ABLATE_RESULTS") or "results")


def runs_folder(results: Path) -> Path:
    """Where the run directories are."""
    return results / "runs"


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def visible_gpus() -> tuple[str, ...]:
    """GPUs that runs may use, as CUDA_VISIBLE_DEVICES names them; asks no driver."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return tuple(name.strip() for name in chosen.split(",") if name.strip() not in ("", "-1"))
    return tuple(str(index) for index in range(len(list(Path("/dev").glob("nvidia[0-9]*")))))


def data_config(
    data: str | DataConfig | None, profile: str, overrides: Sequence[str | Override] = ()
) -> DataConfig:
    """The data to use: a folder in COCO's layout, 'shapes', a configuration, or the profile's own if None."""
    config: DataConfig
    if data is None:
        config = profile_named(profile).data
    elif isinstance(data, str):
        shapes = next(p.data for p in (profile_named(profile), PROFILES["mini"]) if p.data.kind == "shapes")
        config = shapes if data == "shapes" else _folder(Path(data), as_overrides(overrides))
    else:
        config = data
    return override_data(config, as_overrides(overrides))


def _folder(root: Path, overrides: Sequence[Override]) -> CocoConfig:
    """The splits are those found in the folder, unless overrides name both.

    run.json keeps the whole path, so that a run can be evaluated from any folder.
    """
    root = root.absolute()
    if {"data.train", "data.val"} <= {override.path for override in overrides}:
        return CocoConfig(root=str(root))
    return coco_config(root)


def execution_config(profile: str, overrides: Sequence[str | Override] = ()) -> Execution:
    """How the machine is used: the profile's own, and `execution.*` overrides."""
    return override_execution(profile_named(profile).execution, as_overrides(overrides))


def plan_runs(
    names: Sequence[str] | Selection = (),
    profile: str = "mini",
    seeds: Sequence[int] = (0,),
    overrides: Sequence[str | Override] = (),
    data: str | DataConfig | None = None,
    results: Path | None = None,
    fingerprint: str | None = None,
) -> list[PlannedRun]:
    """The distinct runs behind tables, experiments and table files (see `registry.select`), for each seed.

    A run that continues another comes after it, and brings it along when it was not asked for. `fingerprint`
    is that of the data; None computes it, which reads the annotation files.

    Raises UnknownNameError and ConfigError as `registry.select` and `registry.resolve` do, DataError where a
    split of a folder has no box.
    """
    selection = select(names)
    parsed = as_overrides(overrides)
    data = data_config(data, profile, parsed)
    execution = execution_config(profile, parsed)
    ordered = with_predecessors(selection.experiments, selection)
    sciences = {e.slug: resolve(e, profile, parsed) for e in ordered}
    _refuse_twins(sciences)
    if fingerprint is None:
        from yolor_core.data import data_fingerprint

        if isinstance(data, CocoConfig) and not Path(data.root).is_dir():
            raise ConfigError(f"{data.root}: no such folder; name a folder in COCO's layout with --data PATH")
        fingerprint = data_fingerprint(data)
        if isinstance(data, CocoConfig):
            from yolor_core.data.load import check_before_training

            check_before_training(data)
    folder = runs_folder(results or default_results())
    continued = {e.continues for e in (*all_experiments().values(), *selection.experiments) if e.continues}
    planned: list[PlannedRun] = []
    for seed in check_seeds(seeds):
        where: dict[str, PlannedRun] = {}
        for experiment in ordered:
            before = where[experiment.continues] if experiment.continues else None
            own: dict[str, Any] = {
                "keep_checkpoint": execution.keep_checkpoint or experiment.slug in continued
            }
            if before is not None:
                own["start_checkpoint"] = str(before.run_dir)
            config = RunConfig(
                experiment=experiment.slug,
                seed=seed,
                science=sciences[experiment.slug],
                data=data,
                execution=execution.model_copy(update=own),
            )
            name = run_id(config, fingerprint)
            run = PlannedRun(name, config, folder / name, before.run_id if before else None)
            where[experiment.slug] = run
            planned.append(run)
    return planned


def _refuse_twins(sciences: Mapping[str, Science]) -> None:
    """Raises ConfigError when two experiments are one training: their runs could not be told apart."""
    known: dict[str, str] = {}
    for slug, science in sciences.items():
        other = known.setdefault(signature(science), slug)
        if other != slug:
            raise ConfigError(f"experiments {other!r} and {slug!r} are one training; use one name for it")


def with_predecessors(chosen: Sequence[Experiment], selection: Selection) -> list[Experiment]:
    """`chosen` in order, each behind the experiment it continues. Raises UnknownNameError for a dead link."""
    known = all_experiments() | {e.slug: e for e in selection.experiments}
    ordered: dict[str, Experiment] = {}

    def add(experiment: Experiment, above: tuple[str, ...] = ()) -> None:
        if experiment.slug in above:
            raise ConfigError(f"experiment {experiment.slug!r} continues itself: {' -> '.join(above)}")
        if experiment.continues is not None:
            if experiment.continues not in known:
                raise UnknownNameError(
                    f"experiment that {experiment.slug!r} continues", experiment.continues, known
                )
            add(known[experiment.continues], (*above, experiment.slug))
        ordered.setdefault(experiment.slug, experiment)

    for experiment in chosen:
        add(experiment)
    return list(ordered.values())


def with_continued(runs: Sequence[PlannedRun], slugs: Collection[str]) -> list[PlannedRun]:
    """Of planned runs those of some experiments, and the runs that these continue; in order."""
    needed = {run.after for run in runs if run.config.experiment in slugs}
    return [run for run in runs if run.config.experiment in slugs or run.run_id in needed]


def check_seeds(seeds: Sequence[int]) -> list[int]:
    """Each seed once, in order. Raises ConfigError for a negative one or for none."""
    if not seeds:
        raise ConfigError("seeds: at least one is needed")
    for seed in seeds:
        if seed < 0:
            raise ConfigError(f"seed {seed}: allowed are whole numbers from 0")
    return list(dict.fromkeys(seeds))


def parse_seeds(text: str) -> list[int]:
    """'5' -> the five seeds 0 to 4; '0,3', '2-4' and '7,' -> those seeds. Raises ConfigError otherwise."""
    allowed = "allowed are a number of seeds (5), or seeds by name: 0-4, or 0,2, or '7,' for seed 7 alone"
    parts = [part.strip() for part in text.split(",")]
    if len(parts) == 1 and parts[0].isdecimal():
        parts = [f"0-{int(parts[0]) - 1}"] if int(parts[0]) else [""]
    elif parts[-1] == "":
        parts.pop()
    seeds: list[int] = []
    for part in parts:
        first, dash, last = (piece.strip() for piece in part.partition("-"))
        if not first.isdecimal() or (dash and not last.isdecimal()) or (dash and int(last) < int(first)):
            raise ConfigError(f"seeds {text!r}: {allowed}")
        if dash and int(last) - int(first) >= MOST_SEEDS:
            raise ConfigError(f"seeds {text!r}: allowed are up to {MOST_SEEDS} of them")
        seeds.extend(range(int(first), int(last) + 1) if dash else [int(first)])
    if not seeds:
        raise ConfigError(f"seeds {text!r}: {allowed}")
    return list(dict.fromkeys(seeds))


def on_a_cluster(runs: Sequence[PlannedRun]) -> dict[str, str]:
    """The runs that a cluster has, or may have, and as what; they are not trained here too."""
    from slurm.tokens import current

    if not any(current(run.run_dir) for run in runs):
        return {}  # so that a training here waits for nothing that asks a scheduler
    from slurm.scheduler import SECONDS
    from slurm.view import look_at

    found = {}
    seen = look_at([run.run_dir for run in runs], SECONDS)
    for run in runs:
        there = seen.get(run.run_dir)
        if there is not None and there.taken:
            how = (
                f"may be on a cluster ({there.reason})"
                if there.state is State.UNKNOWN
                else f"is on a cluster: {there.state}"
            )
            found[run.run_id] = f"{how}, job {there.token.job}; `ablate cancel {run.run_id}` takes it off"
    return found


def is_published(results: Path) -> bool:
    """Whether `ablate publish` has written this folder. Raises RunError for a damaged manifest."""
    content = read_json(results / MANIFEST)
    return content is not None and content.get("made by") == MAKER


def refuse_published(results: Path) -> None:
    """Raises ConfigError for a published folder: its runs have no weights, so they would be trained over."""
    if is_published(results):
        raise ConfigError(
            f"{results} is a published study, which nothing is trained into; --results names another folder"
        )
