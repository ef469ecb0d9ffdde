"""Says in one line that a framework is missing or too old."""

from __future__ import annotations

import re
from importlib import metadata


def require(package: str, oldest: str) -> None:
    """Check that a framework is installed in a version that its adapter was tested with.

    Args:
        package: Its name on the package index.
        oldest: The first release that fits, numbers and dots.

    Raises:
        ImportError: It is missing or older; one line with the version needed.
    """
    wanted = f"this adapter needs {package} {oldest} or newer: pip install '{package}>={oldest}'"
    try:
        found = metadata.version(package)
    except metadata.PackageNotFoundError as error:
        raise ImportError(wanted, name=package) from error
    if _numbers(found) < _numbers(oldest):
        raise ImportError(f"{wanted} (found {found})", name=package)


def _numbers(version: str) -> tuple[int, ...]:
    release = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in release[0].split(".")) if release else ()
