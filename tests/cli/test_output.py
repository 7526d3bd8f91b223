"""What is said while a command works: a line in time, and what it holds."""

import threading

import pytest

from fewstep.cli import output
from fewstep.cli.output import EVERY, GROWTH, SELDOM, Lines, progress, waiting


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(output, "note", lines.append)
    return lines


def test_silence_ends_after_two_seconds(said: list[str]) -> None:
    clock = Clock()
    lines = Lines("drawing", 1, clock)
    assert (lines.beat(), said) == (EVERY, [])
    clock.now += 1.5
    lines.update(3, of=20, words="batch 1")
    assert (lines.beat(), said) == (0.5, [])
    clock.now += 0.5
    assert (lines.beat(), said) == (GROWTH * EVERY, ["drawing, 3 of 20, batch 1, 2 s"])
    clock.now += GROWTH * EVERY
    assert (lines.beat(), said[1:]) == (GROWTH**2 * EVERY, ["drawing, 3 of 20, batch 1, 4 s"])


def test_an_hour_of_work_has_less_than_a_hundred_lines_and_none_is_a_minute_late(said: list[str]) -> None:
    clock = Clock()
    lines, waits = Lines("training", 1, clock), []
    wait = lines.beat()
    while clock.now < 3700:
        waits.append(wait)
        clock.now += wait + 1e-6
        wait = lines.beat()
    assert waits[0] == EVERY
    assert waits == sorted(waits)
    assert waits[-1] == SELDOM == max(waits)
    assert 60 < len(said) < 100
    assert sum(wait < 10 for wait in waits) >= 6  # short work is as lively as before
    assert said[-1].endswith(f"{clock.now - 100:.0f} s")


def test_a_line_that_is_given_is_said_at_once_and_puts_off_the_next(said: list[str]) -> None:
    clock = Clock()
    lines = Lines("measuring", 1, clock)
    clock.now += 1.75
    lines.update(10, of=100, line="10% done")
    assert said == ["10% done"]
    clock.now += 1
    assert (lines.beat(), said) == (1.0, ["10% done"])


def test_work_that_does_not_say_how_far_it_is_has_no_count(said: list[str]) -> None:
    clock = Clock()
    lines = Lines("loading scenes", clock=clock)
    clock.now += 3
    lines.beat()
    assert said == ["loading scenes, 3 s"]


@pytest.mark.parametrize("work", [lambda: progress("tuning", 1), lambda: waiting("loading scenes")])
def test_lines_come_while_the_work_is_busy(monkeypatch: pytest.MonkeyPatch, work) -> None:
    heard, lines = threading.Event(), []

    def note(line: str) -> None:
        lines.append(line)
        if line.endswith(" s"):
            heard.set()

    monkeypatch.setattr(output, "note", note)
    monkeypatch.setattr(output, "EVERY", 0.001)
    with work():
        assert heard.wait(60)
    assert not [thread for thread in threading.enumerate() if thread.name == "progress"]
    assert lines[-1] in ("tuning, 0 s", "loading scenes, 0 s")


def test_a_reader_that_is_gone_does_not_end_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = threading.Event()

    def note(_: str) -> None:
        gone.set()
        raise BrokenPipeError

    monkeypatch.setattr(output, "note", note)
    monkeypatch.setattr(output, "EVERY", 0.001)
    with progress("drawing", 1) as bar:
        assert gone.wait(60)
        bar(1, of=2)
