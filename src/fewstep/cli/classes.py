"""Models of classes, for the commands that know no prompts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fewstep.core.errors import InvalidInput

if TYPE_CHECKING:
    from fewstep.pipeline import Pipeline


def load_classes(model: str, command: str, **where: Any) -> Pipeline:
    """The pipeline of a model that takes no prompts. Raises `InvalidInput` for one that does.

    `where`: more arguments of `fewstep.load`.
    """
    from fewstep.pipeline import Pipeline, load

    pipe = load(model, **where)
    if not isinstance(pipe, Pipeline):
        raise InvalidInput(
            f"{pipe.name} draws from prompts, and `fewstep {command}` knows classes only: use `fewstep generate`, or "
            "its pipeline in Python"
        )
    return pipe
