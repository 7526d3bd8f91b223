"""Two processes share the steps of a run by gloo, and agree on all that goes wrong."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from fewstep import InvalidInput
from fewstep.training import Place, Processes, train
from fewstep.training.processes import buckets

from .shared import RUNS
from .shared_run import Doubles, exact_run, gradients
from .two import found_in


@pytest.fixture(scope="module")
def runs(shared: Path) -> tuple[Path, list[dict[str, Any]]]:
    """The folder of `shared_run`, and what each of its two processes found."""
    return shared / RUNS, found_in(shared / RUNS)


def test_gradients_of_a_step_are_those_of_one_process_with_the_whole_batch(runs: Any, tmp_path: Path) -> None:
    alone = gradients(exact_run(tmp_path), Processes())
    for found in runs[1]:
        for name in ("gradients", "parts"):
            shared = [torch.tensor(values, dtype=torch.float64) for values in found[name]]
            assert all(torch.allclose(a, b, rtol=0, atol=1e-10) for a, b in zip(alone, shared, strict=True))
            assert max(float(one.abs().max()) for one in shared) > 0.1


def test_a_shared_run_equals_itself_bitwise_and_both_processes_have_its_weights(runs: Any) -> None:
    folder, (one, other) = runs
    assert one["first"] == one["second"] == other["first"] == other["second"]
    tensors = [folder / name / "states/step-00000024/state.safetensors" for name in ("first", "second")]
    assert tensors[0].read_bytes() == tensors[1].read_bytes()


def test_each_process_reads_its_half_of_a_step(runs: Any) -> None:
    one, other = (found["asked"] for found in runs[1])
    assert {len(part) for part in (*one, *other)} == {4}
    epoch = [number for parts in zip(one[:6], other[:6], strict=True) for part in parts for number in part]
    assert len(set(epoch)) == 48  # of 50, before the second epoch


def test_the_first_process_alone_is_watched_and_writes(runs: Any) -> None:
    folder, (one, other) = runs
    assert one["told"] == [6, 12, 18, 24] * 2
    assert other["told"] == []
    assert [json.loads(line)["step"] for line in (folder / "first/log.jsonl").read_text().splitlines()] == [
        6, 12, 18, 24,
    ]  # fmt: skip


def test_a_shared_run_goes_on_to_the_same_weights(runs: Any) -> None:
    _, (one, other) = runs
    assert one["ended"][0] == "KeyError"
    assert other["ended"][0] == "Stopped"
    assert one["resumed"] == one["first"] == other["resumed"]


def test_another_number_of_processes_goes_on_from_a_state(runs: Any, tmp_path: Path) -> None:
    """In float64 and without dropout, to rounding."""
    folder, _ = runs
    assert (folder / "handed/states/latest").read_text() == "step-00000012"
    goes_on = exact_run(folder / "handed")
    alone = train(exact_run(tmp_path))
    assert all(
        torch.allclose(a, b, rtol=0, atol=1e-10)
        for a, b in zip(train(goes_on).parameters(), alone.parameters(), strict=True)
    )
    assert isinstance(goes_on.data, Doubles)
    assert len(goes_on.data.asked) == 12


def test_what_one_process_fails_at_the_first_one_says(runs: Any) -> None:
    folder, (one, other) = runs
    assert one["diverged"][0] == "Diverged"
    assert "the loss of the student is nan at step 6, of the samples" in one["diverged"][1]
    assert other["diverged"] == ["Stopped", f"a process stopped: {one['diverged'][1]}"]
    assert one["unreadable"] == ["OSError", "[Errno 5] Input/output error: 'picture-7.png'"]
    assert other["unreadable"][0] == "Stopped"
    assert (folder / "diverged/states/latest").read_text() == "step-00000004"


def test_a_full_disk_of_the_first_process_stops_all_and_leaves_the_last_state(runs: Any) -> None:
    folder, (one, other) = runs
    assert one["full"][0] == "OSError"
    assert "No space left" in one["full"][1]
    assert other["full"][0] == "Stopped"
    assert (folder / "full/states/latest").read_text() == "step-00000008"


def test_a_batch_that_cannot_be_shared_out_is_refused(runs: Any) -> None:
    for found in runs[1]:
        assert found["uneven"] == [
            "InvalidInput",
            "a batch of 9 cannot be shared out to 2 processes in 1 equal parts each: give a multiple of 2",
        ]


def test_gradients_are_averaged_in_pieces_of_one_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fewstep.training.processes.BUCKET", 100)
    given = [torch.zeros(20), torch.zeros(4), torch.zeros(2), torch.zeros(2, dtype=torch.float64), torch.zeros(40)]
    assert [[len(one) for one in bucket] for bucket in buckets(given)] == [[20, 4], [2], [2], [40]]


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("ACCELERATE_USE_FSDP", "true", "holds the whole network here, and not FSDP: launch without it"),
        ("ACCELERATE_USE_DEEPSPEED", "true", "DeepSpeed"),
        ("ACCELERATE_MIXED_PRECISION", "fp16", "the launcher says the precision fp16, and the run float32"),
    ],
)
def test_what_a_launcher_asks_for_and_nobody_does_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(InvalidInput, match=words):
        Processes.joined(Place())


def test_without_a_launcher_there_is_one_process_and_no_accelerate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "accelerate", None)
    assert Processes.joined(Place()) == Processes(0, 1)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InvalidInput, match=r"several processes need accelerate: pip install 'fewstep\[train\]'"):
        Processes.joined(Place())


def test_several_processes_take_a_card_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert Place("cuda").here == torch.device("cuda", 1)
    assert Place("cpu").here == torch.device("cpu")
    with pytest.raises(InvalidInput, match="2 processes cannot share the device cuda:0: give cuda"):
        _ = Place("cuda:0").here
