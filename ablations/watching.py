"""Watching one training: what is trained, a line per epoch, how long it still takes, what came of it.

On a terminal the live table of `ablations.display` stands below the lines.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

from ablations import display
from ablations.display import RunView, clock
from ablations.profiles import PROFILES
from yolor_core.config import Config, RunConfig, Science, ShapesConfig, leaves
from yolor_core.errors import YolorError, counted, some_of
from yolor_core.runs import State

if TYPE_CHECKING:
    from rich.console import Console

    from ablations.planned import PlannedRun
    from yolor_core.training.progress import Moment

SCORES = ("AP", "AP50", "AP75", "classification/mAP", "embedding/recall@1")
MOST_CHANGES = 6  # changed settings that are named
HEARTBEAT = 30.0  # seconds without a line, after which one says that the run is alive
EVALUATION_GUESS = 0.5  # of a training step for as many images, until an evaluation was measured


class TrainingWatch:
    """Says what is trained, then a line for every finished epoch.

    On a terminal the run stands below as a live table; elsewhere a line now and then within long epochs says
    that it is alive.
    """

    def __init__(
        self, run: PlannedRun, console: Console, time_now: Callable[[], float] = time.monotonic
    ) -> None:
        self.run, self.console, self.time_now = run, console, time_now
        self.began = self.spoke = time_now()
        self.forecast: Forecast | None = None
        self.now: Moment | None = None
        self.epoch, self.epochs = 0, run.config.science.train.epochs
        self.scores: Mapping[str, Any] = {}
        self.live = display.live(console, transient=True) if console.is_terminal else None

    def started(self, record: Mapping[str, Any], now: Moment, metrics: list[dict[str, Any]]) -> None:
        """Print what is trained and begin to draw."""
        images = int(record["data_report"]["val"]["images"]) / self.run.config.science.train.batch
        evaluated = evaluated_epochs(self.run.config)
        self.forecast = Forecast(now.epochs, now.steps, evaluated, images, self.time_now)
        self.forecast.start(now.epoch, now.step)
        self.now, self.epoch, self.scores = now, now.epoch, last_scores(metrics)
        self.say(introduction(self.run, record, now))
        if self.live is not None:
            self.live.start()
            self._draw(step_line(now))

    def stepped(self, now: Moment) -> None:
        """Redraw, or say a line where the last one is long ago."""
        self.now = now
        if self.forecast is not None:
            self.forecast.step(now.epoch, now.step)
        self._draw(step_line(now), f"epoch {now.epoch + 1}/{now.epochs}  step {now.step}/{now.steps}")

    def evaluating(self, done: int, total: int) -> None:
        """Redraw, or say a line where the last one is long ago."""
        if self.forecast is not None:
            self.forecast.evaluate(self.epoch + 1)
        self._draw(f"evaluating, batch {done}/{total}", f"epoch {self.epoch + 1}/{self.epochs}")

    def epoch_finished(self, record: Mapping[str, Any]) -> None:
        """A line for the epoch."""
        self.epoch = int(record["epoch"])
        self.scores = record if _evaluated(record) else self.scores
        if self.forecast is not None:
            self.forecast.finish_epoch(self.epoch)
        self.say(_joined(epoch_line(record, self.epochs), self.left() if self.epoch < self.epochs else ""))
        self._draw("")

    def left(self) -> str:
        """`12:31 left`, where that can be said."""
        remaining = None if self.forecast is None else self.forecast.remaining
        return "" if remaining is None else f"{clock(remaining)} left"

    def say(self, text: str) -> None:
        """Print lines as they are."""
        self.spoke = self.time_now()
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def stopping(self) -> None:
        """Somebody asked the run to stop."""
        self.say("stopping: the run saves its work first")

    def __enter__(self) -> TrainingWatch:
        return self

    def __exit__(self, *error: object) -> None:
        """Take the table away: all it says stands above, or will be said."""
        if self.live is not None:
            self.live.stop()

    def _draw(self, note: str, place: str = "") -> None:
        """Show the run as it is; without a terminal say so where the last line is long ago."""
        if self.live is None:
            if self.time_now() - self.spoke > HEARTBEAT:
                self.say(_joined(place, note, self.left()))
            return
        if self.now is None or self.forecast is None:
            return
        others = scores(self.scores, tuple(name for name in SCORES if name not in ("AP", "AP75")))
        losses = [value for value in self.now.losses.values() if value is not None]
        view = RunView(
            self.run.config.experiment,
            self.run.run_dir,
            State.RUNNING,
            self.epoch,
            self.epochs,
            ap=self.scores.get("AP"),
            seconds=self.time_now() - self.began,
            left=self.forecast.remaining,
            reason=_joined(note, others),
            step=self.now.step,
            steps=self.now.steps,
            loss=sum(losses) if losses else None,
        )
        self.live.update(display.table([view], self.console, ""), refresh=True)


class Forecast:
    """Measures one process: what an earlier attempt took on another machine says nothing about this one.

    Args:
        epochs: of the whole run.
        steps: of an epoch.
        evaluated: epochs, counted from 1, after which the run is evaluated.
        evaluation_steps: validation images in units of the training batch.
        clock: seconds.
    """

    def __init__(
        self,
        epochs: int,
        steps: int,
        evaluated: Collection[int],
        evaluation_steps: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.total, self.steps = epochs * steps, steps
        self.evaluated, self.evaluation_steps = set(evaluated), evaluation_steps
        self.clock = clock
        self.done = 0  # steps of the run
        self.finished = 0  # epochs
        self.warm = False
        self.measured = 0  # steps that `training` covers
        self.training = self.evaluating = 0.0  # seconds
        self.evaluations = 0
        self.mark = clock()
        self.evaluation_began: float | None = None

    def start(self, epoch: int, step: int) -> None:
        """The run begins, or is resumed, after `epoch` finished epochs and `step` steps."""
        self.finished, self.done = epoch, epoch * self.steps + step
        self.mark = self.clock()

    def step(self, epoch: int, step: int) -> None:
        """That many steps are done. Those before the first call are left out: they include what starts up."""
        self._train_until(epoch * self.steps + step)
        if not self.warm:
            self.warm, self.measured, self.training = True, 0, 0.0

    def evaluate(self, epoch: int) -> None:
        """An evaluation after `epoch` epochs begins (later calls do nothing)."""
        if self.evaluation_began is None:
            self._train_until(epoch * self.steps)
            self.evaluation_began = self.clock()

    def finish_epoch(self, epoch: int) -> None:
        """That many epochs are finished, the last one evaluated or not."""
        if self.evaluation_began is None:
            self._train_until(epoch * self.steps)
        else:
            self.evaluating += self.clock() - self.evaluation_began
            self.evaluations += 1
            self.evaluation_began = None
            self.mark = self.clock()
        self.finished = epoch

    @property
    def step_seconds(self) -> float | None:
        """Of one training step; None before any was measured."""
        return self.training / self.measured if self.measured else None

    @property
    def remaining(self) -> float | None:
        """Seconds until the run ends; None before anything was measured."""
        step = self.step_seconds
        if step is None:
            return None
        each = step * self.evaluation_steps * EVALUATION_GUESS
        if self.evaluations:
            each = self.evaluating / self.evaluations
        left = each * sum(1 for epoch in self.evaluated if epoch > self.finished)
        if self.evaluation_began is not None:
            left -= min(self.clock() - self.evaluation_began, each)
        return step * (self.total - self.done) + left

    def _train_until(self, done: int) -> None:
        moment = self.clock()
        if done > self.done:
            self.training += moment - self.mark
            self.measured += done - self.done
            self.done = done
        self.mark = moment


def introduction(run: PlannedRun, record: Mapping[str, Any], now: Moment) -> str:
    """What is trained, on what, for how long, where; several lines.

    Args:
        run: the planned run.
        record: its run.json.
        now: where it starts.
    """
    config, science = run.config, run.config.science
    ranks = int(record.get("ranks", 1))
    rows = {
        "": _purpose(config),
        "changed": some_of(_changes(config) + _data_changes(config), MOST_CHANGES),
        "model": _model(science, record),
        "data": _data(config, record),
        "training": _training(science, now),
        "where": f"{ranks} ranks, each on {record['device']}" if ranks > 1 else str(record["device"]),
        "folder": str(run.run_dir),
    }
    if (now.epoch, now.step) != (0, 0):
        step = f" and {now.step} of {now.steps} steps" if now.step else ""
        rows["resumes"] = f"after {now.epoch} of {counted(now.epochs, 'epoch')}{step}"
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


def _changes(config: RunConfig) -> list[str]:
    """Fields of the science that are not as the experiment has them at this profile."""
    from ablations.registry import resolve

    try:
        usual = resolve(config.experiment, config.science.profile)
    except YolorError:  # an experiment or a profile of the user's own
        return []
    return _unlike(usual, config.science)


def _data_changes(config: RunConfig) -> list[str]:
    """Fields of the shapes that are not as this profile has them; of a folder the row `data` says all."""
    from ablations.plan import data_config

    if not isinstance(config.data, ShapesConfig) or config.science.profile not in PROFILES:
        return []
    return _unlike(data_config("shapes", config.science.profile), config.data, "data.")


def _unlike(usual: Config, own: Config, prefix: str = "") -> list[str]:
    """Fields with values that are not the usual ones, as `train.batch=4`."""
    before, after = dict(leaves(usual)), dict(leaves(own))
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    return [f"{prefix}{name}={after.get(name)}" for name in names]


def _model(science: Science, record: Mapping[str, Any]) -> str:
    model = science.model
    scaled = "" if model.width == model.depth == 1 else f" at width {model.width:g}, depth {model.depth:g}"
    return f"{model.architecture}{scaled}, {record['parameters']:,} parameters"


def _data(config: RunConfig, record: Mapping[str, Any]) -> str:
    data, report = config.data, record["data_report"]
    name = "synthetic shapes" if isinstance(data, ShapesConfig) else f"{data.root}, {data.train}/{data.val}"
    every = config.science.train.keep_one_in
    share = f", of which 1 in {every} is used" if every > 1 else ""
    train, val = report["train"], report["val"]
    return (
        f"{name}: {counted(train['images'], 'image')} with {counted(train['boxes'], 'box')} to train on"
        f"{share}, {val['images']:,} to evaluate"
    )


def _training(science: Science, now: Moment) -> str:
    train, numerics = science.train, science.numerics
    count = f"{counted(now.epochs, 'epoch')} of {counted(now.steps, 'step')}"
    options = ["channels last"] * numerics.channels_last + ["compiled"] * numerics.compile
    return ", ".join([count, f"batch {train.batch}", f"{train.size} pixels", numerics.precision, *options])


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
    place, took = f"epoch {record['epoch']:>{width}}/{epochs}", f"{clock(record['seconds']):>5}"
    return _joined(place, losses(record), took, rate(record["images_per_second"]), scores(record))


def step_line(now: Moment) -> str:
    """Losses and speed within an epoch."""
    return _joined(
        losses(now.losses), rate(now.images / now.seconds) if now.seconds > 0 and now.images else ""
    )


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
    return next(filter(_evaluated, reversed(metrics)), {})


def _evaluated(record: Mapping[str, Any]) -> bool:
    return any(record.get(name) is not None for name in SCORES)


def _joined(*parts: str) -> str:
    return "  ".join(part for part in parts if part)
