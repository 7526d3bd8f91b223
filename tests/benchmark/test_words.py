"""Models of words: prompts of a file, latents that are decoded, and pictures that are read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fewstep.benchmark import Pictures, Sweep, bench
from fewstep.benchmark.judge import Judge
from fewstep.benchmark.subject import FIRST, Subject
from fewstep.core.errors import InvalidInput
from fewstep.tuning.subject import scale_of
from fewstep.zoo.scenes.picture import picture
from fewstep.zoo.scenes.scene import placed
from models import tiny_diffusers

QUICK = Sweep(samplers=("ddim",), grids=("trailing",), steps=(2,))


def test_prompts_of_a_file_decide_the_conditions_and_the_pictures_are_decoded(tmp_path: Path) -> None:
    tiny_diffusers.write("sd", tmp_path / "sd")
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a red circle\n\na blue square\na red circle\n")
    found = bench(str(tmp_path / "sd"), QUICK, pictures=Pictures(3, 2, prompts=prompts), output=tmp_path / "out")
    (run,) = found.results
    assert run.nfe == 4.0
    assert {"error", "typical", "quality", "psnr", "saturation"} <= set(run.figures)
    assert "adherence" not in run.figures
    subject = Subject(str(tmp_path / "sd"), Pictures(prompts=prompts))
    assert list(subject.conditions) == ["a red circle", "a blue square"]
    assert run.conditions == subject.conditions_digest
    assert run.guidance == scale_of(subject.pipe, None)
    assert f"--prompts {prompts}" in found.page.read_text()
    with pytest.raises(InvalidInput, match="draws from words: give --prompts FILE"):
        Subject(str(tmp_path / "sd")).conditions  # noqa: B018
    prompts.write_text("\n")
    with pytest.raises(InvalidInput, match="holds no prompts"):
        Subject(str(tmp_path / "sd"), Pictures(prompts=prompts)).conditions  # noqa: B018


def test_pictures_of_scenes_are_read_for_what_their_own_prompts_name() -> None:
    subject = Subject("scenes")
    known = subject.known_prompts
    assert known is not None
    assert all(prompt.description.held_out for prompt in known)
    rng = np.random.default_rng(0)
    painted = np.stack([picture(placed(prompt.description, rng)) for prompt in known[:6]])
    pictures = torch.from_numpy(painted).permute(0, 3, 1, 2).float() / 127.5 - 1
    states = torch.zeros(6, *subject.pipe.state_shape())
    for order, share in ((range(6), 1.0), ((1, 2, 3, 4, 5, 0), 0.0)):
        tally = Judge(subject).tally(None)
        tally.add(range(FIRST, FIRST + 4), states[:4], pictures[list(order)][:4], None)
        tally.add(range(FIRST + 4, FIRST + 6), states[4:], pictures[list(order)][4:], None)
        adherence = tally.figures()["adherence"]
        assert (adherence.value, adherence.n) == (share, 6)
