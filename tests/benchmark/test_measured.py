from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fewstep.benchmark import Loading
from fewstep.benchmark.measured import Measured, key_of, line_of, read_line
from fewstep.benchmark.results import ResultFile, read_results
from fewstep.core.errors import InvalidInput

from .made_up import MODEL, figure, row


def read(document: Any) -> Measured:
    return read_line(json.dumps(document).encode())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.jsonl"


def test_a_measurement_comes_back_from_its_json_with_all_but_the_replicates() -> None:
    one = row(steps=7, figures={"error": figure(0.3, seed=4, reference="r")}, memory=1 << 40, guidance=None)
    assert read_line(line_of(one)) == one
    assert read(one.to_json()) == one
    assert one.to_json()["version"] == 2
    assert "replicates" not in one.to_json()["figures"]["error"]
    with_replicates = replace(one, figures={"error": figure(0.3, seed=4, reference="r", replicates=(1, 2))})
    assert with_replicates.to_json() == one.to_json()


@pytest.mark.parametrize(
    ("loading", "given"),
    [
        (Loading(), {}),
        (Loading(allow_pickle=True), {"allow_pickle": True}),
        (
            Loading("cuda", "fp16", "a/b", True),
            {"device": "cuda", "variant": "fp16", "config": "a/b", "allow_pickle": True},
        ),
    ],
)
def test_how_a_model_was_loaded_is_kept(loading: Loading, given: dict[str, Any]) -> None:
    one = row(model=replace(MODEL, loading=loading))
    assert loading.given == given
    assert read_line(line_of(one)) == one


@pytest.mark.parametrize("value", [0.1, 1 / 3, 5e-324, 1.7976931348623157e308, 1e16, 123456789.123456789, 2.0])
def test_floats_come_back_to_the_same_bits(value: float) -> None:
    one = read_line(line_of(row(seconds=value / 2, nfe=value, options={"eta": value, "n": 3}, guidance=-value)))
    assert (one.nfe, one.guidance, one.plan.options, one.seconds.value) == (
        value,
        -value,
        {"eta": value, "n": 3},
        value / 2,
    )


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
        ("version", 1, "version: Input should be 2, got 1"),
        ("version", ..., "version: Field required"),
        ("plan.steps", ..., "plan.steps: Field required"),
        ("machine", ..., "machine: Field required"),
        ("colour", "red", "colour: Unexpected keyword argument, got 'red'"),
        ("plan.colour", "red", "plan.colour: Unexpected keyword argument"),
        ("model.source", ..., "model.source: Field required"),
        ("model.colour", "red", "model.colour: Unexpected keyword argument"),
        ("model.digest", 3, "model.digest: Input should be a valid string, got 3"),
        ("model.loading", "fp16", "model.loading: .*, got 'fp16'"),
        ("model.loading", {"dtype": "float16"}, "model.loading.dtype: Unexpected keyword argument"),
        ("model.loading", {"variant": 16}, "model.loading.variant: Input should be a valid string, got 16"),
        ("model.loading", {"allow_pickle": 1}, "model.loading.allow_pickle: Input should be a valid boolean, got 1"),
        ("machine.cores", 2, "machine.cores: Extra inputs are not permitted, got 2"),
        ("machine.threads", "2", "machine.threads: Input should be a valid integer, got '2'"),
        ("seconds", 3.0, "seconds: Input should be an array or an object, got 3.0"),
        ("seconds.low", "fast", "seconds.low: Input should be a valid number, got 'fast'"),
        ("seconds.low", None, "seconds.low: Input should be a valid number, got None"),
        ("figures", [], r"figures: Input should be an object, got \[\]"),
        ("figures.error", 1, "figures.error: .*a figure is an object, got 1"),
        ("figures.error.n", ..., r"figures.error: .*not a figure: it lacks \['n'\]"),
        ("figures.error.value", None, "figures.error: .*value of a figure must be a finite number, got None"),
        ("figures.error.better", "big", "figures.error: .*better must be one of 'less', 'more', got 'big'"),
        ("key", "12", "key: String should match pattern .*, got '12'"),
        ("plan.kind", "new", "plan.kind: Input should be 'untuned' or 'tuned', got 'new'"),
        ("precision", "int8", "precision: Input should be 'float32', 'bfloat16' or 'float16'"),
        ("plan.steps", 2.5, "plan.steps: Input should be a valid integer, got 2.5"),
        ("images", True, "images: Input should be a valid integer, got True"),
        ("images", -1, "images: Input should be greater than or equal to 0, got -1"),
        ("guidance", "high", "guidance: Input should be a valid number, got 'high'"),
        ("nfe", float("inf"), "nfe: Input should be a finite number, got inf"),
        ("seconds.high", float("nan"), "seconds: .*three finite numbers"),
        ("lost", 17, "of 16 images 17 cannot be lost"),
    ],
)
def test_a_document_that_is_not_a_measurement_is_refused_by_the_name_of_its_field(
    where: str, value: Any, words: str
) -> None:
    with pytest.raises(InvalidInput, match=words):
        read(_changed(row().to_json(), where, value))


def test_rows_are_appended_and_read_in_order(path: Path) -> None:
    rows = ResultFile(path)
    assert not path.exists()
    for steps in (3, 1, 2):
        rows.append(row(steps=steps))
    assert [one.plan.steps for one in read_results(path)] == [3, 1, 2]
    assert ResultFile(path).results == rows.results
    assert row(steps=1).key in rows
    assert row(steps=9).key not in rows
    with pytest.raises(InvalidInput, match="has a measurement of key"):
        rows.append(row(steps=1))
    assert path.read_bytes().count(b"\n") == 3


def test_a_file_cut_anywhere_in_its_last_line_keeps_the_others_and_is_mended_by_the_next_writer(path: Path) -> None:
    rows = ResultFile(path)
    rows.append(row(steps=1))
    first = path.stat().st_size
    rows.append(row(steps=2))
    whole = path.read_bytes()
    for end in range(first, len(whole), 29):
        path.write_bytes(whole[:end])
        assert [one.plan.steps for one in read_results(path)] == [1]
        again = ResultFile(path)
        assert path.stat().st_size == first
        again.append(row(steps=2))
        assert path.read_bytes() == whole


def test_a_torn_line_in_the_middle_is_named_and_the_file_is_left_alone(path: Path) -> None:
    lines = [line_of(row(steps=n)).decode() for n in (1, 2, 3)]
    broken = f"{lines[0]}\n{lines[1][:50]}\n{lines[2]}\n{lines[0][:20]}"
    path.write_text(broken, encoding="utf-8")
    with pytest.raises(InvalidInput, match=r"runs.jsonl, line 2: .*Mend or delete the line"):
        read_results(path)
    with pytest.raises(InvalidInput, match="line 2"):
        ResultFile(path)
    assert path.read_text(encoding="utf-8") == broken


@pytest.mark.parametrize("line", [b"\xff\xfe", b"", b"[]", b"[" * 100_000, b"3"])
def test_a_line_that_is_not_a_measurement_is_named(path: Path, line: bytes) -> None:
    path.write_bytes(line + b"\n")
    with pytest.raises(InvalidInput, match="line 1: "):
        read_results(path)


def test_a_key_that_is_there_twice_is_named_with_both_lines(path: Path) -> None:
    line = line_of(row()).decode()
    path.write_text(f"{line}\n{line}\n", encoding="utf-8")
    with pytest.raises(InvalidInput, match=f"line 2: it has the key {row().key} of line 1"):
        read_results(path)


def test_no_file_is_not_an_empty_one(path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_results(path)
    path.write_bytes(b"")
    assert read_results(path) == []
