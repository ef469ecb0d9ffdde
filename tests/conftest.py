"""What every test shares: an environment that says nothing of the machine or its user."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
OF_THE_MACHINE = (
    *PROXIES,
    *map(str.lower, PROXIES),
    *("OPENAI_API_KEY", "OPENAI_BASE_URL", "ERL_ENVS_CONTACT"),  # the user's servers and names
    *("COLUMNS", "LINES", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"),  # the terminal
    *("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"),  # set where a git hook runs the tests
    *("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "RAY_ADDRESS"),  # launchers
)
for name in OF_THE_MACHINE:  # before any test module reads one
    os.environ.pop(name, None)


@pytest.fixture(autouse=True, scope="session")
def cache_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    os.environ.pop("PYTHONWARNDEFAULTENCODING", None)  # for this process, not for its children
    before = os.environ.get("ERL_ENVS_CACHE")
    os.environ["ERL_ENVS_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["ERL_ENVS_CACHE"]
    else:
        os.environ["ERL_ENVS_CACHE"] = before
