"""Files of prompts."""

from pathlib import Path

import pytest

from fewstep.core.errors import InvalidInput
from fewstep.pipeline import Item, PromptLine, read_prompts
from fewstep.pipeline.promptfile import FILE_LIMIT


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


def test_json_lines_say_more(tmp_path: Path) -> None:
    text = '{"prompt": "# x", "seed": 3, "guidance": 2}\n\n{"label": null, "negative": 1, "seed": [1, 0]}\n'
    lines = read_prompts(written(tmp_path, "p.jsonl", text))
    assert lines == [PromptLine("# x", None, (3,), 2.0), PromptLine(None, 1, (1, 0))]
    assert lines[0].items((7, 8), "blue", 5) == [Item("# x", 3, "blue", 2.0)]
    assert lines[1].items((7, 8), None, 5) == [Item(None, 1, 1, 5), Item(None, 0, 1, 5)]
    assert PromptLine("x").items((7, 8), None, None) == [Item("x", 7), Item("x", 8)]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("p.txt", "\n# only this\n", "holds no prompts"),
        ("p.txt", b"\xff\xfe", "no text in UTF-8"),
        ("p.txt", b"a" * (FILE_LIMIT + 1), "more than 64 MiB"),
        ("p.jsonl", "lion\n", "line 1 of .* is no JSON"),
        ("p.jsonl", "[" * 100_000, "is no JSON"),
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
        ("p.jsonl", '{"prompt": "x", "guidance": NaN}', "guidance has to be a finite number"),
        ("p.jsonl", '{"prompt": "x", "guidance": true}', "guidance has to be a finite number"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_line(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        read_prompts(written(tmp_path, name, text))
