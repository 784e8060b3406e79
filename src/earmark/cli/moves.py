"""`earmark move`: begin a move of an instance, end it, look at it, and carry one to another ledger."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from earmark.cli import life_lines, phrases
from earmark.cli.claim import EXIT_REFUSED, read_grant
from earmark.cli.life import duration, tell
from earmark.cli.output_lives import FreedOut, MoveOut
from earmark.cli.request_options import Asked, read_limited, request_options
from earmark.cli.session import Session
from earmark.cli.verb import VerbGroup
from earmark.cli.views import fit_out
from earmark.cli.views_lives import life_out, move_out
from earmark.core.model import ids
from earmark.core.model.grant import Grant
from earmark.core.model.refusal import Refusal
from earmark.core.model.request import Request
from earmark.errors import InvalidRequest, UnknownInstance

if TYPE_CHECKING:
    from earmark.core.ledger.life_commands import LifeAnswer
    from earmark.core.model.claim import Claim
    from earmark.core.model.instance import Move, MoveKind

F = TypeVar("F", bound=Callable[..., Any])

KINDS: dict[str, MoveKind] = {
    "resize": "resize", "migrate": "migration", "live-migrate": "live_migration", "evacuate": "evacuation",
}  # fmt: skip
"""How the kinds of move are called on the command line."""
STDIN = "-"


@click.group(cls=VerbGroup)
def move() -> None:
    """Begin, end and look at moves: resize, migrate, evacuate.

    A move has two legs, each a claim. Both are held until it ends: confirm ends the source leg; revert and abort end the destination leg. To say a
    thing twice, or late, is no error: the answer is what is true.
    """


def options_of_a_move(command: F) -> F:
    """Give a command the options that all beginnings of a move share."""
    for option in reversed((
        click.option("--to", metavar="NODE", help="The node to move to, by name or uuid; else the one it is on."),
        click.option("--grant", metavar="FILE", help="Exactly what the main claim is to be given there, as JSON (judged, not chosen)."),
        click.option("--pid", type=click.IntRange(1), metavar="PID", help="Bind the destination leg to a process."),
        click.option("--id", "move_id", metavar="m-…", help="The move's id; with it the command can be repeated safely."),
    )):  # fmt: skip
        command = option(command)
    return command


ttl_option = click.option("--ttl", metavar="TIME", help="The destination leg expires then, unless its process is seen alive: 10m.")


# --- beginning ----------------------------------------------------------------------------------------------------------------------


@move.command(
    examples=(
        "earmark move resize web --cpus 8 --mem 16GiB --disk 40GiB",
        "earmark move resize web --to n2 --cpus 8 --mem 16GiB --disk 40GiB --ttl 30m",
    )
)
@click.argument("consumer", metavar="CONSUMER")
@options_of_a_move
@request_options("shared", required=False, address=("ttl",))
@click.pass_obj
def resize(
    session: Session, *, consumer: str, asked: Asked, to: str | None, grant: str | None, pid: int | None, move_id: str | None
) -> int:  # fmt: skip
    """Give an instance another size, on its node or on another one.

    The options say all that it is to be: what is not asked for is not kept. On its own node CPUs, pages and amounts are claimed anew and
    both sizes are held until the move ends; a device that is asked for unchanged stays where it is.
    """
    if grant is None and asked.empty:
        raise InvalidRequest(f"a resize of {consumer!r} needs its new size: --cpus, --mem, --disk, …, --request FILE or --grant FILE")
    request = None if asked.empty else asked.request
    return begin(session, consumer, "resize", to=to, request=request, grant=grant, ttl_ms=asked.ttl_ms, pid=pid, move_id=move_id)


def beginning(name: str, examples: Sequence[str], help_text: str) -> None:
    """Add the command that begins a move which carries what there is."""

    @move.command(name=name, help=help_text, examples=tuple(examples))
    @click.argument("consumer", metavar="CONSUMER")
    @options_of_a_move
    @ttl_option
    @click.pass_obj
    def command(
        session: Session, *, consumer: str, to: str | None, grant: str | None, pid: int | None, move_id: str | None, ttl: str | None
    ) -> int:  # fmt: skip
        return begin(session, consumer, KINDS[name], to=to, request=None, grant=grant, ttl_ms=duration(ttl), pid=pid, move_id=move_id)


beginning(
    "migrate", ("earmark move migrate web --to n2",),
    "Move a stopped instance as it is to another node (cold migration).\n\nOn its own node only where the setting "
    "allow_migrate_to_same_host is on.",
)  # fmt: skip
beginning(
    "live-migrate", ("earmark move live-migrate web --to n2 --ttl 1h",),
    "Move a running instance as it is to another node.\n\nThe size of its pages stays the same; its devices must be of a kind that the "
    "setting live_migratable_kinds or the device policy of its node names.",
)  # fmt: skip
beginning(
    "evacuate", ("earmark move evacuate web --to n2", "earmark move came-back n1"),
    "Give an instance of a host that is down a place on another node.\n\nWhen the move is confirmed, what it held on the old node stays "
    "kept back there until 'earmark move came-back' says that its old guests are gone.",
)  # fmt: skip


def begin(
    session: Session, consumer: str, what: MoveKind, *, to: str | None, request: Request | None, grant: str | None, ttl_ms: int | None,
    pid: int | None, move_id: str | None,
) -> int:  # fmt: skip
    """Begin a move and print both its legs, or why it cannot be."""
    prescribed = read_prescribed(grant)
    tracker = session.tracker
    who = consumer_named(session, consumer)
    known = tracker.instance_or_none(ids.ConsumerId(who))
    let_due_end(session, known.move if known is not None else None)
    before = tracker.claims_of(who)
    result = tracker.open_move(
        consumer, what, to=to, request=request, grant=prescribed, ttl_ms=ttl_ms, holders=() if pid is None else (tracker.holder(pid),),
        move_id=move_id,
    )  # fmt: skip
    if isinstance(result, Refusal):
        return refused(session, result, f"{life_lines.kind(what)} of {phrases.name(consumer)}", request or main_request(before))
    begun(session, result)
    if request is not None and result.changed:
        less(session, request, main_request(before))
    return 0


def read_prescribed(grant: str | None) -> Grant | None:
    """Return the grant in a file, None for none; raises InvalidRecord."""
    return None if grant is None else read_grant(grant)


def main_request(claims: Sequence[Claim]) -> Request:
    """Return what a consumer's main claim asked for."""
    return next((claim.request for claim in claims if claim.purpose == "main"), Request())


