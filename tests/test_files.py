"""Files appear whole or not at all."""

import os

import pytest

from fewstep.files import check_writable, write_whole


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


@pytest.mark.parametrize("attempt", [check_writable, lambda path: write_whole(path, b"")])
def test_a_missing_folder_is_the_systems_error_by_the_name_that_was_given(tmp_path, attempt):
    with pytest.raises(FileNotFoundError) as raised:
        attempt(tmp_path / "none" / "a.bin")
    assert raised.value.filename == str(tmp_path / "none" / "a.bin")
    with pytest.raises(IsADirectoryError) as raised:
        attempt(tmp_path)
    assert raised.value.filename == str(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError) as raised:
        attempt(tmp_path / "file" / "a.bin")
    assert raised.value.filename == str(tmp_path / "file" / "a.bin")


def test_checking_leaves_what_is_there(tmp_path):
    path = tmp_path / "a.bin"
    check_writable(path)
    assert os.listdir(tmp_path) == []
    write_whole(path, b"old")
    check_writable(path)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.bin"]
