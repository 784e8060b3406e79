"""Instances and moves in lines for people, made from the shapes of `--json`.

Rules of this file: names from outside pass through `phrases.clean`; both legs of a move stand side by side.
"""

from __future__ import annotations

from earmark.cli import phrases
from earmark.cli.output_lives import FreedOut, InstanceOut, LegOut, LegPairOut, LifeOut, MoveOut
from earmark.cli.times import clock, until
from earmark.core.model.cpuset import format_cpu_list
from earmark.core.model.units import format_bytes

ENDED = ("confirmed", "reverted", "aborted", "expired", "deleted")
"""The statuses of a move that is over."""
LATE = ("was ", "has ", "is ")
"""How the message of an answer begins that changed nothing."""
MOVES_SHOWN_MAX = 10


def kind(text: str) -> str:
    """Return a kind or state as words: "live migration"."""
    return phrases.name(text.replace("_", " "))


def move_page(move: MoveOut, now_ms: int) -> list[str]:
    """Return everything about a move: what became of it, then its legs, source and destination side by side."""
    ended = "" if move.ended_at is None else f", over since {clock(move.ended_at.ms, now_ms)}"
    lines = [
        f"{move.id}  {kind(move.kind)} of {phrases.name(move.consumer)}: {move.status}, begun {clock(move.opened_at.ms, now_ms)}{ended}"
    ]
    for pair in move.legs:
        lines += _side_by_side(pair, now_ms)
    return lines


def _side_by_side(pair: LegPairOut, now_ms: int) -> list[str]:
    facts = _leg_facts if pair.purpose == "main" else _attached_facts
    heads = ("", "source", "destination") if pair.purpose == "main" else ("attached", "", "")
    labels = (heads[0], *(label for label, _ in facts(pair.source, now_ms)))
    left = (heads[1], *(text for _, text in facts(pair.source, now_ms)))
    right = (heads[2], *(text for _, text in facts(pair.destination, now_ms)))
    width = max(len(text) for text in left)
    return [f"  {label:<9} {one:<{width}}   {other}".rstrip() for label, one, other in zip(labels, left, right, strict=True)]


def _leg_facts(leg: LegOut, now_ms: int) -> list[tuple[str, str]]:
    """Return what there is to say of a leg, always the same rows."""
    there = leg.holds is not None
    return [
        ("node", phrases.name(leg.node_name) if leg.node_name is not None else "in another ledger"),
        ("claim", leg.claim or "-"),
        ("state", leg_state(leg, now_ms)),
        ("since", clock(leg.since.ms, now_ms) if leg.since is not None else "-"),
        ("CPUs", _cpu_words(leg) if there else "-"),
        ("memory", format_bytes(leg.memory_bytes or 0) if there else "-"),
        ("disk", format_bytes(leg.disk_bytes or 0) if there else "-"),
        ("devices", _device_words(leg) if there else "-"),
    ]


def _attached_facts(leg: LegOut, now_ms: int) -> list[tuple[str, str]]:
    """Return what there is to say of the leg of an attached claim."""
    return [
        ("claim", leg.claim or "-"),
        ("state", leg_state(leg, now_ms)),
        ("holds", phrases.clean(leg.holds) if leg.holds is not None else "-"),
    ]


def leg_state(leg: LegOut, now_ms: int) -> str:
    """Return the phase and end of a leg: "held, until 17:40 (2h)", "ended (moved)"."""
    if leg.claim is None:
        return "-"
    if leg.state in ("ended", "draining"):
        return f"{leg.state} ({leg.cause})" if leg.cause else leg.state
    return f"{leg.state}, {until(leg.until.ms if leg.until is not None else None, now_ms)}"


def _cpu_words(leg: LegOut) -> str:
    pinned = f" on cpu {format_cpu_list(leg.cpus)}" if leg.cpus else ""
    return f"{leg.vcpus or 0}{pinned}"


def _device_words(leg: LegOut) -> str:
    own = [phrases.clean(unit) for unit in leg.devices]
    passing = [f"{phrases.clean(unit)} (passes unchanged)" for unit in leg.passes]
    return ", ".join(own + passing) or "none"


