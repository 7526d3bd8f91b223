"""The page of claims is what its figures render to, and verdicts follow from figures by the rules that it states."""

import importlib
import json
import re
import sys
from pathlib import Path

import pytest
import torch

import fewstep as fs

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "benchmarks"))
catalogue, claim, intervals, page, record, straight = (
    importlib.import_module(f"literature.{name}")
    for name in ("catalogue", "claim", "intervals", "page", "record", "straight")
)
command = importlib.import_module("claims")
FIGURES, PAGE = ROOT / "benchmarks" / "claims.json", ROOT / "docs" / "claims.md"
BY_KEY = {one.key: one for one in catalogue.CLAIMS}


def sure(value):
    """A figure with a narrow interval."""
    return claim.Interval(value, value * 0.999, value * 1.001)


def churned(*amounts):
    """The figures of three amounts of churn at each number of evaluations."""
    names = [f"{n} {amount}" for n in (17, 35, 49) for amount in ("little", "medium", "most")]
    return dict(zip(names, (value for three in amounts for value in three), strict=True))


MADE_UP = {
    "ddim": (
        {"ddim 100": 1.1, "ddim 50": 1.2, "ddpm over ddim 50": 2.0},
        {"ddim 100": 2.1, "ddim 50": 2.9, "ddpm over ddim 50": 0.9},
    ),
    "dpm-solver": (
        {"dpm-fast 20": 1.1, "dpm-2m 20": 3.0, "dpm-fast 10": 9.0, "dpm-2m 10": 1.4},
        {"dpm-fast 20": 2.6, "dpm-2m 20": 3.0, "dpm-fast 10": 9.0, "dpm-2m 10": 2.6},
    ),
    "enough": (
        {"ddim 50 to 200": 1.05, "dpmpp-2m 25 to 50, right": 0.01},
        {"ddim 50 to 200": 1.3, "dpmpp-2m 25 to 50, right": 0.2},
    ),
    "heun": (
        {"20 on karras": 2.0, "20 each at its best": 1.5},
        {"20 on karras": 0.8, "20 each at its best": 0.9},
    ),
    "rk4": (
        {"rk4 over dpmpp-2m 20": 3.0, "rk4 over heun 160": 0.1},
        {"rk4 over dpmpp-2m 20": 0.5, "rk4 over heun 160": 2.0},
    ),
    "halving": (
        {"even in time, 10 to 20": 1.95, "even in its root, 20 to 40": 2.1},
        {"even in time, 10 to 20": 1.2, "even in its root, 20 to 40": 4.0},
    ),
    "placement": (
        {"even in time": 1.3, "even in lambda": 1.2},
        {"even in time": 0.3, "even in lambda": 0.9},
    ),
    "resolution": (
        {"linear, 8 steps": 1.5, "flow, 8 steps": 1.5},
        {"linear, 8 steps": 0.5, "flow, 8 steps": 0.5},
    ),
    "straight": (
        {"by transport 1": 1e-9, "by transport 4": 1e-9, "at random 10": 0.005},
        {"by transport 1": 0.2, "by transport 4": 0.2, "at random 10": 0.05},
    ),
    "diversity": ({"few": 0.9, "many": 0.9}, {"few": 1.1, "many": 1.02}),
    "churn": (
        churned((1.2, 1.1, 1.3), (0.8, 1.2, 1.3), (1.1, 0.9, 1.3)),
        churned((0.9, 1.1, 1.3), (1.1, 1.2, 1.3), (1.1, 1.2, 1.3)),
    ),
}
"""For each claim figures that it holds by, and figures that it fails by."""


def made_up(values):
    return {name: sure(value) for name, value in values.items()}


def test_the_committed_page_is_what_the_committed_figures_render_to():
    known = record.Record.load(FIGURES)
    assert page.render(catalogue.CLAIMS, known) == PAGE.read_text(encoding="utf-8"), (
        "run: python benchmarks/claims.py --json benchmarks/claims.json --page docs/claims.md"
    )


def test_the_committed_figures_are_of_every_claim_on_every_model_and_fill_every_column():
    known = record.Record.load(FIGURES)
    assert set(known.entries) == {(one.key, model) for one in catalogue.CLAIMS for model in one.models}
    for (key, _), entry in known.entries.items():
        assert {len(row) for row in entry.found.rows} == {len(BY_KEY[key].columns)}, key
    assert len({entry.images for entry in known.entries.values()}) == 1


