"""The command line: quick to start, tidy JSON, errors in one line."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from ablations.cli import COMMANDS, EXTRAS, main
from ablations.commands import models
from ablations.profiles import PROFILES
from ablations.registry import all_experiments, experiments, resolve
from tests.commands import check
from yolor_core.identity import signature

HEAVY = {"torch", "pandas", "matplotlib", "numpy", "rich", "submitit", "pycocotools", "cv2"}


def ablate(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def imported_by(*arguments: str) -> set[str]:
    """Top-level modules that a fresh interpreter holds after `ablate ARGUMENTS`."""
    code = (
        "import sys, contextlib, io\n"
        "from ablations.cli import main\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):\n"
        f"    main({list(arguments)!r})\n"
        "print(*{name.partition('.')[0] for name in sys.modules})\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_help_imports_neither_pydantic_nor_anything_heavy() -> None:
    modules = imported_by("--help")
    assert "click" in modules
    assert not modules & (HEAVY | {"pydantic"})


@pytest.mark.parametrize(
    "arguments",
    [
        ["list"],
        ["list", "--json"],
        ["list", "--everything"],
        ["show", "4"],
        ["show", "A2"],
        ["show", "y4-sss"],
    ],
)
def test_listing_and_showing_import_nothing_heavy(arguments: list[str]) -> None:
    modules = imported_by(*arguments)
    assert "pydantic" in modules
    assert not modules & HEAVY


@pytest.mark.parametrize("name", COMMANDS)
def test_every_subcommand_explains_itself_without_torch(name: str) -> None:
    result = ablate(name, "--help")
    assert result.exit_code == 0, result.output
    assert "Usage:" in result.output
    assert not imported_by(name, "--help") & HEAVY


def test_help_lists_every_subcommand() -> None:
    result = ablate("--help")
    assert result.exit_code == 0
    for name, text in COMMANDS.items():
        assert name in result.output
        assert text in result.output


@pytest.mark.parametrize("profile", ["smoke", "mini", "small", "proxy", "paper"])
def test_list_json_has_one_record_per_training(profile: str) -> None:
    records = json.loads(ablate("list", "--json", "--profile", profile).output)
    assert len(records) == 19
    rows = [row for record in records for row in record["rows"]]
    assert len(rows) == 30  # 29, and the fine-tuned one that `controls` shows beside its baseline
    for record in records:
        assert list(record) == ["experiment", "signature", "model", "size", "profile", "rows"]
        assert record["profile"] == profile
        assert record["signature"] == signature(resolve(record["experiment"], profile))
        assert all(set(row) == {"table", "row"} for row in record["rows"])


def test_list_ends_with_the_number_of_experiments_and_rows() -> None:
    last = ablate("list").output.splitlines()[-1]
    assert last == (
        "19 experiments, 29 rows of Tables 1-8, profile mini; "
        "`ablate list --everything` adds Tables 9, A1, A2, 3x, 6x and controls"
    )


def test_list_can_be_narrowed_and_overridden() -> None:
    plain = json.loads(ablate("list", "1", "--json").output)
    assert [record["experiment"] for record in plain] == ["csp-fast", "csp-fast.add-fa"]
    assert {"table": "6", "row": "+ iFA"} in plain[1]["rows"]
    changed = json.loads(ablate("list", "1", "--json", "--set", "train.epochs=3").output)
    assert plain[0]["signature"] != changed[0]["signature"]


def test_show_experiment_gives_the_difference_to_its_baseline() -> None:
    record = json.loads(ablate("show", "csp-fast.mul-pr", "--json").output)
    assert record["baseline"] == "csp-fast"
    fields = {item["field"]: item["value"] for item in record["difference"]}
    assert fields["model.implicit.0.site"] == "pr"
    assert fields["model.implicit.0.operator"] == "multiply"
    assert all(name.startswith("model.implicit.0.") for name in fields)
    assert record["science"]["train"]["size"] == 128
    output = ablate("show", "csp-fast.mul-pr").output
    assert 'model.implicit.0.operator: (none) -> "multiply"' in output
    assert "train.optimiser.momentum = 0.937" in output


@pytest.mark.parametrize("slug", experiments())
def test_every_experiment_can_be_shown(slug: str) -> None:
    result = ablate("show", slug)
    assert result.exit_code == 0, result.output
    assert slug in result.output


def test_show_table_gives_hypothesis_cells_cost_and_remarks() -> None:
    record = json.loads(ablate("show", "table8", "--json").output)
    assert record["table"] == "8"
    assert record["rows"][2]["paper"]["AP"] == 52.5
    assert "150 epochs" in record["rows"][2]["cost"]
    assert len(record["remarks"]) == 3
    output = ablate("show", "8").output
    assert record["question"] in output
    assert "AP 52.5" in output
    assert "at the paper's scale 150 epochs at 1280 px" in output  # whatever the profile


def test_models_json_is_complete_and_exact() -> None:
    records = json.loads(ablate("models", "--json").output)
    keys = ["name", "size", "parameters", "parameters_fused", "mflops", "mflops_fused", "mflops_table7"]
    assert all(list(record) == [*keys, "mflops_torch"] for record in records)
    by_name = {record["name"]: record for record in records}
    assert len(by_name) == len(records)
    large = by_name["yolor-d6"]
    assert (large["size"], large["parameters"], large["parameters_fused"]) == (1280, 151_782_680, 151_710_920)
    four_levels = by_name["yolor_p6"]
    assert four_levels["mflops_table7"] == 326264.7304  # as Table 7 prints it for the same sizes of maps
    assert round(four_levels["mflops"] - four_levels["mflops_table7"], 4) == 0.1020
    for record in records:
        assert record["mflops_torch"] < record["mflops_fused"] < record["mflops"]
        assert record["mflops_torch"] > 0.99 * record["mflops"]
    lines = models.costs_text(records).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert len(lines) == len(records) + 1
    assert any("151 782 680" in line for line in lines)


def test_tables_without_runs_have_null_values_and_the_papers_cells(tmp_path: Path) -> None:
    result = ablate("tables", "--format", "json", "--results", str(tmp_path))
    records = json.loads(result.stdout)
    assert len(records) == 25 * 6 + 4 * 3 + 5 * 6  # Table 3 has six scores of other tasks
    for record in records:
        assert list(record) == [
            *("table", "row", "metric", "paper", "value", "seeds", "profile", "runs"),
            *("half_width", "delta", "delta_low", "delta_high", "method", "freedom", "row_low", "row_high"),
            *("all_low", "all_high", "verdict", "marked", "margin", "bound", "p", "p_holm", "p_small"),
            *("p_small_holm", "shows", "leaves", "paper_delta", "agrees", "pairs", "std", "delta_std"),
            *("variance_left", "images_low", "images_high", "images_p", "against"),
        ]
        if record["metric"] in ("parameters", "MFLOPs"):
            assert record["value"] == record["paper"]
        else:
            assert record["value"] is None
        assert record["seeds"] == record["runs"] == []


def test_tables_print_what_is_missing(tmp_path: Path) -> None:
    output = ablate("tables", "3", "7", "--results", str(tmp_path)).output
    assert output.count("ours: not run") == 5 + 4
    assert "326 264.7304 (+8.5680)†" in output
    assert "With all levels it is 326264.8324" in output
    assert "not comparable with the paper's numbers in absolute terms" in output


def test_tables_show_the_metrics_that_were_asked_for_and_name_a_table_without_them(tmp_path: Path) -> None:
    shown = ablate("tables", "3", "7", "--metrics", "cls mAP,APS", "--results", str(tmp_path))
    (head,) = (line for line in shown.stdout.splitlines() if line.startswith("row"))
    assert head.split() == ["row", "cls", "mAP", "APS"]
    assert "note: table 7 has none of these; it has AP, parameters, MFLOPs" in shown.stderr
    twice = ("--metrics", "APS,APS", "--metrics", "AP,APS")
    shown = ablate("tables", "1", *twice, "--results", "results/published/mini", "--format", "json")
    once = ablate("tables", "1", "--results", "results/published/mini", "--format", "json")
    cells = {(cell["row"], cell["metric"]): cell for cell in json.loads(once.stdout)}
    found = json.loads(shown.stdout)
    assert [cell["metric"] for cell in found] == ["APS", "AP"] * 2
    assert all(cell == cells[cell["row"], cell["metric"]] for cell in found)  # what is corrected among them


def test_tables_fit_the_columns_that_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wide = ablate("tables", "3", "--results", str(tmp_path)).stdout
    monkeypatch.setenv("COLUMNS", "70")
    narrow = ablate("tables", "3", "--results", str(tmp_path)).stdout
    assert max(map(len, narrow.splitlines())) <= 70 < max(map(len, wide.splitlines()))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lits"], "unknown command 'lits'; did you mean list?"),
        (
            ["show", "csp-fast.add-af"],
            "unknown experiment or table 'csp-fast.add-af'; did you mean csp-fast.add-fa",
        ),
        (["tables", "12"], "unknown table '12'; allowed: 1, 2, 3, 3x, 4"),
        (["tables", "csp"], "unknown table 'csp'"),
        (["tables", "--profile", "papr"], "unknown profile 'papr'; allowed: paper"),
        (["tables", "7", "--metrics", "AP,AP50"], "unknown metric 'AP50'; "),
        (["tables", "1", "--metrics", ""], "--metrics has an empty name; allowed: AP, AP50, "),
        (["tables", "--margin", "0"], "--margin is 0; AP points above 0, at most 100, are needed"),
        (["tables", "--format", "tex"], "unknown format 'tex'; allowed: text, csv"),
        (["list", "--profile", "papr"], "unknown profile 'papr'"),
        (["list", "--set", "train.lr0=1"], "unknown field 'train.lr0'; did you mean train.optimiser.lr0"),
        (["list", "absent.py"], "table file absent.py: No such file or directory"),
        (["status", "--results", ""], "--results is empty"),
        (["train", "csp-fast", "--data", ""], "--data is empty"),
        *(
            ([*command, "--results", "nowhere"], "nowhere: no such folder of results")
            for command in (
                ["tables"],
                ["report"],
                ["publish"],
                ["status"],
                ["cost"],
                ["plan", "1"],
                ["compare", "a", "b"],
            )
        ),
        (["launch", "1", "--all", "--dry-run"], "--all has table 1 already"),
        (["train", "1"], "1 is a table, more than one run: `ablate launch 1` makes them"),
        (["train", "table9"], "`ablate launch table9` makes them"),
        (["data", "make", ""], "FOLDER is empty"),
        (["data", "check", " "], "PATH is empty"),
        (["tables", "--seeds", "x"], "seeds 'x': allowed are a number of seeds"),
        (["train", "csp-fest"], "unknown experiment 'csp-fest'; did you mean csp-fast?"),
        (["train", "resnet"], "unknown experiment 'resnet'; none of the 43 is near, e.g. csp, "),
        (["--foo"], "unknown option '--foo'; allowed: --version (`ablate --help`)"),
        (["launch"], "name tables or experiments, or say --all (`ablate launch --help`)"),
        (
            ["launch", "1", "--seed", "3"],
            "unknown option '--seed'; did you mean --seeds? (`ablate launch --help`)",
        ),
        (["speed"], "missing argument 'MODEL...' (`ablate speed --help`)"),
        (
            ["data", "mkae"],
            "unknown command 'mkae'; allowed: make, check, convert, pack (`ablate data --help`)",
        ),
        (["tables", "--images", "3"], "--images is 3; at least 200 resamples are needed"),
    ],
)
def test_bad_input_is_one_clean_line(arguments: list[str], message: str) -> None:
    result = ablate(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("ablate: ")
    assert message in line


def every_command(group: click.Group = main, *above: str) -> dict[tuple[str, ...], click.Command]:
    """Every command and group by the words that call it."""
    context = click.Context(group)
    found: dict[tuple[str, ...], click.Command] = {above: group}
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        below = every_command(command, *above, name) if isinstance(command, click.Group) else {}
        found |= below or {(*above, name): command}
    return found


def test_the_trackers_are_told_apart_by_the_help_of_export() -> None:
    assert "mlflow  Send runs to MLflow.\n  wandb   Send runs to W" in ablate("export", "--help").stdout


def test_every_help_ends_with_examples_that_are_accepted() -> None:
    commands = every_command()
    assert len(commands) > 30
    for words, command in commands.items():
        context = click.Context(command, info_name=" ".join(("ablate", *words)))
        _, _, last = command.get_help(context).partition("Examples:\n")
        examples = [line.strip() for line in last.splitlines() if line.strip()]
        assert examples, words
        for example in examples:
            assert example.startswith(" ".join(("ablate", *words))), example
            check(example, own={"mine.py", "mycluster.toml"})


def offered(*words: str, **variables: str) -> list[str]:
    """What bash offers for the last of these words, as it asks for it."""
    variables |= {"COMP_WORDS": " ".join(("ablate", *words)), "COMP_CWORD": str(len(words))}
    result = CliRunner().invoke(
        main, [], prog_name="ablate", env=variables | {"_ABLATE_COMPLETE": "bash_complete"}
    )
    assert result.exit_code == 0, result.output
    return [line.partition(",")[2] for line in result.output.splitlines()]


def test_the_shell_completes_what_a_command_takes(tmp_path: Path) -> None:
    (tmp_path / "runs" / "csp-fast-mini-s0-27c2151a43").mkdir(parents=True)
    assert offered("la") == ["launch"]
    assert offered("data", "p") == ["pack"]
    assert offered("launch", "1", "--dry") == ["--dry-run"]
    assert offered("launch", "cont") == ["controls"]
    assert set(offered("launch", "csp-fast")) == {e for e in all_experiments() if e.startswith("csp-fast")}
    assert offered("tables", "csp-fast") == ["csp-fast"], (
        "an experiment is no table; the shell looks for a file"
    )
    assert offered("tables", "--profile", "") == list(PROFILES)
    assert offered("tables", "--format", "la") == ["latex"]
    assert offered("weights", "export", "--format", "on") == ["onnx"]
    assert offered("launch", "1", "--cluster", "exam") == ["example"]
    assert offered("speed", "yolor_p") == ["yolor_p6"]
    assert offered("logs", "csp", ABLATE_RESULTS=str(tmp_path)) == ["csp-fast-mini-s0-27c2151a43"]
    assert offered("logs", "--results", str(tmp_path), "csp") == ["csp-fast-mini-s0-27c2151a43"]
    assert offered("lunch", "x") == [""]


def test_completing_a_command_imports_nothing_heavy() -> None:
    code = "import sys; from ablations.cli import main\ntry: main(prog_name='ablate')\n"
    code += "finally: print(*{name.partition('.')[0] for name in sys.modules})"
    asked = {"_ABLATE_COMPLETE": "bash_complete", "COMP_WORDS": "ablate l", "COMP_CWORD": "1"}
    environment = os.environ | asked | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    *names, modules = done.stdout.splitlines()
    assert names == ["plain,list", "plain,launch", "plain,logs"]
    assert not set(modules.split()) & (HEAVY | {"pydantic"})


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shells_of_the_page_have_a_script(shell: str) -> None:
    page = (Path(__file__).parents[2] / "docs" / "commands.md").read_text()
    assert f"_ABLATE_COMPLETE={shell}_source ablate" in page
    result = CliRunner().invoke(main, [], prog_name="ablate", env={"_ABLATE_COMPLETE": f"{shell}_source"})
    assert result.exit_code == 0 and f"_ABLATE_COMPLETE={shell}_complete" in result.output


def test_formats_of_tables_are_those_that_can_be_written() -> None:
    from ablations.commands.tables import FORMATS
    from analysis.tables import formats

    assert list(FORMATS) == list(formats.FORMATS)


def test_an_unusable_folder_is_one_clean_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = ablate("data", "make", str(tmp_path / "file" / "folder"), "--train-images", "1")
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"ablate: {tmp_path / 'file'}")
    assert line.endswith(": Not a directory")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "a/state.json"),
            "a/state.json: No space left on device",
        ),
        (OSError(errno.EROFS, "Read-only file system"), "Read-only file system"),
        (TimeoutError("took too long"), "took too long"),
    ],
)
def test_an_error_of_the_system_names_the_file(
    monkeypatch: pytest.MonkeyPatch, error: OSError, line: str
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("ablations.overview.overview", fail)
    result = ablate("status")
    assert (result.exit_code, result.stderr) == (2, f"ablate: {line}\n")


def test_a_closed_pipe_is_no_error() -> None:
    code = "import sys; from ablations.cli import main; main(['show', '4'])"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""


def test_a_terminal_that_is_not_utf_8_shows_a_question_mark(tmp_path: Path) -> None:
    code = "from ablations.cli import main; main(['tables', '1', '--results', '.'])"
    environment = os.environ | {"PYTHONIOENCODING": "latin-1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert "?" in done.stdout.decode("latin-1")


def test_list_counts_the_rows_of_the_chosen_tables() -> None:
    assert ablate("list", "1").output.splitlines()[-1].startswith("2 experiments, 2 rows")
    alone = json.loads(ablate("list", "csp-fast", "--json").output)
    last = ablate("list", "csp-fast").output.splitlines()[-1]
    assert last.startswith(f"1 experiment, {len(alone[0]['rows'])} rows")


def test_names_from_a_file_reach_the_terminal_without_control_characters() -> None:
    from ablations.cli import MOST_CHARACTERS, printable

    assert printable("a\x1b[31mb\nc × Δ") == "a\\x1b[31mb\nc × Δ"
    assert len(printable("x" * 10**6)) < MOST_CHARACTERS + 10


ABSENT = """
from importlib.machinery import PathFinder

