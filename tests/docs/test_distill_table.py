"""The table of distillation is made of figures that are kept, and says what they say."""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fewstep import InvalidInput
from fewstep.distillation import Regression, Settings

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "benchmarks"))
script, page, figures = (importlib.import_module(f"distill_{name}") for name in ("table", "page", "figures"))
TINY = script.Sizes(pairs=16, drawn=102, reference=40, ranked=34, share=0.01)


def figure(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.1, "high": value + 0.1, "n": 100}


def student(name: str, rows: int, seed: int, value: float) -> dict[str, Any]:
    facts = {"name": name, "rows": rows, "seed": seed, "steps": 2000, "seconds": 61.0}
    return {**facts, "teacher": figure(value), "real": figure(value + 2)}


FLOOR = {"teacher": figure(1.0), "real": figure(2.0)}
SAMPLERS = {rows: {"teacher": figure(value), "who": "a on b"} for rows, value in ((1, 101.0), (2, 11.0), (4, 3.0))}


def test_a_line_has_the_median_of_the_seeds_and_the_share_of_what_the_best_sampler_is_above_the_floor() -> None:
    students = [student("regression", 1, seed, value) for seed, value in enumerate((1.4, 1.2, 1.1))]
    text = page.written(FLOOR, SAMPLERS, students)
    (line,) = [line for line in text.splitlines() if line.startswith("| regression")]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[:5] == ["regression", "1", "3", "1.200 (1.100 to 1.400)", "0.2%"]
    assert cells[5:] == ["101.00, a on b", "3.00, a on b", "yes", "3.20", "2,000 steps"]
    assert "1 evaluation the best student, by regression, keeps 0.2% of what the best sampler is above" in text


@pytest.mark.parametrize(("value", "beats"), [(2.85, "yes"), (2.95, "no")])
def test_a_student_beats_four_times_its_evaluations_where_its_worst_seed_is_below_the_interval(
    value: float, beats: str
) -> None:
    students = [student("consistency training", 1, 0, 1.1), student("consistency training", 1, 1, value)]
    text = page.written(FLOOR, SAMPLERS, students)
    line = next(line for line in text.splitlines() if line.startswith("| consistency"))
    assert line.split("|")[8].strip() == beats


@pytest.mark.parametrize(("value", "words"), [(1.15, "within the bar of 1.5%"), (1.16, "above the bar of 1.5%")])
def test_a_bar_is_held_or_not(value: float, words: str) -> None:
    assert words in page.written(FLOOR, SAMPLERS, [student("regression", 2, 0, value)])


def test_the_table_is_put_between_its_markers_and_the_rest_stays(tmp_path: Path) -> None:
    place = tmp_path / "page.md"
    place.write_text(f"before\n\n{page.BEGIN}\n\nold\n\n{page.END}\n\nafter\n")
    page.put(place, "| new |")
    assert place.read_text() == f"before\n\n{page.BEGIN}\n\n| new |\n\n{page.END}\n\nafter\n"
    page.put(place, "| new |")
    assert place.read_text().count("| new |") == 1
    place.write_text("before")
    with pytest.raises(ValueError, match="has no place for the table"):
        page.put(place, "| new |")


def test_the_page_has_a_place_for_the_table() -> None:
    text = (ROOT / "docs/distill.md").read_text(encoding="utf-8")
    assert text.count(page.BEGIN) == text.count(page.END) == 1


def test_what_is_measured_is_kept_and_a_second_run_measures_nothing(tmp_path: Path) -> None:
    table = script.Table(tmp_path, TINY)
    entry = script.Entry(Regression(), Settings(steps=800, batch=8), (1,))
    floor, sampler, (own,) = table.floor(), table.rival(1), table.student(entry, 0)
    assert own["steps"] == 8
    assert sampler["teacher"]["value"] > 3 * floor["teacher"]["value"]
    assert own["teacher"]["n"] == 102
    again = script.Table(tmp_path, replace(TINY, drawn=10**6))  # which would take hours
    assert again.floor() == floor
    assert again.student(entry, 0) == [own]
    assert script.known(again, [entry], seeds=3) == [own]
    assert json.loads((tmp_path / f"{entry.key}-seed0-in1.json").read_text()) == own


def test_one_file_has_all_figures_and_they_are_not_measured_again(tmp_path: Path) -> None:
    record, (here, there) = tmp_path / "figures.json", (tmp_path / name for name in ("here", "there"))
    for place, facts in ((here, {"model": "a"}), (there, {"model": "a"})):
        place.mkdir()
        kept = figures.Kept(place, facts, record)
        name = place.name
        assert kept.of(name, lambda name=name: {"teacher": figure(len(name))})["teacher"]["value"] == len(name)
        kept.write()
    again = figures.Kept(tmp_path / "nothing", {"model": "a"}, record)
    assert [again.get(name)["teacher"]["value"] for name in ("here", "there")] == [4, 5]
    assert again.get("elsewhere") is None
    with pytest.raises(InvalidInput, match=r"measured with .*'a'.*name another file, or delete it"):
        figures.Kept(here, {"model": "b"}, record).get("there")
    record.write_text("[]")
    with pytest.raises(InvalidInput, match="is not a file of figures"):
        figures.Kept(here, {"model": "a"}, record).get("there")


def test_the_project_keeps_the_figures_of_its_table() -> None:
    """So that the table can be written again without measuring anything."""
    table = script.Table(ROOT / "no such folder", record=ROOT / "benchmarks/distill_table.json")
    samplers = {rows: table.kept.get(f"sampler-{rows}") for rows in script.ROWS}
    text = page.written(table.kept.get("floor"), samplers, script.known(table, script.ENTRIES, seeds=3))
    assert text in (ROOT / "docs/distill.md").read_text(encoding="utf-8")


def test_other_settings_are_another_student_and_another_seed_is_not() -> None:
    entry = script.Entry(Regression(), Settings(steps=800), (1,))
    others = [replace(entry, settings=Settings(steps=900)), replace(entry, method=Regression(sampler="euler"))]
    assert len({one.key for one in (entry, *others)}) == 3
    assert replace(entry, settings=Settings(steps=800, seed=5)).key == entry.key


def test_methods_are_in_the_table_each_training_once() -> None:
    named = {entry.method.name for entry in script.ENTRIES}
    trained = "regression endpoint phased progressive consistency lcm policy scm meanflow dmd add"
    assert named == set(trained.split())
    assert len({entry.key for entry in script.ENTRIES}) == len(script.ENTRIES)
    assert script.Sizes().scaled(1) == script.Sizes()
    assert script.Sizes().scaled(1e-6).drawn == 99