def test_every_link_in_the_table_at_the_top_leads_to_a_section():
    text = PAGE.read_text(encoding="utf-8")
    links = re.findall(r"^\| \[[^\]]+\]\(#([^)]+)\)", text, re.MULTILINE)
    assert links == [page.anchor(one.title) for one in catalogue.CLAIMS]
    assert [page.anchor(title) for title in re.findall(r"^## (.+)$", text, re.MULTILINE)] == links


def test_a_page_of_some_models_says_which_claims_are_left_out():
    text = page.render(catalogue.CLAIMS, record.Record.load(FIGURES), ["couplings"])
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ["Straight flows need 4 to 10 steps"]
    assert "Left out, as their models were: DDIM needs 10 to 20 times fewer" in text
    assert "distance in 10 over 200" not in text


@pytest.mark.parametrize("key", list(BY_KEY))
def test_a_claim_holds_by_figures_that_meet_its_rule_and_fails_by_others(key):
    good, bad = (BY_KEY[key].checks(made_up(values)) for values in MADE_UP[key])
    assert [check.met for check in good] == [True] * len(good)
    assert [check.met for check in bad] == [False] * len(bad)
    assert claim.verdict(good) == "holds"
    assert claim.verdict(bad) == "does not hold here"
    assert claim.verdict([*good, *bad]) == "holds in part"


def test_a_distance_on_a_flow_is_judged_by_ten_steps():
    for times, met in ((1.2, True), (2.1, False)):
        (check,) = BY_KEY["straight"].checks({"distance 10": sure(times)})
        assert check.met is met


@pytest.mark.parametrize("key", list(BY_KEY))
def test_wide_intervals_decide_nothing(key):
    wide = {name: claim.Interval(value, -100.0, 100.0) for name, value in MADE_UP[key][0].items()}
    checks = BY_KEY[key].checks(wide)
    assert [check.met for check in checks] == [None] * len(checks)
    assert claim.verdict(checks) == "not decided"


def test_verdicts_tell_what_is_met_from_what_is_open_and_what_was_not_measured():
    def outcome(*met):
        return claim.verdict([claim.Check("", one) for one in met])

    assert outcome(True, None) == outcome(True, False) == "holds in part"
    assert outcome(None, False) == "does not hold here"
    assert outcome(None, None) == "not decided"
    assert outcome() == "not measurable with what ships"


def test_an_interval_is_above_or_below_a_bound_only_as_a_whole():
    own = claim.Interval(1.0, 0.9, 1.2)
    assert (own.above(0.8), own.above(1.0), own.above(1.3)) == (True, None, False)
    assert (own.below(1.3), own.below(1.0), own.below(0.8)) == (True, None, False)
    assert (own.within(0.8, 1.3), own.within(1.0, 1.3), own.within(1.3, 2.0)) == (True, None, False)
    assert str(claim.Interval(0.012345, 0.01, 123456.0)) == "0.0123 (0.01 to 123000)"


def test_a_ratio_of_errors_is_paired_over_images():
    below = torch.logspace(-6, 0, 50, dtype=torch.float64)
    found = intervals.ratio(9 * below, below)
    assert found.value == pytest.approx(3.0)
    assert found.high - found.low < 1e-9
    assert intervals.ratio(9 * below, below, reference=10.0) == (1.0, 1.0, 1.0)
    assert 1 < intervals.ratio(9 * below, below, reference=0.01).value < 3
    assert intervals.typical(below).high > 2 * intervals.typical(below).low


def counting(calls, fails=()):
    """A claim whose measurement is counted, and which is interrupted on some models."""

    def measure(model, images):
        calls.append((model, images))
        if model in fails:
            raise KeyboardInterrupt
        return claim.Found([[model, sure(0.9)]], {"few": sure(0.9), "many": sure(0.9)})

    known = BY_KEY["diversity"]
    return claim.Claim(
        **{
            name: getattr(known, name)
            for name in ("title", "says", "sources", "method", "rule", "checks", "here", "short")
        },
        key="made-up",
        columns=("what", "figure"),
        models=("digits", "mixture"),
        measure=measure,
    )


MODELS = {"digits": "0123", "mixture": "exact"}


