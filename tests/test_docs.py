"""What the pages say is so: links, commands, code, and every number that the code or the published study has.

`python -m tests.test_docs` writes anew what repeats code or the published study: tables of docs/recipe.md and
docs/costs.md, sentences, tables and printed tables of the study, and the README's pictures.
"""

from __future__ import annotations

import functools
import itertools
import json
import math
import re
import shlex
import tempfile
import textwrap
import tomllib
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest
import torch
from click.testing import CliRunner, Result
from packaging.version import Version
from PIL import Image
from scipy import stats

from ablations.cli import main
from ablations.overrides import SCIENCE_PARTS, override_data, override_execution, parse_overrides
from ablations.overview import UNFINISHED
from ablations.profiles import PROFILES
from ablations.registry import all_experiments, everything, experiments, paper, resolve
from ablations.table import load_file
from analysis.figures.style import svg
from analysis.published.detections import read_detections
from analysis.published.manifest import read_manifest
from analysis.published.publish import published_drawings, reopened
from analysis.published.summary import HEAD
from analysis.report.verdicts import headline
from analysis.runs import load_runs
from analysis.statistics.blocks import fit
from analysis.statistics.seeds import over_seeds
from analysis.study import no_costs, open_study
from slurm.cluster import Cluster, Override, known_clusters, load_cluster
from tests.commands import FENCED, ROOT, NotACommandError, Printed, check, pages, printed
from tests.yolor_core.models import test_detector
from yolor_core.config import EvaluationConfig, leaves
from yolor_core.data.pack.write import stored
from yolor_core.device import Numerics
from yolor_core.errors import WeightsError, YolorError
from yolor_core.identity import signature
from yolor_core.models import count, create_model, list_models
from yolor_core.training.schedule import Schedule
from yolor_core.training.state import MovingAverage, TrainingState, build_optimiser
from yolor_core.weights import import_weights
from yolor_core.weights.formats import authors_state

PAGES = pages()
COMMANDS = [command for page in PAGES for command in printed(page)]
SHOWN = re.compile(r"!\[([^\]]+)\]\(([^)\s]+)\)")
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
#: Sites outside that pages may name; nothing here can check that they answer.
OUTSIDE = ("https://arxiv.org/abs/",)
NAME = re.compile(r"`([^`]+)`")
STUDY, STEEL = (ROOT / "results" / "published" / name for name in ("mini", "steel"))
LEAK = ROOT / "benchmarks" / "split_leak.csv"
COCO = (118_287, 5_000)  # images of train2017 and val2017

Row = list[str]


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def flat(words: str) -> str:
    """One line, with one space between words."""
    return " ".join(words.split())


def cells(line: str) -> Row:
    return [cell.strip() for cell in re.split(r"(?<=\s)\|(?=\s)", line.strip("|\n"))]


def tables(page: str) -> Iterator[tuple[Row, list[Row]]]:
    """(header, rows) of every table of a page."""
    for block in re.findall(r"(?:^\|.*\|\n)+", page, re.MULTILINE):
        header, _, *rows = map(cells, block.splitlines())
        assert all(len(row) == len(header) for row in rows), header
        yield header, rows


def rows_below(page: str, *first: str) -> list[Row]:
    """The rows of the one table whose header begins so."""
    (rows,) = [rows for header, rows in tables(page) if tuple(header[: len(first)]) == first]
    return rows


def python_of(page: str) -> list[str]:
    return [block for language, block in FENCED.findall(text(page)) if language == "python"]


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


