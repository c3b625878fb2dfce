"""Commands as the documentation prints them: found in Markdown, and parsed against the programs they call."""

from __future__ import annotations

import importlib.util
import re
import shlex
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import click

from ablations.cli import main as ablate
from ablations.overrides import parse_overrides
from ablations.registry import resolve, select
from slurm.cluster import known_clusters
from tests.testbed.__main__ import cli as testbed
from yolor_core.errors import YolorError
from yolor_core.models import named_config

ROOT = Path(__file__).parent.parent
FENCED = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"(?<!`)`([^`]+)`(?!`)")
OURS = re.compile(r"(?:(?:[A-Z_]+=\S+ )*(?:\.venv/bin/)?(?:ablate|make|torchrun|python3?|pytest) |\.ci/run)")
#: Programs of the system that pages may call; whoever adds one says so here.
OF_THE_SYSTEM = {
    "apt-get",
    "cd",
    "git",
    "export",
    ".",
    "tar",
    "mkdir",
    "rm",
    "uv",
    "python3.11",
    "source",
    "tensorboard",
}
#: Commands whose arguments are runs, which only a folder of results knows; and those with a model's name.
TAKE_RUNS = {"status", "logs", "cancel", "retry", "features", "export"}
TAKE_MODELS = {"evaluate", "detect", "weights"}
PLACEHOLDER = re.compile(r"[A-Z][A-Z_]*|.*/path/to/.*|.*\.\.\..*")


class NotACommandError(Exception):
    """A printed command that its program would refuse."""


@dataclass(frozen=True)
class Printed:
    """One command of a page, as printed; `own` are files and tables that the page makes itself."""

    page: str
    text: str
    own: frozenset[str] = frozenset()


def pages() -> list[Path]:
    """Every Markdown page of the project."""
    folders = (ROOT, *(ROOT / name for name in ("docs", "benchmarks", "notebooks", "results", "slurm")))
    return sorted(path for folder in folders for path in folder.glob("*.md"))


def printed(page: Path) -> list[Printed]:
    """The commands of a page: lines of its shell blocks, and code spans that begin with a program of ours."""
    text, found = page.read_text(encoding="utf-8"), []
    name = page.relative_to(ROOT).as_posix()
    own = frozenset(re.findall(r"^# (\w+\.py)$", text, re.M) + re.findall(r'^ +name="(\w+)",$', text, re.M))
    for language, block in FENCED.findall(text):
        for line in block.replace("\\\n", " ").splitlines():
            command = line.split(" # ")[0].strip()
            if language in ("sh", "bash") and command and not command.startswith("#"):
                found.append(Printed(name, command, own))
    spans = (span for span in INLINE.findall(FENCED.sub("", text)) if OURS.match(span))
    return [*found, *(Printed(name, " ".join(span.split()), own) for span in spans)]


def check(command: str, own: Collection[str] = ()) -> None:
    """Parse a command as its program would. Raises NotACommandError, saying what is wrong."""
    inner = re.fullmatch(r'eval "\$\((.*)\)"', command)
    if inner:
        return check(inner[1], own)
    for part in re.split(r" (?:&&|\|\||;|\|) ", command):
        words = shlex.split(part)
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            words.pop(0)
        if words:
            check_words(["FILE" if word in own else word for word in words])
    return None


def check_words(words: list[str]) -> None:
    """One program with its arguments."""
    program, arguments = words[0], words[1:]
    folder, _, last = program.rpartition("/")
    if folder == ".venv/bin" or folder.startswith("/tmp/"):  # of an environment
        program = last
    if program == "ablate":
        check_click(ablate, arguments)
    elif program == "make":
        check_make(arguments)
    elif program in ("python", "python3"):
        check_python(arguments)
    elif program == "torchrun":
        check_python(arguments[arguments.index("-m") :])
    elif program == ".ci/run":
        if not (ROOT / program).is_file():
            raise NotACommandError(f"no {program}")
    elif program not in OF_THE_SYSTEM:
        raise NotACommandError(f"{program} is no program of this project, nor one of {sorted(OF_THE_SYSTEM)}")


