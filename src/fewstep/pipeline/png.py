"""PNG files: written whole or not at all with one text in them, and that text read without touching the pixels.

A PNG is a signature and chunks of (length, type, content, checksum). Text is in tEXt chunks (plain), zTXt (deflated) or
iTXt (either, in UTF-8). Tools that rewrite pictures turn one into another, so all three are read; everything else
is skipped. What a file can make us read, or inflate, is bounded.
"""

from __future__ import annotations

import io
import os
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from fewstep.core.errors import InvalidInput
from fewstep.zoo.container import write_bytes

if TYPE_CHECKING:
    from PIL.Image import Image

KEYWORD = "fewstep"
TEXT_LIMIT = 2 << 20
"""Most bytes of the text, 2 MiB."""
CHUNK_LIMIT = 100_000
SIGNATURE = b"\x89PNG\r\n\x1a\n"


def save_png(image: Image, path: str | os.PathLike[str], text: str | None = None) -> Path:
    """Write a picture as PNG in one move, its folder made where missing. `text` is ASCII; it goes into the chunk."""
    target = png_path(path)
    content = png_bytes(image, text)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(target, content)
    except OSError as error:  # name the target, not the partial file beside it
        raise OSError(error.errno, f"cannot write the picture ({error.strerror})", str(target)) from error
    return target


def png_bytes(image: Image, text: str | None = None) -> bytes:
    """The content of a PNG of a picture. `text` is ASCII; it goes into the chunk."""
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    if text is not None:
        info.add_text(KEYWORD, text)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True, pnginfo=info)
    return buffer.getvalue()


def png_path(path: str | os.PathLike[str]) -> Path:
    """`path`, which has to be one that a PNG can have. Raises `InvalidInput` where it does not end in .png."""
    if Path(path).suffix.lower() != ".png":
        raise InvalidInput(f"pictures are written as PNG: give a path that ends in .png, got {os.fspath(path)!r}")
    return Path(path)


def read_text(path: str | os.PathLike[str]) -> str:
    """The text of a picture that `save_png` wrote.

    Raises:
        OSError: the file cannot be read.
        InvalidInput: it is no PNG, is damaged, or has no such text.
    """
    with Path(path).open("rb") as file:
        if file.read(len(SIGNATURE)) != SIGNATURE:
            raise InvalidInput(f"{path} is no PNG picture; give one that fewstep wrote")
        for _ in range(CHUNK_LIMIT):
            head = file.read(8)
            if len(head) < 8:
                break
            length, kind = int.from_bytes(head[:4], "big"), head[4:]
            if kind == b"IEND":
                break
            if kind not in (b"tEXt", b"zTXt", b"iTXt") or length > TEXT_LIMIT:
                file.seek(length + 4, os.SEEK_CUR)
                continue
            content = _content(file, path, kind, length)
            keyword, _, rest = content.partition(b"\0")
            if keyword == KEYWORD.encode():
                return _decoded(kind, rest, path)
    raise InvalidInput(
        f"{path} carries no recipe: fewstep did not write it, or another program dropped its text. Give the original"
    )


def _content(file: BinaryIO, path: str | os.PathLike[str], kind: bytes, length: int) -> bytes:
    content, checksum = file.read(length), file.read(4)
    if len(content) < length or len(checksum) < 4 or zlib.crc32(kind + content) != int.from_bytes(checksum, "big"):
        raise InvalidInput(f"{path} is damaged: the checksum of its {kind.decode()} chunk is wrong. Give the original")
    return content


def _decoded(kind: bytes, rest: bytes, path: str | os.PathLike[str]) -> str:
    deflated = kind == b"zTXt"
    if kind == b"iTXt":
        deflated = rest[:1] == b"\1"
        _language, _, rest = rest[2:].partition(b"\0")
        _translated, _, rest = rest.partition(b"\0")
    elif deflated:
        rest = rest[1:]
    try:
        if deflated:
            inflater = zlib.decompressobj()
            rest = inflater.decompress(rest, TEXT_LIMIT)
            if inflater.unconsumed_tail:
                raise InvalidInput(
                    f"the text of {path} inflates to more than {TEXT_LIMIT} bytes; fewstep wrote no such text"
                )
        return rest.decode("utf-8")
    except (zlib.error, UnicodeDecodeError) as error:
        raise InvalidInput(f"the text of {path} is damaged ({error}). Give the original") from error
