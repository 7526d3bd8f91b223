"""`fewstep batch`: what lies in the folder, and that no interruption changes it."""

import hashlib
import json
import random
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fewstep.drawing import read
from fewstep.pipeline import load
from models import tiny_diffusers
from models.tiny import LOST, broken

from .conftest import Call
from .killed import start

MODEL = "tiny.safetensors"
JOB = ("batch", MODEL, "--labels", "0-2", "--seeds", "0-2,9", "--steps", 2, "--batch-size", 5)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "sd"
    tiny_diffusers.write("sd", folder)
    return folder


def content(folder: str | Path) -> dict[str, bytes]:
    """All that has to be the same: every file but the timings."""
    return {path.name: path.read_bytes() for path in Path(folder).iterdir() if path.name != "timings.jsonl"}


def lines(folder: str | Path) -> list[dict]:
    return [json.loads(line) for line in (Path(folder) / "manifest.jsonl").read_text().splitlines()]


def test_each_image_has_a_file_with_its_recipe_and_a_line(call: Call, here: Path) -> None:
    result = call(*JOB, "--output", "a")
    assert result.exit_code == 0, result.stderr
    assert result.stdout == "a\n"
    assert "12 images in batches of 5, 12 drawn now, NFE 4 each" in result.stderr
    found = lines("a")
    assert [(line["drawing"]["labels"][0], line["drawing"]["seed"]) for line in found] == [
        (n, s) for n in range(3) for s in (0, 1, 2, 9)
    ]
    assert len({line["sha256"] for line in found}) == 12
    assert {path.name for path in Path("a").glob("*.png")} == {line["file"] for line in found}
    for line in found:
        file = Path("a") / line["file"]
        assert hashlib.sha256(file.read_bytes()).hexdigest() == line["sha256"]
    call("redraw", Path("a") / found[7]["file"], MODEL, "--output", "again.png")
    with Image.open("again.png") as again, Image.open(Path("a") / found[7]["file"]) as own:
        assert np.array_equal(np.asarray(again), np.asarray(own))
    assert [json.loads(line)["images"] for line in Path("a/timings.jsonl").read_text().splitlines()] == [5, 5, 2]


def test_one_image_is_said_as_one(call: Call, here: Path) -> None:
    result = call("batch", MODEL, "--labels", 1, "--seeds", 3, "--steps", 2, "--batch-size", 1, "--output", "a")
    assert result.stderr.splitlines()[-1].endswith("1 image in batches of 1, 1 drawn now, NFE 4 each")


def test_an_image_is_the_one_that_is_drawn_alone(call: Call, here: Path) -> None:
    call(*JOB, "--output", "a")
    alone = load(here / MODEL)([1], seed=9, steps=2)
    with Image.open("a/000007-label1-seed9.png") as picture:
        assert np.abs(np.asarray(picture).astype(int) - alone.pixels[0, ..., 0]).max() <= 1


def test_a_finished_job_draws_nothing_again(call: Call, here: Path) -> None:
    call(*JOB, "--output", "a")
    before = {path: path.stat().st_mtime_ns for path in Path("a").iterdir() if path.name != "job.lock"}
    result = call(*JOB, "--output", "a", "--json")
    assert (json.loads(result.stdout)["drawn"], json.loads(result.stdout)["images"]) == (0, 12)
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_picture_that_is_missing_or_changed_is_drawn_again(call: Call, here: Path) -> None:
    call(*JOB, "--output", "a")
    whole = content("a")
    Path("a/000003-label0-seed9.png").unlink()
    Path("a/000011-label2-seed9.png").write_bytes(b"scribble")
    result = call(*JOB, "--output", "a")
    assert "7 drawn now" in result.stderr
    assert content("a") == whole


def shown(line: dict) -> tuple:
    """What a line of a manifest says of its image: prompt, negative, seed, scale."""
    drawing = line["drawing"]
    return *drawing["prompts"], *drawing["negative"], drawing["seed"], drawing["guidance"]["scale"]


@pytest.mark.parametrize("cut", [1, 40, 300, 1600])
def test_a_torn_manifest_is_repaired(call: Call, here: Path, cut: int) -> None:
    call(*JOB, "--output", "a")
    whole = content("a")
    path = Path("a/manifest.jsonl")
    path.write_bytes(path.read_bytes()[:-cut])
    assert call(*JOB, "--output", "a").exit_code == 0
    assert content("a") == whole


