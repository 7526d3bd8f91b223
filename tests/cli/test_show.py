"""`fewstep show`: files, what is printed, and bad input."""

import csv
import json
import sys
from pathlib import Path

import pytest
from safetensors import safe_open

from .conftest import Call

SMALL = {
    "trajectories": ["--samplers", "ddim,euler-a", "--nfe", 4, "--noises", 2],
    "solver-error": ["--samplers", "euler,dpmpp-2m@karras", "--nfe", "4,8", "--noises", 2],
    "schedules": ["--schedule", "flow", "--schedule", "flow:shift=3", "--grids", "karras,trailing", "--steps", 4],
    "distillation": ["--steps", 20, "--modes", 3, "--noises", 2],
    "consistency": ["--steps", 20, "--modes", 3, "--noises", 2],
    "ode": ["--step", 0.25, "--end", 1, "--starts", "1,2"],
    "steps": ["--samplers", "euler,unipc-2", "--error", 0.3, "--limit", 30, "--noises", 2],
}


@pytest.fixture(autouse=True)
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", SMALL)
def test_a_figure_is_written_with_its_numbers_beside_it(call: Call, empty: Path, name: str) -> None:
    result = call("show", name, *SMALL[name])
    assert result.exit_code == 0, result.output
    assert sorted(p.name for p in (empty / "out").iterdir()) == [f"{name}.json", f"{name}.svg"]
    document = json.loads((empty / "out" / f"{name}.json").read_text())
    assert document["figure"] == name
    assert result.stdout.splitlines()[-2:] == [f"out/{name}.svg", f"out/{name}.json"]
    assert result.stderr.splitlines()[-1] == document["finding"]


def test_json_prints_all_numbers(call: Call) -> None:
    result = call("show", "steps", *SMALL["steps"], "--json", "--output", "a/s.png", "--data", "b/s.csv")
    printed = json.loads(result.stdout)
    assert (printed["path"], printed["data"]) == ("a/s.png", "b/s.csv")
    assert Path("a/s.png").read_bytes().startswith(b"\x89PNG")
    with Path("b/s.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["sampler"] for row in rows] == [need["sampler"] for need in printed["needs"]]
    assert [float(row["error"]) for row in rows] == [need["error"] for need in printed["needs"]]


def test_the_same_command_writes_the_same_bytes(call: Call) -> None:
    for name in ("one", "two"):
        assert call("show", "trajectories", *SMALL["trajectories"], "--output", f"{name}.svg").exit_code == 0
    assert Path("one.svg").read_bytes() == Path("two.svg").read_bytes()
    assert Path("one.json").read_bytes() == Path("two.json").read_bytes()


@pytest.mark.parametrize(("name", "students"), [("consistency", 1), ("distillation", 7)])
def test_students_are_written_where_that_is_asked_for(call: Call, name: str, students: int) -> None:
    words = ["--weights", "w/s.safetensors", "--no-figure"]
    assert call("show", name, *SMALL[name], *words).exit_code == 0
    with safe_open("w/s.safetensors", framework="np") as file:
        facts = json.loads(file.metadata()["show"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    assert len(facts["students"]) == students
    for student in facts["students"]:
        own = [tensor for key, tensor in tensors.items() if key.startswith(f"{student}.layers.")]
        assert sum(tensor.nbytes for tensor in own) == 4 * 3602


def test_schedules_of_one_kind_are_told_apart_by_their_parameters(call: Call) -> None:
    printed = json.loads(call("show", "schedules", *SMALL["schedules"], "--json").stdout)
    assert list(printed["schedules"]) == ["flow", "flow:shift=3"]


def test_options_and_grids_of_a_sampler_are_its_own(call: Call) -> None:
    words = ["--samplers", "dpmpp-3m:curvature=exact@karras,heun", "--nfe", "6,9", "--noises", 2, "--json"]
    curves = json.loads(call("show", "solver-error", *words).stdout)["curves"]
    assert [(c["sampler"], c["grid"]) for c in curves] == [
        ("dpmpp-3m:curvature=exact", "karras"),
        ("heun", "exponential"),
    ]
    assert curves[1]["nfe"] == [6, 8]


def test_without_matplotlib_the_numbers_are_still_there(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = call("show", "steps", *SMALL["steps"])
    assert result.exit_code == 2
    assert "pip install 'fewstep[show]'" in result.stderr
    assert not Path("out").exists()
    result = call("show", "steps", *SMALL["steps"], "--no-figure")
    assert result.exit_code == 0
    assert [p.name for p in Path("out").iterdir()] == ["steps.json"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nothing"], "unknown command 'nothing'"),
        (["solver-eror"], "did you mean 'solver-error'"),
        (["steps", "--samplers", "dimm"], "did you mean 'ddim'"),
        (["steps", "--samplers", "ddim@karas"], "did you mean 'karras'"),
        (["steps", "--samplers", "ddim@"], "'ddim@' is not a sampler such as"),
        (["steps", "--samplers", "ddim:eta"], "'ddim:eta' is not a sampler such as"),
        (["steps", "--samplers", "ddim,ddim"], "ddim is given twice"),
        (["steps", "--samplers", "ddim,,heun"], "'' is not a sampler such as"),
        (["steps", "--samplers", "euler-a"], "draws noise"),
        (["steps", "--error", "nan"], "above zero"),
        (["steps", "--std", "0"], "--std"),
        (["steps", "--modes", "65"], "--modes"),
        (["solver-error", "--nfe", "16,8"], "must increase"),
        (["solver-error", "--nfe", "8,x"], "'x' in the list is not a number of evaluations"),
        (["solver-error", "--samplers", "dpmpp-3s", "--nfe", "1,2"], "dpmpp-3s needs more than 2"),
        (["ode", "--step", "0"], "--step"),
        (["distillation", "--steps", "19"], "--steps"),
        (["distillation", "--weights", "s.json"], "students are written as .safetensors, got 's.json'"),
        (["consistency", "--noises", "9"], "--noises"),
        (["ode", "--step", "5"], "step must be from 0.0003 to 3"),
        (["ode", "--starts", "1,4"], "starts must lie between -pi and pi"),
        (["trajectories", "--output", "paths.pdf"], "a figure is written as .svg or .png"),
        (["trajectories", "--data", "paths.txt"], "data are written as .json or .csv"),
        (["schedules", "--grids", "karas"], "did you mean 'karras'"),
        (["schedules", "--schedule", "lin"], "did you mean 'linear'"),
        (["schedules", "--grids", "ays", "--on", "flow:shift=1", "--steps", "1"], "--steps"),
    ],
)
def test_bad_input_writes_nothing(call: Call, words: list[str], message: str) -> None:
    result = call("show", *words)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert list(Path().iterdir()) == []


def test_a_place_that_cannot_be_written_to_is_named_as_it_was_given(call: Call, empty: Path) -> None:
    (empty / "folder.svg").mkdir()
    for output, message in (("/proc/s.svg", "No such file or directory: /proc/s.svg"), ("folder.svg", "folder.svg")):
        result = call("show", "schedules", *SMALL["schedules"], "--output", output)
        assert (result.exit_code, message in result.stderr) == (2, True), result.stderr
        assert ".part" not in result.stderr
    assert sorted(path.name for path in empty.iterdir()) == ["folder.svg"]
