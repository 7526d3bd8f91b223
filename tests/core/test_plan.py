"""Plans as files: the same bits back, and a clear refusal of everything that is not a plan."""

import copy
import hashlib
import json
import math
import os
import threading
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fewstep as fs
from fewstep.core import plan as plan_module
from fewstep.core.check import marginal_error
from fewstep.core.plan import MAX_REGISTERS, Plan, TunedFor
from proof.problems import SCHEDULES

EDM = fs.schedules.edm()


def small(name="dpmpp-2m", steps=3, **options):
    return fs.compile(name, schedule=EDM, steps=steps, grid="karras", **options)


def signed(content):
    """JSON text of a plan whose digest fits its content, whatever that is."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return json.dumps({**content, "digest": hashlib.sha256(text.encode()).hexdigest()[:16]})


def content_of(plan):
    content = json.loads(plan.to_json())
    del content["digest"]
    return content


def edited(plan, **changes):
    return signed(content_of(plan) | changes)


@pytest.mark.parametrize("kind", SCHEDULES)
@pytest.mark.parametrize("name", fs.SAMPLERS)
def test_a_plan_reads_back_bit_for_bit(name, kind):
    plan = fs.compile(name, schedule=SCHEDULES[kind], steps=5)
    again = Plan.from_json(plan.to_json())
    assert again == plan
    assert hash(again) == hash(plan)
    assert again.to_json() == plan.to_json()
    assert again.recipe == plan.recipe
    assert again.rows == plan.rows
    for part in ("init", "A", "B", "s"):
        assert getattr(again, part).tobytes() == getattr(plan, part).tobytes()
    same = ("start_noise", "entry", "exit", "companion", "outputs", "tolerance", "note")
    assert [getattr(again, part) for part in same] == [getattr(plan, part) for part in same]


def test_a_pair_and_options_read_back_too():
    plan = fs.compile("belm", schedule=EDM, times=[10.0, 5.0, 2.0, 1.0], start="pair")
    again = Plan.from_json(plan.to_json())
    assert (again.inputs, again.companion) == (2, (1.0, 5.0))
    assert again == plan
    plan = small("ddim", eta=0.3)
    assert Plan.from_json(plan.to_json()).recipe.options == {"eta": 0.3}


def test_what_a_plan_was_tuned_for_and_its_guidance_by_row_are_part_of_it():
    settings = {"guidance": 2.0, "precision": "bfloat16"}
    plan = replace(small(), guidance_factors=(0, 1.5, 1.0), tuned_for=TunedFor("a" * 16, settings))
    again = Plan.from_json(plan.to_json())
    assert again == plan
    assert again.guidance_factors == (0.0, 1.5, 1.0)
    assert again.tuned_for == TunedFor("a" * 16, settings)
    others = [small(), replace(plan, guidance_factors=None), replace(plan, tuned_for=None)]
    others.append(replace(plan, tuned_for=TunedFor("b" * 16, settings)))
    assert len({plan, *others}) == 5
    assert "guidance_factors" not in content_of(small())  # so that digests of plans that are not tuned stay
    assert "tuned_for" not in content_of(small())


@pytest.mark.parametrize("options", [{"model": "a" * 16}, {"guidance_factors": [1.0, 1.0, 1.0]}])
def test_a_plan_that_an_earlier_version_tuned_is_refused_as_nobody_would_read_what_it_is_for(options):
    recipe = content_of(small())["recipe"] | {"options": options}
    with pytest.raises(fs.InvalidInput, match=r"tuned by an earlier version.*: tune it again"):
        Plan.from_json(edited(small(), recipe=recipe))


def test_a_recipe_compiles_to_the_plan_again():
    plan = fs.compile("ddim", schedule=SCHEDULES["cosine"], steps=7, grid="karras", grid_options={"rho": 5.0}, eta=0.5)
    r = Plan.from_json(plan.to_json()).recipe
    schedule = fs.schedules.from_spec(r.schedule)
    again = fs.compile(
        r.sampler, schedule=schedule, steps=r.steps, grid=r.grid, grid_options=r.grid_options, **r.options
    )
    assert again == plan
    assert schedule.fingerprint == r.schedule_fingerprint


def test_samplers_that_differ_have_plans_that_differ():
    names = ["ddim", "heun", "midpoint", "ralston", "dpmpp-2m", "dpmpp-2s", "unipc-2", "euler-a", "sde-dpmpp-2m", "lcm"]
    assert len({small(name) for name in names}) == len(names)
    assert small(steps=3) != small(steps=4)
    assert small("ddim", eta=0.1) != small("ddim", eta=0.2)
    assert small() != "a plan"


def test_a_plan_cannot_be_changed():
    plan = small()
    with pytest.raises(FrozenInstanceError):
        plan.tolerance = 1.0
    with pytest.raises(ValueError, match="read-only"):
        plan.A[0, 0, 0] = 2.0
    with pytest.raises(FrozenInstanceError):
        plan.recipe.steps = 4
    mine = np.ones_like(plan.A)
    other = replace(plan, A=mine)
    mine[0, 0, 0] = 5.0
    assert other.A[0, 0, 0] == 1.0


def test_a_file_reads_back(tmp_path):
    plan = small()
    plan.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == plan
    assert os.listdir(tmp_path) == ["plan.json"]
    small("ddim").save(str(tmp_path / "plan.json"))
    assert Plan.load(str(tmp_path / "plan.json")) == small("ddim")


def test_a_write_that_fails_leaves_the_old_file_alone(tmp_path, monkeypatch):
    plan, path = small(), tmp_path / "plan.json"
    plan.save(path)

    def broken(*_):
        raise OSError("disk full")

    monkeypatch.setattr(plan_module.os, "replace", broken)
    with pytest.raises(OSError, match="disk full"):
        small("ddim").save(path)
    assert Plan.load(path) == plan


def test_threads_may_save_to_one_path(tmp_path):
    path, plans, failed = tmp_path / "plan.json", [small("ddim"), small("heun", steps=40)], []

    def save(plan):
        for _ in range(10):
            try:
                plan.save(path)
                assert Plan.load(path) in plans
            except Exception as error:  # noqa: BLE001
                failed.append(error)

    threads = [threading.Thread(target=save, args=(plans[i % 2],)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not JSON"),
        ("hello", "is not JSON"),
        ("[]", "got format 'list'"),
        ("{}", "got format None"),
        ('{"format": 1}', "format"),
        ('{"format": 99, "digest": "0"}', "got format 99"),
        ("[" * 100_000, "is not JSON"),
        ('{"format": 1, "digest": NaN}', "edited"),
        ('{"format": 1, "digest": "0", "tolerance": NaN}', "finite"),
        ('{"format": 1, "digest": "0", "tolerance": 1e999}', "finite"),
    ],
)
def test_text_that_is_not_a_plan_is_refused(text, message):
    with pytest.raises(fs.InvalidInput, match=message):
        Plan.from_json(text)


def test_an_edited_plan_is_refused():
    content = json.loads(small().to_json())
    content["B"][0][0][0] += 1e-15
    with pytest.raises(fs.InvalidInput, match="the plan was edited"):
        Plan.from_json(json.dumps(content))
    assert Plan.from_json(json.dumps(json.loads(small().to_json()), indent=3)) == small()  # spaces are no edit


@pytest.mark.parametrize(
    "change",
    [
        {"rows": []},
        {"rows": 3},
        {"rows": [[]]},
        {"rows": [[1, 2]]},
        {"rows": [["x", 1.0, 1.0, "step 1", True, None]]},
        {"rows": [[1.0, 1.0, 1.0, "step 1", True, [1]]]},
        {"init": []},
        {"init": [1.0]},
        {"init": [[1.0]]},
        {"init": [[1.0, 0.0, 0.0, 0.0]]},
        {"init": [[1.0, 0.0]] * (MAX_REGISTERS + 1)},
        {"A": [[1.0], [1.0, 2.0]]},
        {"A": [[["x"]]]},
        {"A": None},
        {"B": {}},
        {"s": [[10**400]]},
        {"entry": [1.0]},
        {"entry": [1.0, 2.0, 3.0]},
        {"entry": ["a", "b"]},
        {"entry": 3},
        {"exit": None},
        {"companion": 5},
        {"companion": [1.0, 2.0]},  # of a plan that starts from one state
        {"outputs": 0},
        {"outputs": 99},
        {"outputs": "many"},
        {"tolerance": "small"},
        {"tolerance": None},
        {"start_noise": [1.0]},
        {"start_noise": ["a", "b", "c"]},
        {"guidance_factors": [1.0]},
        {"guidance_factors": "abc"},
        {"guidance_factors": [1.0, 1.0, "1"]},
        {"tuned_for": "abc"},
        {"tuned_for": {"model": "abc"}},
        {"tuned_for": {"model": 3, "settings": {}}},
        {"tuned_for": {"model": "abc", "settings": []}},
        {"tuned_for": {"model": "abc", "settings": {}, "more": 1}},
        {"recipe": None},
        {"recipe": {}},
        {"recipe": {"sampler": "ddim"}},
    ],
    ids=str,
)
def test_a_signed_plan_with_a_malformed_part_is_refused(change):
    text = edited(small(), **change)
    with pytest.raises(fs.InvalidInput):
        Plan.from_json(text)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("times", 3),
        ("times", ["a", "b"]),
        ("times", []),
        ("options", None),
        ("options", [1]),
        ("grid_options", "x"),
        ("schedule", 7),
        ("schedule", "edm"),
        ("steps", "x"),
        ("sampler", 3),
        ("schedule_fingerprint", None),
        ("more", 1),
    ],
)
def test_a_signed_plan_with_a_malformed_recipe_is_refused(field, value):
    content = content_of(small())
    content["recipe"][field] = value
    with pytest.raises(fs.InvalidInput):
        Plan.from_json(signed(content))


def resigned(change):
    """A plan whose content `change` edits, under a digest that fits."""
    content = content_of(small())
    change(content)
    return signed(content)


def put(*path):
    *way, (last, value) = path

    def change(content):
        place = content
        for key in way:
            place = place[key]
        place[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("A", 1, 0, (0, 1e9)), r"coefficients within 1e\+08; .* others up to 1e\+09"),
        (put("A", 1, 0, (0, 1e7)), r"\(alpha, sigma\) at step 3.* is off by"),
        (put("B", 0, 0, (0, 0.5)), r"\(alpha, sigma\) at step 2.* is off by"),
        (put("s", 0, (0, 1e308)), "scales noise that belongs to no interval"),
        (put("rows", 1, (1, -1)), "it has alpha -1 .. 1"),
        (put("rows", 1, (1, 1.5)), r"it has alpha 1 .. 1\.5"),
        (put("rows", 1, (2, -3.0)), "sigma -3 .. 80"),
        (put("rows", 1, (2, 1e308)), r"sigma 0 .. 1e\+308"),
        (put("rows", 1, (0, 1e308)), r"others up to 1e\+308"),
        (put("rows", 1, (0, 10**400)), "OverflowError"),
        (put("rows", 1, (3, "x" * 2000)), "printable texts of at most 1000"),
        (put("rows", 1, (3, "step\n2")), "printable texts"),
        (put("entry", (0, -1.0)), "it has alpha -1 .. 1"),
        (put("exit", (1, 5.0)), r"\(alpha, sigma\) at the result is off by"),
        (put(("tolerance", 1e308)), r"tolerance is 1e\+308, allowed is 0 to 2"),
        (put(("tolerance", -1.0)), "tolerance is -1"),
        (put(("outputs", 10**400)), "a number of about 401 digits|got 10{40}"),
        (put("recipe", ("sampler", "../../elsewhere")), r"its sampler is called '\.\./\.\./elsewhere'"),
        (put("recipe", ("grid", "a b")), "its grid 'a b'"),
        (put("recipe", ("steps", 10**4000)), "4 times for 1000"),
        (put("recipe", "times", (0, 1e308)), r"others up to 1e\+308"),
    ],
)
def test_a_plan_with_a_new_digest_and_impossible_entries_is_refused_in_a_short_line(change, message):
    with pytest.raises(fs.InvalidInput, match=message) as refused:
        Plan.from_json(resigned(change))
    assert len(str(refused.value)) < 400


def test_a_plan_whose_noise_would_take_minutes_to_follow_is_refused(monkeypatch):
    monkeypatch.setattr(plan_module, "MAX_DRAWS", 8)
    assert Plan.from_json(small("ddpm", steps=2).to_json()).rows[0].noise is not None
    with pytest.raises(fs.InvalidInput, match="10 rows, 1 registers and 9 draws is too large"):
        Plan.from_json(small("ddpm", steps=10).to_json())


def test_text_that_is_deep_or_holds_a_number_of_many_digits_is_refused():
    for text in ('{"format": 1, "digest": "0", "rows": ' + "[" * 900 + "]" * 900 + "}", "[" + "9" * 5000 + "]"):
        with pytest.raises(fs.InvalidInput) as refused:
            Plan.from_json(text)
        assert len(str(refused.value)) < 300


def test_a_pipe_or_a_device_is_not_read_as_a_plan(tmp_path):
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(fs.InvalidInput, match=r"pipe\.json: a named pipe, and only regular files are read"):
        Plan.load(tmp_path / "pipe.json")
    with pytest.raises(fs.InvalidInput, match="/dev/zero: a device, and only regular files are read"):
        Plan.load("/dev/zero")


def paths_in(value, path=()):
    """Every place in a JSON value."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in items:
        yield from paths_in(part, (*path, key))