# Every page: links, commands, lines.


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as the usual renderers of Markdown make them."""
    headings = re.findall(r"^#+ +(.+?)\s*$", FENCED.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_picture_of_a_page_is_there_and_has_a_text_instead() -> None:
    shown = [(page, *found) for page in PAGES for found in SHOWN.findall(page.read_text(encoding="utf-8"))]
    assert len([page for page, *_ in shown if page == ROOT / "README.md"]) == 2
    for page, words, path in shown:
        assert len(words) > 20 and (page.parent / path).is_file(), f"{name(page)}: {path}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if "://" in target:
            assert target.startswith(OUTSIDE), target
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists() and there.is_relative_to(ROOT), f"{name(page)}: {target}"
        if anchor:
            assert anchor in anchors(there), f"{name(page)}: {target}; there are {sorted(anchors(there))}"


def test_every_page_is_reached_from_the_readme() -> None:
    reached, left = set(), [ROOT / "README.md"]
    while left:
        page = left.pop()
        if page not in reached:
            reached.add(page)
            targets = (t.partition("#")[0] for t in LINK.findall(page.read_text(encoding="utf-8")))
            paths = ((page.parent / target).resolve() for target in targets if "://" not in target)
            left += [path for path in paths if path.suffix == ".md"]
    assert set(PAGES) <= reached, sorted(name(page) for page in set(PAGES) - reached)


def test_the_site_has_every_page() -> None:
    """`make docs`, which .ci/run calls, refuses a broken link of one."""
    listed = re.findall(r"^ +- (\S+\.md)$|^  - (README\.md)$", text("mkdocs.yml"), re.MULTILINE)
    assert {ROOT / (page or first) for page, first in listed} >= set(PAGES)


def test_no_line_is_too_long_to_read() -> None:
    for page in PAGES:
        for line in FENCED.sub("", page.read_text(encoding="utf-8")).splitlines():
            assert len(line) <= 124 or line.startswith("|"), f"{name(page)}: {line}"


def test_no_line_begins_with_a_plus_which_would_be_a_list() -> None:
    for page in PAGES:
        assert not re.search(r"^ *\+ ", FENCED.sub("", page.read_text(encoding="utf-8")), re.MULTILINE), page
    words = f"{'x' * 92} 1 trainings on 2 cores of + iFA and more\n"
    assert "cores\nof + iFA" in as_measured(words, STUDY)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: f"{c.page}: {c.text}"[:90])
def test_the_command_is_accepted_by_its_program(command: Printed) -> None:
    check(command.text, command.own)


def test_the_commands_of_the_pages_are_found() -> None:
    found = {command.text for command in COMMANDS}
    assert {"make reproduce", "make test", "ablate list", "ablate status --watch"} <= found
    assert len(found) > 60


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        ("ablate lunch 1", "no command lunch"),
        ("ablate launch 1 --seed 3", "--seed"),
        ("ablate launch 12", "12"),
        ("ablate launch csp-fast.add-fb", "csp-fast.add-fb"),
        ("ablate launch 1 --seeds many", "many"),
        ("ablate launch 1 --profile tiny", "tiny"),
        ("ablate launch 1 --cluster nowhere", "nowhere"),
        ("ablate launch 1 --set train.lr=1", "train.lr"),
        ("ablate logs RUN OTHER", "OTHER"),
        ("ablate logs -f", "RUN"),
        ("ablate speed yolor_p9", "yolor_p9"),
        ("ablate speed yolor_p6 --batch 0", "0"),
        ("ablate cluster try testbed", "try"),
        ("make all", "target all"),
        ("make test TESTS=1", "variable TESTS"),
        ("python -m tests.testbed begin", "begin"),
        ("python benchmarks/speed.py", "benchmarks/speed.py"),
        ("python benchmarks/soak.py --hours 3", "--hours"),
        ("python -m benchmarks.gpus", "benchmarks/gpus.py"),
        ("python -m benchmarks.gpu --hours 1", "--hours"),
        ("curl something", "curl"),
        ("cd x && ablate lunch", "lunch"),
    ],
)
def test_a_wrong_command_is_noticed(command: str, complaint: str) -> None:
    with pytest.raises(NotACommandError, match=re.escape(complaint)):
        check(command)


def test_the_python_of_the_readme_runs(tmp_path: Path) -> None:
    _, code, model = python_of("README.md")
    (tmp_path / "spread.py").write_text(code)
    (table,), _ = load_file(tmp_path / "spread.py")
    rows = [(row.label, row.experiment.slug) for row in table.rows]
    assert rows == [("baseline", "csp-fast"), ("+ iFA, std 0.2", "csp-fast.add-fa-wide")]
    space: dict[str, Any] = {}
    exec(compile(model.replace("640, 640", "64, 64"), "README.md: model", "exec"), space)
    assert space["boxes"].shape == (1, 3 * (8 * 8 + 4 * 4 + 2 * 2), 85)


# Tables that repeat code, which this file writes.

PARTS = ("train", "evaluation", "numerics")
FAMILIES = {
    "CSP": ("csp", "csp-fast"),
    "P6": ("p6-light",),
    "light": ("y4-sss", "y4-ssss", "u5r5-s"),
    "YOLOR": ("yolor-p6", "yolor-w6", "yolor-e6", "yolor-d6"),
    "YOLOv4 large": ("y4-p6", "y4-p7"),
}
ALL = "all rows"
GRID = "1–8"


@functools.cache
def recipe(slug: str) -> dict[str, Any]:
    return {key: value for key, value in leaves(resolve(slug, "paper")) if key.split(".")[0] in PARTS}


def recipe_row(header: Row, row: Row) -> Row:
    """A field with its value in each family of experiments, `1280; y4-p7 1536` where one has another."""
    field, source = row[0], row[-1]
    assert source, f"{field} has no source"
    return [field, *(recipe_cell(field, family) for family in header[1:-1]), source]


def recipe_cell(field: str, family: str) -> str:
    stems = [stem for known in FAMILIES.values() for stem in known] if family == ALL else FAMILIES[family]
    found: dict[str, set[Any]] = {}
    pattern = re.compile(re.escape(field).replace(r"\*", r"\d+"))
    for slug in all_experiments():
        if slug.split(".")[0] in stems:
            values = {value for key, value in recipe(slug).items() if pattern.fullmatch(key)}
            found |= {slug: values} if values else {}
    said: dict[str, list[str]] = {}
    for slug, values in found.items():
        (value,) = values
        shown = value if isinstance(value, str) else json.dumps(value)
        said.setdefault(re.sub(r"\.0$", "", shown), []).append(slug)
    if not said:
        return "-"
    usual, *others = sorted(said, key=lambda value: (-len(said[value]), min(said[value])))
    return "; ".join([usual, *(f"{min(said[value], key=len)} {value}" for value in others)])


def factor_row(header: Row, row: Row) -> Row:
    train = resolve("p6-light.add-fa.mul-pr.finetuned", "paper").train
    schedule = Schedule(train.optimiser, train.phases, 1849, train.batch)
    return [row[0], f"{schedule.at(int(row[0]), 0).weights / train.optimiser.lr0:.4f}", row[2]]


def shown(value: float) -> str:
    return f"{value:,.1f}"


#: Profiles with GPU hours in docs/costs.md, and the cluster profile of each; "" stands for the page's own.
PRICED = {"small": "", "proxy": "example", "paper": "example"}


@functools.cache
def hours() -> dict[str, dict[str, float]]:
    """GPU hours by profile and experiment as a dry run says, of a folder that is counted as all of COCO."""
    found = {}
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        little_coco(Path(folder))
        patch.setattr("ablations.costs.count_images", lambda data: COCO)
        own = Path(folder, "small.toml")
        own.write_text(small_profile())
        for profile, cluster in PRICED.items():
            options = ["--profile", profile, "--cluster", cluster or str(own), "--data", folder]
            options += ["--results", f"{folder}/r", "--dry-run", "--json"]
            wanted = [name for name in slugs_of_tables() if name != GRID]
            done = CliRunner().invoke(main, ["launch", *wanted, *options])
            assert done.exit_code == 0, done.output
            found[profile] = {run["experiment"]: run["gpu_hours"] for run in json.loads(done.stdout)["runs"]}
    return found


def small_profile() -> str:
    """The cluster profile of docs/costs.md by which `small` is priced."""
    (found,) = re.findall(r"```toml\n(# small\.toml\n.*?)```", text("docs/costs.md"), re.DOTALL)
    return str(found)


def little_coco(folder: Path) -> None:
    """A folder in COCO's layout with one picture a split."""
    (folder / "annotations").mkdir(parents=True)
    image = {"id": 1, "file_name": "1.jpg", "width": 64, "height": 64}
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9], "area": 81, "iscrowd": 0}
    data = {"images": [image], "annotations": [box], "categories": [{"id": 1, "name": "person"}]}
    for split in ("train2017", "val2017"):
        (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(data))
        (folder / split).mkdir()
        Image.new("RGB", (64, 64)).save(folder / split / "1.jpg")


@functools.cache
def slugs_of_tables() -> dict[str, list[str]]:
    """The experiments of every table of docs/costs.md, in its order; of the grid those above its line."""
    slugs = {t.name: list(dict.fromkeys(e.slug for e in t.experiments)) for t in everything().tables}
    found: dict[str, list[str]] = {}
    for name, *_ in rows_below(text("docs/costs.md"), "table", "rows"):
        above = dict.fromkeys(slug for known in found.values() for slug in known)
        found[name] = list(above) if name == GRID else slugs[name]
    return found


def table_row(header: Row, row: Row) -> Row:
    known, name = slugs_of_tables(), row[0]
    if header[1] != "rows":
        above = {slug for other in list(known)[: list(known).index(name)] for slug in known[other]}
        return [name, *priced(slug for slug in known[name] if name == GRID or slug not in above)]
    by_name = {table.name: table for table in everything().tables}
    lines = [by_name[str(n)] for n in range(1, 9)] if name == GRID else [by_name[name]]
    return [name, str(sum(len(table.rows) for table in lines)), *priced(known[name])]


def priced(slugs: Iterable[str]) -> Row:
    """How many trainings, and their hours by profile."""
    slugs = list(slugs)
    return [str(len(slugs)), *(shown(sum(hours()[profile][slug] for slug in slugs)) for profile in PRICED)]


def seeds_row(header: Row, row: Row) -> Row:
    seeds = int(row[0])
    whole = [seeds * sum(hours()[p][slug] for slug in experiments()) for p in PRICED]
    return [row[0], str(seeds * len(experiments())), *map(shown, whole)]


def training_row(header: Row, row: Row) -> Row:
    slug = row[0].strip("`")
    science = resolve(slug, "paper")
    flops = count(science.model, science.train.size).flops / 1e9
    return [row[0], shown(flops), *(shown(hours()[p][slug]) for p in PRICED)]


def shared_row(header: Row, row: Row) -> Row:
    return [row[0], ", ".join(shared_trainings()[row[0].strip("`")])]


def shared_trainings() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for table in paper().tables:
        for row in table.rows:
            if row.slug:
                found.setdefault(row.slug, []).append(table.name)
    return {slug: names for slug, names in found.items() if len(names) > 1}


def quoted_row(header: Row, row: Row) -> Row:
    """A comparison of the published study, as its summary has it."""
    return [compared(STUDY)[row[0], row[1]][name] for name in header]


