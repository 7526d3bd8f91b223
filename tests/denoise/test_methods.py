"""Methods of guidance as data: by name, without torch, and what they ask for."""

import math
import subprocess
import sys

import pytest
import torch

import fewstep as fs
from fewstep.denoise.method import NEGATIVE, PERTURBED, POSITIVE, WEAK, squared
from fewstep.denoise.methods import METHODS, method_of
from fewstep.denoise.scale import Moment

FIRST, LATER, NO_PLAN = Moment(0, 10.0), Moment(3, 0.5), Moment(None, 0.5)


def test_the_methods_are_known_and_made_without_torch():
    code = (
        "import sys; from fewstep.denoise.methods import METHODS, method_of; "
        "from fewstep.denoise.scale import GuidanceSchedule, Moment; "
        "print([method_of(name).branches(Moment(3, 1.0), 0.5) for name in METHODS]); "
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(POSITIVE) == len(METHODS)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_what_a_norm_is_at_least_is_the_dtypes_smallest_normal_number(dtype):
    got = squared(torch.zeros(1, 2, dtype=dtype))
    assert float(got) == torch.finfo(dtype).tiny
    assert got.dtype == dtype


@pytest.mark.parametrize(
    ("name", "moment", "weight", "branches"),
    [
        ("cfg", FIRST, 3.0, (POSITIVE, NEGATIVE)),
        ("cfg", FIRST, 1.0, (POSITIVE,)),
        ("cfg", FIRST, 0.0, (POSITIVE, NEGATIVE)),
        ("cfg", FIRST, None, (POSITIVE,)),
        ("apg", FIRST, 3.0, (POSITIVE, NEGATIVE)),
        ("cfg++", FIRST, 0.6, (POSITIVE, NEGATIVE)),
        ("cfg++", FIRST, 1.0, (POSITIVE, NEGATIVE)),
        ("cfg++", FIRST, 0.0, (NEGATIVE,)),
        ("cfg++", FIRST, None, (POSITIVE,)),
        ("cfg-zero*", FIRST, 3.0, ()),
        ("cfg-zero*", FIRST, 1.0, (POSITIVE,)),
        ("cfg-zero*", FIRST, None, (POSITIVE,)),
        ("cfg-zero*", LATER, 3.0, (POSITIVE, NEGATIVE)),
        ("cfg-zero*", NO_PLAN, 3.0, (POSITIVE, NEGATIVE)),
        ("pag", FIRST, 3.0, (POSITIVE, NEGATIVE, PERTURBED)),
        ("pag", FIRST, 1.0, (POSITIVE, PERTURBED)),
        ("pag", FIRST, None, (POSITIVE,)),
        ("autoguidance", FIRST, 2.0, (POSITIVE, WEAK)),
        ("autoguidance", FIRST, 1.0, (POSITIVE,)),
    ],
)
def test_the_branches_are_those_that_an_image_pays_for(name, moment, weight, branches):
    assert method_of(name).branches(moment, weight) == branches


def test_the_table_says_usual_and_idle_scales():
    assert {name: method.usual_scale for name, method in METHODS.items() if method.usual_scale} == {
        "cfg++": 0.6,
        "autoguidance": 2.0,
    }
    assert {name for name, method in METHODS.items() if method.idle != 1} == {"cfg++"}


def test_options_are_read_as_plain_values():
    assert method_of("cfg-zero") == method_of("cfg-zero*", {"zero_init": 1}) == fs.CFGZero()
    assert method_of("pag", {"layers": "mid, up_blocks.1", "scale": 2}) == fs.PAG(2.0, ("mid", "up_blocks.1"))
    assert method_of("apg", {"norm_limit": None, "eta": 1}) == fs.APG(eta=1.0)
    assert fs.PAG(layers=["mid"]) == fs.PAG() == method_of("pag")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("cfgg", {}, "unknown guidance method 'cfgg': did you mean 'cfg'"),
        (None, {}, "unknown guidance method 'None'"),
        ("cfg++", {"eta": 1}, r"the guidance method cfg\+\+ has no options, got 'eta': leave it out"),
        ("apg", {"norm": 1}, "unknown option of the guidance method apg 'norm': did you mean 'norm_limit'"),
        ("apg", [1], "guidance_options is a mapping from names to values"),
        ("apg", {"eta": "x"}, "the guidance option eta is a finite number, got 'x'"),
        ("apg", {"eta": True}, "the guidance option eta is a finite number, got True"),
        ("apg", {"momentum": math.inf}, "the guidance option momentum is a finite number, got inf"),
        ("apg", {"norm_limit": -1}, "norm_limit must be a finite number above zero, got -1"),
        ("cfg-zero", {"zero_init": 1.5}, "zero_init is a whole number from 0, got 1.5"),
        ("pag", {"scale": lambda ratio: 1.0}, "the guidance option scale is a finite number"),
        ("pag", {"layers": ["mid"] * 33}, "a list of at most 32"),
    ],
)
def test_wrong_names_and_values_are_refused(name, options, message):
    with pytest.raises(fs.InvalidInput, match=message):
        method_of(name, options)