ODDITIES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([10**400, -(10**20), 2**63, 1e308, -1e-308, 0.5, "", "x", "0.5", [], {}, [[]], [1.0], [1.0, 2.0]]),
    st.floats(allow_nan=False, allow_infinity=False),
)
PLANS = [content_of(small()), content_of(small("sa")), content_of(small("belm", 4))]


@pytest.mark.parametrize("change", [{"s": [[1.0, 0.0]] * 3}, {"init": [[1.0, 1.0], [0.0, 0.0]]}], ids=str)
def test_noise_that_has_no_interval_is_refused(change):
    with pytest.raises(fs.InvalidInput, match="no interval"):
        Plan.from_json(edited(small(), **change))


def test_a_repeat_that_no_interval_can_have_is_refused():
    content = content_of(small("sa"))
    row = next(row for row in content["rows"] if row[5] is not None)
    row[5] = [*row[5][:2], 10**300]
    with pytest.raises(fs.InvalidInput, match="while reading it"):
        Plan.from_json(signed(content))


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_signed_plan_with_any_change_is_refused_or_good(data):
    content = copy.deepcopy(data.draw(st.sampled_from(PLANS), label="plan"))
    for _ in range(data.draw(st.integers(1, 2), label="changes")):
        path = data.draw(st.sampled_from([p for p in paths_in(content) if p]), label="path")
        place = content
        for key in path[:-1]:
            place = place[key]
        match data.draw(st.integers(0, 3), label="kind"):
            case 0:
                del place[path[-1]]
            case 1 if isinstance(place, list):
                place.insert(path[-1], data.draw(ODDITIES))
            case _:
                place[path[-1]] = data.draw(ODDITIES, label="value")
    try:
        plan = Plan.from_json(signed(content))
    except fs.InvalidInput:
        return
    # So it is a plan: it can be used, and written, as any other.
    assert Plan.from_json(plan.to_json()) == plan
    assert repr(plan)
    with np.errstate(over="ignore", invalid="ignore"):
        assert marginal_error(plan).shape == (len(plan.rows) + 1,)
    start = torch.ones(2, 3, dtype=torch.float64)
    states = fs.sample_pair(plan, lambda x, t: x / 2, start=(start,) * plan.inputs)
    assert len(states) == plan.outputs


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_text_with_any_change_is_refused_or_the_same_plan(data):
    text = small().to_json()
    i = data.draw(st.integers(0, len(text) - 1))
    j = data.draw(st.integers(i, min(len(text), i + 20)))
    try:
        plan = Plan.from_json(text[:i] + data.draw(st.text(max_size=4)) + text[j:])
    except fs.InvalidInput:
        return
    assert plan == small()


