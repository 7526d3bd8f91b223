"""Files that are written whole or not at all, and files that are read within bounds."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

ROOM = 1 << 20
"""Bytes that `check_writable` asks for unless the caller knows how many there will be."""
KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}
"""What is not read, by the type in its mode."""
_BLOCK = bytes(1 << 16)


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


def check_writable(path: str | os.PathLike[str], *, room: int = ROOM, parents: bool = False) -> None:
    """Raise what `write_whole` would raise for `room` bytes. Call it before long work whose result goes to `path`.

    With `parents`, folders that are missing are to be made later: the nearest one that is there is checked. Nothing is
    left behind.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    place = path.parent
    while parents and not os.path.lexists(place) and place != place.parent:
        place = place.parent
    if parents and place.exists() and not place.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(place))
    with _part(path, place / path.name) as part:
        with part.open("xb") as file:
            _fill(file, room)
        part.unlink()


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """A regular file, opened to be read. Pipes and devices have no end, or keep a reader waiting.

    Raises the errors of the system, and OSError for what is not a regular file; they name `path`.
    """
    name = os.fspath(path)
    if "\0" in name:  # which the system refuses as a ValueError
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
    _refuse_kind(os.stat(name).st_mode, name)
    # Should a pipe take its place meanwhile, opening it does not wait for a writer.
    handle = os.open(name, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        _refuse_kind(os.fstat(handle).st_mode, name)
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def read_bounded(path: str | os.PathLike[str], most: int) -> bytes:
    """The content of a regular file of at most `most` bytes.

    Raises as `open_regular`, and OSError with errno EFBIG for a longer file, of which nothing is read.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        # Some regular files, such as those of /proc, say 0 and hold more.
        content = b"" if size > most else file.read(size + 1)
        if len(content) > size:
            content += file.read(most + 1 - len(content))
        if size > most or len(content) > most:
            has = f"has {size:,} bytes" if size > most else "has more"
            raise OSError(errno.EFBIG, f"{has}; at most {most:,} bytes of such a file are read", os.fspath(path))
        return content


def _refuse_kind(mode: int, name: str) -> None:
    kind = stat.S_IFMT(mode)
    if kind == stat.S_IFDIR:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), name)
    if kind != stat.S_IFREG:
        raise OSError(errno.EINVAL, f"{KINDS.get(kind, 'something else')}, and only regular files are read", name)


def _fill(file: BinaryIO, room: int) -> None:
    """Take so much of the disk."""
    if hasattr(os, "posix_fallocate"):
        if room:
            os.posix_fallocate(file.fileno(), 0, room)
        return
    for _ in range(-(-room // len(_BLOCK))):
        file.write(_BLOCK)


@contextmanager
def _part(path: Path, beside: Path | None = None) -> Iterator[Path]:
    """A name beside `path`, where nothing is left after a failure; errors of the system name `path`."""
    beside = beside or path
    part = beside.with_name(f".{path.name}.{secrets.token_hex(6)}.part")
    try:
        yield part
    except BaseException as error:
        with suppress(OSError):
            part.unlink()
        if isinstance(error, OSError) and error.errno is not None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
