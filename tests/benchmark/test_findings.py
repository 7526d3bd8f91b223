"""What is read: rows of this model that may be compared, and tuned plans with their certificates."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import fewstep as fs
from benchmark.made_up import MACHINE, MODEL, row
from fewstep.benchmark import Measured
from fewstep.benchmark.findings import Findings, Scope
from fewstep.benchmark.findings import gather as read
from fewstep.benchmark.results import ResultFile
from fewstep.benchmark.sweep import Target
from fewstep.core.plan import TunedFor
from fewstep.core.schedule import Schedule
from fewstep.tuning.table import plan_of, table_of

OTHER = "f" * 16
SCHEDULE = fs.schedules.linear()


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(folder: str, *measured: Measured) -> Path:
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    file = ResultFile(path / "runs.jsonl")
    for one in measured:
        file.append(one)
    return path


def tuned(file: str, model: str = MODEL.digest, certified: str = MODEL.digest, guidance: float = 2.0) -> fs.Plan:
    """A plan for a model, and a certificate that another one could have."""
    table = table_of(fs.compile("unipc-2", schedule=SCHEDULE, steps=4))
    assert table is not None
    plan = plan_of(table, SCHEDULE, TunedFor(model))
    path = Path(file)
    path.parent.mkdir(exist_ok=True)
    plan.save(path)
    document: dict[str, Any] = {
        "model": {"name": "digits", "digest": certified},
        "settings": {"guidance": guidance},
        "images": {"held_out": 32},
        "compared": [{"digest": plan.digest, "rmse": interval(0.1), "typical": interval(0.05)}],
    }
    path.with_name(f"{path.stem}.certificate.json").write_text(json.dumps(document))
    return plan


def interval(value: float) -> dict[str, float]:
    return {"value": value, "low": 0.9 * value, "high": 1.2 * value}


def ends(one: Measured, name: str) -> tuple[float, float, float]:
    figure = one.figures[name]
    return figure.value, figure.low, figure.high


def gather(*paths: str | Path, schedule: Schedule = SCHEDULE, **more: Any) -> Findings:
    return read(Scope(Target(MODEL, schedule, 2), MACHINE, 2.0, **more), paths)


def test_without_paths_the_usual_folder_and_the_certificates_of_this_model_are_read() -> None:
    assert gather().measured == []
    write("out/bench-digits", row(steps=4), row(steps=8, error=0.2))
    tuned("out/mine.json")
    tuned("out/theirs.json", OTHER, OTHER)
    found = gather()
    assert [(one.plan.sampler, one.plan.rows) for one in found.measured] == [("ddim", 4), ("ddim", 8), ("learned", 4)]
    assert found.unmeasured == [Path("out/mine.json")]


def test_a_certificate_gives_an_error_a_quality_by_the_variance_of_the_rows_and_no_seconds() -> None:
    write("out/bench-digits", row(error=0.5))  # its quality is 1 - 0.25, so the variance is 1
    tuned("out/mine.json")
    plan = gather().measured[-1]
    assert ends(plan, "error") == pytest.approx((0.1, 0.09, 0.12))
    assert ends(plan, "typical") == pytest.approx((0.05, 0.045, 0.06))
    assert ends(plan, "quality") == pytest.approx((0.99, 1 - 0.12**2, 1 - 0.09**2))
    assert (plan.by, plan.timed, plan.nfe, plan.images) == ("certificate", False, 8.0, 32)


def test_a_plan_that_was_tuned_in_a_lower_precision_is_drawn_with_in_that() -> None:
    tuned("out/mine.json")
    file = Path("out/mine.certificate.json")
    document = json.loads(file.read_text())
    file.write_text(json.dumps({**document, "settings": {"guidance": 2.0, "precision": "bfloat16"}}))
    assert [one.precision for one in gather().measured] == ["bfloat16"]


def test_a_plan_that_a_row_has_is_that_row() -> None:
    plan = tuned("mine.json")
    folder = write("bench", row("learned", kind="tuned", digest=plan.digest, file="plans/p.json"))
    found = gather(folder, "mine.json")
    assert [one.plan.file for one in found.measured] == [str(folder / "plans/p.json")]
    assert found.unmeasured == []


def test_a_certificate_of_another_guidance_gives_no_figure_but_the_plan_can_be_measured() -> None:
    write("bench", row())
    tuned("mine.json", guidance=5.0)
    found = gather("bench", "mine.json")
    assert len(found.measured) == 1
    assert found.unmeasured == [Path("mine.json")]
    assert found.notes == [
        "mine.json is left out: its certificate is of guidance 5, and nothing is measured at this one"
    ]
    Path("mine.certificate.json").unlink()
    assert gather("bench", "mine.json").notes == [
        "mine.json is left out: no measurement and no certificate beside it is of this model"
    ]


def test_null_in_a_certificate_is_infinite() -> None:
    write("out/bench-digits", row(error=0.5))
    tuned("out/mine.json")
    file = Path("out/mine.certificate.json")
    document = json.loads(file.read_text())
    document["compared"][0]["rmse"] = {"value": 0.1, "low": 0.09, "high": None}
    file.write_text(json.dumps(document))
    plan = gather().measured[-1]
    assert ends(plan, "error") == (0.1, 0.09, math.inf)
    assert plan.figures["quality"].low == -math.inf
    assert json.loads(json.dumps(plan.to_json(), allow_nan=False))["figures"]["error"]["high"] is None


def test_a_certificate_that_cannot_be_read_is_passed_over_unless_it_was_named() -> None:
    tuned("out/mine.json")
    Path("out/bad.json").write_bytes(Path("out/mine.json").read_bytes())
    Path("out/bad.certificate.json").write_text("{}")
    found = gather()
    assert [one.plan.rows for one in found.measured] == [4]
    assert any(note.startswith("passed over: out/bad.certificate.json is not the certificate") for note in found.notes)
    with pytest.raises(fs.InvalidInput, match=r"bad\.certificate\.json is not the certificate"):
        gather("out")


def test_folders_beside_the_usual_one_are_read_where_they_are_of_this_model() -> None:
    theirs = replace(row(steps=5), model=replace(MODEL, digest=OTHER))
    write("out/bench-digits", theirs)
    write("out/bench-digits-0123", row(steps=4))
    write("out/bench-digits-2t-ab12", row(steps=6))
    write("out/bench-digits-large", replace(theirs, model=replace(theirs.model, name="digits-large")))
    write("out/bench-digits-torn").joinpath("runs.jsonl").write_text("{}\n")
    found = gather()
    assert [one.plan.rows for one in found.measured] == [4, 6]
    assert found.notes[0] == f"out/bench-digits is of another model of this name, with digest {OTHER}: passed over"
    assert [note[:40] for note in found.notes[1:]] == ["passed over: out/bench-digits-torn/runs."]


def test_of_a_row_that_is_there_twice_the_seconds_of_this_machine_count() -> None:
    away = replace(row(steps=4, seconds=0.5), machine=MACHINE._replace(threads=64), key="0" * 16)
    write("out/bench-digits", away)
    write("out/bench-digits-2t-ab12", replace(row(steps=4), key="0" * 16))
    (one,) = gather().measured
    assert one.seconds.value == 0.01
    (one,) = gather("out/bench-digits-2t-ab12", "out/bench-digits").measured
    assert one.timed


def test_rows_of_other_prompts_and_of_fewer_images_are_named() -> None:
    write("bench", row(steps=4), row(steps=6, conditions="c1"), row(steps=8, images=8))
    found = gather("bench", conditions="c0", images=10)
    assert [one.plan.rows for one in found.measured] == [4]
    assert found.notes == [
        "1 measurements are of other prompts, and are left out: give --prompts FILE with theirs",
        "1 measurements are of fewer than 10 images, and are left out",
    ]
    assert gather("bench", conditions="c2").notes[0].startswith("3 measurements are of other prompts")


def test_a_plan_tuned_for_another_model_is_refused_unless_forced() -> None:
    tuned("theirs.json", OTHER, OTHER)
    with pytest.raises(fs.InvalidInput, match=f"was tuned for a model with digest {OTHER}.*use --force"):
        gather("theirs.json")
    found = gather("theirs.json", force=True)
    assert found.measured[0].foreign
    assert any("its figures are of that one" in note for note in found.notes)


def test_rows_that_cannot_be_compared_are_left_out_and_named() -> None:
    rows = [row(steps=n) for n in (4, 8)]
    others = [row(images=8), row(conditions="c1"), row(guidance=1.0), row(lost=3)]
    found = gather(write("bench", *rows, *others))
    assert [one.plan.rows for one in found.measured] == [4, 8]
    assert any(note.startswith("2 measurements of other images") for note in found.notes)
    assert any(note.startswith("1 measurements lost images") for note in found.notes)
    assert [one.images for one in gather("bench", conditions="c1").measured] == [16]


def test_only_other_scales_are_measured_and_they_are_named() -> None:
    found = gather(write("bench", row(guidance=1.0), row(guidance=3.0)))
    assert found.measured == []
    assert found.notes == ["measured at guidance 1, 3, and not at 2: give --guidance"]


def test_more_images_go_before_more_rows_and_this_device_before_others() -> None:
    few = [row(steps=n, images=8) for n in (4, 6, 8)]
    elsewhere = row(steps=5, images=512, machine=MACHINE._replace(device="cuda (x)"))
    found = gather(write("bench", *few, row(steps=8, images=64), elsewhere))
    assert [(one.plan.rows, one.images) for one in found.measured] == [(8, 64)]


def test_seconds_with_other_threads_are_not_used() -> None:
    found = gather(write("bench", row(), row(steps=8, machine=MACHINE._replace(threads=8))))
    assert [one.timed for one in found.measured] == [True, False]
    assert "the seconds of 1 measurements are of another machine or number of threads, and are not used" in found.notes


def test_damaged_foreign_and_missing_files_are_refused() -> None:
    write("theirs", replace(row(), model=replace(MODEL, digest=OTHER)))
    with pytest.raises(fs.InvalidInput, match=f"theirs holds measurements of 'digits' with digest {OTHER}"):
        gather("theirs")
    with pytest.raises(FileNotFoundError):
        gather("nowhere.json")
    Path("empty").mkdir()
    with pytest.raises(fs.InvalidInput, match=r"neither runs\.jsonl of a bench nor a plan"):
        gather("empty")
    tuned("mine.json")
    for content in (
        "{",
        "[]",
        '{"model": {}}',
        '{"model": {}, "settings": {}, "images": {"held_out": 1}, "compared": [1]}',
    ):
        Path("mine.certificate.json").write_text(content)
        with pytest.raises(fs.InvalidInput, match="is not the certificate of a tuning"):
            gather("mine.json")
    Path("mine.certificate.json").unlink()
    assert gather("mine.json").unmeasured == [Path("mine.json")]
    with pytest.raises(fs.InvalidInput, match="another noise schedule"):
        gather("mine.json", schedule=fs.schedules.cosine())
