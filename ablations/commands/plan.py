"""`ablate plan`: how many seeds and hours an answer takes, from the scatter of the runs that there are."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ablations.options import (
    AP_POINTS,
    HOURS,
    Number,
    aligned,
    completing,
    examples,
    json_option,
    print_json,
    profile_option,
    read_results_option,
    set_option,
    stopping_options,
)
from yolor_core.errors import counted

if TYPE_CHECKING:
    from ablations.registry import Selection
    from analysis.plan_file import Rule

HALF_WIDTHS = (1.0, 0.5, 0.33, 0.3, 0.2)  # AP, points
ELSEWHERE, THERE = ("proxy", "paper"), (0.3, 0.2)
TFLOPS = 30.0  # of a GPU, as docs/costs.md assumes
ERROR = 0.05  # as analysis.statistics.seeds.ALPHA, which takes long to import; what no effect has is no power
ANY_DATA = "0" * 64  # hours do not depend on which pictures they are


@click.command(
    "plan",
    epilog=examples(
        "ablate plan 1 4 controls --results results/published/mini",
        "ablate plan 1 4 --precision 0.33",
        "ablate plan 1 4 --until-verdict --most 40",
        "ablate plan mine.py --effect 0.5 --budget 100",
    ),
)
@click.argument(
    "names",
    nargs=-1,
    required=True,
    metavar="TABLE|EXPERIMENT|FILE.py...",
    shell_complete=completing("tables", "experiments"),
)
@click.option(
    "--precision", type=AP_POINTS, metavar="AP", help="Half-width wanted, e.g. 0.33; five by default."
)
@click.option("--until-verdict", is_flag=True, help="Only the seeds until each row's verdict.")
@click.option("--effect", type=AP_POINTS, metavar="AP", help="Seeds that show an effect, e.g. 0.5.")
@click.option("--budget", type=HOURS, metavar="HOURS", help="What so many hours buy.")
@click.option(
    "--power",
    type=Number(float, lambda value: ERROR < value < 1, f"a number between {ERROR:g} and 1 is needed"),
    default=0.8,
    show_default=True,
    help="Chance to show an --effect that is there.",
)
@stopping_options
@profile_option
@read_results_option
@set_option
@json_option
@click.pass_context
def plan_command(
    ctx: click.Context,
    names: tuple[str, ...],
    precision: float | None,
    until_verdict: bool,
    effect: float | None,
    budget: float | None,
    power: float,
    margin: float,
    most: int | None,
    batch: int | None,
    profile: str,
    results: Path,
    overrides: tuple[str, ...],
    as_json: bool,
) -> None:
    """Say how many seeds and hours `ablate launch --precision` and --until-verdict will take.

    The finished runs of these rows say how far a run scatters (the residual of arm and seed, pooled over the
    arms) and what it costs. Few runs give a rough estimate: every number has a range, from the 95 % interval
    of the residual. Any two seeds of two rows will do as a pilot.

    Printed below: what `proxy` and `paper` would take if a run scattered there as it does here, which is an
    assumption unless they have runs in the folder.
    """
    from ablations.commands.until import stopping_rule
    from ablations.registry import select
    from analysis.stopping import comparisons

    selection = select(names)
    comparisons(selection)
    wanted = (
        [precision] if precision is not None else [] if until_verdict or effect or budget else HALF_WIDTHS
    )
    rule = None
    if until_verdict or not (precision or effect or budget):
        rule = stopping_rule(None, margin, most, batch)
    unused = [] if rule else [(name, "until-verdict") for name in ("margin", "most", "batch")]
    for name, user in [*unused, *([("power", "effect")] if effect is None else [])]:
        if ctx.get_parameter_source(name) != click.core.ParameterSource.DEFAULT:
            raise click.UsageError(f"--{name} goes with --{user}; without it nothing here uses it")
    study = _study(selection, profile, overrides, results)
    study["half_widths"] = [_half_width(study, half) for half in wanted]
    if rule is not None:
        study["until_verdict"] = _verdict(study, rule)
    if effect is not None:
        study["effect"] = {"effect": effect, "power": power} | _effect(study, effect, power)
    if budget is not None:
        study["budget"] = {"hours": budget} | _budget(study, budget)
    if wanted and profile not in ELSEWHERE:
        study["elsewhere"] = [_elsewhere(study, selection, other, results) for other in ELSEWHERE]
    print_json(study) if as_json else click.echo(plan_text(study))


def _study(selection: Selection, profile: str, overrides: Sequence[str], results: Path) -> dict[str, Any]:
    """What the finished runs of these rows say: scatter and cost."""
    from ablations.plan import execution_config
    from ablations.registry import as_overrides, everything, merge
    from analysis.design import Design, signatures
    from analysis.runs import load_runs, seconds_added
    from analysis.stopping import arms, comparisons, scatter

    pairs = comparisons(selection)
    known = merge([*everything().experiments, *selection.experiments])
    of = signatures(known, profile, as_overrides(overrides))
    runs = load_runs(results)
    found = scatter(Design({slug: runs[runs["signature"] == name] for slug, name in of.items()}))
    slugs = arms(pairs)
    own = runs[runs["signature"].isin([of[slug] for slug in slugs]) & runs["state"].eq("done")]
    hours, unit, basis = _seed_hours(selection, slugs, profile, overrides, results)
    threads = execution_config(profile, overrides).threads if unit == "core-hours" else 1
    study: dict[str, Any] = {
        "profile": profile,
        "comparisons": len(pairs),
        "arms": len(slugs),
        "runs": len(own),
        "hours_so_far": float(seconds_added(own).mul(own["ranks"].fillna(1)).sum()) * threads / 3600,
        "unit": unit,
        "hours_of_a_seed": hours,
        "hours_basis": basis,
        "scatter": None,
    }
    if found is None or found[0].variance == 0:
        study["problem"] = (
            "all residuals are 0, which does not say how far runs scatter"
            if found
            else "two finished seeds of two rows at least are needed to know how far runs scatter"
        )
        return study
    low, high = found[0].bounds()
    study["scatter"] = {
        "sigma": found[0].sigma, "low": low, "high": high, "freedom": found[0].freedom, "arms": found[1],
    }  # fmt: skip
    return study


def _seed_hours(
    selection: Selection, slugs: Sequence[str], profile: str, overrides: Sequence[str], results: Path
) -> tuple[float, str, str]:
    """Hours of one seed of all arms and of the runs that these continue, of what, and by whose measure."""
    from ablations.costs import Estimator, local_estimates
    from ablations.plan import plan_runs, visible_gpus, with_continued

    every = plan_runs(selection, profile, (0,), overrides, None, results, fingerprint=ANY_DATA)
    runs = with_continued(every, slugs)
    estimates, whose = local_estimates(runs, results)
    whose = f"fast as {whose}"
    on_gpus = bool(visible_gpus()) or not estimates
    if not estimates:
        estimator = Estimator(results, TFLOPS)
        estimates, whose = {r.run_id: estimator(r) for r in runs}, f"their FLOPs say at {TFLOPS:g} TFLOP/s"
    total = sum(
        estimates[run.run_id].hours * (1 if on_gpus else run.config.execution.threads) for run in runs
    )
    return total, "GPU hours" if on_gpus else "core-hours", whose


def _range(study: dict[str, Any], of: Callable[[float], int | None]) -> dict[str, Any]:
    """A number of seeds at the scatter measured and at both ends of its interval, and the hours."""
    known = study["scatter"]
    if known is None:
        return {"seeds": None, "seeds_low": None, "seeds_high": None, "hours": None}
    seeds, low, high = (of(known[name]) for name in ("sigma", "low", "high"))
    each = study["hours_of_a_seed"]
    hours = [None if n is None else round(n * each, 3) for n in (seeds, low, high)]
    return {
        "seeds": seeds, "seeds_low": low, "seeds_high": high,
        "hours": hours[0], "hours_low": hours[1], "hours_high": hours[2],
    }  # fmt: skip


def _half_width(study: dict[str, Any], half: float) -> dict[str, Any]:
    from analysis.statistics.stopping import seeds_for_half_width

    arms = study["arms"]
    return {"half_width": half} | _range(study, lambda sigma: seeds_for_half_width(half, sigma, arms))


def _effect(study: dict[str, Any], effect: float, power: float) -> dict[str, Any]:
    from analysis.statistics.stopping import seeds_for_effect

    return _range(study, lambda sigma: seeds_for_effect(effect, sigma, study["arms"], power))


def _budget(study: dict[str, Any], hours: float) -> dict[str, Any]:
    from analysis.statistics.stopping import half_width

    seeds, known = int(hours / study["hours_of_a_seed"]), study["scatter"]
    if seeds < 2:
        from yolor_core.errors import ConfigError

        two = 2 * study["hours_of_a_seed"]
        unit = 10.0 ** (math.floor(math.log10(two)) - 2)  # three digits, rounded up
        raise ConfigError(
            f"--budget {hours:g} buys {counted(seeds, 'seed')} of all arms; two, which an interval takes, "
            f"need --budget {math.ceil(two / unit) * unit:.6g} ({study['unit']})"
        )
    found: dict[str, Any] = {"seeds": seeds}
    if known is not None:
        for key, name in (("half_width", "sigma"), ("low", "low"), ("high", "high")):
            found[key] = half_width(known[name], study["arms"], seeds)
    return found


def _verdict(study: dict[str, Any], rule: Rule) -> dict[str, Any]:
    """Mean seeds of a row until its verdict, for three true effects, at the scatter and its ends."""
    from analysis.statistics.stopping import course

    known, looks = study["scatter"], rule.levels()
    rows = []
    for effect in (0.0, rule.margin, 2 * rule.margin) if known else ():
        found = {
            name: course(effect, known[name], study["arms"], looks, rule.margin)
            for name in ("sigma", "low", "high")
        }
        rows.append(
            {
                "effect": effect,
                "seeds": found["sigma"].seeds,
                "seeds_low": found["low"].seeds,
                "seeds_high": found["high"].seeds,
                "inconclusive": found["sigma"].inconclusive,
                "inconclusive_high": found["high"].inconclusive,
            }
        )
    hours = study["hours_of_a_seed"]
    return {
        "margin": rule.margin, "looks": list(rule.looks), "rows": rows, "most_hours": hours * rule.looks[-1],
    }  # fmt: skip


def _elsewhere(study: dict[str, Any], selection: Selection, profile: str, results: Path) -> dict[str, Any]:
    """The same rows at another profile: with its own scatter where it has runs, else with this one's."""
    other = _study(selection, profile, (), results)
    assumed = other["scatter"] is None
    if assumed:
        other["scatter"] = study["scatter"]
    other["scatter_assumed"] = assumed
    other.pop("problem", None)
    other["half_widths"] = [_half_width(other, half) for half in THERE]
    return other


