"""Folders of pictures: classes by sub-folder, captions by metadata, and all that can be wrong with them."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import pytest

from data.pictures import colour, picture, write_folder
from fewstep import InvalidInput
from fewstep.data import Folder, Unreadable, open_data


def test_sub_folders_are_classes_by_their_sorted_names(tmp_path: Path) -> None:
    found = open_data(write_folder(tmp_path))
    assert (found.count, found.told, found.classes) == (6, "labels", 2)
    read = [found.read(number) for number in range(6)]
    assert [one.subject for one in read] == [0, 0, 0, 1, 1, 1]  # cats before dogs
    assert [colour(one.picture) for one in read] == [1, 3, 5, 0, 2, 4]


def test_captions_come_from_the_metadata(tmp_path: Path) -> None:
    found = open_data(write_folder(tmp_path, captions=True))
    assert (found.told, found.classes) == ("prompts", 0)
    assert [found.read(number).subject for number in range(6)] == [f"colour {number}" for number in range(6)]


def test_pictures_alone_say_nothing(tmp_path: Path) -> None:
    picture(3).save(tmp_path / "a.png")
    found = open_data(tmp_path)
    assert (found.told, found.read(0).subject) == ("nothing", None)


def test_other_names_sizes_or_captions_are_other_data(tmp_path: Path) -> None:
    def digest() -> str:
        return str(Folder.of(tmp_path).identity["digest"])

    write_folder(tmp_path, captions=True)
    found = [digest(), digest()]
    picture(3, (40, 40)).save(tmp_path / "3.png")
    found.append(digest())
    text = (tmp_path / "metadata.jsonl").read_text()
    (tmp_path / "metadata.jsonl").write_text(text.replace("colour 5", "colour five"))
    found.append(digest())
    assert found[0] == found[1]
    assert len(set(found)) == 3


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([{"file_name": "0.png", "text": "a"}], r"1 of 2 pictures in .* have no caption \(1.png\)"),
        ([{"file_name": "0.png", "text": " "}], "0.png has no caption"),
        ([{"file_name": "0.png"}], "0.png has no caption: give one as text, got None"),
        ([{"file_name": "9.png", "text": "a"}], r"line 1 of .* is of 9.png, and no such picture"),
        ([{"file_name": "0.png", "text": "a"}] * 2, r"line 2 of .* has a line already"),
        ([{"text": "a"}], "has to be an object with file_name and text"),
        (["nonsense"], "has to be an object"),
    ],
)
def test_metadata_that_do_not_fit_are_named(lines: list[object], message: str, tmp_path: Path) -> None:
    for number in range(2):
        picture(number).save(tmp_path / f"{number}.png")
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(InvalidInput, match=message):
        open_data(tmp_path)


def test_metadata_that_are_not_json_are_named(tmp_path: Path) -> None:
    picture(0).save(tmp_path / "0.png")
    (tmp_path / "metadata.jsonl").write_text("{")
    with pytest.raises(InvalidInput, match=r"line 1 of .* is not JSON"):
        open_data(tmp_path)


def test_pictures_beside_classes_and_of_other_kinds_are_named(tmp_path: Path) -> None:
    write_folder(tmp_path)
    picture(7).save(tmp_path / "lost.png")
    with pytest.raises(InvalidInput, match=r"holds 1 pictures beside the sub-folders of its classes \(lost.png\)"):
        open_data(tmp_path)
    (tmp_path / "lost.png").rename(tmp_path / "cats" / "lost.gif")
    with pytest.raises(InvalidInput, match=r"kinds that are not read \(cats/lost.gif\)"):
        open_data(tmp_path)


def test_a_folder_without_pictures_and_a_name_of_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="holds no pictures"):
        open_data(tmp_path)
    with pytest.raises(InvalidInput, match="did you mean 'scenes'"):
        open_data("scene")
    (tmp_path / "a.csv").write_text("a")
    with pytest.raises(InvalidInput, match="is not a data set that is read here"):
        open_data(tmp_path / "a.csv")


def test_a_damaged_picture_is_unreadable_and_a_bomb_is_refused_by_its_header(tmp_path: Path) -> None:
    write_folder(tmp_path)
    (tmp_path / "cats" / "1.png").write_bytes((tmp_path / "cats" / "1.png").read_bytes()[:45])
    picture(0, (30_000, 3), "L").save(tmp_path / "cats" / "3.png")
    whole = bytearray((tmp_path / "cats" / "3.png").read_bytes())
    whole[16:24] = (60_000).to_bytes(4, "big") * 2  # what its header says
    whole[29:33] = zlib.crc32(whole[12:29]).to_bytes(4, "big")
    (tmp_path / "cats" / "3.png").write_bytes(whole)
    found = open_data(tmp_path)
    with pytest.raises(Unreadable, match=r"1.png is damaged"):
        found.read(0)
    with pytest.raises(Unreadable, match=r"3.png has 60000 x 60000 pixels|3.png has more than 67,108,864 pixels"):
        found.read(1)
