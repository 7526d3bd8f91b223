"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def write_whole(path: str | os.PathLike[str], content: bytes) -> None:
    """Replace the file at `path` by `content` in one move: a reader, or a crash, sees the old file or the new one.

    Raises the errors of the system, such as FileNotFoundError where the folder does not exist; they name `path`.
    """
    with _part(Path(path)) as part:
        with part.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)


def check_writable(path: str | os.PathLike[str]) -> None:
    """Raise what `write_whole` would raise. Call it before long work whose result goes to `path`."""
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    with _part(path) as part:
        part.touch(exist_ok=False)
        part.unlink()


@contextmanager
def _part(path: Path) -> Iterator[Path]:
    """A name beside `path`, where nothing is left after a failure; errors of the system name `path`."""
    part = path.with_name(f".{path.name}.{secrets.token_hex(6)}.part")
    try:
        yield part
    except BaseException as error:
        with suppress(OSError):
            part.unlink()
        if isinstance(error, OSError) and error.errno is not None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
