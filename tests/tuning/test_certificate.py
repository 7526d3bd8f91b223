"""The certificate: figures that follow from the errors, and a page that needs nothing else."""

import json
import re
from base64 import b64encode

import numpy as np
import pytest
import torch

import fewstep as fs
from fewstep.tuning import Certificate, Compared, ConfidenceInterval
from fewstep.tuning.certificate import error_interval, gain


def errors(scale, n=400, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).exponential(scale, n))


def certificate(kind="learned", missing=(), **more):
    plan = fs.compile("ddim", schedule=fs.schedules.linear(), steps=4)
    rows = [Compared.of(kind, plan, errors(0.01), 4), Compared.of("default", plan, errors(0.04), 4)]
    return Certificate(
        plan=plan.digest, kind=kind, rows=4, nfe=4, model={"name": "<b>mine</b>", "digest": "0" * 16},
        settings={"guidance": 2.0}, schedule="f" * 16, seed=3, compared=rows,
        over_default=ConfidenceInterval(2, 1.8, 2.2),
        over_untuned=ConfidenceInterval(1.5, 1.2, float("inf")), rival="ipndm-3 on ays",
        rivals={"measured": 12, "ranked": 245, "missing": list(missing)},
        elsewhere={"guidance 1": ConfidenceInterval(1.1, 1.0, 1.2)},
        teacher={"sampler": "deis-3", "rows": 96, "error": 1e-4},
        images={"train": 8, "validation": 8, "held_out": 400}, search={"untuned": 10}, learning={"iterations": 9},
        seconds={"teacher": 1.0, "total": 3.0, "twice": None}, **more,
    )  # fmt: skip


def test_the_gain_of_a_plan_over_itself_is_one_and_of_half_the_error_two():
    own = errors(1.0)
    assert gain(own, own) == ConfidenceInterval(1.0, 1.0, 1.0)
    np.testing.assert_allclose(gain(own, own / 4), (2, 2, 2), rtol=1e-12)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    hits = 0
    for seed in range(40):
        found = error_interval(errors(1.0, 300, seed))
        hits += found.low <= 1.0 <= found.high  # the mean of the exponential, whose root is 1
    assert 33 <= hits <= 40


def test_unlike_plans_that_do_as_well_have_an_interval_around_one():
    found = gain(errors(1.0, seed=1), errors(1.0, seed=2))
    assert found.low < 1 < found.high


def test_the_gain_over_several_plans_is_that_over_the_best_of_them():
    far, near, own = errors(9.0, seed=1), errors(4.0, seed=2), errors(1.0, seed=3)
    assert gain(torch.stack([far, near]), own) == gain(near, own)
    assert gain(torch.stack([near, torch.full_like(near, torch.inf)]), own) == gain(near, own)


def test_the_interval_over_equal_rivals_knows_that_the_best_of_them_is_so_by_luck():
    """Of twelve rivals of the same true error, the best on these images looks better than it is."""
    rivals, own = torch.stack([errors(4.0, 100, seed) for seed in range(12)]), errors(1.0, 100, 99)
    best = rivals[rivals.mean(dim=1).argmin()]
    luckily, chosen = gain(best, own), gain(rivals, own)
    assert luckily.value == chosen.value < 2
    assert chosen.high < luckily.high
    assert chosen.low <= luckily.low


def test_the_verdict_names_the_rival_and_how_many_were_measured():
    assert "1.5 times less (1.2 to inf) than the best of 12 strong untuned samplers, ipndm-3 on ays" in (
        certificate().verdict
    )


def test_where_rivals_are_missing_nothing_is_claimed_about_the_best():
    verdict = certificate(missing=["unipc-3 on ays", "deis-3 on beta"]).verdict
    assert "ipndm-3 on ays, the best of the 12 untuned samplers that there was time to measure" in verdict
    assert "not measured: unipc-3 on ays, deis-3 on beta; nothing is claimed about the best" in verdict


def test_the_verdict_says_when_nothing_beats_the_default():
    assert "the default is returned" in certificate("default").verdict
    assert "2 times less error than the default (1.8 to 2.2)" in certificate().verdict


def test_the_json_is_finite_and_the_page_stands_alone(tmp_path):
    file, page = certificate().save(tmp_path / "mine.certificate.json")
    found = json.loads(file.read_text())
    assert found["over_untuned"] == {"value": 1.5, "low": 1.2, "high": None}
    assert found["compared"][0]["rmse"]["value"] == pytest.approx(float(errors(0.01).mean().sqrt()))
    html = page.read_text()
    assert page.name == "mine.certificate.html"
    assert "&lt;b&gt;mine&lt;/b&gt;" in html
    assert "<b>" not in html
    assert not re.search(r"https?:|<script|<link|<img|@import|url\(", html)
    assert "never" in html


def test_the_page_shows_pictures_that_lie_in_it(tmp_path):
    shown = certificate(pictures={"converged": b"one", "best <untuned>": b"two"})
    file, page = shown.save(tmp_path / "mine.certificate.json")
    assert "pictures" not in json.loads(file.read_text())
    html = page.read_text()
    assert re.findall(r"<img alt='([^']*)' src='data:image/png;base64,([^']*)'>", html) == [
        ("converged", b64encode(b"one").decode()),
        ("best &lt;untuned&gt;", b64encode(b"two").decode()),
    ]
