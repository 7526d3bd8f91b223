"""Garbage waits while a process of our own loads, and is looked for in every command."""

import gc
import subprocess
import sys

import pytest

from fewstep.cli import garbage
from fewstep.cli.headings import Command

from .test_headings import EVERY


def test_without_a_process_of_our_own_nothing_changes() -> None:
    frozen = gc.get_freeze_count()
    garbage.go_on()
    with garbage.waiting():
        assert gc.isenabled()
    assert (gc.isenabled(), gc.get_freeze_count()) == (True, frozen)


def test_a_process_waits_until_its_command_begins_and_while_its_model_loads() -> None:
    code = """
import gc
from fewstep.cli import garbage
garbage.wait()
seen = [gc.isenabled()]
garbage.go_on()
seen.append(gc.isenabled())
with garbage.waiting():
    seen.append(gc.isenabled())
print(*seen, gc.isenabled(), gc.get_freeze_count() > 1000)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False", "True", "False", "True", "True"]


@pytest.mark.parametrize("name", EVERY)
def test_every_command_goes_on(name: str) -> None:
    assert isinstance(EVERY[name], Command)
