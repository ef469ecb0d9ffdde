"""Python imports this as it starts, if its folder is on PYTHONPATH: it ends a process at a moment.

The moments are the calls that change names in a folder, `FAULT_UNDER`: they are told, a line each,
in the file FAULT_LOG, or the call of number FAULT_AT ("7 before", "7 after") ends its process as a
power cut would. Every process counts its own.
"""

from __future__ import annotations

import itertools
import os
import signal
from typing import Any

CALLS = ("mkdir", "rename", "replace", "rmdir", "truncate", "unlink")


def _watch(under: str, log: str | None, at: str | None) -> None:
    number, count = (at or "").split(" "), itertools.count()

    def watched(name: str, call: Any) -> Any:
        def instead(path: Any, *args: Any, **kwargs: Any) -> Any:
            # of two names the last one is the new one's; a bare name is one of a folder's content
            paths = [str(word) for word in (path, *args) if isinstance(word, str | os.PathLike)]
            if not any(word.startswith(under) for word in paths):
                return call(path, *args, **kwargs)
            mine = str(next(count))
            if log:
                with open(log, "a", encoding="utf-8") as file:
                    file.write(f"{os.getpid()} {mine} {name} {paths[-1]}\n")
            if number[0] == mine and number[1] == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            try:
                return call(path, *args, **kwargs)
            finally:
                if number[0] == mine:
                    os.kill(os.getpid(), signal.SIGKILL)

        return instead

    for name in CALLS:
        setattr(os, name, watched(name, getattr(os, name)))


if os.environ.get("FAULT_UNDER"):
    _watch(os.environ["FAULT_UNDER"], os.environ.get("FAULT_LOG"), os.environ.get("FAULT_AT"))