@pytest.mark.parametrize("name", ["missing.json", "folder", "binary.json", "huge.json"])
def test_a_file_that_cannot_be_a_plan_is_refused(name, tmp_path, monkeypatch):
    (tmp_path / "folder").mkdir()
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    small().save(tmp_path / "huge.json")
    monkeypatch.setattr(plan_module, "MAX_FILE_BYTES", 100)
    with pytest.raises(fs.InvalidInput, match=name.split(".")[0]):
        Plan.load(tmp_path / name)


def test_the_number_of_rows_is_bounded(monkeypatch):
    monkeypatch.setattr(plan_module, "MAX_ROWS", 2)
    with pytest.raises(fs.InvalidInput, match="1 to 2 rows"):
        Plan.from_json(small(steps=3).to_json())


@pytest.mark.parametrize("part", ["init", "A", "B", "s"])
def test_a_table_must_be_finite_and_of_one_shape(part):
    plan = small()
    array = getattr(plan, part).copy()
    array.flat[0] = math.nan
    with pytest.raises(fs.InvalidInput, match="not finite"):
        replace(plan, **{part: array})
    with pytest.raises(fs.InvalidInput, match="shape"):
        replace(plan, **{part: array[:1, :1]})


def test_the_fingerprint_names_the_functions_and_not_how_they_were_written():
    s = fs.schedules
    assert s.flow(3.0).fingerprint == s.flow().fingerprint
    assert s.edm(80.0).fingerprint == s.edm(10.0).fingerprint
    assert s.linear().fingerprint == s.linear().fingerprint
    linear = s.linear()
    assert s.from_alphas_cumprod(linear.alphas_cumprod).fingerprint == linear.fingerprint
    different = [s.linear(), s.scaled_linear(), s.cosine(), s.linear(zero_snr=True), s.linear(1e-4, 0.0201), s.edm()]
    different += [s.linear(num_train_timesteps=999), s.flow()]
    assert len({schedule.fingerprint for schedule in different}) == len(different)


