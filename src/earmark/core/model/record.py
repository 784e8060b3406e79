"""What a compute service may say of its instances, moves and guests; read strictly, believed only after it was compared.

Rules of this file: a record is a claim of somebody outside about what is so, never a command. Status words of moves are those of Nova 34
(db/main/api.py migration_get_in_progress, rule M10) and ours.
"""

from typing import Annotated, Literal

from msgspec import Meta

from earmark.core.model.claim import Moment
from earmark.core.model.guest import Guest
from earmark.core.model.instance import InstanceState, MoveKind
from earmark.core.model.value import Value

RECORD_BYTES_MAX = 1024 * 1024
RECORDS_MAX = 100_000
LISTED_MAX = 65_536

Word = Annotated[str, Meta(min_length=1, max_length=128)]
Generation = Annotated[int, Meta(ge=1, le=1 << 53)]

StatusWord = Literal[
    "accepted", "queued", "preparing", "running", "pre-migrating", "migrating", "post-migrating", "error",
    "finished", "confirming", "reverting",
    "confirmed", "completed", "done", "reverted", "failed", "cancelled", "aborted", "expired", "deleted",
]  # fmt: skip
BEGUN: frozenset[StatusWord] = frozenset(
    {"accepted", "queued", "preparing", "running", "pre-migrating", "migrating", "post-migrating", "error"}
)
"""Words for a move whose destination does not run yet; `error` is one: both legs are held until somebody ends the move (M10, S17)."""
FINISHED: frozenset[StatusWord] = frozenset({"finished", "confirming", "reverting"})
"""Words for a move that waits for its end."""


class InstanceRecord(Value, frozen=True, tag="instance", tag_field="record"):
    """An instance as its compute service knows it: by consumer id or uuid, whose, in what state, on which node.

    `generation` is that of its main claim there as the service knows it; None if it does not.
    """

    consumer: Word
    owner: Word
    state: InstanceState
    uuid: Word | None = None
    name: Word | None = None
    kind: Word | None = None
    task: Word | None = None
    node: Word | None = None
    generation: Generation | None = None


class MoveRecord(Value, frozen=True, tag="move", tag_field="record"):
    """A move as its compute service knows it. `updated_at_ms` is kept for messages and decides nothing (W14).

    The generations are those of the main legs as the service knows them.
    """

    move: Word
    consumer: Word
    status: StatusWord
    owner: Word | None = None
    kind: MoveKind | None = None
    source: Word | None = None
    destination: Word | None = None
    source_generation: Generation | None = None
    destination_generation: Generation | None = None
    updated_at_ms: Moment | None = None


class GuestRecord(Value, frozen=True, tag="guest", tag_field="record"):
    """A guest that was seen running on a node, whoever knows of it."""

    node: Word
    guest: Guest


class Listing(Value, frozen=True, tag="listing", tag_field="record"):
    """The instances that a compute service has on a node; `complete`: it has no others there.

    `at_ms` (since the epoch) is when it was read: what was claimed at that time or later is not missing in it.
    """

    node: Word
    consumers: Annotated[tuple[Word, ...], Meta(max_length=LISTED_MAX)]
    complete: bool = False
    at_ms: Moment | None = None


Record = InstanceRecord | MoveRecord | GuestRecord | Listing