def check_python(arguments: list[str]) -> None:
    """`python FILE ...` or `python -m MODULE ...`; the word FILE is one that the page itself makes."""
    if arguments[:1] == ["-m"]:
        module, rest = arguments[1], arguments[2:]
        if module == "ablations":
            check_click(ablate, rest)
        elif module == "tests.testbed":
            check_click(testbed, rest)
        elif module.startswith("benchmarks."):
            check_python([f"{module.replace('.', '/')}.py", *rest])
        elif importlib.util.find_spec(module) is None:
            raise NotACommandError(f"no module {module}")
        return
    if arguments[0] == "FILE":
        return
    path = ROOT / arguments[0]
    if not path.is_file():
        raise NotACommandError(f"no file {arguments[0]}")
    source = path.read_text(encoding="utf-8")
    for option in (word.split("=")[0] for word in arguments[1:] if word.startswith("--")):
        if f'"{option}"' not in source:
            raise NotACommandError(f"{arguments[0]} has no option {option}")


def check_make(arguments: list[str]) -> None:
    """Targets and variables of the Makefile."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    variables = set(re.findall(r"^([A-Z_]+) *[?:]?=", makefile, re.MULTILINE))
    for word in arguments:
        name, given, _ = word.partition("=")
        if name not in (variables if given else targets):
            raise NotACommandError(f"make has no {'variable' if given else 'target'} {name}")


def check_click(command: click.Command, arguments: list[str], name: str = "ablate") -> None:
    """Options, number of arguments, values that are no placeholders, tables, experiments and overrides."""
    context = click.Context(command, info_name=name)
    if isinstance(command, click.Group):
        if not arguments or arguments[0] in ("--help", "-h", "--version"):
            return
        inner = command.get_command(context, arguments[0]) if not arguments[0].startswith("-") else None
        if inner is None:
            raise NotACommandError(f"{name} has no command {arguments[0]}")
        check_click(inner, arguments[1:], f"{name} {arguments[0]}")
        return
    try:
        values, rest, _ = command.make_parser(context).parse_args(list(arguments))
    except click.UsageError as error:
        raise NotACommandError(f"{name}: {error.format_message()}") from None
    if not arguments:
        return  # the command is named, not called
    if rest:
        raise NotACommandError(f"{name} takes no argument {rest[0]}")
    for parameter in command.params:
        check_value(parameter, values.get(parameter.name or ""), context, name)
    check_meaning(values, name)


def check_value(parameter: click.Parameter, value: object, context: click.Context, name: str) -> None:
    """Convert what is given as the command would, files that are not there and placeholders left out."""
    given = list(value) if isinstance(value, (list, tuple)) else [value]
    told = [each for each in given if isinstance(each, str)]
    if parameter.required and not told and not isinstance(parameter.type, click.types.BoolParamType):
        raise NotACommandError(f"{name} needs {parameter.make_metavar(context)}")
    for each in told:
        if PLACEHOLDER.fullmatch(each) or isinstance(parameter.type, (click.Path, click.File)):
            continue
        try:
            parameter.type.convert(each, parameter, context)
        except click.UsageError as error:
            raise NotACommandError(f"{name}: {error.format_message()}") from None
        except YolorError as error:
            raise NotACommandError(f"{name}: {error}") from None


def check_meaning(values: dict[str, object], name: str) -> None:
    """Tables, experiments, models and cluster profiles are known; `--set` names fields."""
    verb = name.split()[1]
    profile = " ".join(_real(values.get("profile"))) or "mini"
    try:
        if verb == "cluster":
            check_cluster(_real(values.get("profile")))
            return
        named = [*_real(values.get("names")), *_real(values.get("experiment"))]
        named += _real(values.get("name")) if verb == "show" else []
        chosen = select(named).experiments if named and verb not in TAKE_RUNS else ()
        for experiment in chosen or select(["csp-fast.add-fa"]).experiments:
            resolve(experiment, profile, parse_overrides(_real(values.get("overrides"))))
        check_cluster(_real(values.get("cluster")))
        for model in [
            *_real(values.get("models")),
            *(_real(values.get("name")) if verb in TAKE_MODELS else []),
        ]:
            named_config(model)
    except YolorError as error:
        raise NotACommandError(f"{name}: {error}") from None


def check_cluster(named: list[str]) -> None:
    """A cluster profile that comes along, or a file of one's own."""
    for each in named:
        if not each.endswith(".toml") and each not in known_clusters():
            raise NotACommandError(f"no cluster profile {each}; known: {', '.join(known_clusters())}")


def _real(value: object) -> list[str]:
    """What is given and is neither a placeholder nor a file of one's own."""
    given = [value] if isinstance(value, str) else value
    texts = [text for text in given if isinstance(text, str)] if isinstance(given, (list, tuple)) else []
    return [text for text in texts if not PLACEHOLDER.fullmatch(text) and not text.endswith(".py")]
