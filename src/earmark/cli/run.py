"""`earmark run`: claim, confine, start; give back when all of it has ended.

The order is what makes it safe: the child is forked first and waits at a gate; the claim is held in the runner's name; the child is confined; the
claim is confirmed with runner and child as its holders; only then does the gate open. Whatever fails before that is rolled back, and the
child ends without having run. After that the claim lives as long as anything of the command does, whatever becomes of the runner.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import click
import msgspec

from earmark.cli import phrases
from earmark.cli.claim import EXIT_REFUSED, PRIVATE, refused
from earmark.cli.output import Out, When
from earmark.cli.request_options import Asked, request_options
from earmark.cli.session import Session, encode
from earmark.cli.times import until
from earmark.cli.verb import Verb
from earmark.cli.views import maybe
from earmark.core.ledger.commands import Answer
from earmark.core.model.claim import Claim, Holder
from earmark.core.model.cpuset import format_cpu_list
from earmark.core.model.refusal import Refusal
from earmark.core.model.units import parse_duration_ms
from earmark.errors import Conflict, EarmarkError, InvalidRequest, LedgerBroken
from earmark.launch.child import Ended, GatedChild
from earmark.launch.confine import Confinement, confine
from earmark.launch.formats import notes_on, run_environment
from earmark.launch.portion import Portion, portion_of

if TYPE_CHECKING:
    from earmark.tracker.tracker import Tracker

FOR_EVER = "for ever"


class RunOut(Out, frozen=True):
    """What `run --json` says on standard error before the command starts. `confined` is how CPUs are, `notes` what was not obtained."""

    claim: str
    node: str
    pid: int
    holds: str
    cpus: list[int]
    exclusive: bool
    confined: str
    cgroup: str | None
    memory_limit_bytes: int | None
    until: When | None
    environment: dict[str, str]
    notes: list[str]


@click.command(cls=Verb, context_settings={"allow_interspersed_args": False})
@request_options("dedicated")
@click.option("--wait", is_flag=False, flag_value=FOR_EVER, metavar="[=TIME]", help="Wait in line until it fits, at most TIME: --wait=10m.")
@click.option("--skip-ahead", is_flag=True, help="With --wait: start before the head of the line if that one starts no later for it.")
@click.option("--private", is_flag=True, help="Grant from a private ledger although the machine has another.")
@click.option("--observe", is_flag=True, help="Look at the machine again first.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.pass_obj
def run(
    session: Session, *, asked: Asked, wait: str | None, skip_ahead: bool, private: bool, observe: bool, command: tuple[str, ...]
) -> int:
    r"""Run a command confined to what it claims; its exit status is returned.

    The claim ends with the command and all that it started. Said on standard error: the claim, and what confinement could be had. It sees
    the GPUs of its claim and no others.

    \b
    earmark run --cpus 4 --mem 8GiB -- make -j4
    earmark run --gpus 1 --wait=2h -- python train.py
    """
    timeout_s = patience(wait, skip_ahead=skip_ahead)
    session.private, session.observe = private, observe
    with GatedChild(command) as child:  # before the ledger is opened: what forks has no ledger and no thread
        launch = Launch(session, asked, child)
        found = launch.obtain(wait is not None, timeout_s, skip_ahead=skip_ahead)
        if isinstance(found, Refusal):
            refused(session, found, asked)
            return EXIT_REFUSED
        ended = launch.start(found)
        launch.finish(found, ended)
    if ended.problem is not None:
        click.echo(f"earmark: {phrases.clean(ended.problem)}", err=True)
    return ended.status


class Launch:
    """One run: the claim of a gated child, from hold to release."""

    def __init__(self, session: Session, asked: Asked, child: GatedChild) -> None:
        self.session = session
        self.asked = asked
        self.child = child
        self.tracker: Tracker = session.tracker
        if asked.node is not None and self.tracker.node(asked.node).node != self.tracker.home:
            raise InvalidRequest(f"a command runs on this machine, not on node {asked.node!r}", found=asked.node)
        from earmark.tracker.fresh import new_claim  # noqa: PLC0415 - with the tracker, which the session imports late

        self.claim_id = new_claim()
        self.confinement: Confinement | None = None
        self.bound: tuple[Holder, ...] = ()

    def obtain(self, waits: bool, timeout_s: float | None, *, skip_ahead: bool) -> Claim | Refusal:
        """Hold the claim in this process's name, in turn if it waits; rolled back if anything interrupts."""
        with self._rolled_back():
            if waits:
                from earmark.cli.waiting import Patience, hold_in_turn  # noqa: PLC0415 - only for those who wait

                answer = hold_in_turn(
                    self.tracker, self.asked.request, self._hold, Patience(timeout_s, skip_ahead), owner=self.asked.owner,
                    ttl_ms=self.asked.ttl_ms, tell=self._tell_turn,
                )  # fmt: skip
            else:
                answer = self._hold()
            return answer if isinstance(answer, Refusal) else live(answer)

    def _hold(self) -> Answer | Refusal:
        asked = self.asked
        return self.tracker.hold(
            asked.request, consumer=asked.consumer, owner=asked.owner, claim_id=self.claim_id, holders=(self._runner(),)
        )

    def start(self, claim: Claim) -> Ended:
        """Confine the child, confirm the claim with both as its holders, open the gate, and wait for the command's end."""
        with self._rolled_back():
            portion = portion_of(claim, self.tracker.node(claim.node))
            limit = portion.memory_bytes or None
            self.confinement = confine(claim.id, portion.cpus, memory_cells=portion.memory_cells, memory_limit_bytes=limit)
            self.confinement.add(self.child.pid)
            self.bound = (self._runner(), self._child())
            answer = self.tracker.confirm(claim.id, ttl_ms=self.asked.ttl_ms, holders=self.bound)
            self._say(live(answer), portion, self.confinement)
            self.child.open_gate(run_environment(portion), groups=self.confinement.groups)
        return self.child.wait()

    def finish(self, claim: Claim, ended: Ended) -> None:
        """Release the claim; what the command has left behind keeps it, draining, until that is gone."""
        if not ended.left and self.confinement is not None:
            self.confinement.remove()
        try:
            if not ended.left and not self.tracker.gone(self.bound[1:]):
                self._vouch(claim)
            answer = self.tracker.release(claim.id)
        except EarmarkError as error:  # the command's exit status counts more: the lease ends the claim, as after kill -9
            self.session.note(f"earmark: {claim.id} could not be released ({phrases.clean(error.message)}); its lease will end it")
            return
        if answer.outcome == "draining":
            self.session.note(f"earmark: {claim.id} drains: the command has left processes behind; its resources stay taken until they end")

    # --- steps ----------------------------------------------------------------------------------------------------------------------

    @contextmanager
    def _rolled_back(self) -> Iterator[None]:
        """Undo everything if the block is left by an exception: the child ends unstarted, its group goes, the claim is given up."""
        from earmark.tracker.held import roll_back  # noqa: PLC0415 - with the tracker, which the session imports late

        try:
            yield
        except BaseException as first:
            self.child.close()
            if self.confinement is not None:
                self.confinement.remove()
            roll_back(self.tracker, self.claim_id, first)
            raise

    def _runner(self) -> Holder:
        return msgspec.structs.replace(self.tracker.holder(os.getpid()), role="runner")

    def _child(self) -> Holder:
        """The child's identity and what proves that nothing of it is left: its cgroup, else its session (in which the keeper stays)."""
        cgroup = self.confinement.cgroup if self.confinement is not None else None
        session = self.child.session if cgroup is None else None
        return msgspec.structs.replace(self.tracker.holder(self.child.pid), role="child", cgroup=cgroup, session=session)

    def _vouch(self, claim: Claim) -> None:
        """Say that the child is gone with all it started: its keeper has reaped every one of them, though /proc may not show it (hidepid)."""
        with suppress(Conflict):  # it drains already, and ends by proof
            self.tracker.bind(claim.id, self.bound[:1])

    def _tell_turn(self, ahead: int) -> None:
        self.session.note("earmark: waiting until it fits" + (f", {ahead} ahead in line" if ahead else ""))

    def _say(self, claim: Claim, portion: Portion, made: Confinement) -> None:
        """Say on standard error what was obtained."""
        if self.session.json:
            click.echo(encode(run_out(claim, portion, made, self.child.pid)), err=True)
            return
        held, place = phrases.what_is_held(claim.grant), phrases.where(claim.grant)
        held += f" ({place})" if place and " on cell " not in held else ""
        parts = [held, made.summary(), f"pid {self.child.pid}"]
        if not portion.exclusive and portion.cpus:
            parts.insert(1, f"on shared CPUs {format_cpu_list(portion.cpus)}")
        if claim.deadline_ms is not None:
            parts.append(until(claim.deadline_ms, self.session.now_ms))
        self.session.note(f"earmark: {claim.id}  " + " · ".join(parts))
        for line in notes_on(portion):
            if portion.devices:
                self.session.note(f"earmark: {phrases.clean(line)}")
        if self.session.place.private:
            self.session.note("earmark: " + PRIVATE.format(place=phrases.clean(self.session.place.place)))


