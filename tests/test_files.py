"""Files appear whole or not at all."""

import errno
import os
import resource
import socket

import pytest

from fewstep.files import check_writable, open_regular, read_bounded, write_whole


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


def test_a_folder_that_is_made_later_is_checked_where_there_is_one_now(tmp_path):
    check_writable(tmp_path / "a" / "b" / "c.bin", parents=True)
    assert os.listdir(tmp_path) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError) as raised:
        check_writable(tmp_path / "file" / "b" / "c.bin", parents=True)
    assert raised.value.filename == str(tmp_path / "file")  # which is in the way
    with pytest.raises(OSError, match="proc"):
        check_writable("/proc/none/c.bin", parents=True)


def test_a_disk_without_room_is_found_and_nothing_is_left(tmp_path, monkeypatch):
    asked = []

    def full(_handle, start, length):
        asked.append((start, length))
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left") as raised:
        check_writable(tmp_path / "a.bin", room=12_345)
    assert (asked, raised.value.filename) == ([(0, 12_345)], str(tmp_path / "a.bin"))
    assert os.listdir(tmp_path) == []


def test_room_is_asked_for_by_writing_where_the_system_has_no_other_way(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "posix_fallocate")
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    try:
        check_writable(tmp_path / "a.bin", room=50_000)
        with pytest.raises(OSError, match="too large"):
            check_writable(tmp_path / "a.bin", room=200_000)
    finally:
        unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (unlimited, unlimited))
    assert os.listdir(tmp_path) == []


def test_a_regular_file_is_read_up_to_a_bound(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"12345")
    assert read_bounded(path, 5) == b"12345"
    with open_regular(path) as file:
        assert file.read() == b"12345"
    with pytest.raises(OSError, match="has 5 bytes; at most 4 bytes") as raised:
        read_bounded(path, 4)
    assert (raised.value.errno, raised.value.filename) == (errno.EFBIG, str(path))


def test_a_file_that_says_no_length_is_read_up_to_the_bound_too():
    assert read_bounded("/proc/self/status", 1 << 20).startswith(b"Name:")
    with pytest.raises(OSError, match="has more; at most 10 bytes"):
        read_bounded("/proc/self/status", 10)


def test_only_regular_files_are_read_and_nobody_waits_for_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    os.symlink(tmp_path / "pipe", tmp_path / "link")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
    for path, what in [
        (tmp_path / "pipe", "a named pipe, and only regular files are read"),
        (tmp_path / "link", "a named pipe, and only regular files are read"),
        (tmp_path / "socket", "a socket, and only regular files are read"),
        ("/dev/zero", "a device, and only regular files are read"),
        (tmp_path, "Is a directory"),
        (tmp_path / "none", "No such file"),
        ("a\0b", "No such file"),
    ]:
        with pytest.raises(OSError, match=what) as raised:
            read_bounded(path, 1 << 20)
        assert raised.value.filename == str(path)
