"""Modules import each other in one direction: no circles, types included."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = ("yolor_core", "ablations", "slurm", "analysis")


def modules() -> dict[str, Path]:
    found = {}
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = path
    return found


def imported(path: Path, known: dict[str, Path]) -> set[str]:
    """What a file imports of the project: at the top, inside functions and for its annotations."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= (inner & known.keys()) or {node.module}
    return names & known.keys()


def test_there_are_no_circles_of_imports() -> None:
    known = modules()
    # a package whose __init__ hands out names of its modules later, on demand, is no module of its own here
    graph = {
        name: imported(path, known) - {name} for name, path in known.items() if path.name != "__init__.py"
    }
    assert len(graph) > 100
    list(TopologicalSorter(graph).static_order())  # raises CycleError, which names the circle


def test_the_folders_depend_on_each_other_in_one_direction() -> None:
    known = modules()
    allowed = {
        "yolor_core": {"yolor_core"},
        "slurm": {"slurm", "yolor_core.runs"},  # the states of a run are one vocabulary
        "ablations": {"ablations", "yolor_core", "slurm"},
        "analysis": {"analysis", "ablations", "yolor_core"},
    }
    for name, path in known.items():
        package = name.partition(".")[0]
        used = {
            each if each in allowed[package] else each.partition(".")[0] for each in imported(path, known)
        }
        if name.startswith(("ablations.commands", "ablations.cli")):
            continue  # where all four meet
        assert used <= allowed[package], f"{name} imports {sorted(used - allowed[package])}"
