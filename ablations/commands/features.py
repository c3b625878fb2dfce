"""`ablate features`: write features of real images beside a run, for figures that need no model."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ablations.options import read_results_option
from ablations.trained_model import choose, device_option, run_classes
from yolor_core.errors import YolorError

if TYPE_CHECKING:
    from yolor_core.config import RunConfig
    from yolor_core.runs.directory import RunDirectory


@click.command("features")
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@click.option("--images", type=click.IntRange(min=1), default=64, show_default=True, help="First of val.")
@click.option("--cells", type=click.IntRange(min=2), default=400, show_default=True, help="On every level.")
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the choice of cells."
)
@click.option("--data", metavar="PATH", help="Folder of the images.  [default: the run's own]")
@device_option
@read_results_option
def command(
    runs: tuple[str, ...], images: int, cells: int, seed: int, data: str | None, device: str, results: Path
) -> None:
    """Write features.parquet into each RUN (a folder, or a name of `ablate status`) that is done.

    For cells with an object and cells without, on every level: the features in front of the implicit
    knowledge and behind it, and what the predictor says with it and without.
    """
    import pyarrow.parquet as pq
    import torch

    from ablations.commands.evaluate import find_images
    from ablations.overview import find_run
    from yolor_core.device import choose_device
    from yolor_core.errors import InputError
    from yolor_core.evaluation.features import collect_features
    from yolor_core.runs.directory import RunDirectory
    from yolor_core.runs.files import write_atomically

    target = choose_device(device)
    folders = [RunDirectory(find_run(name, results)) for name in runs]  # all, before the first takes its time
    for directory in folders:
        chosen = choose(None, None, directory.path)
        config = chosen.run
        assert config is not None
        if not config.science.model.detection:
            raise InputError(
                f"{directory.path} does not detect; features are taken in front of its predictors"
            )
        torch.set_num_threads(config.execution.threads)
        science, val = config.science, find_images(chosen, data, None)
        if data is not None and not _same_data(directory, config, data):
            click.echo(
                f"note: {data} does not hold the annotations and pictures that {chosen.note} was trained on; "
                "its features are of other pictures",
                err=True,
            )
        table = collect_features(
            chosen.model.to(target),
            val.with_classes(run_classes(directory.path, config), chosen.note),
            science.evaluation,
            science.train.loss,
            target,
            images,
            cells,
            seed,
        )
        write_atomically(directory.features, partial(pq.write_table, table, compression="zstd"))
        click.echo(f"{directory.features}: {table.num_rows} cells")


def _same_data(directory: RunDirectory, config: RunConfig, data: str) -> bool:
    """Whether a folder, or "shapes", holds what a run was trained on; no where it lacks the run's splits."""
    from ablations.plan import data_config
    from yolor_core.data.fingerprint import annotation_fingerprint, data_fingerprint, written_shapes

    ours, known = config.data, (directory.read_run() or {}).get("fingerprint")
    try:
        here = data_config(data, "mini") if ours.kind == "shapes" else ours.model_copy(update={"root": data})
        if known == data_fingerprint(here):
            return True
        # Version 0.1.0 wrote down the annotations alone, which say nothing of the pictures of written shapes.
        return here.kind == "coco" and not written_shapes(here) and known == annotation_fingerprint(here)
    except YolorError:
        return False
