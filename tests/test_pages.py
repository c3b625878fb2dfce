"""Every command that a page prints is one that its program accepts, and every link leads somewhere."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.commands import FENCED, ROOT, NotACommandError, Printed, check, pages, printed

PAGES = pages()
COMMANDS = [command for page in PAGES for command in printed(page)]
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
#: Sites outside that pages may name; nothing here can check that they answer.
OUTSIDE = ("https://arxiv.org/abs/",)


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as the usual renderers of Markdown make them."""
    text = FENCED.sub("", page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ +(.+?)\s*$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


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
        ("python -m slurm.testbed begin", "begin"),
        ("python benchmarks/speed.py", "benchmarks/speed.py"),
        ("python benchmarks/soak.py --hours 3", "--hours"),
        ("curl something", "curl"),
        ("cd x && ablate lunch", "lunch"),
    ],
)
def test_a_wrong_command_is_noticed(command: str, complaint: str) -> None:
    with pytest.raises(NotACommandError, match=re.escape(complaint)):
        check(command)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if "://" in target:
            assert target.startswith(OUTSIDE), target
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{name(page)}: {target}"
        assert there.is_relative_to(ROOT), f"{name(page)}: {target}"
        if anchor:
            assert anchor in anchors(there), f"{name(page)}: {target}; there are {sorted(anchors(there))}"


def test_the_python_of_the_readme_runs() -> None:
    blocks = re.findall(
        r"^```python\n(.*?)^```", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    table, model = blocks
    space: dict[str, Any] = {}
    exec(compile(table, "README.md: spread.py", "exec"), space)
    assert [row.label for row in space["TABLE"].rows] == ["baseline", "+ iFA, std 0.2"]
    exec(compile(model.replace("640, 640", "64, 64"), "README.md: model", "exec"), space)
    assert space["boxes"].shape == (1, 3 * (8 * 8 + 4 * 4 + 2 * 2), 85)


def test_every_page_is_reached_from_the_readme() -> None:
    reached, left = set(), [ROOT / "README.md"]
    while left:
        page = left.pop()
        if page in reached:
            continue
        reached.add(page)
        targets = (t.partition("#")[0] for t in LINK.findall(page.read_text(encoding="utf-8")))
        left += [
            there
            for target in targets
            if "://" not in target and (there := (page.parent / target).resolve()).suffix == ".md"
        ]
    assert set(PAGES) <= reached, sorted(name(page) for page in set(PAGES) - reached)


def test_no_line_is_too_long_to_read() -> None:
    for page in PAGES:
        text = FENCED.sub("", page.read_text(encoding="utf-8"))
        for line in text.splitlines():
            assert len(line) <= 124 or line.startswith("|"), f"{name(page)}: {line}"
