"""docs/costs.md says what the estimator, the registry and the counts say."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from ablations.cli import main
from ablations.profiles import PROFILES
from ablations.registry import everything, experiments, paper, resolve
from slurm.cluster import Cluster, load_cluster
from tests.test_recipe_doc import tables
from yolor_core.config import EvaluationConfig
from yolor_core.data.pack.write import stored
from yolor_core.models import count, create_model
from yolor_core.training.average import MovingAverage
from yolor_core.training.numerics import Numerics
from yolor_core.training.optimiser import build_optimiser
from yolor_core.training.state import TrainingState

DOCS = Path(__file__).parent.parent / "docs"
PAGE = (DOCS / "costs.md").read_text(encoding="utf-8")
TABLES = list(tables(PAGE))
GRID = "1–8"


def rows_below(*first: str) -> list[list[str]]:
    """The rows of the table whose header begins so."""
    (rows,) = [rows for header, rows in TABLES if tuple(header[: len(first)]) == first]
    return rows


def number(cell: str) -> float:
    return float(cell.replace(",", ""))


def shown(value: float) -> str:
    return f"{value:,.1f}"


def named() -> dict[str, list[str]]:
    """The experiments of every table of the page, in its order; of the grid those above its line."""
    found: dict[str, list[str]] = {}
    slugs = {t.name: list(dict.fromkeys(e.slug for e in t.experiments)) for t in everything().tables}
    for name, *_ in rows_below("table", "rows"):
        above = [slug for known in found.values() for slug in known]
        found[name] = list(dict.fromkeys(above)) if name == GRID else slugs[name]
    return found


@pytest.fixture(scope="module")
def hours(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, float]]:
    """GPU hours by profile and experiment as a dry run says, of a folder that is counted as all of COCO."""
    folder = tmp_path_factory.mktemp("coco")
    (folder / "annotations").mkdir()
    image = {"id": 1, "file_name": "1.jpg", "width": 64, "height": 64}
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9], "area": 81, "iscrowd": 0}
    content = {"images": [image], "annotations": [box], "categories": [{"id": 1, "name": "person"}]}
    for split in ("train2017", "val2017"):
        (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
        (folder / split).mkdir()
        Image.new("RGB", (64, 64)).save(folder / split / "1.jpg")
    wanted = [name for name in named() if name != GRID]
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ablations.estimate.count_images", lambda data: (118_287, 5_000))
        for profile in ("proxy", "paper"):
            options = ["--profile", profile, "--cluster", "example", "--data", str(folder)]
            options += ["--results", str(folder / "r"), "--dry-run", "--json"]
            done = CliRunner().invoke(main, ["launch", *wanted, *options])
            assert done.exit_code == 0, done.output
            found[profile] = {run["experiment"]: run["gpu_hours"] for run in json.loads(done.stdout)["runs"]}
    return found


@pytest.mark.slow
def test_the_hours_of_every_table_are_the_estimators(hours: dict[str, dict[str, float]]) -> None:
    seen: set[str] = set()
    by_name = {table.name: table for table in everything().tables}
    for name, rows, trainings, proxy, whole, new, new_proxy, new_whole in rows_below("table", "rows"):
        slugs = named()[name]
        fresh = [slug for slug in slugs if name == GRID or slug not in seen]
        seen |= set(slugs)
        count_rows = [by_name[str(n)] for n in range(1, 9)] if name == GRID else [by_name[name]]
        assert int(rows) == sum(len(table.rows) for table in count_rows)
        assert (int(trainings), int(new)) == (len(slugs), len(fresh)), name
        for cell, profile, chosen in (
            (proxy, "proxy", slugs),
            (whole, "paper", slugs),
            (new_proxy, "proxy", fresh),
            (new_whole, "paper", fresh),
        ):
            assert cell == shown(sum(hours[profile][slug] for slug in chosen)), (name, profile)
    assert set(named()) == {GRID, *by_name}
    assert set(named()[GRID]) == set(experiments())


@pytest.mark.slow
def test_seeds_multiply_the_grid(hours: dict[str, dict[str, float]]) -> None:
    rows = rows_below("seeds")
    assert [row[0] for row in rows] == ["1", "3", "5"]
    for seeds, trainings, *cells in rows:
        assert int(trainings) == int(seeds) * len(experiments())
        whole = [sum(hours[p][slug] for slug in experiments()) for p in ("proxy", "paper")]
        assert cells == [shown(int(seeds) * value) for value in whole]


@pytest.mark.slow
def test_the_hours_of_a_training_follow_from_the_formula(hours: dict[str, dict[str, float]]) -> None:
    tflops = load_cluster("example").tflops
    assert f"At {tflops:g} TFLOP/s" in PAGE
    assert f"{Cluster().tflops:g} where it has none" in PAGE
    for cell, flops, proxy, whole in rows_below("training", "FLOPs of an image, 10⁹"):
        slug = cell.strip("`")
        for profile, said in (("proxy", proxy), ("paper", whole)):
            science = resolve(slug, profile)
            phases = science.train.phases[1:] if slug.endswith("finetuned") else science.train.phases
            each = count(science.model, science.train.size).flops
            images = 118_287 // science.train.keep_one_in
            expected = 3 * each * images * sum(p.epochs for p in phases) / (tflops * 1e12 * 3600)
            assert hours[profile][slug] == pytest.approx(expected, rel=1e-9)
            assert (flops, said) == (shown(each / 1e9), shown(expected))
    csp, p6 = (hours["paper"][slug] / 8 for slug in ("csp-fast", "p6-light"))
    assert f"`csp-fast` takes {csp:.1f} hours by the clock and `p6-light` {p6:.1f}" in " ".join(PAGE.split())
    assert p6 > load_cluster("example").minutes / 60 > csp
    assert f"# {shown(hours['proxy']['csp-fast'] + hours['proxy']['csp-fast.add-fa'])} GPU hours" in PAGE


def test_shared_trainings_are_those_of_the_registry() -> None:
    said = {row[0].strip("`"): row[1].split(", ") for row in rows_below("training", "tables")}
    found: dict[str, list[str]] = {}
    for table in paper().tables:
        for row in table.rows:
            if row.slug:
                found.setdefault(row.slug, []).append(table.name)
    assert said == {slug: names for slug, names in found.items() if len(names) > 1}


def test_weights_have_four_bytes_a_parameter() -> None:
    sizes = {}
    for slug in experiments():
        science = resolve(slug, "paper")
        sizes[slug] = 4 * count(science.model, science.train.size).parameters / 1e9
    (cell,) = [row[1] for row in rows_below("what", "size") if row[0].startswith("weights")]
    for value, words in (
        (sizes["csp-fast"], "(`csp-fast`)"),
        (sizes["p6-light"], "(`p6-light`)"),
    ):
        assert f"{value:.2f} GB {words}" in cell
    assert f"{sum(sizes.values()):.1f} GB for the 19" in cell
    text = " ".join(PAGE.split())
    assert f"{9 * sizes['csp-fast']:.1f} GB for `csp-fast`" in text
    assert f"`parallel = {load_cluster('example').parallel}`" in text
    assert f"{load_cluster('example').parallel * 9 * sizes['csp-fast']:.0f} GB at once" in text


@pytest.mark.parametrize(("pending", "times"), [(0, 3), (1, 4)])
def test_a_checkpoint_has_three_times_the_parameters_or_four(pending: int, times: int) -> None:
    science = resolve("csp-fast.add-fa", "smoke")
    model = create_model(science.model, classes=5).train()
    optimiser = build_optimiser(model, science.train.optimiser, 5e-4)
    sum(raw.square().mean() for raw in model(torch.rand(2, 3, 64, 64))).backward()
    optimiser.step()
    average = MovingAverage(model, 0.9999, 1.0)
    scaler = Numerics(science.numerics, torch.device("cpu")).scaler()
    saved = TrainingState(model, average, optimiser, scaler, pending=pending).save()

    def numbers(value: object) -> int:
        if isinstance(value, torch.Tensor):
            return value.numel() if value.is_floating_point() else 0
        parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        return sum(numbers(part) for part in parts)

    buffers = sum(b.numel() for b in model.buffers() if b.is_floating_point())
    parameters = sum(p.numel() for p in model.parameters())
    assert numbers(saved) - 2 * buffers == pytest.approx(times * parameters, rel=0.01)


def test_the_limit_of_the_detections_is_that_of_the_evaluation() -> None:
    most = EvaluationConfig(size=640).max_detections
    (row,) = [row for row in rows_below("what", "size") if row[0].startswith("detections")]
    assert f"{5_000 * most * 32 / 1e6:.0f} MB" in row[1] and row[2] == f"{most} an image, 32 bytes each"


def test_the_share_of_a_gpu_is_that_of_the_profiles() -> None:
    batch, gpus = resolve("csp-fast", "paper").train.batch, load_cluster("example").gpus
    text = " ".join(PAGE.split())
    assert f"of the {batch} images at `paper`, each of {gpus} GPUs has {batch // gpus}" in text
    assert f"a batch is {resolve('csp-fast', 'proxy').train.batch} images" in text
    assert PROFILES["proxy"].scale.keep_one_in == 4


def test_the_sizes_of_packs_are_those_of_real_images(real_data: Path) -> None:
    path = real_data / "coco_val2017_boxes" / "instances_val2017_floorint.json"
    sizes = [(i["width"], i["height"]) for i in json.loads(path.read_text())["images"] if "width" in i]
    each = sum(3 * w * h for w, h in (stored(*size, 640) for size in sizes)) / len(sizes)
    text = " ".join(PAGE.split())
    assert (
        f"about {5_000 * each / 1e9:.1f} GB (val2017) and {118_287 * each / 1e9:.0f} GB (train2017)" in text
    )
    assert f"{len(sizes):,} images of val2017" in text
    assert max(max(size) for size in sizes) <= 640


def test_links_of_the_page_lead_somewhere() -> None:
    targets = re.findall(r"\]\(([^)#]+)", PAGE)
    assert targets
    for target in targets:
        assert (DOCS / target).is_file(), target
