"""The ledger itself: init, audit, verify, backup, export, import, archive."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import click

from earmark.cli import phrases
from earmark.cli.output import AuditOut, FileOut, FindingOut, VerifyOut
from earmark.cli.session import Session
from earmark.cli.times import parse_time
from earmark.cli.verb import Verb
from earmark.cli.where import where_of
from earmark.core.model.finding import Finding
from earmark.core.model.units import counted
from earmark.errors import InvalidRecord, InvalidRequest, LedgerFull, UnsafePlace
from earmark.stores import place as places
from earmark.stores.lines import LINE_BYTES_MAX
from earmark.stores.transfer import export_lines, import_lines
from earmark.tracker.history import Replay

EXIT_FINDINGS = 1
ARCHIVE_AGE = "-30d"


@click.command(cls=Verb, examples=("sudo earmark init --system --group users", "earmark init --shared /srv/earmark --group lab"))
@click.option("--system", is_flag=True, help="Make and announce the machine's ledger; needs root.")
@click.option("--shared", metavar="DIR", help="Make a ledger in DIR for a group and announce it; needs no root.")
@click.option("--group", metavar="G", help="The group whose members may claim.")
@click.pass_obj
def init(session: Session, *, system: bool, shared: str | None, group: str | None) -> int:
    """Make a ledger for the machine or a group.

    Whoever can write the ledger's file can rewrite who holds what: it belongs to root or to a group, and to nobody else. Without options:
    make the ledger that would be used anyway, and say which one it is.
    """
    root = Path(session.settings.machine_root)
    if system and shared is not None:
        raise InvalidRequest("--system and --shared are two places: choose one", found=shared)
    if system:
        place = places.init_system(root, group)
    elif shared is not None:
        if group is None:
            raise InvalidRequest("--shared needs --group: whose members may claim", found=shared)
        place = places.init_shared(Path(shared), group, root)
    elif group is not None:
        raise InvalidRequest("--group belongs to --system or --shared", found=group)
    else:
        place = places.resolve(session.settings)
    session.use(str(place.path), where_of(place))
    state = session.tracker.node()
    message = f"ledger {place.path} of node {state.name}: {session.place.note}"
    if session.json:
        session.emit(FileOut(path=str(place.path), events=state.sequence, bytes=None, message=message))
    elif not session.quiet:
        session.out(phrases.clean(message))
    return 0


@click.command(cls=Verb)
@click.option("--errors-only", is_flag=True, help="Exit 1 on errors, not on warnings.")
@click.pass_obj
def audit(session: Session, *, errors_only: bool) -> int:
    """Hold the ledger against itself; exit 1 on findings.

    It compares and never repairs: no unit held twice, usage equal to the sum of the live claims, the store's guard rows equal to the
    states, one main claim per consumer.
    """
    findings = session.tracker.audit()
    errors = sum(one.severity == "error" for one in findings)
    if session.json:
        listed = [finding_out(one) for one in findings]
        session.emit(AuditOut(clean=not findings, errors=errors, warnings=len(findings) - errors, findings=listed))
    else:
        session.out(finding_lines(findings))
        if not findings and not session.quiet:
            states = session.states()
            claims = sum(len(state.claims) for state in states)
            session.out(f"clean: {counted(len(states), 'node')}, {counted(claims, 'live claim')}, no findings")
    return EXIT_FINDINGS if errors or (findings and not errors_only) else 0


@click.command(cls=Verb)
@click.pass_obj
def verify(session: Session) -> int:
    """Check the hash chain and replay every event.

    Exit code 1: something does not hold.
    """
    found = session.tracker.verify()
    events, streams = sum(found.events.values()), len(found.events)
    errors = [one for one in found.findings if one.severity == "error"]
    message = f"{counted(events, 'event')} in {counted(streams, 'stream')}: "
    message += counted(len(errors), "error") if errors else "every link holds, and replaying them gives the live state"
    if session.json:
        listed = [finding_out(one) for one in found.findings]
        session.emit(VerifyOut(clean=not errors, streams=streams, events=events, message=message, findings=listed))
    else:
        session.out(finding_lines(found.findings))
        if not session.quiet:
            session.out(message)
    return EXIT_FINDINGS if errors else 0


def finding_out(one: Finding) -> FindingOut:
    """Return a finding for JSON."""
    return FindingOut(code=one.code, severity=one.severity, detail=one.detail, node=one.node, claim=one.claim, unit=one.unit)


def finding_lines(findings: tuple[Finding, ...]) -> list[str]:
    """Return findings, a line each, errors first."""
    ordered = sorted(findings, key=lambda one: (one.severity != "error", one.node or "", one.code, one.detail))
    return [f"{one.severity}: {one.code}: {phrases.clean(one.detail)}" for one in ordered]


# --- files --------------------------------------------------------------------------------------------------------------------------


@click.command(cls=Verb)
@click.argument("file", metavar="FILE")
@click.pass_obj
def backup(session: Session, *, file: str) -> int:
    """Write a complete copy to a new file.

    The ledger may be in use meanwhile.
    """
    target = Path(file)
    if target.exists():
        raise InvalidRequest(f"backup to {file!r}: the file is there already", found=file)
    session.tracker.store.backup(target)
    size = target.stat().st_size
    _tell(session, FileOut(path=str(target), events=None, bytes=size, message=f"a complete copy, {phrases.amount('disk', size)}"))
    return 0


@click.command(cls=Verb)
@click.argument("file", required=False, default="-", metavar="[FILE]")
@click.option("--scrub", is_flag=True, help="Without names and other texts that identify anybody: a report, not a copy.")
@click.option("--archive", "archives", multiple=True, metavar="FILE", help="An archive file that completes a sealed stream.")
@click.pass_obj
def export(session: Session, *, file: str, scrub: bool, archives: tuple[str, ...]) -> int:
    """Write all events as JSON lines.

    To standard output, or to FILE, which must be new.
    """
    scrubbing = None
    if scrub:
        from earmark.redactor import Redactor  # noqa: PLC0415 - only a scrubbed export needs it
        from earmark.stores.identity import scrub_key  # noqa: PLC0415 - as above

        scrubbing = Redactor(scrub_key(places.resolve(session.settings))).envelope
    lines = export_lines(session.tracker.store, archives=[Path(each) for each in archives], scrub=scrubbing)
    if file == "-":
        count = sum(sys.stdout.buffer.write(line) > 0 for line in lines)
        sys.stdout.buffer.flush()
        return 0
    with new_file(Path(file), "export") as target:
        count = sum(target.write(line) > 0 for line in lines)
    _tell(session, FileOut(path=file, events=count - 2, bytes=Path(file).stat().st_size, message=counted(count - 2, "event")))
    return 0


@click.command(cls=Verb, name="import")
@click.argument("file", metavar="FILE")
@click.pass_obj
def import_events(session: Session, *, file: str) -> int:
    """Make a ledger from exported events.

    FILE is an export, - is standard input. The ledger (--ledger) must be empty; all events are taken, checked, or none.
    """
    from earmark.wiring import open_store  # noqa: PLC0415 - an import needs a store without a node in it

    with read_lines(file) as lines, open_store(session.settings) as store:
        count = import_lines(lines, store, check=Replay(), source=file)
        name = store.name
    message = f"{counted(count, 'event')}; if this is another machine: earmark node rehome --reason …"
    _tell(session, FileOut(path=name, events=count, bytes=None, message=message))
    return 0


@click.command(cls=Verb, context_settings={"ignore_unknown_options": True})
@click.argument("file", metavar="FILE")
@click.option("--before", default=ARCHIVE_AGE, show_default=True, metavar="TIME", help="Move what is older than this.")
@click.option("--node", metavar="NODE", help="The node, by name or uuid; else this machine.")
@click.pass_obj
def archive(session: Session, *, file: str, before: str, node: str | None) -> int:
    """Move old events to an archive file.

    The stream is sealed at a state that was verified; the file holds the events before it, unchanged, and ends with their last hash.
    """
    known = session.tracker.node(node)
    if Path(file).exists():
        raise InvalidRequest(f"archive to {file!r}: the file is there already", found=file)
    moved = session.tracker.archive(Path(file), known.node, before_ms=parse_time(before, session.clock.now_ms()))
    message = f"{counted(moved, 'event')} of node {phrases.name(known.name)} moved" if moved else "nothing is that old; no file was made"
    _tell(session, FileOut(path=file, events=moved, bytes=Path(file).stat().st_size if moved else None, message=message))
    return 0


def _tell(session: Session, made: FileOut) -> None:
    if session.json:
        session.emit(made)
    elif not session.quiet:
        session.out(f"{phrases.clean(made.path)}: {phrases.clean(made.message)}")


@contextmanager
def new_file(path: Path, what: str) -> Iterator[BinaryIO]:
    """Give a new file (0600) for a block, durable at its end and gone if the block fails; raises UnsafePlace or LedgerFull."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError as error:
        raise InvalidRequest(f"{what} to {str(path)!r}: the file is there already", found=str(path)) from error
    except OSError as error:
        raise UnsafePlace(f"{what} to {str(path)!r}: {error.strerror}", found=str(path)) from error
    done = False
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        done = True
    except OSError as error:
        raise LedgerFull(f"{what} to {str(path)!r}: {error.strerror}", found=str(path)) from error
    finally:
        if not done:
            path.unlink(missing_ok=True)


@contextmanager
def read_lines(source: str) -> Iterator[Iterator[bytes]]:
    """Give the lines of a file (`-`: standard input), each bounded; raises InvalidRecord if it cannot be read."""
    if source == "-":
        yield _bounded(sys.stdin.buffer, source)
        return
    try:
        file = Path(source).open("rb")  # noqa: SIM115 - entered by the with below; only opening is translated
    except OSError as error:
        raise InvalidRecord(f"import {source!r} cannot be read: {error.strerror}", source=source) from error
    with file:
        yield _bounded(file, source)


def _bounded(file: BinaryIO, source: str) -> Iterator[bytes]:
    while line := file.readline(LINE_BYTES_MAX + 1):
        if len(line) > LINE_BYTES_MAX:
            raise InvalidRecord(f"import {source!r}: a line is longer than {LINE_BYTES_MAX} bytes", source=source)
        yield line
