"""Who each letter of the picture is, what the marks mean, and what else there is to say of the node."""

from __future__ import annotations

from collections.abc import Iterator

from rich.cells import cell_len
from rich.text import Text

from earmark.cli import drawing, phrases
from earmark.cli.drawing import DIM, MARK_STYLES
from earmark.cli.map_stocks import Easel
from earmark.cli.output import UnitState
from earmark.cli.phrases import clean, what_is_held
from earmark.cli.times import until
from earmark.core.model.claim import Claim
from earmark.core.model.cpuset import format_cpu_list
from earmark.core.model.units import counted

LEGEND_ROWS_MAX = 52
NOTES_MAX = 5
MEANINGS: dict[UnitState, str] = {
    "free": "free", "reserved": "kept for the host", "unusable": "not allowed to this process", "cordoned": "cordoned",
    "quarantined": "quarantined", "missing": "missing", "foreign": "in use by others", "faulty": "faulty",
}  # fmt: skip


def legend(easel: Easel) -> Iterator[Text]:
    """Yield who each letter is, until when, and what the marks mean that were used."""
    rows: list[list[str | Text]] = []
    for claim in easel.picture.claims[:LEGEND_ROWS_MAX]:
        holds = Text(what_is_held(claim.grant))
        rows.append(
            [
                _letter(easel, claim.id),
                claim.id,
                *_whose(easel, phrases.consumer_of(claim.consumer, claim.id), claim.owner),
                _end(claim, easel.now_ms),
                holds,
            ]
        )
    for each in easel.picture.quarantines[: LEGEND_ROWS_MAX - len(rows)]:
        mark = Text(easel.glyphs.marks["quarantined"], MARK_STYLES["quarantined"])
        rows.append(
            [
                mark,
                each.claim,
                *_whose(easel, phrases.consumer_of(each.consumer, each.claim), each.owner),
                "quarantined",
                Text(what_is_held(each.grant)),
            ]
        )
    if not rows:
        yield Text(" nothing is held yet", DIM)
    for line in drawing.table(["", "claim", "consumer", "owner", "until", "holds"], rows, easel.width - 1) if rows else []:
        yield Text(" ").append_text(line)
    more = len(easel.picture.claims) + len(easel.picture.quarantines) - len(rows)
    if more > 0:
        yield Text(f" {drawing.OTHERS} {counted(more, 'more claim')}: earmark list", DIM)
    yield from _meanings(easel)


def _whose(easel: Easel, consumer: str, owner: str) -> tuple[str, str]:
    return clean(consumer, easel.width // 5), clean(owner, easel.width // 8)


def _end(claim: Claim, now_ms: int) -> str:
    if claim.phase == "draining":
        return "draining"
    end = until(claim.deadline_ms, now_ms).removeprefix("until ")
    shown = f"held, {end}" if claim.phase == "held" else end
    return " · ".join(part for part in (shown, phrases.leg(claim)) if part)


def _letter(easel: Easel, claim: str) -> Text:
    found = next((known for known in easel.key.letters if known == claim), None)
    return Text(easel.key.letter(found), easel.key.style(found))


def _meanings(easel: Easel) -> Iterator[Text]:
    """Yield one line that says what the marks mean; free explains itself."""
    tiles = [*easel.picture.cpus.values(), *(each.tile for each in easel.picture.devices)]
    used = {tile.state for tile in tiles} - {"free", "taken"}
    parts = [
        Text().append(easel.glyphs.marks[state], MARK_STYLES[state]).append(f" {words}", DIM)
        for state, words in MEANINGS.items()
        if state in used
    ]
    if parts:
        yield from drawing.wrapped(parts, easel.width, 1, Text(" "))


def remarks(easel: Easel) -> Iterator[Text]:
    """Yield cordons, missing units, what the driver could not see, and the first step where nothing is held."""
    state = easel.picture.state
    for key in sorted(state.cordons):
        cordon = state.cordons[key]
        end = "" if cordon.until_ms is None else f", {until(cordon.until_ms, easel.now_ms)}"
        what = clean(cordon.unit) if cordon.unit else "the node gives no new grants"
        yield from _marked(easel, "cordoned", f"{what}: {clean(cordon.reason, 200)}{end}")
    for each in easel.picture.quarantines:
        yield from _marked(
            easel, "quarantined", f"{each.claim}: {clean(each.reason, 200)}; give it back: earmark return {each.claim} --reason …"
        )
    for unit, claim in easel.picture.missing:
        yield from _marked(easel, "missing", f"{clean(unit)} is held by {claim} and the machine no longer has it")
    machine = state.machine
    if machine is None:
        return
    if machine.offline_cpus:
        yield Text(f" offline: cpu {format_cpu_list(machine.offline_cpus)}", DIM)
    shared = 0 if state.layout is None else state.layout.shared
    isolated = [cpu.id for cpu in machine.cpus if cpu.isolated and shared >> cpu.id & 1]
    if isolated:
        kept = f"cpu {format_cpu_list(isolated)} are isolated by the kernel: shared vCPUs are not spread over them; keep them for dedicated use"
        yield from _words(easel, Text(" note:", DIM), f"{kept} with earmark node set cpu_policy=split", DIM)
    for note in machine.notes[:NOTES_MAX]:
        yield from _words(easel, Text(" note:", DIM), clean(note, 300), DIM)
    if len(machine.notes) > NOTES_MAX:
        yield Text(f" and {counted(len(machine.notes) - NOTES_MAX, 'more note')}: earmark discover", DIM)
    if not easel.picture.claims:
        yield Text(" take some:    earmark claim --cpus 1 --mem 512MiB", DIM)
        yield Text(" run in some:  earmark run --cpus 1 -- COMMAND", DIM)


def _marked(easel: Easel, state: UnitState, text: str) -> Iterator[Text]:
    yield from _words(easel, Text(" ").append(easel.glyphs.marks[state], MARK_STYLES[state]), text, "")


def _words(easel: Easel, first: Text, text: str, style: str) -> Iterator[Text]:
    """Yield a text broken at its spaces, behind `first`."""
    yield from drawing.wrapped([Text(word, style) for word in text.split(" ")], easel.width, cell_len(first.plain) + 1, first, gap=" ")
