"""Guidance as a value: every option of its method, whoever wrote it, and what a hostile one says."""

import json
from typing import Any

import pytest

import fewstep as fs
from fewstep.denoise.methods import METHODS
from fewstep.drawing import Guidance


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_kept_with_all_its_options(method: str) -> None:
    weaker = "0" * 16 if method == "autoguidance" else None
    made = Guidance(0.5, method=method, weaker=weaker)
    assert (made.how, made.method) == (METHODS[method](), method)
    assert set(made.options) == set(made.to_json()["options"])
    assert Guidance.of(json.loads(json.dumps(made.to_json()))) == made


def test_options_that_are_named_and_those_by_default_are_the_same_value() -> None:
    pag = Guidance(4.0, method="pag")
    assert pag.to_json()["options"] == {"scale": 3.0, "layers": ["mid"]}
    assert pag == Guidance(4.0, method="pag", options={"layers": "mid"})
    assert pag.digest == Guidance(4, method="pag", layers=["mid"], options={"scale": 3}).digest
    assert pag != Guidance(4.0, method="pag", options={"scale": 3.5})
    assert Guidance(2.0, method="cfg-zero").digest == Guidance(2.0, method="cfg-zero*").digest


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "apq"}, "unknown guidance method 'apq': did you mean 'apg'"),
        ({"method": 3}, "unknown guidance method '3'"),
        ({"options": {"scale": {}}}, "guidance option scale is a finite number"),
        ({"options": {"scale": "3"}}, "guidance option scale is a finite number, got '3'"),
        ({"options": {"layers": [3]}}, "layers is a name"),
        ({"options": {"layers": []}}, "layers is a name"),
        ({"options": {"layers": ["mid"] * 33}}, "at most 32"),
        ({"options": {"eta": 1}}, "unknown option of the guidance method pag 'eta'"),
        ({"options": [1]}, "mapping"),
        ({"weaker": "0" * 16}, "weak is the weaker model of autoguidance, and the guidance method is pag"),
        ({"weaker": "../x"}, "weaker"),
        ({"method": "autoguidance", "options": {}}, "give weak="),
        ({"styl": 1}, "unknown option of the guidance method pag 'styl'"),
    ],
)
def test_a_hostile_method_is_refused_by_field(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(fs.InvalidInput, match=message):
        Guidance.of({**Guidance(4.0, method="pag").to_json(), **changes})


def test_whether_a_negative_acts_is_known_from_the_scale_alone() -> None:
    assert Guidance(3.0).uses_negative
    assert not Guidance(1.0).uses_negative
    assert Guidance((1.0, 1.0, 2.0)).uses_negative
    assert not Guidance((1.0, 1.0)).uses_negative
    assert not Guidance(1.0, method="pag").uses_negative
    assert not Guidance(5.0, method="autoguidance", weaker="0" * 16).uses_negative
    assert Guidance(0.0, method="cfg++").uses_negative
