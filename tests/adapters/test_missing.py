"""Without its framework an adapter says so in one line; no framework is needed to run this."""

from __future__ import annotations

import subprocess
import sys

import pytest

ADAPTERS = [
    ("erl_envs.adapters.gem", "gem-llm 0.1"),
    ("erl_envs.adapters.openenv", "openenv 0.10"),
    ("erl_envs.adapters.rllm", "rllm 0.3"),
    ("erl_envs.adapters.skyrl", "skyrl-gym 0.4"),
    ("erl_envs.adapters.trl", "trl 1.16"),
    ("erl_envs.adapters.verifiers", "verifiers 0.4"),
    ("erl_envs.adapters.verl", "verl 0.9.1"),
    ("erl_trainer.trl", "trl 1.16"),
    ("erl_trainer.verl", "verl 0.9.1"),
]

BARE = """
import importlib, sys
from importlib import metadata

installed = metadata.version
def version(name):
    if name == {package!r}:
        raise metadata.PackageNotFoundError(name)
    return installed(name)
metadata.version = version
# the frameworks, and what comes with one and not with us
for name in ("gem", "openenv", "rllm", "skyrl_gym", "trl", "verifiers", "verl",
             "datasets", "fastapi", "hydra", "pydantic", "ray", "torch", "transformers"):
    sys.modules[name] = None
importlib.import_module({adapter!r})
"""


@pytest.mark.parametrize(("adapter", "needed"), ADAPTERS)
def test_a_missing_framework_is_named_in_one_line(adapter: str, needed: str) -> None:
    package, version = needed.split()
    program = BARE.format(package=package, adapter=adapter)
    ran = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        encoding="utf-8",
        timeout=300,
        check=False,
    )
    assert ran.returncode == 1
    assert ran.stderr.splitlines()[-1] == (
        f"ImportError: this adapter needs {needed} or newer: pip install '{package}>={version}'"
    )
