"""What `fewstep tune` does with a plan that it found, of a model or of a student: file, certificate and words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from fewstep.cli.output import note, show_json


def watching(bar: Callable[..., None]) -> Callable[[str, int, int, str], None]:
    """Moves the bar, and gives each stage as a line."""
    last = ""

    def watch(stage: str, done: int, of: int, words: str) -> None:
        nonlocal last
        line = f"{stage} .." if stage != last else ""
        bar(done, of=of, words=f"{stage}: {words}" if words else stage, line=line)
        last = stage

    return watch


def certificate_of(plan: Path) -> tuple[Path, Path]:
    """Where the certificate of a plan lies, as JSON and as a page."""
    file = plan.with_name(f"{plan.stem}.certificate.json")
    return file, file.with_suffix(".html")


def deliver(ctx: click.Context, certificate: Any, target: Path, as_json: bool, show: Callable[[Any], None]) -> None:
    """Write the certificate beside its plan and print it by `show`; None is one that an interrupt left out."""
    if certificate is None:
        for file in certificate_of(target):  # of an earlier plan
            file.unlink(missing_ok=True)
        show_json({"path": str(target), "certificate": []}) if as_json else click.echo(target)
        note("interrupted: the best plan so far is kept, without a certificate")
        ctx.exit(130)
    paths = certificate.save(certificate_of(target)[0])
    if as_json:
        show_json({"path": str(target), "certificate": [str(p) for p in paths], **certificate.to_json()})
        return
    show(certificate)
    click.echo()
    click.echo(target)
    note(f"certificate: {paths[1]}")
