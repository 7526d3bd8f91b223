"""Whatever the input, a command does its work or fails with one short line: no traceback, no hang, no lack of memory.

FEWSTEP_HOSTILE multiplies the number of inputs: 1 is what the suite runs, 8 is over 3,000.
"""

import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from fewstep.cli.app import app
from models import tiny_diffusers
from models.tiny import write

from . import hostile

TIMES = int(os.environ.get("FEWSTEP_HOSTILE", "1"))
EXAMPLES = {
    "option": 110,
    "argument": 50,
    "plan": 50,
    "recipe": 50,
    "damaged": 50,
    "prompts": 40,
    "configuration": 30,
    "model": 20,
}
"""Of each kind, 400 in all."""
LONGEST, SECONDS, MEMORY = 1000, 60, 1_500_000_000
"""Characters of a failure, seconds until an input counts as hanging, and bytes of address space that one may add."""


def options() -> dict[str, list[str]]:
    """The options of each command."""
    found = {}
    for words in hostile.COMMANDS:
        name = words.partition(" ")[0]
        command = app.get_command(click.Context(app), name)
        assert command is not None
        found[name] = [opt for param in command.params for opt in param.opts if opt.startswith("--")]
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    write(folder / hostile.TINY)
    tiny_diffusers.write("sd", folder / hostile.TEXT)
    here = os.getcwd()
    os.chdir(folder)
    try:
        hostile.write_files()
        words = ["generate", hostile.TINY, "--count", "1", "--steps", "2", "--output", "drawn.png"]
        assert CliRunner().invoke(app, words).exit_code == 0
    finally:
        os.chdir(here)
    return folder


@contextmanager
def bounded() -> Iterator[None]:
    """Fail where it hangs, or asks for more memory than an input of a few kilobytes may."""

    def hang(*_: object) -> None:
        raise AssertionError(f"hangs: more than {SECONDS} s")

    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before, old = resource.getrlimit(resource.RLIMIT_AS), signal.signal(signal.SIGALRM, hang)
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, before[1]))
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, old)
        resource.setrlimit(resource.RLIMIT_AS, before)


def check(kind: str, words: list[str]) -> None:
    """Run a command; what is left in the folder is of no matter."""
    with bounded():
        result = CliRunner().invoke(app, words)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code in (0, 1, 2)
    failures = [line for line in result.stderr.splitlines() if line.startswith("fewstep: error: ")]
    assert len(failures) == (result.exit_code != 0)
    assert all(len(line) <= LONGEST for line in failures)
    assert "out of memory" not in result.stderr
    if kind != "model":  # whose network fails where its configuration was edited
        assert "FEWSTEP_TRACEBACK" not in result.stderr


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", EXAMPLES)
def test_every_failure_is_one_short_line(kind: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    if kind == "configuration":
        monkeypatch.setenv("FEWSTEP_CONFIG", "config.toml")

    @settings(
        max_examples=TIMES * EXAMPLES[kind],
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate, *([Phase.shrink] if TIMES > 1 else [])],
        suppress_health_check=list(HealthCheck),
    )
    @given(data=st.data())
    def run(data: st.DataObject) -> None:
        words = data.draw(hostile.strategies(options())[kind])
        check(kind, words)

    run()