def plan_text(study: dict[str, Any]) -> str:
    """What `ablate plan` prints."""
    unit, known = study["unit"], study["scatter"]
    rows, arms = counted(study["comparisons"], "comparison"), counted(study["arms"], "arm")
    taken = f"{counted(study['runs'], 'finished run')} took {study['hours_so_far']:.2f} {unit}"
    lines = [
        f"{rows} of {arms} at profile {study['profile']}; {taken}",
        f"a seed of all arms takes {_hours(study['hours_of_a_seed'])} {unit}, as {study['hours_basis']}",
    ]
    if known is None:
        return "\n".join([*lines, study["problem"]])
    lines.append(
        f"a run scatters by {known['sigma']:.2f} AP ({known['low']:.2f} to {known['high']:.2f}: 95 %, "
        f"{known['freedom']:g} degrees of freedom of {known['arms']} arms)"
    )
    if study["half_widths"]:
        head = ("half-width", "seeds", "", unit, "")
        lines += ["", *aligned([head, *map(_line, study["half_widths"])])]
    if verdict := study.get("until_verdict"):
        looks = ", ".join(map(str, verdict["looks"]))
        lines += ["", f"until the verdict, margin ± {verdict['margin']:g} AP, looks at {looks} seeds:"]
        table = [("true effect", "seeds of a row", "", "without a verdict")]
        for row in verdict["rows"]:
            span = f"{row['seeds_low']:.1f} to {row['seeds_high']:.1f}"
            open_ = f"{100 * row['inconclusive']:.0f} % (up to {100 * row['inconclusive_high']:.0f} %)"
            table.append((f"{row['effect']:g}", f"{row['seeds']:.1f}", span, open_))
        lines += [*aligned(table), f"at most {_hours(verdict['most_hours'])} {unit}"]
    if effect := study.get("effect"):
        said = f"± {effect['effect']:g} AP is shown with {100 * effect['power']:g} % from"
        lines += ["", f"an effect of {said} {_seeds(effect)} on: {_span_of_hours(effect)} {unit}"]
    if budget := study.get("budget"):
        gives = (
            f"± {budget['half_width']:.2f} AP ({budget['low']:.2f} to {budget['high']:.2f})"
            if "half_width" in budget
            else "no interval"
        )
        lines += [
            "",
            f"{budget['hours']:g} {unit} buy {counted(budget['seeds'], 'seed')} of all arms: {gives}",
        ]
    return "\n".join([*lines, *_elsewhere_text(study)])


