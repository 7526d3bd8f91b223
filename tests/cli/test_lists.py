"""`fewstep samplers` and `fewstep grids`."""

import json

import fewstep as fs

from .conftest import Call


def test_the_table_has_a_line_for_each_sampler(call: Call) -> None:
    lines = call("samplers").stdout.splitlines()[2:]
    assert [line.split()[0] for line in lines] == list(fs.SAMPLERS)
    [heun] = [line for line in lines if line.startswith("heun ")]
    assert heun.split()[1:3] == ["2", "2"]
    assert "arXiv 2206.00364" in heun


def test_json_lists_options_with_their_defaults(call: Call) -> None:
    rows = {row["name"]: row for row in json.loads(call("samplers", "--json").stdout)}
    assert rows.keys() == fs.SAMPLERS.keys()
    assert rows["ddim"]["options"] == {"eta": 0.0}
    assert rows["ddpm"]["stochastic"] is True
    assert "order" not in rows["unipc-3"]["options"]  # the name fixes it


def test_one_sampler_is_shown_with_its_options(call: Call) -> None:
    assert call("samplers", "ddim").stdout.splitlines()[-1].split() == ["eta", "0"]
    assert "euler has no options" in call("samplers", "euler").stdout
    assert "did you mean 'ddim'" in call("samplers", "dimm").stderr


def test_every_grid_is_listed(call: Call) -> None:
    output = call("grids").stdout
    assert all(name in output for name in fs.GRIDS)
    rows = {row["name"]: row for row in json.loads(call("grids", "--json").stdout)}
    assert rows.keys() == fs.GRIDS.keys()
    assert rows["karras"]["options"] == {"rho": 7.0, "bias": 0.0, "start": 1.0, "final": "clean"}
