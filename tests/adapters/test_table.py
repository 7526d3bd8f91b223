"""The table of pipelines and samplers in docs/diffusers.md is what the pipelines draw."""

from __future__ import annotations

from pathlib import Path

import pytest

from .pipelines import PIPELINES
from .table import SAMPLERS, WORDS, cell

PAGE = Path(__file__).parents[2] / "docs" / "diffusers.md"


def written() -> dict[str, list[str]]:
    """The words of each pipeline in the page."""
    block = PAGE.read_text(encoding="utf-8").split("<!-- begin pipelines -->")[1].split("<!-- end pipelines -->")[0]
    lines = [line.strip("| ").split(" | ") for line in block.splitlines() if line.startswith("| ")]
    return {name: words for name, _, *words in lines[2:]}


@pytest.mark.parametrize("name", PIPELINES)
def test_a_row_of_the_table_is_what_the_pipeline_draws(name: str) -> None:
    found = {sampler: cell(name, sampler) for sampler in SAMPLERS}
    assert {sampler: far for sampler, (kind, far) in found.items() if kind == "apart"} == {}
    pipeline = type(PIPELINES[name][0]()).__name__
    assert written()[pipeline] == [WORDS[kind] for kind, _ in found.values()], "run docs/generate_diffusers.py"


def test_the_table_has_all_pipelines_by_five_samplers() -> None:
    assert len(written()) == len(PIPELINES) >= 20
    assert {len(words) for words in written().values()} == {len(SAMPLERS)} == {5}
    assert sum(words.count("=") for words in written().values()) > 60