def _elsewhere_text(study: dict[str, Any]) -> list[str]:
    others = study.get("elsewhere", ())
    if not others:
        return []
    table = [("profile", "half-width", "seeds", "", "GPU hours", "", "hours by")]
    for other in others:
        table += [(other["profile"], *_line(row), other["hours_basis"]) for row in other["half_widths"]]
    assumed = [other["profile"] for other in others if other["scatter_assumed"]]
    said = f"at {' and '.join(other['profile'] for other in others)}"
    if assumed:
        here = study["profile"]
        said += f", assuming that a run scatters there as it does at {here}, which nobody has measured"
    return ["", f"{said}:", *aligned(table)]


def _line(row: dict[str, Any]) -> tuple[str, ...]:
    if row["seeds"] is None:
        return (f"± {row['half_width']:g}", "above 10,000", "", "–", "")
    many = "…" if row["seeds_high"] is None else str(row["seeds_high"])
    hours = "…" if row["hours_high"] is None else _hours(row["hours_high"])
    return (
        f"± {row['half_width']:g}", str(row["seeds"]), f"{row['seeds_low']} to {many}",
        _hours(row["hours"]), f"{_hours(row['hours_low'])} to {hours}",
    )  # fmt: skip


def _seeds(row: dict[str, Any]) -> str:
    _, seeds, span, *_ = _line(row | {"half_width": 0})
    return f"{seeds} seeds ({span})" if span else f"{seeds} seeds"


def _span_of_hours(row: dict[str, Any]) -> str:
    *_, hours, span = _line(row | {"half_width": 0})
    return f"{hours} ({span})" if span else hours


def _hours(value: float) -> str:
    from ablations.launch_report import hours

    return f"{value:,.0f}" if value >= 1000 else hours(value)
