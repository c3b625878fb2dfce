"""docs/your-own-ablation.md, done as it says: the operator and the table in a copy of the packages."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from ablations.plan import plan_runs
from yolor_core.identity import source_hash

ROOT = Path(__file__).parents[2]
PACKAGES = ("yolor_core", "ablations", "analysis", "slurm")
BLOCK = re.compile(r"^```python\n# ([^\n]+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
PAPER = ("csp-fast", "csp-fast.add-fa", "csp-fast.mul-fa")
GATE = "csp-fast.gate-fa"


def text(page: str) -> str:
    return (ROOT / "docs" / page).read_text(encoding="utf-8")


PAGE = text("your-own-ablation.md")
BLOCKS = dict(BLOCK.findall(PAGE))
OPERATOR = [
    (path, source) for path, source in BLOCK.findall(text("extending.md")) if "gate" in source.lower()
]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages with the operator at the end of the two files that extending.md names, and the table."""
    root = tmp_path_factory.mktemp("tree")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, root / package, ignore=shutil.ignore_patterns("__pycache__"))
    for path, source in OPERATOR:
        with (root / path).open("a", encoding="utf-8") as file:
            file.write(f"\n\n{source}")
    for name in ("gate.py", "check_folding.py", "cite.py"):
        (root / name).write_text(BLOCKS[name], encoding="utf-8")
    return root


def run(root: Path, *arguments: str | Path, ok: bool = True) -> subprocess.CompletedProcess[str]:
    """Python with these arguments, in the folder and with the packages of `root`."""
    environment = os.environ | {"PYTHONPATH": str(root), "NO_COLOR": "1", "COLUMNS": "400"}
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert not ok or done.returncode == 0, done.stdout + done.stderr
    return done


def ablate(root: Path, *arguments: str | Path, ok: bool = True) -> subprocess.CompletedProcess[str]:
    return run(root, "-m", "ablations", *arguments, ok=ok)


def hash_of(root: Path) -> str:
    return source_hash(root / "yolor_core")


def weights(results: Path, experiment: str) -> Path:
    (path,) = (results / "runs").glob(f"{experiment}-smoke-s0-*")
    return path / "weights.safetensors"


def test_the_page_has_the_operator_by_reference_alone() -> None:
    assert [path for path, _ in OPERATOR] == [
        "yolor_core/implicit/operators.py",
        "yolor_core/implicit/registry.py",
    ]
    assert "class Gate" not in PAGE and "(extending.md#an-operator)" in PAGE
    assert len(BLOCKS) == PAGE.count("```python")


def test_the_code_of_the_page_is_the_one_that_runs(tree: Path) -> None:
    code = "import yolor_core, ablations; print(yolor_core.__file__); print(ablations.__file__)"
    for line in run(tree, "-c", code).stdout.splitlines():
        assert Path(line).is_relative_to(tree)
    assert hash_of(tree) != source_hash()


def test_the_table_asks_what_the_page_asks(tree: Path) -> None:
    (table,) = [json.loads(ablate(tree, "show", "gate.py", "--json").stdout)]
    assert table["question"] and table["hypothesis"]
    against = {row["row"]: row["against"] for row in table["rows"]}
    assert against["gate iFA"] == ["× iFA"] and against["× iFA"] == ["baseline"]
    assert [row["experiment"] for row in table["rows"]] == [*PAPER, GATE]


def test_a_dry_run_reuses_the_papers_runs_and_starts_the_new_one(tree: Path, tmp_path: Path) -> None:
    shown = ablate(tree, "launch", "gate.py", "--profile", "smoke", "--results", tmp_path, "--dry-run").stdout
    found = re.findall(r"^start +(\S+)", shown, re.MULTILINE)
    papers = [run.run_id for run in plan_runs(PAPER, "smoke", results=tmp_path)]
    assert found[:3] == papers
    assert found[3].startswith(f"{GATE}-smoke-s0-") and len(found) == 4


def test_only_named_tables_can_be_published(tree: Path) -> None:
    done = ablate(tree, "publish", "gate.py", ok=False)
    assert done.returncode == 2 and "gate.py is a file" in done.stderr


def test_the_table_can_be_given_a_name(tree: Path, tmp_path: Path) -> None:
    """Moved and listed as the page says, it is found by name and the source hash stays."""
    before = hash_of(tree)
    copy = tmp_path / "named"
    shutil.copytree(tree, copy)
    shutil.move(copy / "gate.py", copy / "ablations" / "tables" / "gate.py")
    module = copy / "ablations" / "tables" / "__init__.py"
    source = module.read_text(encoding="utf-8")
    changed = source.replace("    controls,\n", "    controls,\n    gate,\n").replace(
        "table6x, controls)", "table6x, controls, gate)"
    )
    assert changed.count("gate") == 2
    module.write_text(changed, encoding="utf-8")
    assert "gate: gate iFA" in ablate(copy, "list", "--everything").stdout
    assert hash_of(copy) == before