def next_step(move: MoveOut) -> str | None:
    """Return what may be said of an open move now, None of one that is over."""
    if move.status == "preparing":
        return f"next: earmark move finish {move.id}, then confirm or revert; or confirm or abort it now"
    if move.status == "finished":
        return f"next: earmark move confirm {move.id}, or earmark move revert {move.id}"
    return None


def move_row(move: MoveOut, now_ms: int) -> list[str]:
    """Return a move as a row of a table: id, instance, kind, from, to, status, since."""
    pair = move.legs[0]
    places = [phrases.name(leg.node_name) if leg.node_name is not None else "(another ledger)" for leg in (pair.source, pair.destination)]
    at = move.ended_at or move.opened_at
    return [move.id, phrases.name(move.consumer), kind(move.kind), *places, move.status, clock(at.ms, now_ms)]


def step_lines(found: LifeOut, subject: str) -> list[str]:
    """Return what a command led to: the outcome in one line, then each claim that was freed."""
    if not found.changed:
        return [f"{subject} {phrases.clean(found.message) or 'was so already'}"]
    words = f": {phrases.clean(found.message)}" if found.message else ""
    return [f"{subject} {found.outcome}{words}", *freed_lines(found.freed)]


FREED = {
    "ended": "freed on {node}: {holds} ({claim})",
    "draining": "{claim} on {node} drains: it keeps {holds} until that is proven unused",
    "quarantined": "in quarantine on {node}: {holds} ({claim}); earmark return gives it back",
}


def freed_lines(freed: list[FreedOut]) -> list[str]:
    """Return what a command gave back, and what of it has to wait, a line each."""
    return [
        "  " + FREED[each.state].format(node=phrases.name(each.node_name), holds=phrases.clean(each.holds), claim=each.claim)
        for each in freed
    ]


def state_words(instance: InstanceOut) -> str:
    """Return an instance's state and what is being done to it: "active", "shelved offloaded (spawning)"."""
    return kind(instance.state) + (f" ({phrases.name(instance.task)})" if instance.task else "")


def instance_page(instance: InstanceOut, now_ms: int) -> list[str]:
    """Return everything about an instance, a line each."""
    labels = ", ".join(f"{phrases.name(key)}={phrases.name(value)}" for key, value in instance.labels.items())
    facts = [
        ("uuid", phrases.name(instance.uuid)),
        ("name", phrases.name(instance.name)),
        ("owner", phrases.name(instance.owner)),
        ("kind", phrases.name(instance.kind)),
        ("labels", labels),
        ("state", f"{state_words(instance)}, reported {clock(instance.reported_at.ms, now_ms)}"),
        ("created", phrases.moment(instance.created_at.ms)),
    ]
    lines = [phrases.name(instance.consumer)] + [f"  {label:<9} {text}" for label, text in facts if text]
    for number, claim in enumerate(instance.claims):
        leg = f", {claim.leg} leg of {claim.move}" if claim.leg is not None else ""
        end = f"draining ({claim.cause})" if claim.phase == "draining" else claim.phase
        what = f"{claim.purpose} on {phrases.name(claim.node_name)}: {phrases.clean(claim.holds)} · {end}{leg}"
        lines.append(f"  {'' if number else 'holds':<9} {claim.id}  {what}")
    if not instance.claims:
        lines.append(f"  {'holds':<9} nothing")
    if instance.move is not None:
        lines.append(f"  {'move':<9} {move_words(instance.move, now_ms)}: earmark move status {instance.move.id}")
    lines += [f"  {'moved':<9} {move_words(move, now_ms)}" for move in instance.moves[-MOVES_SHOWN_MAX:]]
    left_out = len(instance.moves) - MOVES_SHOWN_MAX
    return [*lines, f"  {'':<9} and {left_out} before: earmark move list --all"] if left_out > 0 else lines


def move_words(move: MoveOut, now_ms: int) -> str:
    """Return a move in one line: "m-12ab  resize n1 → n2, confirmed 14:02"."""
    move_id, _, what, source, destination, status, at = move_row(move, now_ms)
    return f"{move_id}  {what} {source} → {destination}, {status} {'since ' if move.ended_at is None else ''}{at}"
