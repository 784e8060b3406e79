"""How the reasons of a no are worded, and what their `resource` may be.

Rules of this file: a `short` reason has short = asked - free, all in the pool's own unit; `free` is negative where more is used than
there is now (shrunk capacity). `resource` is a pool id (`vcpu`, `vcpu:0`, `memory`, `pages:0:2048`, `disk:root`, `class:CUSTOM_X`),
`cpu` (CPUs of one's own), `cells` of the host, `device:KIND`, `trait:NAME`, a unit, or a field of the request.
"""

from __future__ import annotations

from earmark.core.model.refusal import Reason, ReasonCode

CPU = "cpu"
"""The resource of reasons about dedicated CPUs."""


def short(resource: str, asked: int, free: int, *, cell: int | None = None, detail: str = "") -> Reason:
    """Return the reason that a pool, or a set of units, has less free than asked."""
    return Reason(code="short", resource=resource, asked=asked, free=free, short=asked - free, cell=cell, detail=detail)


def broken_rule(resource: str, asked: int, detail: str, *, cell: int | None = None, code: ReasonCode = "units_rule") -> Reason:
    """Return the reason that an amount breaks a rule which has nothing to do with what is free (C11, N14)."""
    return Reason(code=code, resource=resource, asked=asked, cell=cell, detail=detail)


def mismatch(resource: str, detail: str, *, asked: int = 0, found: int = 0, cell: int | None = None, unit: str | None = None) -> Reason:
    """Return the reason that a prescribed grant contradicts itself or is not what was requested (`free` is what it holds)."""
    return Reason(code="mismatch", resource=resource, asked=asked, free=found, cell=cell, unit=unit, detail=detail)


def about_unit(code: ReasonCode, unit: str, detail: str, *, cell: int | None = None) -> Reason:
    """Return the reason that a unit stands in the way of a prescribed grant: one is asked for, none is free."""
    return Reason(code=code, resource=unit, asked=1, free=0, short=1, cell=cell, unit=unit, detail=detail)