def refused(session: Session, refusal: Refusal, what: str, request: Request) -> int:
    """Print a refused command about a life; returns the exit code."""
    if session.json:
        session.emit(fit_out(refusal, request, refusal.node or ""))
    else:
        session.refused(refusal, f"{what}: {phrases.request_words(request)}", err=True, request=request)
    return EXIT_REFUSED


def begun(session: Session, answer: LifeAnswer) -> None:
    """Print a move that has begun."""
    found = life_out(session, answer)
    if session.json:
        session.emit(found)
    elif found.move is not None and (session.quiet or not answer.changed):
        session.out(found.move.id if session.quiet else f"{found.move.id} {phrases.clean(answer.message)}")
    elif found.move is not None:
        show_move(session, found.move)


def less(session: Session, request: Request, was: Request) -> None:
    """Say which kinds of resource an instance had and the new size does not ask for."""
    gone = [
        name
        for name, old, new in (
            ("CPUs", was.vcpus, request.vcpus), ("memory", was.memory_bytes, request.memory_bytes), ("disk", was.disk_bytes, request.disk_bytes),
            ("devices", len(was.devices), len(request.devices)), ("resources", len(was.resources), len(request.resources)),
        )
        if old and not new
    ]  # fmt: skip
    if gone:
        session.note(f"earmark: the new size has no {', no '.join(gone)}: what is not asked for is not kept")


def show_move(session: Session, found: MoveOut) -> None:
    """Print a move's legs side by side, and what may be said of it next."""
    session.out(life_lines.move_page(found, session.now_ms))
    hint(session, found, ())


# --- ending -------------------------------------------------------------------------------------------------------------------------


def ending(name: str, help_text: str) -> None:
    """Add a command that steps a move on."""

    @move.command(name=name, help=help_text)
    @click.argument("which", metavar="MOVE|CONSUMER")
    @click.pass_obj
    def command(session: Session, *, which: str) -> int:
        found = session.tracker.find_move(named_move(session, which))
        step = {
            "finish": session.tracker.finish_move, "confirm": session.tracker.confirm_move, "revert": session.tracker.revert_move,
            "abort": session.tracker.abort_move,
        }[name]  # fmt: skip
        before = session.tracker.claims_of(found.consumer)
        return stepped(session, step(found.id), before)


