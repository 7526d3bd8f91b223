"""Stub."""

from fewstep.files import write_whole


def write_page(folder):
    write_whole(folder.page, b"")
