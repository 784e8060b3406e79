"""The base of every noun: a frozen, strictly decoded struct."""

from __future__ import annotations

import msgspec


class Value(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """A value: never changed after it is made, equal by content, decoded strictly (unknown keys are errors)."""