@pytest.mark.slow
def test_the_formula_that_the_page_adds_lets_the_tests_of_folding_pass(tree: Path, tmp_path: Path) -> None:
    (lines,) = (source for path, source in BLOCKS.items() if path.startswith("tests/"))
    original = (ROOT / "tests/yolor_core/implicit/test_operators.py").read_text(encoding="utf-8")
    place = "def acted(operator: str, x: Tensor, g: Tensor) -> Tensor:\n"
    first = '    """The operator by its definition in the paper."""\n    g = g.view(1, -1, 1, 1)\n'
    assert place + first in original
    path = tmp_path / "test_operators.py"
    chosen = ("-q", "-p", "no:cacheprovider", "-k", "gate and constant_folds")
    for text_, passes in ((original, False), (original.replace(first, first + lines), True)):
        path.write_text(text_, encoding="utf-8")
        done = run(tree, "-m", "pytest", *chosen, path, ok=False)
        assert (done.returncode == 0) == passes, done.stdout
        assert re.search(r"\n6 (passed|failed)", done.stdout), done.stdout


@pytest.mark.slow
def test_the_way_from_the_launch_to_the_table(tree: Path) -> None:
    """Trained with the new operator, folded, printed and cited; then beside a run of the old code."""
    results = tree / "try"
    options = ("--profile", "smoke", "--results", results)
    scripts = ablate(tree, "launch", "gate.py", *options, "--cluster", "testbed", "--dry-run").stdout
    assert "# 4 runs in 4 jobs" in scripts
    ablate(tree, "launch", "gate.py", *options)
    printed = ablate(tree, "tables", "gate.py", *options).stdout
    row = next(line for line in printed.splitlines() if line.startswith("gate iFA"))
    assert re.search(r"ours +\d+\.\d \([+-]\d+\.\d\)", row), row
    assert hash_of(tree)[:8] in printed

    folders = sorted((results / "runs").iterdir())
    lines = run(tree, "check_folding.py", *folders).stdout.splitlines()
    differences = {line.split()[0]: float(line.split()[1]) for line in lines}
    assert differences.keys() == {*PAPER, GATE}
    assert all(value < 1e-9 for value in differences.values())
    learnt = {e: load_file(weights(results, e)) for e in ("csp-fast.mul-fa", GATE)}
    name = "implicit.sites.fa.P3.forms.0.z"
    assert abs(learnt[GATE][name]).max() > 0
    assert abs(learnt[GATE][name]).max() < 0.2 < abs(learnt["csp-fast.mul-fa"][name]).max() < 1.2

    shutil.copytree(results, tree / "results")
    (tree / "cite.py").write_text(BLOCKS["cite.py"].replace('"mini"', '"smoke"'), encoding="utf-8")
    cited = run(tree, "cite.py").stdout
    assert cited.count(hash_of(tree)) == 4 and GATE in cited

    # The baseline of the old code in place of the new one.
    new = weights(results, "csp-fast").read_bytes()
    shutil.rmtree(weights(results, "csp-fast").parent)
    ablate(ROOT, "train", "csp-fast", *options)
    assert weights(results, "csp-fast").read_bytes() == new
    said = ablate(tree, "launch", "gate.py", *options, "--dry-run")
    assert said.stdout.count("keep ") == 4
    (note,) = re.findall(r"^    (note: .*)$", PAGE, re.MULTILINE)
    assert note in said.stderr
    refused = ablate(tree, "tables", "gate.py", *options, ok=False)
    assert refused.returncode == 2
    for part in ("different yolor_core sources", "--source PREFIX", "--mixed", source_hash()[:8], GATE):
        assert part in refused.stderr
    mixed = ablate(tree, "tables", "gate.py", *options, "--mixed").stdout
    assert {source_hash()[:8], hash_of(tree)[:8]} <= set(re.findall(r"\b[0-9a-f]{8}\b", mixed))
    one = ablate(tree, "tables", "gate.py", *options, "--source", hash_of(tree)[:8]).stdout
    assert re.search(r"baseline +ours: not run", one) and re.search(r"gate iFA +ours +\d", one)


@pytest.mark.parametrize("command", ["tables", "report", "publish"])
def test_the_options_about_sources_are_where_the_page_says(command: str) -> None:
    shown = ablate(ROOT, command, "--help").stdout
    assert "--mixed" in shown and "--source" in shown
