"""Guidance scales that are given to measure with."""

import pytest

import fewstep as fs
from fewstep.benchmark import Sweep
from fewstep.tuning.subject import scale_of


@pytest.mark.parametrize("scale", [float("nan"), float("inf"), "3", True])
def test_a_guidance_scale_is_a_finite_number_everywhere(scale: object) -> None:
    for refuse in (lambda: scale_of(fs.load("digits"), scale), lambda: Sweep(guidance=(2.0, scale))):  # type: ignore[arg-type]
        with pytest.raises(fs.InvalidInput, match=f"a guidance scale is a finite number, got {scale!r}"):
            refuse()
