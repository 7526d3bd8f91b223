"""A shipped model that holds only what differs from another: whatever takes a shipped model takes it by its name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from models.shelf import stocked
from models.tiny_diffusers import Twins

Call = Callable[..., Result]


@pytest.fixture
def turbo(models: Callable[..., Twins], here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return stocked(models("sd"), here / "weights", monkeypatch)


def said(done: Result) -> Any:
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_it_is_drawn_and_redrawn(turbo: Path, call: Call, here: Path) -> None:
    drawn = said(call("generate", "tiny-turbo", "red circle", "--json", "--output", "one.png"))
    assert drawn["nfe"] == 2
    again = call("redraw", "one.png", "--output", "two.png")
    assert "the same pixels as one.png" in again.stderr
    (here / "prompts.txt").write_text("red circle\nblue square\n")
    said(call("batch", "tiny-turbo", "--prompts", "prompts.txt", "--output", "many", "--json"))
    assert len(list((here / "many").rglob("*.png"))) == 2
    refused = call("generate", "tiny-turbo", "red circle", "--guidance", "5")
    assert refused.exit_code == 2
    assert "use its teacher, tiny, for other guidance" in refused.stderr


def test_it_is_measured_chosen_for_and_examined(turbo: Path, call: Call, here: Path) -> None:
    (here / "prompts.txt").write_text("red circle\nblue square\n")
    few = ("--prompts", "prompts.txt", "--json")
    found = said(
        call("bench", "tiny-turbo", *few, "--images", 4, "--samplers", "ddim", "--grids", "trailing", "--rows", 2)
    )
    assert [one["nfe"] for one in found["results"]] == [2]
    chosen = call("choose", "tiny-turbo", "--budget-rows", 3, "--no-measure")
    assert chosen.exit_code == 0, chosen.output
    assert "ddim" in chosen.stdout
    examined = call("doctor", "tiny-turbo", "--images", 2)
    assert "tiny-turbo" in examined.output
