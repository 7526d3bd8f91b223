"""Overlays: what lies over what, and which fields decide others."""

from typing import Any

import pytest

import fewstep as fs
from fewstep.drawing import PRESETS, Drawing, Guidance, Sampling, merged, preset

MODEL: dict[str, Any] = {
    "sampling": {"sampler": "dpmpp-2m", "steps": 20, "grid": "trailing", "options": {"final": "euler"}},
    "guidance": {"scale": 7.5, "options": {"rescale": 0.3}},
}


def over(*overlays: dict[str, Any]) -> dict[str, Any]:
    return merged(MODEL, *overlays)


def test_the_later_one_wins() -> None:
    recommended = {"sampling": {"steps": 20, "sampler": "ddim"}, "clip_skip": 1, "guidance": {"scale": 1.0}}
    wanted = {"sampling": {"steps": 8}, "clip_skip": 2}
    configured = {"sampling": {"grid": "karras"}, "guidance": {"scale": 3.0}}
    called = {"guidance": {"scale": 4.0}}
    assert merged(recommended, wanted, configured, called) == {
        "sampling": {"sampler": "ddim", "steps": 8, "grid": "karras"},
        "clip_skip": 2,
        "guidance": {"scale": 4.0},
    }


def test_none_says_nothing_and_nothing_below_is_written_to() -> None:
    below = {"sampling": {"steps": 20}, "negative": ("blue",)}
    result = merged(below, {"sampling": {"steps": None}, "negative": None, "guidance": None})
    assert result == below
    result["sampling"]["steps"] = 3
    assert below["sampling"]["steps"] == 20


def test_a_sampler_brings_its_own_options_and_keeps_the_grid() -> None:
    assert over({"sampling": {"sampler": "ddim"}})["sampling"] == {"sampler": "ddim", "steps": 20, "grid": "trailing"}
    own = over({"sampling": {"sampler": "ddim", "options": {"eta": 1.0}}})["sampling"]
    assert own["options"] == {"eta": 1.0}
    assert over({"sampling": {"steps": 4}})["sampling"]["options"] == {"final": "euler"}


def test_a_plan_decides_everything_and_a_sampler_over_it_takes_its_place() -> None:
    plan = fs.compile("ddim", schedule=fs.schedules.linear(), steps=3)
    assert over({"sampling": {"plan": plan}})["sampling"] == {"plan": plan}
    assert merged({"sampling": {"plan": plan}}, {"sampling": {"sampler": "euler", "steps": 2}})["sampling"] == {
        "sampler": "euler",
        "steps": 2,
    }


@pytest.mark.parametrize("name", ["times", "sigmas"])
def test_given_times_are_a_grid_of_their_own_and_steps_over_them_another(name: str) -> None:
    given = over({"sampling": {name: (3.0, 0.0)}})
    assert given["sampling"] == {"sampler": "dpmpp-2m", "options": {"final": "euler"}, name: (3.0, 0.0)}
    assert name not in merged(given, {"sampling": {"steps": 3, "grid": "karras"}})["sampling"]


def test_another_grid_has_other_options() -> None:
    below = {"sampling": {"steps": 5, "grid": "karras", "grid_options": {"rho": 5.0}}}
    assert merged(below, {"sampling": {"grid": "trailing"}})["sampling"] == {"steps": 5, "grid": "trailing"}
    assert merged(below, {"sampling": {"steps": 9}})["sampling"]["grid_options"] == {"rho": 5.0}


def test_another_method_has_other_options_and_its_own_usual_scale() -> None:
    assert over({"guidance": {"method": "cfg++"}})["guidance"] == {"method": "cfg++", "scale": 0.6}
    assert over({"guidance": {"method": "apg"}})["guidance"] == {"method": "apg", "scale": 7.5}
    assert over({"guidance": {"method": "cfg++", "scale": 0.2}})["guidance"]["scale"] == 0.2
    assert over({"guidance": {"scale": 3.0}})["guidance"] == {"scale": 3.0, "options": {"rescale": 0.3}}
    with pytest.raises(fs.InvalidInput, match="did you mean 'apg'"):
        over({"guidance": {"method": "apq"}})


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_completes_a_drawing(name: str) -> None:
    whole = merged(MODEL, preset(name), {"prompts": ("a",), "height": 8, "width": 8})
    assert set(whole.pop("run")) <= {"batch", "overlap"}
    drawing = Drawing.of(whole)
    assert (drawing.sampling.sampler, drawing.guidance.scale) == (PRESETS[name]["sampling"]["sampler"], 7.5)


def test_an_unknown_preset_is_named_with_the_nearest() -> None:
    for wrong, message in (("bst", "did you mean 'best'"), ("", "unknown preset ''"), (["best"], "unknown preset")):
        with pytest.raises(fs.InvalidInput, match=message):
            preset(wrong)  # type: ignore[arg-type]


def test_names_that_are_no_fields_are_options() -> None:
    assert Sampling("ddim", steps=2, grid="trailing", eta=1.0) == Sampling(
        "ddim", steps=2, grid="trailing", options={"eta": 1.0}
    )
    assert Guidance(3.0, method="apg", eta=0.5).options == {"eta": 0.5, "norm_limit": None, "momentum": 0.0}
    assert Guidance(3.0, method="cfg-zero").method == "cfg-zero*"
