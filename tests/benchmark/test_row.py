from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fewstep.benchmark.loading import Loading
from fewstep.benchmark.row import Rows, Run, key_of, read_runs
from fewstep.core.errors import InvalidInput

from .rows import MODEL, figure, row


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.jsonl"


def test_a_row_comes_back_from_its_json_with_all_but_the_replicates() -> None:
    one = row(steps=7, figures={"error": figure(0.3, seed=4, reference="r")}, memory=1 << 40, guidance=None)
    back = Run.from_json(json.loads(json.dumps(one.to_json())))
    assert back == one
    assert one.to_json()["version"] == 1
    assert "replicates" not in one.to_json()["figures"]["error"]
    with_replicates = replace(one, figures={"error": figure(0.3, seed=4, reference="r", replicates=(1, 2))})
    assert with_replicates.to_json() == one.to_json()


@pytest.mark.parametrize(
    ("loading", "told"),
    [
        (Loading(), None),
        (Loading(allow_pickle=True), {"allow_pickle": True}),
        (Loading("fp16", "a/b", True), {"variant": "fp16", "config": "a/b", "allow_pickle": True}),
    ],
)
def test_how_a_model_was_loaded_is_kept_where_something_was_said(loading: Loading, told: dict[str, Any] | None) -> None:
    one = row(model=MODEL._replace(loading=loading))
    document = json.loads(json.dumps(one.to_json()))
    assert document["model"].get("loading") == told
    assert Run.from_json(document) == one


def test_keys_do_not_depend_on_the_order_of_facts_and_do_on_their_values() -> None:
    assert key_of({"a": 1, "b": [2.5]}) == key_of({"b": [2.5], "a": 1})
    assert key_of({"a": 1}) != key_of({"a": 2})
    with pytest.raises(ValueError, match="not JSON compliant"):
        key_of({"a": float("nan")})


def _changed(document: dict[str, Any], where: str, value: Any) -> dict[str, Any]:
    *outer, last = where.split(".")
    inner = document
    for part in outer:
        inner = inner[part]
    if value is ...:
        del inner[last]
    else:
        inner[last] = value
    return document


@pytest.mark.parametrize(
    ("where", "value", "words"),
    [
        ("version", 2, "a row has version 1, this one has 2"),
        ("version", ..., "version 1, this one has None"),
        ("steps", ..., "a row lacks steps"),
        ("colour", "red", "a row has unknown colour"),
        ("model.source", ..., "model lacks source"),
        ("model.colour", "red", "model has unknown colour"),
        ("model.digest", 3, "model of a row must be texts"),
        ("model.loading", "fp16", "loading must be an object, got 'fp16'"),
        ("model.loading", {"dtype": "float16"}, "loading has unknown dtype"),
        ("model.loading", {"variant": 16}, "variant must be a text, got 16"),
        ("model.loading", {"allow_pickle": 1}, "allow_pickle must be true or false, got 1"),
        ("machine.cores", 2, "machine has unknown cores"),
        ("seconds", 3.0, "seconds must be an object, got 3.0"),
        ("seconds.low", "fast", "seconds of a row must be three finite numbers"),
        ("figures", [], r"figures must be an object, got \[\]"),
        ("figures.error", 1, "figure 'error': it must be an object, got 1"),
        ("figures.error.n", ..., r"figure 'error': no figure: it lacks \['n'\]"),
        ("figures.error.value", None, "figure 'error': value must be a finite number, got None"),
        ("figures.error.better", "big", "figure 'error': better must be one of 'less', 'more', got 'big'"),
        ("key", "12", "key of a row must be 16 hexadecimal digits, got '12'"),
        ("kind", "new", "kind of a row must be one of untuned, tuned, got 'new'"),
        ("precision", "int8", "precision of a row must be one of float32, bfloat16, float16"),
        ("steps", 2.5, "steps of a row must be a whole number of at least 0, got 2.5"),
        ("images", True, "images of a row must be a whole number"),
        ("guidance", "high", "guidance of a row must be a finite number or null"),
        ("lost", 17, "a row of 16 images cannot have lost 17"),
    ],
)
def test_a_document_that_is_no_row_is_refused_by_the_name_of_its_fault(where: str, value: Any, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        Run.from_json(_changed(row().to_json(), where, value))


def test_rows_are_appended_and_read_in_order(path: Path) -> None:
    rows = Rows(path)
    assert not path.exists()
    for steps in (3, 1, 2):
        rows.append(row(steps=steps))
    assert [run.steps for run in read_runs(path)] == [3, 1, 2]
    assert Rows(path).runs == rows.runs
    assert row(steps=1).key in rows
    assert row(steps=9).key not in rows
    with pytest.raises(InvalidInput, match="has a row of key"):
        rows.append(row(steps=1))
    assert path.read_bytes().count(b"\n") == 3


def test_a_file_cut_anywhere_in_its_last_line_keeps_the_others_and_is_mended_by_the_next_writer(path: Path) -> None:
    rows = Rows(path)
    rows.append(row(steps=1))
    first = path.stat().st_size
    rows.append(row(steps=2))
    whole = path.read_bytes()
    for end in range(first, len(whole), 29):
        path.write_bytes(whole[:end])
        assert [run.steps for run in read_runs(path)] == [1]
        again = Rows(path)
        assert path.stat().st_size == first
        again.append(row(steps=2))
        assert path.read_bytes() == whole


def test_a_torn_line_in_the_middle_is_named_and_the_file_is_left_alone(path: Path) -> None:
    lines = [json.dumps(row(steps=n).to_json()) for n in (1, 2, 3)]
    broken = f"{lines[0]}\n{lines[1][:50]}\n{lines[2]}\n{lines[0][:20]}"
    path.write_text(broken, encoding="utf-8")
    with pytest.raises(InvalidInput, match=r"runs.jsonl, line 2: .*Mend or delete the line"):
        read_runs(path)
    with pytest.raises(InvalidInput, match="line 2"):
        Rows(path)
    assert path.read_text(encoding="utf-8") == broken


@pytest.mark.parametrize("line", [b"\xff\xfe", b"", b"[]", b"[" * 100_000, b"3"])
def test_a_line_that_is_no_row_is_named(path: Path, line: bytes) -> None:
    path.write_bytes(line + b"\n")
    with pytest.raises(InvalidInput, match="line 1: "):
        read_runs(path)


def test_a_key_that_is_there_twice_is_named_with_both_lines(path: Path) -> None:
    line = json.dumps(row().to_json())
    path.write_text(f"{line}\n{line}\n", encoding="utf-8")
    with pytest.raises(InvalidInput, match=f"line 2: it has the key {row().key} of line 1"):
        read_runs(path)


def test_no_file_is_not_an_empty_one(path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_runs(path)
    path.write_bytes(b"")
    assert read_runs(path) == []
