"""What the tests of nodes share: a small instance, a bare-metal node, figures by host."""

from __future__ import annotations

from earmark.core.ledger.figures import figures
from earmark.core.model.ids import ClaimId, ResourceClass
from earmark.core.model.inventory import Inventory
from earmark.core.model.node import NodeSettings
from earmark.core.model.refusal import Refusal
from earmark.core.model.request import Request, ResourceAmount
from earmark.core.model.topology import Machine
from earmark.core.model.units import GIB, MIB
from earmark.testing import Bench

SMALL = Request(vcpus=2, memory_bytes=2048 * MIB, disk_bytes=20 * GIB)
"""The instance s of the scenarios."""
BAREMETAL = ResourceClass("CUSTOM_BAREMETAL_GOLD")
GOLD = Request(resources=(ResourceAmount(resource_class=BAREMETAL, amount=1),))


def bare_metal(made: Bench, name: str, host: str = "rack1") -> None:
    """Enter a node that is handed out whole, as one unit of one class (A16)."""
    settings = NodeSettings(inventories=(Inventory(resource_class=BAREMETAL, total=1),))
    made.tracker.register(name, host=host, machine=Machine(), settings=settings)


def held(made: Bench, request: Request, node: str | None = None) -> ClaimId:
    """Claim, confirmed, what must be granted, and return the claim's id."""
    answer = made.tracker.hold(request, node=node, confirm=True)
    assert not isinstance(answer, Refusal), answer
    assert answer.claim_id is not None
    return answer.claim_id


def figures_by_host(made: Bench) -> dict[str, tuple[int, int, int]]:
    """Return vCPUs, MiB and GiB held on each host, summed over the nodes that it runs."""
    found = {}
    for host, states in made.tracker.hosts().items():
        each = [figures(state) for state in states]
        found[host] = (sum(one.vcpus for one in each), sum(one.memory_mib for one in each), sum(one.disk_gib for one in each))
    return found
