"""What `fewstep.load` is told of a model's files, and the same as options of a command."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import Any

from fewstep.core.errors import InvalidInput


@dataclass(frozen=True)
class Loading:
    """How the files of a model are read.

    Attributes:
        variant: of the files of weights, such as "fp16".
        config: folder or id on the hub with the configurations of an original checkpoint.
        allow_pickle: load weights that are only there as a pickle.
    """

    variant: str | None = None
    config: str | None = None
    allow_pickle: bool = False

    def __post_init__(self) -> None:
        for name in ("variant", "config"):
            if not isinstance(getattr(self, name), str | None):
                raise InvalidInput(f"{name} must be a text, got {getattr(self, name)!r:.60}")
        if not isinstance(self.allow_pickle, bool):
            raise InvalidInput(f"allow_pickle must be true or false, got {self.allow_pickle!r:.60}")

    @classmethod
    def of(cls, variant: str | None, config: str | os.PathLike[str] | None, allow_pickle: bool) -> Loading:
        """From arguments of `fewstep.load`."""
        return cls(variant, str(config) if isinstance(config, os.PathLike) else config, allow_pickle)

    @property
    def given(self) -> dict[str, Any]:
        """The arguments of `fewstep.load`, without those that say nothing."""
        return {name: value for name, value in asdict(self).items() if value not in (None, False)}

    @property
    def words(self) -> list[str]:
        """The options of a command that loads the same model."""
        words = [] if self.variant is None else ["--variant", self.variant]
        words += [] if self.config is None else ["--model-config", self.config]
        return words + ["--allow-pickle"] * self.allow_pickle


PLAIN = Loading()
"""Where nothing is said."""