find = PathFinder.find_spec
PathFinder.find_spec = lambda name, *at: None if name.partition(".")[0] in {packages!r} else find(name, *at)
"""


def test_the_core_trains_and_tables_without_the_extras_and_names_them(tmp_path: Path) -> None:
    """In every process of the launch: Python imports `sitecustomize` when it starts."""
    packages = set().union(*EXTRAS.values())
    (tmp_path / "sitecustomize.py").write_text(ABSENT.format(packages=packages))
    places = os.pathsep.join([str(tmp_path), *(path for path in sys.path if path)])

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "ablations", *arguments]
        environment = os.environ | {"PYTHONPATH": places}
        return subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)

    scale = ("--profile", "smoke", "--results", "results")
    for arguments in (("launch", "csp-fast"), ("tables", "1")):
        done = call(*arguments, *scale)
        assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / "results" / "runs").iterdir()
    refused = {
        "report": call("report", "1", *scale),
        "export": call("weights", "export", "--run", str(run), "--format", "onnx"),
    }
    for extra, done in refused.items():
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert f"is not installed: pip install 'yolor-ablations[{extra}]'" in done.stderr


def test_the_extras_are_those_of_the_project() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    assert set(EXTRAS) == set(extras) - {"dev"}
    for extra, packages in EXTRAS.items():
        listed = {re.split(r"[>\[]", text)[0].replace("mlflow-skinny", "mlflow") for text in extras[extra]}
        assert {package.lower() for package in packages} == listed - {project["name"]}
