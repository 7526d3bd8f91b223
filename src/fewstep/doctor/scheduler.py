"""The scheduler's configuration in a model's folder: what it says that the network predicts, and its correction."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import NamedTuple

from fewstep import zoo
from fewstep.core.errors import InvalidInput, one_of
from fewstep.files import write_whole
from fewstep.models.folder import read_json

NAME, KEY = "scheduler_config.json", "prediction_type"
CORRECTED = ("epsilon", "v_prediction", "sample")
"""What the key may say on a schedule of betas."""


class SchedulerFile(NamedTuple):
    """The file of a model, and what it says that the network predicts: epsilon where it is silent, as in diffusers."""

    path: Path
    prediction: str

    def correct(self, prediction: str) -> None:
        """Write the file with another prediction type and all other keys as they are, whole or not at all.

        Raises `InvalidInput` for what is not in `CORRECTED` and for a file that comes with fewstep.
        """
        one_of(KEY, prediction, CORRECTED)
        if Path(zoo.__file__).parent in self.path.resolve().parents:
            raise InvalidInput(f"{self.path} comes with fewstep: copy the model's folder, and correct the copy")
        config = {**read_json(self.path), KEY: prediction}
        write_whole(self.path, (json.dumps(config, indent=2) + "\n").encode())


def scheduler_file(source: str | os.PathLike[str]) -> SchedulerFile | None:
    """The file that a model in a folder has, or one network of it; None where the source is something else."""
    path = zoo.shipped_path(str(source)) if source in zoo.SHIPPED else Path(source)
    for folder in (path, path.parent):
        file = folder / "scheduler" / NAME
        if path.is_dir() and file.is_file():
            return SchedulerFile(file, str(read_json(file).get(KEY, "epsilon")))
    return None
