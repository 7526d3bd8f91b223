"""What a student begins as, where it is not its teacher: another model of the same network, such as an earlier student.

A student by regression is a good beginning for other methods, and a student that is good already learns on.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

from fewstep.core.errors import InvalidInput
from fewstep.models import Model
from fewstep.pipeline import load
from fewstep.training import Role


class Beginning(NamedTuple):
    """The weights that a student begins with, and the digest of the model that they are of."""

    name: str
    digest: str
    weights: Mapping[str, Tensor]

    @staticmethod
    def of(model: str | os.PathLike[str], teacher: Model) -> Beginning:
        """Read them. Raises `InvalidInput` where they mean something else than the teacher's."""
        found = load(model).model
        for what, own, wanted in (
            ("predicts", found.prediction, teacher.prediction),
            ("has the noise schedule", found.schedule.fingerprint, teacher.schedule.fingerprint),
            ("has sigma_data", found.sigma_data, teacher.sigma_data),
        ):
            if own != wanted:
                raise InvalidInput(
                    f"a student begins with weights that mean what its teacher's do, and {found.name} {what} {own}, "
                    f"{teacher.name} {wanted}: begin with a student of that teacher, or leave it out"
                )
        module = found.module
        if module is None:
            raise InvalidInput(f"{found.name} has no weights to begin with: leave it out")
        return Beginning(found.name, found.digest, module.state_dict())

    def check(self, student: Role) -> None:
        """Raise `InvalidInput` for a LoRA, and for a network of other tensors."""
        if student.adapted:
            raise InvalidInput("a LoRA is a change of the teacher, which it begins as: leave the beginning out")
        own = student.module.state_dict()
        differing = sorted(
            name
            for name in {*own, *self.weights}
            if name not in own or name not in self.weights or own[name].shape != self.weights[name].shape
        )
        if differing:
            raise InvalidInput(
                f"{self.name} is of another network than the student: they differ in {', '.join(differing[:3])}; begin "
                "with a student of the same teacher and kind of method"
            )

    def put(self, student: Role) -> None:
        """Give them to a student. Raises `InvalidInput` where they do not fit."""
        self.check(student)
        student.module.load_state_dict(self.weights)
