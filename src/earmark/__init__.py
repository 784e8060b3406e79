"""Earmark: the resource tracker for compute nodes.

    import earmark

    with earmark.open() as tracker, tracker.borrow(earmark.Request(vcpus=2, cpu_policy="dedicated")) as claim:
        print(claim.cpus)

Rules of this file: it only names what users of the library need; nothing is loaded before it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import os

    from earmark.core.model.grant import Grant
    from earmark.core.model.refusal import Refusal
    from earmark.core.model.request import Request
    from earmark.settings import Settings
    from earmark.tracker.tracker import Tracker

__version__ = "0.1.0.dev0"
__all__ = ["Grant", "Refusal", "Request", "Tracker", "open"]

HOMES = {
    "Grant": "earmark.core.model.grant",
    "Refusal": "earmark.core.model.refusal",
    "Request": "earmark.core.model.request",
    "Tracker": "earmark.tracker.tracker",
}


def open(  # noqa: A001 - earmark.open() is what it is called everywhere; the built-in is not used here
    path: str | os.PathLike[str] | None = None, *, private: bool = False, observe: bool = False, settings: Settings | None = None
) -> Tracker:
    """Open this machine's ledger (or the one at `path`) and return its tracker, a context manager.

    `private` lets a private ledger grant exclusive units although another ledger of the machine is announced; `observe` looks at the
    machine again. Raises an Invalid…, …Unavailable or LedgerBroken.
    """
    from earmark.wiring import open_tracker  # noqa: PLC0415 - the library's names cost nothing until they are used

    return open_tracker(path, private=private, observe=observe, settings=settings)


def __getattr__(name: str) -> Any:
    """Load one of the public names."""
    if name not in HOMES:
        raise AttributeError(f"module 'earmark' has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415 - only who asks for a name pays for it

    return getattr(import_module(HOMES[name]), name)