ending("finish", "Say that the instance runs at the destination and waits for confirm or revert.\n\nBoth legs stay held, without an end.")
ending("confirm", "End a move at its destination: what it held at the source is freed.")
ending("revert", "End a move at its source: what was held at the destination is freed.")
ending("abort", "Give a move up: what was held at the destination is freed, the instance stays what it was.")


@move.command()
@click.argument("which", metavar="MOVE|CONSUMER")
@click.option("--leg", type=click.Choice(["source", "destination"]), required=True, help="The side that is over.")
@click.pass_obj
def drop(session: Session, *, which: str, leg: str) -> int:
    """End one side of a move, as a host says it that has cleaned up.

    Without its source leg a move is confirmed, without its destination leg it is reverted.
    """
    found = session.tracker.find_move(named_move(session, which))
    before = session.tracker.claims_of(found.consumer)
    return stepped(session, session.tracker.drop_move(found.id, leg), before)


def stepped(session: Session, answer: LifeAnswer, before: Sequence[Claim]) -> int:
    """Print what became of a move."""
    found = life_out(session, answer, before)
    if session.json:
        session.emit(found)
    elif not session.quiet:
        subject = f"{found.move.id} of {phrases.name(found.consumer)}" if found.move is not None else phrases.name(found.consumer)
        session.out(life_lines.step_lines(found, subject))
        if found.move is not None and answer.changed:
            hint(session, found.move, found.freed)
    return 0


def hint(session: Session, found: MoveOut, freed: Sequence[FreedOut]) -> None:
    """Say what may be said next: of an open move, or of an evacuation whose source is still kept back."""
    step = life_lines.next_step(found)
    kept = [each for each in freed if each.state == "draining"]
    if found.kind == "evacuation" and kept:
        step = f"when that host is back and its old guests are gone: earmark move came-back {phrases.name(kept[0].node_name)}"
    if step is not None:
        session.note(f"  {step}")


@move.command(name="came-back")
@click.argument("node", metavar="NODE")
@click.pass_obj
def came_back(session: Session, *, node: str) -> int:
    """Say that an evacuated host is up again and its old guests are gone.

    What the evacuated instances held on it is free from then on, not before.
    """
    answer = session.tracker.came_back(node)
    name = phrases.name(session.tracker.node(answer.node).name)
    if session.json or not answer.changed:
        tell(session, answer, what=f"node {name}: nothing was left there by an evacuation;")
    elif not session.quiet:
        session.out(f"node {name} is back; freed: {', '.join(answer.touched)}")
    return 0


# --- looking ------------------------------------------------------------------------------------------------------------------------


@move.command()
@click.argument("which", required=False, metavar="[MOVE|CONSUMER]")
@click.pass_obj
def status(session: Session, *, which: str | None) -> int:
    """Show both legs of a move side by side; without a name, of every open move."""
    if which is not None:
        named = session.tracker.find_move(named_move(session, which))
        let_due_end(session, named)
        one = move_out(session, session.tracker.find_move(named.id))
        if session.json:
            session.emit(one)
        else:
            show_move(session, one)
        return 0
    found = [move_out(session, each) for each in open_moves(session)]
    if session.json:
        session.emit(found)
    elif not found:
        session.note("no move is open")
    for one in [] if session.json else found:
        session.out(life_lines.move_page(one, session.now_ms))
    return 0


@move.command(name="list")
@click.option("--all", "everything", is_flag=True, help="Those that are over, too.")
@click.pass_obj
def list_moves(session: Session, *, everything: bool) -> int:
    """List open moves, oldest first."""
    now = open_moves(session)
    found = [move_out(session, each) for each in (session.tracker.moves(open_only=False) if everything else now)]
    if session.json:
        session.emit(found)
        return 0
    if not found:
        session.note("nothing was ever moved" if everything else "no move is open")
        return 0
    from earmark.cli import drawing  # noqa: PLC0415 - only where something is drawn

    sheet = drawing.sheet(colour=session.draws_colour, wide=True)
    rows = [life_lines.move_row(each, session.now_ms) for each in found]
    sheet.draw(drawing.table(["move", "instance", "kind", "from", "to", "status", "since"], rows, sheet.width))
    return 0


