"""The context managers of `held` for asyncio.

Rules of this file: the ledger is reached in a worker thread, so the loop never waits for the disk; a step that was begun is always waited for, even
by a cancelled task, because it may have taken effect; the cancellation is raised after that.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from earmark.core.model.request import Request
from earmark.tracker.fresh import new_claim
from earmark.tracker.held import HeldClaim, begin, finish, roll_back

if TYPE_CHECKING:
    from earmark.tracker.tracker import Tracker

T = TypeVar("T")


@asynccontextmanager
async def aholding(tracker: Tracker, request: Request, *, keep: bool, ttl_ms: int | None = None, **wishes: Any) -> AsyncIterator[HeldClaim]:
    """Hold a claim for an `async with` block, as `held.holding` does for `with`."""
    claim_id = new_claim()
    try:
        held = await _whole(partial(begin, tracker, request, claim_id, keep=keep, **wishes))
        yield held
        await _whole(partial(finish, tracker, held, keep=keep, ttl_ms=ttl_ms))
    except BaseException as first:
        await _whole(partial(roll_back, tracker, claim_id, first))
        raise


async def _whole(step: Callable[[], T]) -> T:
    """Run a step in a thread and wait for its end; a cancellation that comes meanwhile is raised afterwards.

    The step is no task: a loop that cancels all its tasks when it ends would otherwise take it for over while its thread still works.
    """
    running = asyncio.get_running_loop().run_in_executor(None, partial(contextvars.copy_context().run, step))
    cancelled: asyncio.CancelledError | None = None
    while not running.done():
        try:
            await asyncio.wait([running])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is None:
        return running.result()
    raise cancelled from running.exception()