def run_out(claim: Claim, portion: Portion, made: Confinement, pid: int) -> RunOut:
    """Return what `--json` says of a run."""
    return RunOut(
        claim=claim.id, node=portion.node, pid=pid, holds=phrases.what_is_held(claim.grant), cpus=list(portion.cpus),
        exclusive=portion.exclusive, confined=made.way, cgroup=made.cgroup, memory_limit_bytes=made.memory_limit_bytes,
        until=maybe(claim.deadline_ms), environment=run_environment(portion), notes=[*made.notes, *notes_on(portion)],
    )  # fmt: skip


def live(answer: Answer) -> Claim:
    """Return the claim of an answer to hold or confirm; raises LedgerBroken if it has none."""
    if answer.claim is None:
        raise LedgerBroken(f"claim {answer.claim_id} was granted and is not in the state", claim=answer.claim_id)
    return answer.claim


def patience(wait: str | None, *, skip_ahead: bool) -> float | None:
    """Return the time-out of `--wait` in seconds, None for none; raises InvalidRequest."""
    if wait is None and skip_ahead:
        raise InvalidRequest("--skip-ahead is about waiting: say --wait too", found="--skip-ahead")
    return None if wait in (None, FOR_EVER) else parse_duration_ms(wait or "", what="--wait") / 1000