def test_a_plan_of_another_schedule_is_refused_and_of_an_equal_one_is_not():
    linear = fs.schedules.linear()
    plan = fs.compile("ddim", schedule=linear, steps=3)
    shape = (1, 2)

    def network(x, t):
        return torch.zeros_like(x)

    with pytest.raises(fs.InvalidInput, match=r"noise schedule 'linear' .*, the denoiser has 'cosine'"):
        fs.sample(plan, fs.Network(network, fs.schedules.cosine()), shape=shape)
    same = fs.schedules.from_alphas_cumprod(linear.alphas_cumprod)
    assert fs.sample(plan, fs.Network(network, same), shape=shape).shape == shape
    shifted = fs.compile("ddim", schedule=fs.schedules.flow(3.0), steps=3)
    assert fs.sample(shifted, fs.Network(network, fs.schedules.flow(), "flow"), shape=shape).shape == shape


def test_a_plan_says_what_it_is():
    plan = small()
    assert repr(plan) == f"Plan('dpmpp-2m', grid='karras', steps=3, rows=3, registers=2, digest='{plan.digest}')"
    assert len(plan.digest) == 16


def test_evaluations_are_the_rows_and_once_more_those_that_are_guided():
    plan = fs.compile("heun", schedule=fs.schedules.edm(), steps=3)
    assert (len(plan.rows), plan.nfe(), plan.nfe(guided=True)) == (5, 5, 10)
    some = replace(plan, guidance_factors=(0.0, 1.0, 1.5, 0.5, 0.0))
    assert (some.nfe(), some.nfe(guided=True)) == (5, 8)
