"""What `ablate launch` does with --precision and --until-verdict: batches of seeds, and a look after each."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ablations.options import aligned, print_json
from yolor_core.errors import ConfigError, counted
from yolor_core.runs import LOST, State

if TYPE_CHECKING:
    from ablations.display import RunView
    from ablations.planned import PlannedRun
    from ablations.registry import Selection
    from analysis.plan_file import Row, Rule
    from analysis.statistics.stopping import Look, Scatter
    from analysis.stopping import Plan
    from slurm.cluster import Cluster

ASK_SECONDS = 30.0  # between two looks at the queue
FAILED = 1
VERDICTS = "every row has its verdict, or all its seeds"


def stopping_rule(precision: float | None, margin: float, most: int | None, batch: int | None) -> Rule:
    """The rule of these options. Raises ConfigError for numbers out of range."""
    from analysis.stopping import rule_of

    most = most if most is not None else 20 if precision is None else 100
    batch = batch if batch is not None else min(most, 5 if precision is None else 2)
    return rule_of(precision, margin, most, batch)


@dataclass
class Until:
    """One launch that adds seeds by a rule."""

    wanted: Sequence[str]
    profile: str
    overrides: tuple[str, ...]
    data: str | None
    results: Path
    rule: Rule
    budget: float | None  # core-hours here, GPU hours on a cluster, of all runs of these arms
    as_json: bool
    cluster: Cluster | None = None
    rows: dict[tuple[str, str], Row] = field(default_factory=dict)  # as last looked at
    ended: str = ""  # why no seed is added any more

    @cached_property
    def selection(self) -> Selection:
        """What is launched."""
        from ablations.registry import select

        return select(self.wanted)

    @cached_property
    def fingerprint(self) -> str:
        """Of the data."""
        from ablations.plan import data_config
        from yolor_core.data import data_fingerprint

        return str(data_fingerprint(data_config(self.data, self.profile, self.overrides)))

    @cached_property
    def plan(self) -> Plan:
        """The rule, and what it has decided before. Raises as `Plan` and `comparisons`."""
        from ablations.registry import as_overrides
        from analysis.stopping import Plan, comparisons

        self._planned(1)  # checks the data first
        return Plan.of_launch(
            self.results,
            self.rule,
            self.selection,
            comparisons(self.selection),
            self.profile,
            as_overrides(self.overrides),
            self.fingerprint,
        )

    def _planned(self, seeds: int, fingerprint: str | None = None) -> list[PlannedRun]:
        from ablations.plan import plan_runs

        return plan_runs(
            self.wanted, self.profile, range(seeds), self.overrides, self.data, self.results, fingerprint
        )

    def planned(self, seeds: int) -> list[PlannedRun]:
        """The runs of the arms that go on, and those that these continue."""
        from ablations.plan import with_continued
        from analysis.stopping import arms

        return with_continued(self._planned(seeds, self.fingerprint), arms(self.plan.open))

    @property
    def unit(self) -> str:
        """Of the budget."""
        from ablations.plan import visible_gpus

        on_gpus = self.cluster.gpus if self.cluster else visible_gpus()
        return "GPU hours" if on_gpus else "process hours" if self.cluster else "core-hours"

    def devices(self, run: PlannedRun) -> int:
        """By how many the time of a run is multiplied: its cores, where these are counted."""
        return run.config.execution.threads if self.unit == "core-hours" else 1

    def spent(self) -> float:
        """Hours that the runs of all arms have taken, whatever became of them."""
        from analysis.runs import load_runs, seconds_added
        from analysis.stopping import arms
        from slurm.tokens import current

        own = {self.plan.signatures[slug] for slug in arms(self.plan.pairs)}
        runs = load_runs(self.results)
        runs = runs[runs["signature"].isin(own) & runs["fingerprint"].eq(self.fingerprint)]
        devices, total = self.devices(self._planned(1, self.fingerprint)[0]), 0.0
        taken = runs.assign(seconds=seconds_added(runs))
        for path, seconds, ranks in taken[["path", "seconds", "ranks"]].fillna(0).itertuples(index=False):
            token = current(Path(path)) if self.cluster else None
            total += seconds * max(ranks, 1) * devices / (token.pack if token else 1) / 3600
        return total

    def expected(self, runs: Sequence[PlannedRun]) -> tuple[float | None, str]:
        """Hours that runs will take, and by whose measure; None where nobody knows."""
        from ablations.costs import Estimator, local_estimates

        if self.cluster is not None:
            estimator = Estimator(self.results, self.cluster.tflops)
            found = [estimator(run) for run in runs]
            measured = all(each.measured for each in found)
            whose = "finished runs here" if measured else f"their FLOPs at {self.cluster.tflops:g} TFLOP/s"
            return sum(each.hours for each in found), whose
        estimates, whose = local_estimates(runs, self.results)
        if not estimates:
            return None, ""
        return sum(estimates[run.run_id].hours * self.devices(run) for run in runs), whose

    def say(self, text: str) -> None:
        """Print; beside JSON on stderr."""
        click.echo(text, err=self.as_json)

    def scatter(self) -> tuple[Scatter, str] | None:
        """How far a run scatters, and by whose measure."""
        from ablations.costs import PUBLISHED
        from analysis.runs import load_runs
        from analysis.stopping import scatter

        for folder, whose in ((self.results, "here"), (PUBLISHED / self.profile, "in the published study")):
            runs = load_runs(folder)
            found = scatter(self.plan.design(runs)) if not runs.empty else None
            if found is not None and found[0].variance > 0:
                return found[0], whose
        return None

    def foresee(self, begun: bool) -> None:
        """Say what the rule will take. Raises ConfigError where the budget cannot reach the precision."""
        from analysis.statistics.stopping import half_width, seeds_for_half_width
        from analysis.stopping import arms

        known, count = self.scatter(), len(arms(self.plan.pairs))
        if known is None or self.rule.precision is None:
            if self.rule.precision is not None:
                first = self.rule.looks[0]
                self.say(f"nobody knows yet how far runs scatter here; the look at {first} seeds will say")
            return
        scatter, whose = known
        low, high = scatter.bounds()
        seeds = [seeds_for_half_width(self.rule.precision, s, count) for s in (scatter.sigma, low, high)]
        each, measured = self.expected(self.planned(1))
        takes, least, most = ("more than 10,000" if n is None else str(n) for n in seeds)
        said = (
            f"a run scatters by {scatter.sigma:.2f} AP {whose} ({low:.2f} to {high:.2f}, "
            f"{scatter.freedom:g} degrees of freedom): ± {self.rule.precision:g} takes {takes} seeds "
            f"({least} to {most})"
        )
        if each is not None and seeds[0] is not None:
            said += f", {each * seeds[0]:.2f} {self.unit} as fast as {measured}"
        if begun:
            self.say(said)
            return
        reach = self.rule.looks[-1]
        limit = f"--most {reach}"
        if self.budget is not None and each:
            bought = int(self.budget / each)
            if bought < reach:
                reach, limit = bought, f"--budget {self.budget:g}"
        if seeds[0] is None or reach < seeds[0]:
            got = half_width(scatter.sigma, count, reach)
            gets = f"± {got:.2f} AP" if reach >= 2 else "no interval"
            raise ConfigError(
                f"{limit} buys {counted(reach, 'seed')} of {count} arms, which gives {gets}; {said}"
            )
        self.say(said)

    def look(self, look: Look) -> bool:
        """Take a look; whether any row goes on."""
        from analysis.runs import load_runs
        from analysis.stopping import words

        rows = self.plan.look(look, load_runs(self.results))
        self.rows |= {row.pair: row for row in rows}
        halves = [row.half_width for row in rows if row.half_width is not None]
        span = f"half-widths {min(halves):.2f} to {max(halves):.2f} AP" if halves else "no interval yet"
        said = f"look at {look.seeds} seeds: {span}, {self.spent():.2f} {self.unit} so far"
        if self.rule.precision is None:
            stopped = [f"{row.arm} {words(row, self.rule.margin)}" for row in rows if row.word]
            said += f"; {len(rows) - len(stopped)} of {len(rows)} rows go on"
            said = "\n  ".join([said, *stopped])
        elif not self.plan.may_stop(look):
            from analysis.statistics.stopping import first_look
            from analysis.stopping import arms

            said += f"; stopping begins at {first_look(len(arms(self.plan.pairs)))} seeds"
        self.say(said)
        if self.rule.precision is None:
            over = not self.plan.open
            self.ended = VERDICTS if over else ""
        else:  # rows that have become narrow go on with the others: one design, one end
            over = all(row.word for row in rows)
            self.ended = "every half-width is narrow enough" if over else ""
        if over and self.plan.given_up:
            self.ended = f"of {counted(len(self.plan.given_up), 'row')} too few runs finish; {self.ended}"
        return not over

    def affords(self, runs: Sequence[PlannedRun]) -> bool:
        """Whether the budget has room for these runs."""
        if self.budget is None or not runs:
            return True
        hours, spent = self.expected(runs)[0] or 0.0, self.spent()
        if spent + hours <= self.budget:
            return True
        self.ended = (
            f"the budget is spent: {spent:.2f} of {self.budget:g} {self.unit}, the next runs need {hours:.2f}"
        )
        return False

    def conclude(self, code: int) -> int:
        """Print every row as it stands, and why it ended; returns the exit code."""
        from analysis.stopping import GIVEN_UP, words

        all_there = f"all {self.rule.looks[-1]} seeds are there"
        self.ended = self.ended or (all_there if self.plan.open else VERDICTS)
        known = self._known()
        if known and not self.as_json:
            lines = [("experiment", "against", "seeds", "Δ", "interval", "lost", "")]
            for row in known:
                ends = "–" if row.low is None or row.high is None else f"{row.low:+.2f} to {row.high:+.2f}"
                delta = "–" if row.delta is None else f"{row.delta:+.2f}"
                word = words(row, self.rule.margin)
                lines.append((row.arm, row.control, str(row.seeds), delta, ends, str(row.lost), word))
            click.echo("\n".join(line.rstrip() for line in aligned(lines)))
        self.say(f"ended: {self.ended}; {self.spent():.2f} {self.unit}")
        return self.leave(code or int(any(row.word == GIVEN_UP for row in known)))

    def leave(self, code: int, waiting: Sequence[PlannedRun] = ()) -> int:
        """Print JSON where it is wanted, with the runs that go on; returns the exit code."""
        from analysis.stopping import records

        if self.as_json:
            content = {"rule": self.plan.content["rule"], "file": str(self.plan.path)}
            content |= {"ended": self.ended or None, "waiting": [run.run_id for run in waiting]}
            content |= {"hours": round(self.spent(), 4), "unit": self.unit}
            print_json(content | {"rows": records(self._known())})
        return code

    def _known(self) -> list[Row]:
        rows = [self.plan.decided.get(pair) or self.rows.get(pair) for pair in self.plan.pairs]
        return [row for row in rows if row is not None]

    def begin(self, dry_run: bool) -> bool:
        """Say the rule, and write it down; False for a dry run. Raises where the rule cannot be kept."""
        from ablations.local_launch import require_writable
        from ablations.plan import refuse_published
        from analysis.stopping import arms

        refuse_published(self.results)
        plan, begun = self.plan, self.plan.begun
        compared = set(arms(plan.pairs))
        others = [e.slug for e in self.selection.experiments if e.slug not in compared]
        self.say(f"{counted(len(plan.pairs), 'comparison')} of {len(compared)} arms {self.rule}; {plan.path}")
        if others:
            self.say(f"left out, for they are compared with nothing in AP: {', '.join(others)}")
        if not begun and self.rule.precision is None:
            self._refuse_late()
        self.foresee(begun)
        if dry_run and self.cluster is None:
            first = self.planned(self.rule.looks[0])
            hours, whose = self.expected(first)
            about = "time unknown" if hours is None else f"{hours:.2f} {self.unit} as fast as {whose}"
            self.say(f"the first batch: {counted(len(first), 'run')}, {about}")
        if dry_run:
            return False
        require_writable(self.results / "runs")
        plan.begin()
        return True

    def _refuse_late(self) -> None:
        """Raises ConfigError where runs beyond the first look are there before the plan is."""
        from yolor_core.runs.directory import RunDirectory

        first, last = self.rule.looks[0], self.rule.looks[-1]
        there = [
            run
            for run in self.planned(last)
            if run.config.seed >= first and RunDirectory(run.run_dir).life() is State.DONE
        ]
        if there:
            raise ConfigError(
                f"{counted(len(there), 'run')} of seeds from {first} on are there already (e.g. "
                f"{there[0].run_id}), so a first look at {first} seeds is not fixed before the data; look "
                "later (--batch), or choose another folder with --results"
            )


def until_here(until: Until, jobs: int | None, dry_run: bool) -> int:
    """Train on this machine, batch after batch; returns the exit code."""
    from ablations.display import tell_of_data
    from ablations.launch_report import report, warn_of_damage, warn_of_other_code
    from ablations.local_launch import at_a_time, fitting, run_missing
    from ablations.plan import on_a_cluster
    from yolor_core.runs.directory import RunDirectory

    if not until.begin(dry_run):
        return until.leave(0)
    tried: set[str] = set()
    code = 0
    for look in until.rule.levels():
        if not until.plan.open:
            break
        planned = until.planned(look.seeds)
        states = {run.run_id: RunDirectory(run.run_dir).life() for run in planned}
        # A run that was lost at a look that was taken stays lost: the look has to come out again.
        taken = max(until.plan.content["taken"], default=0)
        missing = [
            run
            for run in planned
            if states[run.run_id] is not State.DONE
            and run.run_id not in tried
            and not (states[run.run_id] in LOST and run.config.seed < taken)
        ]
        if elsewhere := on_a_cluster(missing):
            name, why = next(iter(elsewhere.items()))
            raise ConfigError(f"{counted(len(elsewhere), 'run')} cannot be trained here: {name} {why}")
        if not until.affords(missing):
            break
        if not tried:
            warn_of_other_code(planned, states)
            tell_of_data(planned, states)
            warn_of_damage(planned, states)
        if missing:
            parallel = jobs or fitting(planned)
            until.say(
                f"seeds 0 to {look.seeds - 1}: {counted(len(planned), 'run')}, {len(missing)} to run, "
                f"{at_a_time(min(parallel, len(missing)))}"
            )
            tried |= {run.run_id for run in missing}
            output = sys.stderr if until.as_json else sys.stdout
            outcomes, interrupted = run_missing(missing, parallel, output)
            code = max(code, report(outcomes, missing, interrupted))
            if interrupted:
                return until.leave(code)
            # Those that were lost before may well be lost again.
            new = [run.run_id for run in missing if states[run.run_id] not in LOST]
            if new and all(outcomes[name].state != State.DONE for name in new):
                until.ended = "no run of the last batch has finished"
                break
        if not until.plan.taken(look) and not until.look(look):
            break
    return until.conclude(code)


def until_on_cluster(until: Until, force: bool, dry_run: bool, wait: bool) -> int:
    """Submit the next batch, or take the look that is due; returns the exit code."""
    from ablations.cluster_launch import check, plan_on_cluster, send
    from ablations.launch_report import describe_plan, scripts, tell, tell_foreign_options, tell_left_out
    from slurm import scheduler

    assert until.cluster is not None
    if not dry_run:
        scheduler.require()
    going = until.begin(dry_run)
    for look in until.rule.levels():
        if not until.plan.open:
            break
        sent: set[str] = set()
        while True:
            views = _views(until.planned(look.seeds))
            gone = [run.run_id for run, view in views if view.state in LOST]
            on = [run for run, view in views if view.going_on]
            rest = [run for run, view in views if not (view.state in (*LOST, State.DONE) or view.going_on)]
            ended = [run.run_id for run in rest if run.run_id in sent]
            if ended:
                until.say(f"ended without a result: {', '.join(ended)}; the same command sends them again")
                return until.leave(FAILED)
            if rest:
                plan = plan_on_cluster(rest, until.cluster, until.results)
                check(plan, force)
                if not until.affords([plan.runs[request.name] for request in plan.requests]):
                    return until.conclude(0)
                until.say(describe_plan(plan, {f"{look.seeds} seeds": [run.run_id for run in rest]}))
                tell_left_out(plan.held)
                if not going:
                    if plan.requests and not until.as_json:
                        click.echo("\n" + scripts(plan))
                    return until.leave(0)
                if plan.requests:
                    tell_foreign_options()
                    result = send(plan)
                    tell(plan, result, err=until.as_json)
                    if result.signal is not None:
                        return until.leave(128 + result.signal)
                    if result.problem or result.left_out:
                        return until.leave(FAILED)
                    sent |= set(result.jobs)
                    on = [plan.runs[name] for name in result.jobs]
                elif not wait:  # what is held back, and why, was said
                    return until.leave(FAILED)
            if not on or not going:
                break
            if not wait:
                until.say(
                    f"{counted(len(on), 'run')} of the look at {look.seeds} seeds go on; the same command "
                    "takes that look when they have ended"
                )
                return until.leave(0, on)
            time.sleep(ASK_SECONDS)
        if not going:
            return until.leave(0, on)
        if gone and len(gone) == len(views):
            until.ended = f"none of the {counted(len(gone), 'run')} has finished"
            break
        if gone:
            said = f"lost, and left out of the look at {look.seeds} seeds: {', '.join(gone)}"
            click.echo(f"{said}; `ablate retry RUN` sends one again", err=True)
        if not until.plan.taken(look) and not until.look(look):
            break
    return until.conclude(0)


def _views(planned: Sequence[PlannedRun]) -> list[tuple[PlannedRun, RunView]]:
    from ablations.overview import look_up, view
    from slurm.scheduler import SECONDS

    seen = dict(look_up([run.run_dir for run in planned], SECONDS))
    return [(run, view(run.run_dir, seen[run.run_dir])) for run in planned]