def both_row(header: Row, row: Row) -> Row:
    """A comparison on photographs, with that of the study of shapes as its column `on shapes`."""
    shapes, steel = (compared(study)[row[0], row[1]] for study in (STUDY, STEEL))
    return [shapes["Δ AP [95 %]"] if name == "on shapes" else steel[name] for name in header]


def leak_row(header: Row, row: Row) -> Row:
    """Two trainings of the benchmark of splits, on the split with the number of the row."""
    of = pd.read_csv(LEAK).set_index(["split", "kind"]).loc[int(row[0])]
    random, whole = of.loc["random"], of.loc["groups whole"]
    share = 100 * random["val in a group of train"] / random["val"]
    cells_ = [f"{share:.0f} %", *(f"{each['AP']:.1f}" for each in (random, whole))]
    return [row[0], *cells_, f"{random['AP'] - whole['AP']:+.1f}"]


#: By page and first columns, what writes a row; the first cell and the words of a row are a person's.
WRITERS: dict[tuple[str, str, str], Callable[[Row, Row], Row]] = {
    ("docs/recipe.md", "field", ""): recipe_row,
    ("docs/recipe.md", "epoch", "factor"): factor_row,
    ("docs/costs.md", "table", "rows"): table_row,
    ("docs/costs.md", "table", "added"): table_row,
    ("docs/costs.md", "seeds", ""): seeds_row,
    ("docs/costs.md", "training", "FLOPs of an image, 10⁹"): training_row,
    ("docs/costs.md", "training", "tables"): shared_row,
    ("docs/published.md", "table", "row"): quoted_row,
    ("docs/steel.md", "table", "row"): both_row,
    ("docs/steel.md", "split", ""): leak_row,
}
WRITTEN = sorted({page for page, *_ in WRITERS})


def written(page: str, content: str) -> str:
    """A page with its tables that repeat code written anew."""

    def rewrite(block: re.Match[str]) -> str:
        lines = block[0].splitlines()
        header = cells(lines[0])
        for (where, first, second), writer in WRITERS.items():
            if where == page and header[0] == first and second in ("", header[1]):
                rows = [f"| {' | '.join(writer(header, cells(line)))} |" for line in lines[2:]]
                return "".join(f"{line}\n" for line in [*lines[:2], *rows])
        return block[0]

    return re.sub(r"(?:^\|.*\|\n)+", rewrite, content, flags=re.MULTILINE)


@pytest.mark.slow
@pytest.mark.parametrize("page", WRITTEN)
def test_tables_that_repeat_code_are_as_it_writes_them(page: str) -> None:
    assert written(page, text(page)) == text(page), "python -m tests.test_docs writes them anew"


def test_every_field_of_every_recipe_stands_in_one_place() -> None:
    stated = [
        (row[0], family)
        for header, rows in tables(text("docs/recipe.md"))
        if header[0] == "field"
        for row in rows
        for family, cell in zip(header[1:-1], row[1:-1], strict=True)
        if cell != "-"
    ]
    assert len(set(stated)) == len(stated)
    family_of = {stem: family for family, stems in FAMILIES.items() for stem in stems}
    assert {slug.split(".")[0] for slug in all_experiments()} == family_of.keys()
    used = set()
    for slug in all_experiments():
        for field in recipe(slug):
            pattern = re.sub(r"^train\.phases\.\d+", "train.phases.*", field)
            keys = {(n, f) for n in {field, pattern} for f in (family_of[slug.split(".")[0]], ALL)}
            places = keys & set(stated)
            assert len(places) == 1, (slug, field, places)
            used |= places
    assert used == set(stated)


def test_the_costs_cover_every_table_and_shared_training() -> None:
    page = text("docs/costs.md")
    assert slugs_of_tables().keys() == {GRID, *(table.name for table in everything().tables)}
    assert set(slugs_of_tables()[GRID]) == set(experiments())
    assert {row[0].strip("`") for row in rows_below(page, "training", "tables")} == shared_trainings().keys()


@pytest.mark.slow
def test_the_hours_of_a_training_follow_from_the_formula_of_the_page() -> None:
    speeds = {"": tomllib.loads(small_profile())["tflops"], "example": load_cluster("example").tflops}
    for cell, *_ in rows_below(text("docs/costs.md"), "training", "FLOPs of an image, 10⁹"):
        slug = cell.strip("`")
        for profile, cluster in PRICED.items():
            science, tflops = resolve(slug, profile), speeds[cluster]
            phases = science.train.phases[1:] if slug.endswith("finetuned") else science.train.phases
            each = count(science.model, science.train.size).flops
            images = COCO[0] // science.train.keep_one_in
            expected = 3 * each * images * sum(p.epochs for p in phases) / (tflops * 1e12 * 3600)
            assert hours()[profile][slug] == pytest.approx(expected, rel=1e-9)


# Sentences with numbers of the code.


def sentences_of_the_recipe() -> Iterator[str]:
    train = resolve("csp-fast", "paper").train
    steps = -(-COCO[0] // train.batch)
    yield f"an epoch has {steps:,} steps"
    yield f"{Schedule(train.optimiser, train.phases, steps, train.batch).warmup:,} at the paper's scale"


def sentences_of_the_costs() -> Iterator[str]:
    example, fast = load_cluster("example"), resolve("csp-fast", "paper")
    yield f"At {example.tflops:g} TFLOP/s"
    yield f"{Cluster().tflops:g} where it has none"
    csp, p6 = (hours()["paper"][slug] / 8 for slug in ("csp-fast", "p6-light"))
    assert p6 > example.minutes / 60 > csp
    yield f"`csp-fast` takes {csp:.1f} hours by the clock and `p6-light` {p6:.1f}"
    yield f"# {shown(hours()['proxy']['csp-fast'] + hours()['proxy']['csp-fast.add-fa'])} GPU hours"
    sizes = {}
    for slug in experiments():
        science = resolve(slug, "paper")
        sizes[slug] = 4 * count(science.model, science.train.size).parameters / 1e9
    yield f"{sizes['csp-fast']:.2f} GB (`csp-fast`), {sizes['p6-light']:.2f} GB (`p6-light`)"
    yield f"{sum(sizes.values()):.1f} GB for the 19"
    yield f"{9 * sizes['csp-fast']:.1f} GB for `csp-fast`"
    yield f"`parallel = {example.parallel}`, {example.parallel * 9 * sizes['csp-fast']:.0f} GB at once"
    most = EvaluationConfig(size=640).max_detections
    yield f"at most {COCO[1] * most * 32 / 1e6:.0f} MB, before compression | {most} an image, 32 bytes each"
    batch = fast.train.batch
    yield f"of the {batch} images at `paper`, each of {example.gpus} GPUs has {batch // example.gpus}"
    yield f"a batch is {resolve('csp-fast', 'proxy').train.batch} images"
    assert PROFILES["proxy"].scale.keep_one_in == PROFILES["small"].scale.keep_one_in == 4
    yield "`proxy` and `small` take a quarter"
    small = tomllib.loads(small_profile())
    yield f"{small['tflops'] / 312:.1%}".replace("%", " %")  # of an A100's
    whole = 5 * sum(hours()["small"][slug] for slug in experiments())
    csp, p6 = (hours()["small"][slug] for slug in ("csp-fast", "p6-light"))
    yield f"95 trainings in {whole:.0f} GPU hours, {csp:.1f} of a `csp-fast` and {p6:.1f} of a `p6-light`"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "sentences"),
    [("docs/recipe.md", sentences_of_the_recipe), ("docs/costs.md", sentences_of_the_costs)],
)
def test_sentences_state_the_numbers_of_the_code(page: str, sentences: Callable[[], Iterator[str]]) -> None:
    for sentence in sentences():
        assert sentence in flat(text(page)), sentence


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


