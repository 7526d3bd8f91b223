"""Writes docs/conformance.md: runs every sampler of the peer libraries against ours, and says which are equal."""

import sys
from pathlib import Path

from diffusers.utils import logging

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from conformance.hosted_report import section  # noqa: E402  (the tests are not an installed package)
from conformance.report import page, verdicts  # noqa: E402


def main() -> None:
    logging.set_verbosity_error()
    outcome = list(verdicts())
    wrong = [f"{v.peer.name} ({v.peer.precision}): {v.difference:.1e} {v.error}" for v in outcome if not v.ok]
    if wrong:
        sys.exit("docs/conformance.md was not written, these tables are not as they should be:\n" + "\n".join(wrong))
    (ROOT / "docs" / "conformance.md").write_text(page(outcome, section()), encoding="utf-8")


if __name__ == "__main__":
    main()