def let_due_end(session: Session, which: Move | None) -> None:
    """Let time and deaths take effect where an open move is: its destination leg may be due."""
    if which is not None and which.outcome is None:
        session.tracker.up_to_date([session.tracker.node(node) for node in which.nodes])


def open_moves(session: Session) -> tuple[Move, ...]:
    """Return the moves that are open now."""
    for each in session.tracker.moves():
        let_due_end(session, each)
    return session.tracker.moves()


def consumer_named(session: Session, text: str) -> str:
    """Return the consumer that a text names: by its id, or by the uuid or name of its instance."""
    who = ids.ConsumerId(ids.name(text, "consumer"))
    if session.tracker.instance_or_none(who) is not None or session.tracker.claims_of(who):
        return who  # found without looking at every instance
    try:
        return session.tracker.instance(text).consumer
    except UnknownInstance:
        return text


def named_move(session: Session, text: str) -> str:
    """Return a text that the tracker can find a move by: a move's id as it is, an instance's name or uuid as its consumer."""
    return text if text.startswith("m-") else consumer_named(session, text)


# --- between two ledgers ------------------------------------------------------------------------------------------------------------


@move.command(
    name="out",
    examples=(
        "TOKEN=$(earmark move out web --kind migration)",
        "earmark move out web --kind resize --cpus 8 --mem 16GiB",
    ),
)
@click.argument("consumer", metavar="CONSUMER")
@click.option(
    "--kind", "what", type=click.Choice(["resize", "migration", "live_migration", "evacuation"]), required=True, help="What it is."
)
@request_options("shared", required=False, address=())
@click.pass_obj
def move_to_another_ledger(session: Session, *, consumer: str, what: MoveKind, asked: Asked) -> int:
    """Begin a move to a host with a ledger of its own, and print its token.

    The token is given to 'earmark move in' there. The source leg never expires: confirm or revert it here when the other host has said how it went.
    """
    if what == "resize" and asked.empty:
        raise InvalidRequest(f"a resize of {consumer!r} needs its new size: --cpus, --mem, --disk, … or --request FILE")
    request = None if asked.empty else asked.request
    answer = session.tracker.move_out(consumer_named(session, consumer), what, request)
    found = life_out(session, answer)
    if session.json or found.move is None or found.move.token is None:
        session.emit(found)
        return 0
    session.out(found.move.token)
    state = "has begun" if answer.changed else "was begun already"
    session.note(f"earmark: {found.move.id} of {phrases.name(found.consumer)} {state}; there: earmark move in TOKEN")
    session.note(f"earmark: here, when it is over there: earmark move confirm {found.move.id}, or revert")
    return 0


@move.command(
    name="in", examples=("earmark move in earmark-move-1.… --ttl 1h", "ssh n1 earmark move out web --kind migration | earmark move in -")
)
@click.argument("token", metavar="TOKEN")
@click.option("--node", metavar="NODE", help="The node, by name or uuid; else this machine.")
@click.option("--grant", metavar="FILE", help="Exactly what the main claim is to be given, as JSON (judged, not chosen).")
@click.option("--pid", type=click.IntRange(1), metavar="PID", help="Bind the destination leg to a process.")
@ttl_option
@click.pass_obj
def move_from_another_ledger(
    session: Session, *, token: str, node: str | None, grant: str | None, pid: int | None, ttl: str | None
) -> int:  # fmt: skip
    """Hold the destination leg of a move that began in another ledger.

    TOKEN is what 'earmark move out' printed there; - reads it from standard input. Ended with confirm or revert here, too.
    """
    text = token if token != STDIN else read_limited(STDIN, "token").decode("ascii", "replace")
    tracker = session.tracker
    result = tracker.move_in(
        text, node=node, ttl_ms=duration(ttl), grant=read_prescribed(grant), holders=() if pid is None else (tracker.holder(pid),)
    )
    if isinstance(result, Refusal):
        from earmark.core.model.token import from_token  # noqa: PLC0415 - only a refusal says what was asked

        half = from_token(text)
        return refused(session, result, f"{life_lines.kind(half.kind)} of {phrases.name(half.consumer)}", half.requests[0])
    begun(session, result)
    return 0
