"""How soon a command draws: from its first instruction to the first network evaluation, in processes of its own.

    python benchmarks/start.py [--model scenes] [--repeats 7] [--json]

It is paired with a process that only imports the classes which the model's `model_index.json` names from torch,
diffusers and transformers: that time is not ours. The bars: the first evaluation comes at most 0.5 s after those
imports would have been done, and the first words within a second. Both processes run in turn, so that a busy
machine slows both down; the median of the differences counts. Processor seconds stand beside those of the clock.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from fewstep import zoo

LATE, SILENT = 0.5, 1.0
LIBRARIES = """
import json, os, sys, torch, diffusers, transformers
for library, name in json.load(open(sys.argv[1])).values():
    getattr({"diffusers": diffusers, "transformers": transformers}[library], name)
os._exit(0)
"""
EVALUATED = """
import os, sys, time, torch
real, network = torch.nn.Module.__call__, sys.argv.pop(1)
def call(self, *args, **kwargs):
    if type(self).__name__ == network:
        os.write(2, f"\\nEVALUATED {time.time()} {time.process_time()}\\n".encode())
        os._exit(0)
    return real(self, *args, **kwargs)
torch.nn.Module.__call__ = call
from fewstep.cli import main
main()
"""


def first_evaluation(network: str, words: list[str]) -> tuple[float, float, float]:
    """Seconds to the first words, to the first evaluation of a network's class, and its processor seconds."""
    began = time.time()
    with subprocess.Popen(
        [sys.executable, "-c", EVALUATED, network, *words], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    ) as run:
        assert run.stderr is not None
        spoke, said = None, ""
        for line in run.stderr:
            spoke = spoke or time.time()
            said += line
            if line.startswith("EVALUATED"):
                _, at, processor = line.split()
                return spoke - began, float(at) - began, float(processor)
    raise SystemExit(f"no {network} was evaluated by fewstep {' '.join(words)}: {said}")


def imports(index: Path) -> tuple[float, float]:
    """Seconds, and processor seconds, of importing the libraries' classes."""
    before, began = os.times(), time.time()
    subprocess.run([sys.executable, "-c", LIBRARIES, str(index)], check=True)
    after = os.times()
    children = after.children_user + after.children_system - before.children_user - before.children_system
    return time.time() - began, children


def classes(folder: Path) -> dict[str, list[str]]:
    """The parts of a folder that come from libraries."""
    entries = json.loads((folder / "model_index.json").read_text()).items()
    return {part: value for part, value in entries if isinstance(value, list) and all(value)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="scenes", help="scenes, or a folder in the format of diffusers")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    given = parser.parse_args()
    folder = zoo.shipped_path(given.model) if given.model in zoo.SHIPPED else Path(given.model)
    parts = classes(folder)
    network = (parts.get("unet") or parts["transformer"])[1]
    with tempfile.TemporaryDirectory() as scratch:
        index = Path(scratch, "parts.json")
        index.write_text(json.dumps(parts))
        words = ["generate", given.model, "a red circle", "--output", str(Path(scratch, "picture.png"))]
        imports(index), first_evaluation(network, words)  # the files are read from the disk once
        pairs = [(imports(index), first_evaluation(network, words)) for _ in range(given.repeats)]
    found = {
        "libraries_s": statistics.median(own[0] for own, _ in pairs),
        "first_words_s": statistics.median(ours[0] for _, ours in pairs),
        "first_evaluation_s": statistics.median(ours[1] for _, ours in pairs),
        "later_s": statistics.median(ours[1] - own[0] for own, ours in pairs),
        "later_processor_s": statistics.median(ours[2] - own[1] for own, ours in pairs),
    }
    if given.json:
        print(json.dumps(found, indent=1))
        return
    table = Table("what", "seconds", "bar")
    table.columns[1].justify = "right"
    bars = {"later_s": f"at most {LATE:g}", "first_words_s": f"at most {SILENT:g}"}
    for name, value in found.items():
        table.add_row(name.removesuffix("_s").replace("_", " "), f"{value:.2f}", bars.get(name, ""))
    Console().print(table)


if __name__ == "__main__":
    main()
