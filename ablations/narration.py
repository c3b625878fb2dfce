"""What is said about a training before, while and after it goes on, in words and numbers."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from slurm.progress import clock
from yolor_core.config import RunConfig, Science, ShapesConfig, leaves
from yolor_core.errors import YolorError

if TYPE_CHECKING:
    from ablations.plan import PlannedRun
    from yolor_core.training.progress import Moment

SCORES = ("AP", "AP50", "AP75", "classification/mAP", "embedding/recall@1")
BRIEF = tuple(name for name in SCORES if name != "AP75")
MOST_CHANGES = 6  # changed settings that are named


def introduction(run: PlannedRun, record: Mapping[str, Any], now: Moment) -> str:
    """What is trained, on what, for how long, where; several lines.

    Args:
        run: the planned run.
        record: its run.json.
        now: where it starts.
    """
    config, science = run.config, run.config.science
    rows = {"": _purpose(config), "changed": _changes(config), "model": _model(science, record)}
    rows |= {"data": _data(config, record), "training": _training(science, now), "where": _where(record)}
    rows["folder"] = str(run.run_dir)
    if (now.epoch, now.step) != (0, 0):
        step = f" and {now.step} of {now.steps} steps" if now.step else ""
        rows["resumes"] = f"after {now.epoch} of {now.epochs} epochs{step}"
        if record.get("continues"):
            rows["resumes"] += f", continuing {record['continues']}"
    lines = [f"{_title(config)}: {config.experiment}, seed {config.seed}, profile {science.profile}"]
    lines += [f"  {name:<9} {text}" if name else f"  {text}" for name, text in rows.items() if text]
    return "\n".join(lines)


def _title(config: RunConfig) -> str:
    from ablations.registry import all_experiments

    experiment = all_experiments().get(config.experiment)
    return experiment.title if experiment else config.experiment


def _purpose(config: RunConfig) -> str:
    """`against csp-fast: vector, addition (Tables 1, 4, 6)`."""
    from ablations.registry import everything

    places = everything().places(config.experiment)
    if not places:
        return ""
    names = list(dict.fromkeys(table.name for table, _ in places))
    where = f"Table{'s' if len(names) > 1 else ''} {', '.join(names)}"
    for table, row in places:
        base = table.baseline(row)
        if base.slug != config.experiment:
            return f"against {base.slug or base.label}: {row.change} ({where})"
    return f"the baseline of {where}"


def _changes(config: RunConfig) -> str:
    """Fields that are not as the experiment has them at this profile."""
    from ablations.registry import resolve

    try:
        usual = dict(leaves(resolve(config.experiment, config.science.profile)))
    except YolorError:  # an experiment or a profile of the user's own
        return ""
    own = dict(leaves(config.science))
    found = [f"{name}={own.get(name)}" for name in {**usual, **own} if usual.get(name) != own.get(name)]
    more = f" and {len(found) - MOST_CHANGES} more" if len(found) > MOST_CHANGES else ""
    return ", ".join(found[:MOST_CHANGES]) + more


def _model(science: Science, record: Mapping[str, Any]) -> str:
    model = science.model
    scaled = "" if model.width == model.depth == 1 else f" at width {model.width:g}, depth {model.depth:g}"
    return f"{model.architecture}{scaled}, {record['parameters']:,} parameters"


def _data(config: RunConfig, record: Mapping[str, Any]) -> str:
    data, report = config.data, record["data_report"]
    name = "synthetic shapes" if isinstance(data, ShapesConfig) else data.root
    every = config.science.train.keep_one_in
    share = f", of which 1 in {every} is used" if every > 1 else ""
    train, val = report["train"], report["val"]
    return (
        f"{name}: {train['images']:,} images with {train['boxes']:,} boxes to train on{share}, "
        f"{val['images']:,} to evaluate"
    )


def _training(science: Science, now: Moment) -> str:
    train, numerics = science.train, science.numerics
    count = f"{now.epochs} epoch{'s' if now.epochs > 1 else ''} of {now.steps} steps"
    options = [name for name, on in (("channels last", numerics.channels_last),
                                     ("compiled", numerics.compile)) if on]  # fmt: skip
    return ", ".join([count, f"batch {train.batch}", f"{train.size} pixels", numerics.precision, *options])


def _where(record: Mapping[str, Any]) -> str:
    ranks = int(record.get("ranks", 1))
    return f"{ranks} ranks, each on {record['device']}" if ranks > 1 else str(record["device"])


def losses(values: Mapping[str, Any]) -> str:
    """`box 0.0612  obj 0.0321`, of the keys that start with `loss/`."""
    terms = [
        (name.removeprefix("loss/"), v)
        for name, v in values.items()
        if name.startswith("loss/") and v is not None
    ]
    return "  ".join(f"{name} {value:.4f}" for name, value in terms)


def scores(values: Mapping[str, Any], names: tuple[str, ...] = SCORES) -> str:
    """`AP 21.3  AP50 43.2  embedding/recall@1 30.1`, in percent, of what was measured."""
    return "  ".join(f"{name} {100 * values[name]:.1f}" for name in names if values.get(name) is not None)


def rate(images_per_second: float) -> str:
    """`53 images/s`, with a decimal where it is slow."""
    return f"{images_per_second:.{0 if images_per_second >= 10 else 1}f} images/s"


def epoch_line(record: Mapping[str, Any], epochs: int) -> str:
    """A finished epoch, from its line of metrics.jsonl."""
    width = len(str(epochs))
    parts = [
        f"epoch {record['epoch']:>{width}}/{epochs}",
        losses(record),
        f"{clock(record['seconds']):>5}",
        rate(record["images_per_second"]),
        scores(record),
    ]
    return "  ".join(part for part in parts if part)


def step_line(now: Moment) -> str:
    """Losses and speed within an epoch."""
    speed = rate(now.images / now.seconds) if now.seconds > 0 and now.images else ""
    return "  ".join(part for part in (losses(now.losses), speed) if part)


def conclusion(run: PlannedRun) -> str:
    """Where the results of a finished run are and how to look further; several lines."""
    from ablations.plan import default_results
    from ablations.registry import everything

    folder = run.run_dir
    rows = {"files": str(folder)}
    names = list(dict.fromkeys(table.name for table, _ in everything().places(run.config.experiment)))
    if names and not _changes(run.config):
        command = ["ablate", "tables", *names, "--profile", run.config.science.profile]
        results = folder.parent.parent
        if results != default_results():
            command += ["--results", str(results)]
        rows["tables"] = shlex.join(command)
    events = folder / "tensorboard"
    if events.is_dir():
        rows["curves"] = shlex.join(["tensorboard", "--logdir", str(events)])
    return "\n".join(f"  {name:<9} {text}" for name, text in rows.items())


def evaluated_epochs(config: RunConfig) -> list[int]:
    """The epochs, counted from 1, after which a run is evaluated."""
    epochs, every = config.science.train.epochs, config.execution.evaluate_every
    return [e for e in range(1, epochs + 1) if e == epochs or (every and e % every == 0)]


def last_scores(metrics: list[dict[str, Any]]) -> Mapping[str, Any]:
    """The last record that was evaluated; empty where none was."""
    return next((r for r in reversed(metrics) if any(r.get(name) is not None for name in SCORES)), {})