@pytest.mark.slow
def test_a_run_killed_at_each_of_its_writes_ends_as_if_it_was_not(call: Call, here: Path) -> None:
    words = [str(w) for w in (*JOB[:2], "--labels", "0,1", "--seeds", 3, "--steps", 1, "--batch-size", 1, "--output")]
    call(*words, "whole")
    whole = content("whole")
    write, alive = 0, False
    while not alive:
        folder = f"at-{write}"
        process = start(here, [*words, folder], die_at=write)
        process.join()
        alive = process.exitcode == 0
        assert alive or process.exitcode == -signal.SIGKILL
        assert call(*words, folder).exit_code == 0
        assert content(folder) == whole, f"killed at write {write}"
        write += 1
    assert write == 1 + 2 + 2 * (2 + 2 + 2)  # job.json, and for each batch its picture, its line and its timing


@pytest.mark.slow
def test_a_run_killed_at_twenty_random_moments_ends_as_if_it_was_not(call: Call, here: Path) -> None:
    words = [str(w) for w in (*JOB[:2], "--seeds", "0-39", "--steps", 2, "--batch-size", 2, "--output")]
    call(*words, "whole")
    rng, drawn = random.Random(0), []
    for _ in range(20):
        process = start(here, [*words, "killed"])
        there = len(list(Path("killed").glob("*.png")))
        wanted = min(there + rng.randrange(5), 118)
        while process.is_alive() and len(list(Path("killed").glob("*.png"))) < wanted:
            time.sleep(0.001)
        time.sleep(rng.random() / 100)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        drawn.append(len(list(Path("killed").glob("*.png"))))
    assert drawn == sorted(drawn)
    assert 0 < drawn[-1] < 120
    result = call(*words, "killed", "--json")
    assert 0 < json.loads(result.stdout)["drawn"] < 120
    assert content("killed") == content("whole")


def test_prompts_of_a_file_meet_every_seed(call: Call, here: Path, model: Path) -> None:
    Path("p.txt").write_text("a red circle\n\n# no prompt\n  green lion \n")
    words = ("batch", model, "--prompts", "p.txt", "--seeds", "0-1", "--steps", 1, "--batch-size", 3)
    result = call(*words, "--output", "a", "--negative", "blue", "--guidance", 3, "--timings")
    assert result.exit_code == 0, result.stderr
    found = [(*shown(line)[:3], line["drawing"]["guidance"]["scale"]) for line in lines("a")]
    assert found == [(p, "blue", s, 3.0) for p in ("a red circle", "green lion") for s in (0, 1)]
    assert Path("a/000002-green-lion-seed0.png").exists()
    assert "encode" in result.stderr
    assert "save" in result.stderr
    assert " in 2 hits" in result.stderr  # the second batch has one prompt, and the negative one
    assert read("a/000002-green-lion-seed0.png").drawing.prompts[2] == "green lion"


def test_lines_of_json_say_more_and_keep_their_place(call: Call, here: Path, model: Path) -> None:
    said = [
        {"prompt": "lion", "seed": [4, 5]},
        {"prompt": "square", "guidance": 1},
        {"prompt": "lion", "negative": "red", "guidance": 2},
    ]
    Path("p.jsonl").write_text("\n".join(map(json.dumps, said)))
    result = call("batch", model, "--prompts", "p.jsonl", "--steps", 1, "--guidance", 7, "--output", "a", "--seeds", 8)
    assert result.exit_code == 0, result.stderr
    found = [(line["index"], *shown(line)) for line in lines("a")]
    assert found == [
        (0, "lion", None, 4, 7.0),
        (1, "lion", None, 5, 7.0),
        (2, "square", None, 8, 1.0),
        (3, "lion", "red", 8, 2.0),
    ]
    assert [line["nfe"] for line in lines("a")] == [2, 2, 1, 2]


def test_an_image_that_is_not_finite_has_a_line_and_no_file(call: Call, here: Path) -> None:
    broken(here / "broken.safetensors")
    words = ("batch", "broken.safetensors", "--seeds", "0-1", "--steps", 2, "--output", "a")
    result = call(*words)
    assert result.exit_code == 1
    assert "2 of 6 images are NaN or infinite and have no file: 4, 5" in result.stderr
    assert [line["drawing"]["labels"][0] for line in lines("a") if line["file"] is None] == [LOST, LOST]
    again = call(*words, "--json")
    assert (again.exit_code, json.loads(again.stdout)["drawn"]) == (1, 0)


