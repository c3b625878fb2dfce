"""`ablate plan`: how many seeds and GPU hours an effect needs, by the runs that are there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ablations.columns import aligned
from ablations.options import json_option, profile_option, read_results_option, set_option

if TYPE_CHECKING:
    from analysis.seed_plans import RowPlan


@click.command("plan")
@click.argument("name", metavar="TABLE|FILE.py")
@click.option("--effect", type=float, metavar="AP", help="To be shown, in percent, as 0.2.")
@click.option("--budget", type=float, metavar="HOURS", help="GPU hours more: what effect can be shown?")
@click.option(
    "--power", "wanted", default=0.8, show_default=True, help="Chance to show an effect that is there."
)
@click.option("--alpha", default=0.05, show_default=True, help="Error rate of the whole table.")
@profile_option
@read_results_option
@set_option
@click.option("--mixed", is_flag=True, help="Allow runs of different sources or different data.")
@json_option
def command(
    name: str,
    effect: float | None,
    budget: float | None,
    wanted: float,
    alpha: float,
    profile: str,
    results: Path,
    overrides: tuple[str, ...],
    mixed: bool,
    as_json: bool,
) -> None:
    """Plan a table from pilot runs: two seeds or more of each row, the same for its baseline.

    The paired differences of the pilot say how far seeds scatter; because few seeds know that badly, the
    plan uses an upper limit that holds with 80 % probability. Each variant is tested at alpha / variants, the
    worst case of Holm's correction. docs/statistics.md has the formula and what it assumes.
    """
    from ablations.profiles import profile_named
    from ablations.registry import as_overrides, select_tables
    from analysis.runs import load_runs
    from analysis.seed_plans import plan_budget, plan_seeds, total_hours
    from analysis.tables import fill_table
    from yolor_core.errors import ConfigError

    if (effect is None) == (budget is None):
        raise click.UsageError("say --effect or --budget")
    if effect is not None and not 0 < effect <= 100:
        raise ConfigError(f"--effect is {effect}; a number of AP (percent) above 0, at most 100, is needed")
    if budget is not None and not 0 < budget < 1e9:
        raise ConfigError(f"--budget is {budget}; a number of GPU hours above 0 is needed")
    if not 0 < wanted < 1 or not 0 < alpha < 1:
        raise ConfigError(f"--power {wanted}, --alpha {alpha}: both lie between 0 and 1")
    profile_named(profile)
    (table,) = select_tables([name])
    filled = fill_table(table, profile, load_runs(results), as_overrides(overrides), mixed=mixed)
    if effect is not None:
        plans = plan_seeds(filled, effect, wanted, alpha)
    else:
        plans = plan_budget(filled, float(budget or 0), wanted, alpha)
    hours = total_hours(filled, plans)
    if as_json:
        content = {"table": table.name, "rows": [vars(plan) for plan in plans], "gpu_hours_to_come": hours}
        click.echo(json.dumps(content, indent=1, ensure_ascii=False))
        return
    click.echo(text(plans))
    if hours is not None and effect is not None:
        device = "one GPU (or one process, without GPUs)"
        click.echo(f"in all {hours:.1f} hours of {device} to come, baselines shared")


def text(plans: Sequence[RowPlan]) -> str:
    """Aligned columns, and below them why rows have no plan."""
    head = ("row", "pilot pairs", "s of Δ", "planned for", "seeds", "effect", "hours a pair")
    lines = [head]
    lines.extend(
        (
            plan.row,
            str(plan.pairs),
            _shown(plan.spread),
            _shown(plan.sigma),
            "–" if plan.seeds is None else str(plan.seeds),
            _shown(plan.effect),
            _shown(plan.hours),
        )
        for plan in plans
    )
    return "\n".join([*aligned(lines), *(f"{plan.row}: {plan.problem}" for plan in plans if plan.problem)])


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
