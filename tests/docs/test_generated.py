"""Pages that code writes are committed as it writes them."""

import runpy
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.mark.parametrize("name", ["samplers", "grids", "drawings", "cli"])
def test_the_committed_page_is_what_the_code_writes(name, monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS))
    script = runpy.run_path(str(DOCS / f"generate_{name}.py"))
    assert script["PAGE"] == DOCS / f"{name}.md"
    committed = script["PAGE"].read_text(encoding="utf-8")
    assert script["render"]() == committed, f"run: python docs/generate_{name}.py"
    assert script["render"]() == committed


def test_every_page_is_in_the_navigation():
    listed = (DOCS.parent / "mkdocs.yml").read_text(encoding="utf-8")
    assert [page.name for page in DOCS.glob("*.md") if page.name not in listed] == []


def test_the_front_page_links_to_every_other_page():
    front = (DOCS / "index.md").read_text(encoding="utf-8")
    others = {page.name for page in DOCS.glob("*.md")} - {"index.md"}
    assert [name for name in sorted(others) if f"]({name})" not in front] == []