def test_a_folder_of_another_job_is_refused_and_left_alone(call: Call, here: Path) -> None:
    call(*JOB, "--output", "a")
    before = content("a")
    for words, what in (
        (["--steps", 3], "sampling: "),
        (["--seeds", "0-2,8"], "prompts and seeds: "),
        (["--batch-size", 4], "batch: 5, yours 4"),
        (["--clip"], "estimate: "),
    ):
        result = call(*JOB, *words, "--output", "a")
        assert result.exit_code == 2
        assert "a belongs to another batch" in result.stderr
        assert what in result.stderr
    assert call(*JOB, "--batch-size", "auto", "--output", "a").exit_code == 0
    assert content("a") == before


def test_a_folder_with_other_files_or_in_use_is_refused(call: Call, here: Path) -> None:
    import fcntl

    Path("a").mkdir()
    Path("a/diary.txt").write_text("mine")
    result = call(*JOB, "--output", "a")
    assert (result.exit_code, "holds other files, such as diary.txt" in result.stderr) == (2, True)
    Path("a/diary.txt").unlink()
    with Path("a/job.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        result = call(*JOB, "--output", "a")
    assert (result.exit_code, "another process is drawing into a" in result.stderr) == (2, True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--seeds", "0-2"], "Missing option '--output'"),
        (["--seeds", "0-2", "--output", "a.png"], "--output is the folder for the images"),
        (["--seeds", "0-2,1", "--output", "a"], "seed 1 is given twice"),
        (["--seeds", "5-2", "--output", "a"], "5-2 is not a range"),
        (["--seeds", "0-", "--output", "a"], "0- is not a range"),
        (["--seeds", "0-9999999", "--output", "a"], "is not a range"),
        (["--seeds", "x", "--output", "a"], "'x' in the list is not a seed"),
        (["--seeds", "0", "--seed", 1, "--output", "a"], "No such option '--seed'"),
        (["--seeds", "0", "--count", 2, "--output", "a"], "No such option '--count'"),
        (["--seeds", "0", "--labels", "7", "--output", "a"], "no label 7"),
        (["--seeds", "0", "--negative", "9", "--output", "a"], "no label 9"),
        (["--seeds", "0", "--negative", "1", "--guidance", 1, "--output", "a"], "negative"),
        (["--seeds", "0", "--height", "8", "--output", "a"], "tiny makes only images of 4 x 4 pixels"),
        (["--prompts", "p.txt", "--output", "a"], "tiny draws classes, and 'lion' is words"),
        (["--prompts", "absent.txt", "--output", "a"], "absent.txt"),
        (["--prompts", "p.txt", "--labels", "1", "--output", "a"], "not both"),
        (["--batch-size", "many", "--seeds", "0", "--output", "a"], "neither auto nor a whole number"),
    ],
)
def test_bad_values_are_named_and_leave_no_folder(call: Call, here: Path, words: list[object], message: str) -> None:
    Path("p.txt").write_text("lion\n")
    result = call("batch", MODEL, *words)
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert not Path("a").exists()


def test_a_line_is_drawn_with_all_that_it_leaves_open(call: Call, here: Path, model: Path) -> None:
    said = [{"prompt": "lion", "guidance": 3}, {"prompt": "lion", "sampler": "ddim", "steps": 1}]
    Path("p.jsonl").write_text("\n".join(map(json.dumps, said)))
    words = ("--prompts", "p.jsonl", "--steps", 2, "--guidance-method", "apg", "--sampler", "unipc-2")
    result = call("batch", model, *words, "--option", "variant=bh1", "--batch-size", 2, "--output", "a")
    assert result.exit_code == 0, result.stderr
    found = [line["drawing"] for line in lines("a")]
    assert [(one["guidance"]["method"], one["guidance"]["scale"]) for one in found] == [("apg", 3.0), ("apg", 7.5)]
    sampling = [(one["sampling"]["sampler"], one["sampling"]["steps"], one["sampling"]["options"]) for one in found]
    assert sampling == [("unipc-2", 2, {"variant": "bh1"}), ("ddim", 1, {})]
