"""Every Python block of the pages runs as it stands, and prints what the page says that it prints.

The blocks of a page share one namespace, in order. A `text` block right after a Python block is its output.
"""

import contextlib
import io
import re
import socket
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks_of(text):
    """(line, code, output or None) of each Python block."""
    fences = list(FENCE.finditer(text))
    for i, fence in enumerate(fences):
        if fence[1] != "python":
            continue
        after = fences[i + 1] if i + 1 < len(fences) else None
        follows = after is not None and after[1] == "text" and not text[fence.end() : after.start()].strip()
        yield text.count("\n", 0, fence.start(2)), fence[2], after[2] if follows else None


def refuse(*_args):
    raise AssertionError("an example of the docs opens a connection")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_examples_of_a_page_run_and_print_what_it_says(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    names = {"__name__": f"docs.{page.stem}"}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for line, code, output in blocks_of(page.read_text(encoding="utf-8")):
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(compile("\n" * line + code, str(page), "exec"), names)  # a traceback shows the page's line
            if output is not None:
                assert printed.getvalue() == output, f"{page.name}, block at line {line}"


def test_a_block_is_found_with_the_output_that_stands_right_after_it():
    page = "# A\n\n```python\nprint(1)\n```\n\n```text\n1\n```\n\n```python\nx = 2\n```\nsaid\n```text\n3\n```\n"
    assert list(blocks_of(page)) == [(3, "print(1)\n", "1\n"), (11, "x = 2\n", None)]