def test_a_record_that_was_interrupted_is_continued_and_measures_nothing_twice(tmp_path):
    path, calls = tmp_path / "figures.json", []
    with pytest.raises(KeyboardInterrupt):
        record.measure(
            [counting(calls, ["mixture"])], MODELS, 32, record.Record.load(path), clock=iter(range(9)).__next__
        )
    again, after = record.Record.load(path), []
    record.measure([counting(after)], MODELS, 32, again, clock=iter(range(9)).__next__)
    assert calls == [("digits", 32), ("mixture", 32)]
    assert after == [("mixture", 32)]
    assert record.Record.load(path).entries == again.entries
    assert page.render([counting([])], again).count("**yes**") == 4


@pytest.mark.parametrize(("images", "digest"), [(64, "0123"), (32, "4567")])
def test_other_settings_or_another_model_are_measured_anew(images, digest, tmp_path):
    known, calls = record.Record(path=tmp_path / "figures.json"), []
    clock = iter(range(99)).__next__
    record.measure([counting([])], MODELS, 32, known, clock=clock)
    record.measure([counting(calls)], {"digits": digest}, images, known, clock=clock)
    assert calls == [("digits", images)]


def test_an_interrupted_command_leaves_the_page_as_it_was(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(command, "CLAIMS", (counting(calls, ["mixture"]),))
    written, figures_file = tmp_path / "page.md", tmp_path / "figures.json"
    written.write_text("as it was")
    asked = ["--models", "digits,mixture", "--images", "16", "--page", str(written), "--json", str(figures_file)]
    with pytest.raises(SystemExit, match="the same command continues"):
        command.main(asked)
    assert written.read_text() == "as it was"
    monkeypatch.setattr(command, "CLAIMS", (counting(calls),))
    command.main(asked)
    assert written.read_text().startswith("# Claims\n")
    assert calls == [("digits", 16), ("mixture", 16), ("mixture", 16)]
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["figures.json", "page.md"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--page", "x.md", "--claims", "heun"], "leave out --claims"),
        (["--models", "digit"], "unknown model 'digit': choose from digits"),
        (["--claims", "huen"], "unknown claim 'huen': choose from ddim"),
        (["--images", "3"], "at least 16, got 3"),
        (["--claims", "heun", "--models", "pictures"], "choose from digits, scenes, mixture, flow"),
    ],
)
def test_what_cannot_be_honoured_is_refused(arguments, said):
    with pytest.raises(SystemExit, match=re.escape(said)):
        command.main(arguments)


@pytest.mark.parametrize("content", ["[]", "{", json.dumps({"format": 99, "claims": {}}), '{"format": 1, "claims": 3}'])
def test_a_file_that_holds_no_figures_is_refused(content, tmp_path):
    path = tmp_path / "figures.json"
    path.write_text(content)
    with pytest.raises(fs.InvalidInput, match=re.escape("figures.json")):
        record.Record.load(path)


def test_a_flow_coupled_by_transport_ends_at_the_quantile_of_its_noise_in_one_step():
    schedule = fs.schedules.flow()
    noise = torch.tensor([[-1.0, -0.2, 0.3, 2.0]], dtype=torch.float64)
    ends = [
        fs.sample(
            fs.compile("euler", schedule=schedule, steps=n, grid="trailing"), straight.Coupled(schedule), noise=noise
        )
        for n in (1, 7)
    ]
    below = sum(torch.special.ndtr((ends[0] - c) / straight.STD) for c in (-straight.CENTRE, straight.CENTRE)) / 2
    assert torch.allclose(below, torch.special.ndtr(noise), atol=1e-4)
    assert torch.allclose(ends[0], ends[1], atol=1e-6)


def test_a_flow_coupled_at_random_estimates_the_mean_of_the_data():
    schedule = fs.schedules.flow()
    x, t = torch.tensor([[0.3]], dtype=torch.float64), 0.4
    data = torch.linspace(-3, 3, 20_001, dtype=torch.float64)
    prior = sum(torch.exp(-0.5 * ((data - c) / straight.STD) ** 2) for c in (-straight.CENTRE, straight.CENTRE))
    weights = prior * torch.exp(-0.5 * ((x - (1 - t) * data) / t) ** 2)
    expected = float((weights * data).sum() / weights.sum())
    own = straight.Independent(schedule)(x, torch.tensor(t, dtype=torch.float64))
    assert float(own) == pytest.approx(expected, abs=1e-6)
