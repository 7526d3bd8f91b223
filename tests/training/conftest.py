"""What two processes did, once for all tests of it."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that two processes of `training.shared` wrote."""
    from training.two import run_by_two

    folder = tmp_path_factory.mktemp("shared")
    run_by_two("training.shared", folder)
    return folder
