"""From a name or a path to the data set that lies there."""

from __future__ import annotations

import os
from pathlib import Path

from fewstep.core.errors import InvalidInput, unknown_name
from fewstep.data.arrays import Arrays
from fewstep.data.folder import Folder
from fewstep.data.scenes import Scenes
from fewstep.data.shards import Shards
from fewstep.data.source import Source
from fewstep.data.table import Table, is_table

OWN = ("digits", "scenes")
"""Names of the project's own data."""


def open_data(data: str | os.PathLike[str] | Source, kept: Path | None = None) -> Source:
    """The source of what a caller names.

    Args:
        data: "digits" or "scenes"; an .npz file; a parquet or arrow file, or a folder that `save_to_disk` of Hugging
            Face's datasets wrote or that holds such files; a .tar file of webdataset, or a folder of these; any other
            folder of pictures; or a source, which is taken as it is.
        kept: folder for what is worked out once, such as the table of shards.

    Raises:
        OSError: what is there cannot be read.
        InvalidInput: nothing is there, or it is none of these.
    """
    if not isinstance(data, str | os.PathLike):
        return data
    if data == "digits":
        return Arrays.digits()
    if data == "scenes":
        return Scenes()
    path = Path(data)
    if not path.exists():
        error = unknown_name("data", str(data), OWN)
        raise InvalidInput(f"{error}; or give the path of a folder, or of an .npz, .parquet, .arrow or .tar file")
    if path.suffix == ".npz":
        return Arrays.of(path)
    if is_table(path):
        return Table.of(path)
    if path.suffix == ".tar" or (path.is_dir() and any(path.glob("*.tar"))):
        return Shards.of(path, kept)
    if path.is_dir():
        return Folder.of(path)
    raise InvalidInput(
        f"{path} is not a data set that is read here: give a folder of pictures, or an .npz, .parquet, .arrow or .tar "
        "file"
    )
