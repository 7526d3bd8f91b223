"""Files of prompts."""

import json
import os
from pathlib import Path

import pytest

from fewstep.batch import Batch, Item, PromptLine, read_prompts, subjects
from fewstep.batch.prompts import FILE_LIMIT
from fewstep.core.errors import InvalidInput
from fewstep.pipeline import Pipeline


def written(tmp_path: Path, name: str, text: str | bytes) -> Path:
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_text_has_a_prompt_a_line(tmp_path: Path) -> None:
    text = "\ufeffa red circle\r\n\n  # a comment\n a {x} # 2 \nélan"
    assert read_prompts(written(tmp_path, "p.txt", text)) == [
        PromptLine("a red circle"),
        PromptLine("a {x} # 2"),
        PromptLine("élan"),
    ]


def test_json_lines_say_more(pipe: Pipeline, tmp_path: Path) -> None:
    text = '{"prompt": "# x", "seed": 3, "guidance": 2}\n\n{"label": null, "negative": 1, "seed": [1, 0]}\n'
    lines = read_prompts(written(tmp_path, "p.jsonl", text))
    assert lines == [PromptLine("# x", (3,), {"guidance": 2}), PromptLine(None, (1, 0), {"negative": 1})]
    batch = Batch.of(pipe, [*lines[1:], PromptLine(2)], (7, 8), {"negative": 0, "guidance": 5.0})
    assert batch.items == (Item(None, 1, 1, 0), Item(None, 1, 0, 0), Item(2, 0, 7, 0), Item(2, 0, 8, 0))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("p.txt", "\n# only this\n", "holds no prompts"),
        ("p.txt", b"\xff\xfe", "is not text in UTF-8"),
        ("p.txt", "a red circle\n".encode("utf-16"), "is not text in UTF-8"),
        ("p.txt", "a red circle\n".encode("utf-16-le"), "holds the character NUL, as text in UTF-16"),
        ("p.txt", "a red circle\n".encode("utf-16-be"), "save it as UTF-8"),
        ("p.txt", "a red circle\n".encode("utf-32-le"), "holds the character NUL"),
        ("p.jsonl", '{"prompt": "a\\u0000b"}', "line 1 of .* holds the character NUL"),
        ("p.jsonl", '{"prompt": "x", "negative": "\\u0000"}', "holds the character NUL"),
        ("p.jsonl", '{"prompt": "x", "seed": ' + "9" * 5000 + "}", "is not JSON"),
        ("p.txt", b"a" * (FILE_LIMIT + 1), "more than 64 MiB"),
        ("p.jsonl", "lion\n", "line 1 of .* is not JSON"),
        ("p.jsonl", "[" * 100_000, "is not JSON"),
        ("p.jsonl", '"lion"', "has to be an object"),
        ("p.jsonl", '\n{"promt": "x"}', "line 2 of .* 'promt': did you mean 'prompt'"),
        ("p.jsonl", '{"seed": 1}', "needs a prompt"),
        ("p.jsonl", '{"prompt": "x", "label": 1}', "not both"),
        ("p.jsonl", '{"prompt": 3}', "prompt has to be a text, got 3"),
        ("p.jsonl", '{"prompt": null}', "prompt has to be a text, got None"),
        ("p.jsonl", '{"label": true}', "label has to be a whole number"),
        ("p.jsonl", '{"prompt": "x", "negative": 3}', "negative has to be a text"),
        ("p.jsonl", '{"prompt": "x", "seed": -1}', "seed has to be"),
        ("p.jsonl", '{"prompt": "x", "seed": [1, 1]}', "different ones"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_line(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        read_prompts(written(tmp_path, name, text))


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ('"guidance": NaN', r"line 2 of .*guidance\.scale has to be a finite number, got nan"),
        ('"guidance": true', r"line 2 of .*guidance\.scale has to be"),
        ('"guidance": [1, "4"]', r"line 2 of .*guidance\.scale\.1 has to be a valid number, got '4'"),
        ('"sampler": "ddin"', "line 2 of .*did you mean 'ddim'"),
        ('"steps": "8"', "line 2 of .*steps has to be a valid integer, got '8'"),
        ('"steps": 2.0', "line 2 of .*steps has to be"),
        ('"preset": "bst"', "line 2 of .*did you mean 'best'"),
        ('"preset": ["best"]', "line 2 of .*unknown preset"),
        ('"height": 3', "line 2 of .*tiny makes only images of 4 x 4 pixels"),
        ('"estimate": {"clip": 1}', r"line 2 of .*estimate\.clip has to be"),
        ('"decode": 3', "line 2 of .*decode is a mapping of its fields"),
        ('"guidance": {"method": "apq"}', "line 2 of .*did you mean 'apg'"),
    ],
)
def test_what_a_line_cannot_ask_for_is_named_with_it(pipe: Pipeline, tmp_path: Path, said: str, message: str) -> None:
    lines = read_prompts(written(tmp_path, "p.jsonl", '{"label": 0}\n{"label": 1, ' + said + "}"))
    with pytest.raises(InvalidInput, match=message):
        Batch.of(pipe, lines)


def test_lines_that_say_the_same_in_other_words_are_drawn_in_one_way(pipe: Pipeline, tmp_path: Path) -> None:
    text = '{"label": 0}\n{"label": 1, "guidance": 2.0}\n{"label": 1, "guidance": {"scale": 2}, "negative": 0}'
    batch = Batch.of(pipe, read_prompts(written(tmp_path, "p.jsonl", text)), call={"guidance": 2.0, "negative": 2})
    assert (len(batch.orders), batch.driver) == (1, "eager")
    assert [item.negative for item in batch.items] == [2, 2, 0]


def test_a_newline_ends_a_line_and_nothing_else_does(tmp_path: Path) -> None:
    odd = "red\u2028blue\u2029a\x0bb\x0cc\x1cd\x1de\x1ef\x85g\rh"
    text = f"{odd}\na star\r\n"
    assert [line.subject for line in read_prompts(written(tmp_path, "p.txt", text))] == [odd, "a star"]
    as_json = json.dumps({"prompt": odd}, ensure_ascii=False) + "\n"
    assert [line.subject for line in read_prompts(written(tmp_path, "p.jsonl", as_json))] == [odd]


def test_commands_that_compare_take_the_different_prompts_alone(tmp_path: Path) -> None:
    text = "# a comment\na star\na circle\u2028or two\n\na star\n"
    assert subjects(written(tmp_path, "p.txt", text)) == ["a star", "a circle\u2028or two"]
    assert subjects(written(tmp_path, "p.jsonl", '{"prompt": "# 1"}\n{"prompt": "a star"}\n')) == ["# 1", "a star"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"prompt": "x", "seed": 1}', "line 2 of .* says seed too"),
        ('{"prompt": "x", "guidance": 3, "negative": "y"}', "line 2 of .* says guidance, negative too"),
        ('{"label": 1}', "line 2 of .* has a label"),
    ],
)
def test_they_refuse_a_line_that_says_more(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        subjects(written(tmp_path, "p.jsonl", '{"prompt": "a"}\n' + line))


def test_a_pipe_is_not_a_file_of_prompts(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "p.txt")
    for path in (tmp_path / "p.txt", Path("/dev/zero")):
        with pytest.raises(OSError, match="and only regular files are read"):
            read_prompts(path)
