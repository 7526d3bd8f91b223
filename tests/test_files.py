"""Files appear whole or not at all."""

import os

import pytest

from fewstep.files import write_whole


def test_a_file_is_replaced_and_nothing_else_is_left(tmp_path):
    path = tmp_path / "a.bin"
    write_whole(path, b"old")
    write_whole(path, b"new")
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("stage", ["fsync", "replace"])
def test_what_was_there_survives_a_failure(tmp_path, monkeypatch, stage):
    path = tmp_path / "a.bin"
    write_whole(path, b"old")

    def broken(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, stage, broken)
    with pytest.raises(KeyboardInterrupt):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_a_missing_folder_is_the_systems_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_whole(tmp_path / "none" / "a.bin", b"")
