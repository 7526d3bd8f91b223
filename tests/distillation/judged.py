"""Held-out pictures of a teacher of a few hundred weights, for the tests of what students are judged by."""

from __future__ import annotations

from pathlib import Path

import fewstep as fs
from fewstep.benchmark.yardstick import features_of
from fewstep.distillation.judging.judge import Judge
from fewstep.distillation.pictures.pairs import Pairs, drawn
from fewstep.distillation.pictures.teacher import Teacher
from models import tiny

COUNT = 64


def teacher_of(folder: Path, steps: int = 8, guidance: float = 2.0) -> Teacher:
    """The teacher, which draws in some steps."""
    return Teacher.of(fs.load(tiny.write(folder / "tiny.safetensors")), None, guidance, steps)


def judge_of(teacher: Teacher, folder: Path, count: int = COUNT, **more: int) -> Judge:
    """A judge of its pictures."""
    own, other = pair_of(teacher, folder, count)
    return Judge(own, other, features_of(teacher.pipe), **more)


def pair_of(teacher: Teacher, folder: Path, count: int = COUNT) -> tuple[Pairs, Pairs]:
    """Two sets of pairs of unlike noise."""
    return drawn(teacher, count, folder / "pairs", 10**8), drawn(teacher, count, folder / "pairs", 2 * 10**8)