def test_the_sizes_of_packs_are_those_of_real_images(real_data: Path) -> None:
    path = real_data / "coco_val2017_boxes" / "instances_val2017_floorint.json"
    sizes = [(i["width"], i["height"]) for i in json.loads(path.read_text())["images"] if "width" in i]
    each = sum(3 * w * h for w, h in (stored(*size, 640) for size in sizes)) / len(sizes) / 1e9
    page = flat(text("docs/costs.md"))
    assert f"about {COCO[1] * each:.1f} GB (val2017) and {COCO[0] * each:.0f} GB (train2017)" in page
    assert f"{len(sizes):,} images of val2017" in page
    assert max(max(size) for size in sizes) <= 640


def test_another_published_set_of_the_recipe_is_its_last_line() -> None:
    page = text("docs/recipe.md")
    (options,) = re.findall(r"`((?:--set [^`]+))` is the last line", page)
    train = resolve("csp-fast", "paper", re.findall(r"--set\s+(\S+)", options)).train
    loss, augment = train.loss, train.phases[0].augment
    values = [loss.classification, loss.objectness, augment.translate, augment.scale, augment.mixup]
    assert [float(cell) for cell in rows_below(page, "set")[-1][1:]] == values


# docs/decisions.md

DECISIONS = text("docs/decisions.md")
BASELINES = ("csp-fast", "p6-light")  # a bare option is for every row of a table
FIELD = r"(?:model|train|evaluation|numerics|execution|data)(?:\.\w+)+"
OPTIONS = sorted(set(re.findall(rf"`({FIELD}=[^` ]+)`", DECISIONS)))
STATEMENTS = sorted(set(re.findall(rf"`({FIELD}) = ([^`]+)`", DECISIONS)))
TRAIN = r"`ablate train ([a-z0-9.-]+)(?: --profile (\w+))?((?: --set [^ `]+)+)`"
OF_ONE = sorted(
    (slug, profile or "mini", tuple(re.findall(r"--set (\S+)", sets)))
    for slug, profile, sets in set(re.findall(TRAIN, DECISIONS))
)
PLACES = sorted(
    (name, path)
    for names, path in set(re.findall(r"((?:`\w+`(?:, | and )?)+)\sin\s`([\w/]+\.py)`", DECISIONS))
    for name in re.findall(r"`(\w+)`", names)
)


def test_every_decision_has_a_reason_and_a_way_to_change_it() -> None:
    _, *decisions = tables(DECISIONS)  # the first table explains the notation
    assert {tuple(header) for header, _ in decisions} == {("question", "choice", "why", "to change it")}
    for row in (row for _, rows in decisions for row in rows):
        assert all(row) and min(map(len, row[2:])) >= 4, row
    assert len(OF_ONE) > 10 and len(OPTIONS) > 30 and len(STATEMENTS) > 15 and len(PLACES) > 40
    mentioned = set(re.findall(rf"{FIELD}=[^` ]+", DECISIONS))
    assert mentioned == {option for _, _, options in OF_ONE for option in options} | set(OPTIONS)


def changes(slug: str, profile: str, options: Sequence[str]) -> bool:
    """Whether an experiment accepts options, and is another one with them."""
    return signature(resolve(slug, profile, options)) != signature(resolve(slug, profile))


@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_is_accepted_by_the_baselines_and_changes_something(option: str) -> None:
    (override,) = parse_overrides([option])
    profile = PROFILES["paper"]
    if override.part in SCIENCE_PARTS:
        changed = [changes(slug, "paper", [option]) for slug in BASELINES]  # each has to accept it
        assert any(changed)
    elif override.part == "execution":
        assert override_execution(profile.execution, [override]) != profile.execution
    else:
        assert override_data(profile.data, [override]) != profile.data


@pytest.mark.parametrize(("slug", "profile", "options"), OF_ONE)
def test_an_option_of_one_experiment_is_accepted_by_it_and_changes_it(
    slug: str, profile: str, options: tuple[str, ...]
) -> None:
    assert changes(slug, profile, options)
    for option in options:
        if "activation" not in option:  # which one layer has not, so it needs the option before it
            assert changes(slug, profile, [option])
        if option.startswith("model.implicit.0"):
            with pytest.raises(YolorError, match=r"model\.implicit"):
                resolve("csp-fast", "paper", [option])


@pytest.mark.parametrize(("path", "value"), STATEMENTS)
def test_a_stated_value_is_that_of_the_code(path: str, value: str) -> None:
    actual = dict(leaves(resolve("csp-fast", "paper"))) | dict(
        leaves(PROFILES["paper"].execution, "execution")
    )
    said = json.loads(value) if re.fullmatch(r"-?[\d.e-]+|true|false|null|[\[{].*", value) else value
    assert said == actual[path]


@pytest.mark.parametrize(("name", "path"), PLACES)
def test_a_place_in_the_code_is_there(name: str, path: str) -> None:
    pattern = rf"^\s*(?:def|class) {name}\b|^(?:\w+, )*{name}\b *[:=,]"
    assert re.search(pattern, text(path), re.MULTILINE)


@pytest.mark.parametrize(("page", "least"), [("docs/decisions.md", 25), ("docs/released-code.md", 5)])
def test_every_file_that_a_page_names_is_there(page: str, least: int) -> None:
    files = set(re.findall(r"`((?:yolor_core|ablations|analysis|slurm|tests)/[\w/.]*)`", text(page)))
    assert len(files) > least
    assert [file for file in files if not (ROOT / file).exists()] == []


# docs/released-code.md

RELEASED = text("docs/released-code.md")


