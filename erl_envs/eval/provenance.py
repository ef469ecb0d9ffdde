"""Where a run was made: the machine, and the checkout of this package."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any


def hardware() -> dict[str, Any]:
    """Tell the machine: nothing of it decides an episode."""
    torch = sys.modules.get("torch")  # asked only where a policy has loaded it
    gpu = torch.cuda.get_device_name() if torch and torch.cuda.is_available() else None
    return {
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "gpu": gpu,
    }


def commit() -> str | None:
    """Tell the checkout's commit, None for an installed package."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    try:
        head = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "HEAD"],
            capture_output=True,
            encoding="utf-8",
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):  # no git, or no commit yet
        return None
    return head.stdout.strip()
