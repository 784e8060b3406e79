"""What every reporter promises: to be told what is held, possibly twice, and to say whether it was understood.

Rules of this file: a reporter is told after the commit and never before; whatever it does, no claim waits for it. It may be told the same again
after a failure, so telling is idempotent: it replaces what was said of a holder on a node.
"""

from collections.abc import Sequence
from typing import Protocol

from earmark.core.ledger.allocations import Allocation
from earmark.core.model.ids import NodeId


class Reporter(Protocol):
    """An outer ledger."""

    @property
    def name(self) -> str:
        """What messages call it."""

    def tell(self, node: NodeId, allocations: Sequence[Allocation]) -> None:
        """Take note that these are all allocations on a node now; raises an …Unavailable if it cannot now."""