def test_every_line_of_the_released_code_names_a_test_that_exists() -> None:
    sources = (path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    there = {test for source in sources for test in re.findall(r"^def (test_\w+)", source, re.MULTILINE)}
    assert set(re.findall(r"`(test_\w+)`", RELEASED)) - there == set()
    held = [rows for header, rows in tables(RELEASED) if header[-1] == "held by"]
    for *_, last in (row for rows in held for row in rows):
        assert re.fullmatch(r"(`tests?[\w/]+`(, )?)+|no test: .*`[\w/.]+\.py`", last), last
    assert sum(map(len, held)) > 35


def test_the_models_and_fields_of_the_released_code_are_there() -> None:
    (listed,) = re.findall(r"\| eight models \(([^)]*)\)", RELEASED)
    models = NAME.findall(listed)
    assert len(models) == 8 and set(models) <= set(list_models())
    if test_detector.NAMES:
        assert models == sorted(test_detector.NAMES)
    fields = dict(leaves(resolve("csp-fast", "paper")))
    assert set(re.findall(r"`((?:train|evaluation)\.[\w.]+)", RELEASED)) <= fields.keys()


# docs/faq.md

FAQ = text("docs/faq.md")


def test_the_options_of_the_faq_change_something() -> None:
    """That each is accepted, with the names around it, is tested of every command of every page."""
    options = set(re.findall(r"--set (\S+=[\w.]+)", FAQ))
    assert len(options) > 4
    for option in options:
        assert resolve("csp-fast", "paper", [option]) != resolve("csp-fast", "paper")


@pytest.mark.slow
def test_the_python_of_the_faq_folds_and_exports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folding, export = python_of("docs/faq.md")
    space: dict[str, object] = {}
    exec(compile(folding, "docs/faq.md", "exec"), space)
    assert {"folded", "expected"} <= set(space)  # it has come to its end
    theirs = tmp_path / "theirs.pt"
    torch.save({"model": authors_state(create_model("yolor-ssss-s2d", seed=1))}, theirs)
    monkeypatch.chdir(tmp_path)
    exec(compile(export.replace("size=640", "size=64"), "docs/faq.md", "exec"), {})
    sizes = {tuple(constant.dims) for constant in onnx.load("folded.onnx").graph.initializer}
    assert (255, 512, 1, 1) in sizes  # the predictor of P5
    assert not sizes & {(1, 255, 1, 1), (1, 512, 1, 1)}  # a vector that is multiplied or added
    with pytest.raises(WeightsError, match="its shapes are those of yolor-ssss-s2d"):
        import_weights(theirs, "yolor-ssss-dwt")


# docs/cluster.md

CLUSTER = text("docs/cluster.md")
CLUSTERS = dict(re.findall(r"^```toml\n# (\S+)\n(.*?)^```", CLUSTER, re.MULTILINE | re.DOTALL))


def launches() -> list[str]:
    """Every `ablate launch` of the page onto a cluster: in blocks of shell, and in cells of tables."""
    blocks = "".join(re.findall(r"^```sh\n(.*?)^```", CLUSTER, re.MULTILINE | re.DOTALL))
    found = re.findall(r"^ablate launch [^#\n]*", blocks, re.MULTILINE)
    found += re.findall(r"`(ablate launch [^`]*)`", CLUSTER)
    return sorted({line.replace("--dry-run", "").strip() for line in found if "--cluster" in line})


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the page's profiles and a small COCO, in which commands are called."""
    for file, content in CLUSTERS.items():
        (tmp_path / file).write_text(content, encoding="utf-8")
    little_coco(tmp_path / "coco")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ABLATE_RESULTS", str(tmp_path / "results"))
    return tmp_path


def ablate(line: str) -> Result:
    done = CliRunner().invoke(main, shlex.split(line)[1:])
    assert done.exit_code == 0, done.output
    return done


def test_the_page_has_profiles_and_launches() -> None:
    assert [*CLUSTERS] == ["mycluster.toml", "paper.toml"]
    assert len(launches()) >= 6
    assert all(f"`{cluster}`" in CLUSTER for cluster in known_clusters())


@pytest.mark.slow
@pytest.mark.parametrize("line", launches())
def test_every_launch_of_the_page_can_be_planned(line: str, here: Path) -> None:
    line = re.sub(r"--data \S+", f"--data {shlex.quote(str(here / 'coco'))}", line)
    done = ablate(f"{line.replace('--cluster PROFILE', '--cluster example')} --dry-run")
    assert "hours: by FLOPs at" in done.output and "#!/bin/bash" in done.output
    assert not (here / "results").exists()


def test_the_head_of_the_script_is_as_printed(here: Path) -> None:
    (block,) = re.findall(r"^```\n(#SBATCH.*?)^```", CLUSTER, re.MULTILINE | re.DOTALL)
    done = ablate("ablate launch 1 --profile smoke --cluster mycluster.toml --dry-run")
    lines = {line for line in done.output.splitlines() if line.startswith("#SBATCH")}
    assert set(block.splitlines()) <= lines
    left_out = {line.split("=")[0].split()[1] for line in lines - set(block.splitlines())}
    assert left_out == {"--job-name", "--kill-on-invalid-dep", "--open-mode", "--output"}


@pytest.mark.parametrize("cluster", known_clusters())
def test_the_profiles_of_the_suite_can_be_planned_with(cluster: str, here: Path) -> None:
    ablate(f"ablate launch 1 --profile smoke --cluster {cluster} --dry-run")


def test_every_key_of_a_profile_is_documented_and_no_other(here: Path) -> None:
    keys = [key for row in rows_below(CLUSTER, "key") for key in NAME.findall(row[0])]
    assert sorted(keys) == sorted(Cluster.model_fields.keys() - {"override"})
    (override,) = re.findall(r"`\[\[override\]\]` has (.*?)\.\n", CLUSTER, re.DOTALL)
    assert NAME.findall(override) == [*Override.model_fields]
    lines = {line for row in rows_below(CLUSTER, "if") for line in NAME.findall(row[1])}
    used = {re.split(r"\W", line.strip("["))[0] for line in lines}
    assert used and used <= Cluster.model_fields.keys()
    cluster = load_cluster("paper.toml")
    assert (cluster.resources("csp-fast").ranks, cluster.resources("p6-light").ranks) == (8, 16)


def test_the_advice_covers_every_state_that_needs_some() -> None:
    told = {row[0].split(",")[0] for row in rows_below(CLUSTER, "`ablate status` says")}
    assert told == {"queued", "starting", "preempted", "unreadable", *UNFINISHED}


# What pages quote from the published study.

QUOTED = {"table", "row", "Δ AP [95 %]"}  # a table with these columns quotes the summary
TABLES = {STUDY: (*"12345678", "controls"), STEEL: (*"12456", "controls")}
COUNTED = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
EXCERPT = "ablate tables 8 --metrics AP,AP50 --results results/published/mini"
PLAN = "ablate plan 1 4 controls --results results/published/mini"


@functools.cache
def summary(study: Path) -> str:
    return flat((study / "summary.md").read_text(encoding="utf-8"))


@functools.cache
def compared(study: Path) -> dict[tuple[str, str], dict[str, str]]:
    """The rows of a summary's verdicts by table and row."""
    (found,) = [t for t in tables((study / "summary.md").read_text(encoding="utf-8")) if set(t[0]) >= QUOTED]
    head, rows = found
    assert tuple(head) == HEAD and len(rows) > 10
    return {(row[0], row[1]): dict(zip(head, row, strict=True)) for row in rows}


@functools.cache
def on_the_study(command: str) -> str:
    return ablate(command.replace("results/published/mini", str(STUDY))).stdout


def least_shown(study: Path) -> str:
    return f"{min(float(row['shows']) for row in compared(study).values() if row['shows'] != '–'):.1f}"


def moved(study: Path, experiment: str) -> str:
    """Root mean square of g(z) at the end minus its start, P3 to P5; mean over the seeds."""
    by_seed = []
    for run in sorted((study / "runs").glob(f"{experiment}-mini-s*")):
        values = pd.read_parquet(run / "implicit.parquet")
        ends = values[values["epoch"].isin((0, values["epoch"].max()))]
        wide = ends.pivot(index=["level", "index"], columns="epoch", values="value")
        by_seed.append((wide.iloc[:, 1] - wide.iloc[:, 0]).pow(2).groupby(level="level").mean().pow(0.5))
    first, second, third = np.mean(by_seed, axis=0)
    return f"{first:.2f}, {second:.2f} and {third:.2f}"


def gains(study: Path) -> str:
    """By how much × iPR multiplies classes, and widths and heights: mean of seeds, levels and anchors."""
    found = []
    for run in sorted((study / "runs").glob("csp-fast.mul-pr-mini-s*")):
        values = pd.read_parquet(run / "implicit.parquet")
        values = values[values["epoch"] == values["epoch"].max()]
        output = values["index"] % ((values["index"].max() + 1) // 3)
        found.append([values.loc[of, "value"].mean() for of in (output > 4, output.isin((2, 3)))])
    classes, sides = np.mean(found, axis=0)
    return f"outputs of classes by {classes:.1f} and those of widths and heights by {sides:.1f}"


def baseline(study: Path, score: str) -> str:
    """`score` of the baseline of Table 1 with its interval, as its table prints it."""
    lines = (study / "tables" / "table-1.txt").read_text(encoding="utf-8").splitlines()
    names = next(line for line in lines if line.startswith("row")).split()[1:]
    ours = re.findall(r"[\d.]+ ± [\d.]+", next(line for line in lines if line.split()[:1] == ["ours"]))
    return dict(zip(names, ours, strict=True))[score]


def runs_and_seeds(study: Path) -> tuple[int, int]:
    names = [run.name for run in (study / "runs").iterdir()]
    return len(names), len({re.findall(r"-s(\d+)-", each)[-1] for each in names})


def same_signs() -> str:
    """How many comparisons go the same way on photographs and on shapes."""
    rows = rows_below(text("docs/steel.md"), "table", "row")
    found = (
        compared(study)[table, row]["Δ AP [95 %]"] for table, row, *_ in rows for study in (STUDY, STEEL)
    )
    signs = [float(each.split()[0]) > 0 for each in found]
    same = sum(a is b for a, b in zip(signs[::2], signs[1::2], strict=True))
    return f"{same} of {len(rows)} differences have the same sign"


def seeds(study: Path) -> str:
    return COUNTED[runs_and_seeds(study)[1]]


def arms(study: Path) -> int:
    trained, each = runs_and_seeds(study)
    return trained // each


def difference(study: Path, table: str, row: str) -> tuple[float, float, float]:
    """A row's difference in AP, and the ends of its interval."""
    mean, low, high = re.findall(r"[-+][\d.]+", compared(study)[table, row]["Δ AP [95 %]"])
    return float(mean), float(low), float(high)


def signed(value: float) -> str:
    return f"{value:+.1f}".replace("-", "\N{MINUS SIGN}")


def half_widths(study: Path, by: str) -> list[float]:
    """Of the rows whose intervals come from this scatter."""
    rows = [key for key, row in compared(study).items() if row["by"] == by]
    ends = [difference(study, *key)[1:] for key in rows]
    return [(high - low) / 2 for low, high in ends]


def pooled(study: Path) -> str:
    return f"± {max(half_widths(study, 'pooled')):.1f} AP"


def noisiest(study: Path) -> tuple[str, str, str]:
    """The rows with intervals of their own, their half-widths, and the effects that they could show."""
    own = [row for row in compared(study).values() if row["by"] == "own spreads"]
    *first, last = (row["row"] for row in own)
    wide, shows = half_widths(study, "own spreads"), [float(row["shows"]) for row in own]
    return (
        f"{', '.join(first)} and {last}",
        f"± {min(wide):.0f} to ± {max(wide):.0f}",
        f"{min(shows):.0f} to {max(shows):.0f}",
    )


def in_words(study: Path) -> str:
    """What the example of `docs/reading-a-table.md` says."""
    mean, low, high = difference(study, "8", "implicit")
    return (
        f"AP was {-mean:.2f} points lower on average, but {seeds(study)} pairs of runs cannot rule out "
        f"anything from {signed(low)} to {signed(high)}"
    )


def planned() -> dict[str, Any]:
    """What `PLAN` says, by half-width, and of the scatter."""
    said = json.loads(on_the_study(f"{PLAN} --json"))
    return {str(each["half_width"]): each for each in said["half_widths"]} | {"scatter": said["scatter"]}


def scatter() -> str:
    found = planned()["scatter"]
    return f"{found['sigma']:.2f} [{found['low']:.2f}, {found['high']:.2f}]"


@functools.cache
def runs_of(study: Path) -> pd.DataFrame:
    return load_runs(study)


def what_scatters(study: Path) -> str:
    """What goes with a run's AP where its row and its seed do not explain it."""
    runs = runs_of(study)
    classes = [
        json.loads((Path(path) / "evaluation.json").read_text(encoding="utf-8"))["per_class"]
        for path in runs["path"]
    ]
    per_class = 100 * pd.DataFrame(classes, index=runs.index)
    runs = runs.join(per_class)
    scores = ["AP", "AP50", "AP75", "val box", "val cls", *per_class]
    wide = {score: runs.pivot(index="experiment", columns="seed", values=score) for score in scores}
    left = {
        score: (ap.sub(ap.mean(axis=1), axis=0) - ap.mean() + ap.to_numpy().mean())
        for score, ap in wide.items()
    }
    spread = {score: math.sqrt(fit(ap.to_numpy()).variance) for score, ap in wide.items()}
    with_box, with_classes = (
        np.corrcoef(np.ravel(left["AP"]), np.ravel(left[of]))[0, 1] for of in ("val box", "val cls")
    )
    *others, most = sorted(per_class, key=spread.__getitem__)
    said = (
        f"In the {len(runs)} runs of the [published study](published.md), what is left of a run's AP after "
        f"its row and its seed (s = {spread['AP']:.2f}) goes with what is left of the boxes' loss on the "
        f"validation images (correlation {with_box:.2f}), hardly with that of classification "
        f"({with_classes:.2f}). AP50 scatters by {spread['AP50']:.2f}, AP75 by {spread['AP75']:.2f}. Of the "
        f"five classes {most}s scatter most ({spread[most]:.1f}, the others {spread[others[0]]:.1f} to "
        f"{spread[others[-1]]:.1f})"
    )
    return said.replace("-0.", "\N{MINUS SIGN}0.")


def of_reproduce() -> str:
    """Half-width by the two seeds of the 19 arms of `make reproduce`."""
    return f"± {stats.t.ppf(0.975, 18) * planned()['scatter']['sigma']:.1f}"


def agreement(of: str, experiment: str) -> dict[str, str]:
    """How much seeds agree on what an experiment learns: a row of the figure's data, rounded."""
    table = pd.read_csv(STUDY / "figures" / "agreement.csv").set_index(["of", "series"])
    found = table.loc[(of, experiment)]
    low, high = (f"{found[each]:.2f}".replace("-", "\N{MINUS SIGN}") for each in ("low", "high"))
    rounded = {each: f"{found[each]:.2f}" for each in ("cosine", "null", "others")}
    return rounded | {"interval": f"{rounded['cosine']} [{low}, {high}]"}


def agreements() -> str:
    vector, added = (agreement(of, "csp-fast.add-fa") for of in ("g(z)", "effect"))
    multiplied = agreement("effect", "csp-fast.mul-pr")
    return (
        f"the effects of + iFA at {added['interval']} (shuffled {added['null']}, those of other experiments "
        f"{added['others']}), its vectors at {vector['interval']}, no better than shuffled ones "
        f"({vector['null']}); the effects of × iPR at {multiplied['interval']} "
        f"(shuffled {multiplied['null']}, others {multiplied['others']})"
    )


def validation_loss(table: str) -> str:
    """The first row's difference to its baseline, in percent over the epochs."""
    found = pd.read_csv(STUDY / "figures" / f"val-loss-differences-table-{table}.csv").iloc[0]
    assert found["overall"] > 0 > found["overall_low"]
    ends = f"{signed(found['overall_low'])}, {signed(found['overall_high'])}"
    return f"{found['overall']:.1f} % higher [{ends}]"


def apart(study: Path) -> str:
    """How far two runs of one experiment are from each other."""
    own = runs_of(study).groupby("experiment")["AP"]
    far = [abs(a - b) for _, ap in own for a, b in itertools.combinations(ap, 2)]
    return (
        f"differ by {np.median(far):.1f} points of AP for no reason but the seed (median of {own.ngroups} "
        f"experiments), by {max(far):.1f} at most"
    )


def leak() -> str:
    """What a random split is worth: mean of the pairs, with the t-interval that the benchmark prints."""
    wide = pd.read_csv(LEAK).pivot(index="split", columns="kind", values="AP")
    found = over_seeds((wide["random"] - wide["groups whole"]).tolist())
    return f"{found.mean:+.1f} AP [{found.low:+.1f}, {found.high:+.1f}]"


#: What pages say of a study, as a pattern, and what is so.
SAID: dict[str, Callable[[Path], str]] = {
    r"\d+ comparisons in AP: .+? \(Holm\)(?:; uncorrected, [^.]+)?\.": lambda study: headline(
        open_study(study, tables=TABLES[study])
    ),
    r"baseline of most rows has AP .+?, AP50 [\d.]+ ± [\d.]+": lambda study: (
        f"baseline of most rows has AP {baseline(study, 'AP')}, AP50 {baseline(study, 'AP50')}"
    ),
    r"\d+ trainings(?= on 2 cores| of tiny models)": lambda study: f"{runs_and_seeds(study)[0]} trainings",
    r"\w+ seeds(?= of each row at `mini`| each, \d+ train| a row, every|\) after 24| have nothing in| would"
    r" probably| an interval can|, what is learnt| can show, one| can say: | \(names:)": lambda study: (
        f"{seeds(study)} seeds"
    ),
    r"with \w+ seeds its intervals are ± [\d.]+ AP": lambda study: (
        f"with {seeds(study)} seeds its intervals are {pooled(study)}"
    ),
    r"\*\*\w+ seeds\*\* of \d+ experiments determine a difference to within ± [\d.]+ AP": lambda study: (
        f"**{seeds(study).title()} seeds** of {arms(study)} experiments determine a difference to"
        f" within {pooled(study)}"
    ),
    r"(?<=possible\. ).+ have wide intervals of their own": lambda study: (
        f"{noisiest(study)[0]} have wide intervals of their own"
    ),
    r"(?<= can say: ).+ have intervals of their own, of ± \d+ to ± \d+ AP": lambda study: (
        f"{noisiest(study)[0]} have intervals of their own, of {noisiest(study)[1]} AP"
    ),
    r"\(\d+ to \d+ in the noisiest rows\)": lambda study: f"({noisiest(study)[2]} in the noisiest rows)",
    r"± 0\.5 AP take \d+ seeds \(\d+ core-hours": lambda _: (
        f"± 0.5 AP take {planned()['0.5']['seeds']} seeds ({planned()['0.5']['hours']:.0f} core-hours"
    ),
    r"smaller than 0\.5 AP takes about \d+ \(\d+\)": lambda _: (
        f"smaller than 0.5 AP takes about {planned()['0.33']['seeds']} ({planned()['0.33']['hours']:.0f})"
    ),
    r"\w+ seeds of \d+ arms, has s = \S+ \[[^]]+\] and determines differences to within ± [\d.]+ AP, or"
    r" ± \d+ to ± \d+": (
        lambda study: (
            f"{seeds(study)} seeds of {arms(study)} arms, has s = {scatter()} and determines "
            f"differences to within {pooled(study)}, or {noisiest(study)[1]}"
        )
    ),
    r"two seeds of the 19 arms of `make reproduce` give ± [\d.]+\d": lambda _: (
        f"two seeds of the 19 arms of `make reproduce` give {of_reproduce()}"
    ),
    r"± 0\.5 AP takes \d+ seeds of Tables 1, 4 and `controls`": lambda _: (
        f"± 0.5 AP takes {planned()['0.5']['seeds']} seeds of Tables 1, 4 and `controls`"
    ),
    r"In the \d+ runs of the .+? scatter most \([^)]+\)": what_scatters,
    r"\d+ by the mean of all": lambda _: f"{planned()['0.5']['hours']:.0f} by the mean of all",
    r"s at most 0\.42 \| \*\*no\*\*: [\d.]+": lambda _: f"s at most 0.42 | **no**: {scatter()[:4]}",
    r"from `make reproduce` \| \*\*no\*\*: ± [\d.]+": lambda _: (
        f"from `make reproduce` | **no**: {of_reproduce()}"
    ),
    r"AP was [\d.]+ points lower on average, but .+? from \S+ to \S+\d": in_words,
    r"\*\*Δ, \d+ pairs\*\*": lambda study: f"**Δ, {runs_and_seeds(study)[1]} pairs**",
    r"differ by [\d.]+ points of AP for no reason but the seed \(.+?\), by [\d.]+ at most": apart,
    r"the effects of \+ iFA at .+; the effects of × iPR at \S+ \[[^]]+\] \([^)]+\)": lambda _: agreements(),
    r"much the same \(cosine [\d.]+\)": lambda _: (
        f"much the same (cosine {agreement('effect', 'csp-fast.add-fa')['cosine']})"
    ),
    r"over the epochs is [\d.]+ % higher \[[^]]+\], for \+ iFA alone [\d.]+ % higher \[[^]]+\]": lambda _: (
        f"over the epochs is {validation_loss('7')}, for + iFA alone {validation_loss('1')}"
    ),
    r"may gain [\d.]+(?: AP)? \[[^]]+\]": lambda study: "may gain {} AP [{}, {}]".format(
        *(signed(each).lstrip("+") for each in difference(study, "controls", "k-means anchors"))
    ),
    r"effects of about [\d.]+ AP or more": lambda study: f"effects of about {least_shown(study)} AP or more",
    r"half-widths of 0.5 AP `ablate plan 1 4 controls` asks for \d+ seeds": lambda _: (
        f"half-widths of 0.5 AP `ablate plan 1 4 controls` asks for {planned()['0.5']['seeds']} seeds"
    ),
    r"the vector of \+ iFA had moved by [\d.]+, [\d.]+ and [\d.]+\d": lambda study: (
        f"the vector of + iFA had moved by {moved(study, 'csp-fast.add-fa')}"
    ),
    r"that of \+ iPR by [\d.]+, [\d.]+ and [\d.]+\d": lambda study: (
        f"that of + iPR by {moved(study, 'csp-fast.add-pr')}"
    ),
    r"outputs of classes by [\d.]+ and those of widths and heights by [\d.]+\d": gains,
    r"\d+ of \d+ differences have the same sign": lambda _: same_signs(),
    r"worth \S+ AP \[\S+ \S+\]": lambda _: f"worth {leak()}",
}
#: Pages that say something of a study.
QUOTING = {
    "README.md": STUDY,
    **{f"docs/{each}.md": STUDY for each in ("faq", "figures", "limits", "mini", "paper-figures")},
    **{f"docs/{each}.md": STUDY for each in ("published", "reading-a-table", "start")},
    "docs/steel.md": STEEL,
}


def as_measured(content: str, study: Path) -> str:
    """A page with what it says of a study written anew; paragraphs are filled again where they change."""

    def said(words: str) -> str:
        for pattern, so in SAID.items():
            words = re.sub(pattern, lambda _, so=so: so(study), words)
        return words

    def block(found: re.Match[str]) -> str:
        paragraph = found[0]
        if paragraph.startswith("|"):
            return said(paragraph)
        if paragraph.startswith(("* ", "- ")):
            return "\n".join(filled(item, "  ") for item in re.split(r"\n(?=[*-] )", paragraph))
        return paragraph if paragraph.startswith(("```", "    ", "#", "!")) else filled(paragraph)

    def filled(paragraph: str, indent: str = "") -> str:
        words = said(flat(paragraph))
        if words == flat(paragraph):
            return paragraph
        words = words.replace(" + ", "\N{NO-BREAK SPACE}+ ")  # a line that begins with "+ " would be a list
        lines = textwrap.fill(
            words, 120, break_long_words=False, break_on_hyphens=False, subsequent_indent=indent
        )
        return lines.replace("\N{NO-BREAK SPACE}", " ")

    return re.sub(r"(?:^.+\n?)+(?<!\n)", block, content, flags=re.MULTILINE)


@pytest.mark.parametrize("page", QUOTING)
def test_what_pages_say_of_the_study_is_measured(page: str) -> None:
    assert flat(as_measured(text(page), QUOTING[page])) == flat(text(page)), (
        "python -m tests.test_docs writes it anew"
    )


@pytest.mark.parametrize("pattern", SAID)
def test_every_sentence_of_the_study_is_on_a_page(pattern: str) -> None:
    assert any(re.search(pattern, flat(text(page))) for page in QUOTING)


def test_every_comparison_is_quoted_once_and_the_readme_calls_them_by_their_verdicts() -> None:
    found = {
        name(page): rows for page in PAGES for head, rows in tables(text(name(page))) if set(head) >= QUOTED
    }
    assert set(found) == {"docs/published.md", "docs/steel.md"}
    for rows, count_ in ((found["docs/published.md"], 21), (found["docs/steel.md"], 14)):
        assert len(rows) == len({tuple(row[:2]) for row in rows}) == count_
    trained, seeds = runs_and_seeds(STUDY)
    assert f"| runs | {trained} finished, of {trained // seeds} experiments | " in summary(STUDY)
    assert "every difference that the paper names is inconclusive" in flat(text("README.md"))
    assert {row["verdict"] for row in compared(STUDY).values()} == {"inconclusive"}


def excerpts(page: str, content: str) -> str:
    """A page with what commands print of the study printed anew: the plan, and two rows of a table."""

    def block(found: re.Match[str]) -> str:
        fence, shown = found.groups()
        if page == "docs/seeds.md" and shown.startswith("10 comparisons of "):
            shown = re.sub(" +$", "", on_the_study(PLAN), flags=re.MULTILINE).rstrip()
        if page == "docs/reading-a-table.md" and shown.startswith("row  "):
            lines = [line.rstrip() for line in on_the_study(EXCERPT).splitlines()]
            start = next(number for number, line in enumerate(lines) if line.startswith("row  "))
            end = next(number for number, line in enumerate(lines) if line.startswith("fine-tuned"))
            shown = "\n".join(lines[start:end]).rstrip()
        return f"{fence}\n{shown}\n```"

    return re.sub(r"^(```\w*)\n(.*?)\n```$", block, content, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(("page", "command"), [("docs/seeds.md", PLAN), ("docs/reading-a-table.md", EXCERPT)])
def test_excerpts_are_what_their_commands_print(page: str, command: str) -> None:
    assert command in flat(text(page))
    assert excerpts(page, text(page)) == text(page), "python -m tests.test_docs prints it anew"


#: Pictures of README and docs: figures of the catalogue, by the study they are of.
PICTURES = {
    STUDY: {each: each for each in ("effects-by-row", "detections", "figure-9", "figure-10", "figure-11")},
    STEEL: {"effects-by-row": "steel-effects-by-row"},
}


def pictures() -> dict[str, str]:
    """{path: SVG}."""
    found = {}
    for folder, names in PICTURES.items():
        study = reopened(folder, read_manifest(folder)[0], no_costs)
        for each in published_drawings(study):
            if key := names.get(each.name):
                drawn = each.draw(each.data(study), width="page")
                found[f"docs/images/{key}.svg"] = svg(drawn, each.title, each.caption, key)
    return found


@pytest.mark.slow
def test_the_pictures_of_the_pages_are_drawn_from_the_published_studies() -> None:
    """By their words and numbers: where lines end is up to matplotlib's version."""
    for path, drawn in pictures().items():
        words = [re.findall(r"<text[^>]*>([^<]+)</text>", each) for each in (text(path), drawn)]
        assert words[0] == words[1] and len(words[0]) > 20, f"{path}: python -m tests.test_docs draws it anew"
        assert len(text(path)) < 150_000, path


def test_the_readme_analyses_the_published_study() -> None:
    analysis, _, _ = python_of("README.md")
    space: dict[str, Any] = {}
    exec(compile(analysis, "README.md: analysis", "exec"), space)
    (delta,) = space["ap"].query("table == '1' and row == '+ iFA'")["delta"]
    assert compared(STUDY)["1", "+ iFA"]["Δ AP [95 %]"].startswith(f"{delta:+.2f} [")


def test_published_detections_are_read_as_the_page_says_and_no_two_are_the_same() -> None:
    (block,) = python_of("docs/published.md")
    run = min((STUDY / "runs").iterdir())
    space: dict[str, Any] = {"pd": pd, "run": run}
    exec(compile(block, "docs/published.md", "exec"), space)
    found, read = space["found"], read_detections(run / "detections.parquet")
    assert np.abs(found[["x", "y", "width", "height"]].to_numpy() - read.boxes).max() < 1e-4
    assert np.abs(found["score"].to_numpy() - read.scores).max() < 1e-6
    for path in (STUDY / "runs").glob("*/detections.parquet"):
        read = read_detections(path)
        rows = np.column_stack([read.image_id, read.category_id, read.scores, read.boxes])
        assert not pd.DataFrame(rows).duplicated().any(), path


def test_the_training_time_counts_what_is_continued_once() -> None:
    spent = {}
    for run in (STUDY / "runs").iterdir():
        record, state = (json.loads((run / file).read_text()) for file in ("run.json", "state.json"))
        spent[run.name] = (state["seconds"], record.get("continues"))
    once = sum(seconds - (spent[before][0] if before else 0) for seconds, before in spent.values()) / 3600
    assert sum(before is not None for _, before in spent.values()) == 2 * runs_and_seeds(STUDY)[1]
    assert f"| training time | {once:.1f} hours of one device" in summary(STUDY)


# One version, date and licence wherever they are written down.


def citation(key: str) -> str:
    (value,) = re.findall(rf"^{key}: (.+)$", text("CITATION.cff"), flags=re.MULTILINE)
    return str(value).strip('"')


def test_the_changelog_the_citation_and_the_project_agree() -> None:
    project = tomllib.loads(text("pyproject.toml"))["project"]
    changelog = text("CHANGELOG.md")
    entries = re.findall(r"^## (\S+) - (\S+)$", changelog, flags=re.MULTILINE)
    newest, day = entries[0]
    assert newest == project["version"] == citation("version")
    assert date.fromisoformat(day).isoformat() == day == citation("date-released")
    headings = re.findall(r"^## (.+)$", changelog, flags=re.MULTILINE)
    assert headings[headings[0] == "Unreleased" :] == [" - ".join(entry) for entry in entries]
    versions, days = [Version(v) for v, _ in entries], [date.fromisoformat(d) for _, d in entries]
    assert versions == sorted(set(versions), reverse=True) and days == sorted(days, reverse=True)
    assert citation("license") == project["license"] and project["license-files"] == ["LICENSE"]


if __name__ == "__main__":
    for page_ in WRITTEN:
        (ROOT / page_).write_text(written(page_, text(page_)), encoding="utf-8")
    for page_ in QUOTING:
        (ROOT / page_).write_text(as_measured(text(page_), QUOTING[page_]), encoding="utf-8")
    for page_ in ("docs/seeds.md", "docs/reading-a-table.md"):
        (ROOT / page_).write_text(excerpts(page_, text(page_)), encoding="utf-8")
    for path_, content_ in pictures().items():
        (ROOT / path_).write_text(content_, encoding="utf-8")
