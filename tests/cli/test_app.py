"""The group of commands: what it loads, and how failures end."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest
import torch

from fewstep.cli.app import COMMANDS, app

from .conftest import Call

LOADED = """
import sys
sys.argv = ["fewstep", *{words}]
from fewstep.cli import main
try:
    main()
except SystemExit as end:
    code = end.code
print("LOADED", code, *sorted({{"torch", "numpy", "rich", "PIL", "pydantic", "diffusers"}} & set(sys.modules)))
"""


def loaded(*words: str) -> list[str]:
    """The exit code of a command, and the heavy packages that it imported."""
    program = LOADED.format(words=list(words))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1].split()[1:]


def test_help_loads_nothing_heavy() -> None:
    assert loaded("--help") == ["0"]
    assert loaded("--version") == ["0"]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_loads_no_torch(command: str) -> None:
    code, *packages = loaded(command, "--help")
    assert (code, {*packages} <= {"numpy", "PIL", "pydantic"}) == ("0", True)


@pytest.mark.parametrize("command", ["tune", "bench", "choose", "doctor", "grids", "show", "train"])
def test_help_of_a_command_without_fields_of_a_drawing_loads_nothing_heavy(command: str) -> None:
    code, *packages = loaded(command, "--help")
    assert (code, {*packages} <= {"numpy"}) == ("0", True)


def test_tables_and_plans_need_no_torch() -> None:
    assert loaded("samplers", "--json") == ["0", "numpy"]
    assert loaded("plan", "ddim", "--steps", "3") == ["0", "PIL", "numpy", "pydantic", "rich"]


@pytest.mark.parametrize("words", [[], ["show"], ["train"]])
def test_a_group_alone_prints_its_help(call: Call, words: list[str]) -> None:
    result = call(*words)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == call(*words, "--help").stdout
    assert "\nCommands:\n" in result.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_there_and_helps(call: Call, name: str) -> None:
    context = click.Context(app)
    command = app.get_command(context, name)
    assert command is not None
    assert command.name == name
    assert command.help
    leaves = command.list_commands(context) if isinstance(command, click.Group) else [None]
    for leaf in leaves:
        result = call(name, *filter(None, [leaf]), "--help")
        assert result.exit_code == 0
        assert "--json" in result.output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["generat"], "unknown command 'generat': did you mean 'generate'"),
        (["--nonsense"], "--nonsense"),
        (["plan"], "Missing argument 'SAMPLER'. See `fewstep plan --help`"),
        (["plan", "ddim", "--stps", "3"], "--steps"),
        (["plan", "ddim", "--steps", "x"], "'x' is not a valid integer"),
        (["plan", "ddimm", "--steps", "3"], "did you mean 'ddim'"),
    ],
)
def test_bad_input_ends_with_one_line_and_code_2(call: Call, words: list[str], message: str) -> None:
    result = call(*words)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("fewstep: error: ")
    assert result.stderr.count("\n") == 1
    assert message in result.stderr


def test_an_interrupt_ends_with_code_130(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fewstep.cli.lists.show_table", interrupt)
    result = call("samplers")
    assert result.exit_code == 130
    assert "interrupted" in result.stderr


def test_an_error_in_the_program_itself_is_not_hidden(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("fewstep.cli.lists.show_table", fail)
    assert isinstance(call("samplers").exception, ZeroDivisionError)


def test_an_error_inside_a_library_is_one_line_unless_it_is_asked_for(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        torch.nn.Linear(1, 1)(torch.ones(1, 2))

    monkeypatch.setattr("fewstep.cli.lists.show_table", fail)
    result = call("samplers")
    assert result.exit_code == 1
    assert result.stderr.startswith("fewstep: error: torch failed (RuntimeError: mat1 and mat2 shapes")
    assert result.stderr.count("\n") == 1
    monkeypatch.setenv("FEWSTEP_TRACEBACK", "1")
    assert isinstance(call("samplers").exception, RuntimeError)


@pytest.mark.parametrize("error", [MemoryError("1 GiB"), RuntimeError("DefaultCPUAllocator: not enough memory: ..")])
def test_memory_that_does_not_suffice_is_one_line(
    call: Call, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("fewstep.cli.lists.show_table", fail)
    result = call("samplers")
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert "out of memory" in result.stderr


@pytest.mark.parametrize("word", ["9" * 5000, "x" * 5000, "x y " * 3000, "a\nb\x1b[31m", "\udcff", "\u2028"])
def test_a_failure_is_one_short_line_whatever_was_given(call: Call, word: str) -> None:
    for words in (["plan", word, "--steps", "2"], ["plan", "ddim", "--steps", word], ["plan", "ddim", f"--{word}"]):
        result = call(*words)
        assert result.exit_code == 2
        assert result.stderr.count("\n") == 1
        assert len(result.stderr) < 1000
        assert "\x1b" not in result.stderr
        assert word not in result.stderr or len(word) < 20


def test_a_long_path_is_shown_in_parts_and_what_to_do_is_not_lost(call: Call) -> None:
    result = call("generate", "digits", "--plan", "folder/" * 60 + "plan.json")
    assert result.exit_code == 2
    assert "cannot read the plan folder/folder/" in result.stderr
    assert "..r/folder/plan.json" in result.stderr or "plan.json: No such file" in result.stderr


def test_a_picture_may_have_a_name_in_any_bytes(process: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> None:
    name = os.fsdecode(bytes(tmp_path) + b"/\xff.png")
    running = process("generate", "digits", "--labels", 1, "--count", 1, "--steps", 1, "--output", name)
    out, err = running.communicate(timeout=120)
    assert running.returncode == 0, err
    assert os.listdir(bytes(tmp_path)) == [b"\xff.png"]
    assert out == f"{name}\n"


def test_a_reader_that_closes_the_pipe_ends_it_quietly(process: Callable[..., subprocess.Popen[str]]) -> None:
    running = process("samplers", "--json")
    assert running.stdout is not None
    assert running.stderr is not None
    running.stdout.close()
    assert running.stderr.read() == ""
    running.stderr.close()
    assert running.wait(timeout=60) == 1
