"""What provider configuration files say, and which nodes it is about (rules K1 to K3).

Rules of this file: an entry that names a node beats one for every node; the files together are the whole configuration: what they do not add
to a node is not added to it. Source: Nova 34, compute/provider_config.py and compute/resource_tracker.py (_merge_provider_configs).
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from earmark.core.model.ids import NodeId
from earmark.core.model.node import Provided
from earmark.core.model.value import Value
from earmark.errors import InvalidRecord

EVERY_NODE = "$COMPUTE_NODE"


class ProviderEntry(Value, frozen=True):
    """One entry: the provider by uuid or by name (neither: every node), what it adds, and where it stands (FILE:LINE:COLUMN)."""

    where: str
    uuid: NodeId | None = None
    name: str | None = None
    provided: Provided = Provided()

    @property
    def about(self) -> str:
        """What the entry calls its provider."""
        return self.uuid or self.name or EVERY_NODE


class NodeNamed(NamedTuple):
    """A node as an entry may name it."""

    node: NodeId
    name: str


class Resolved(NamedTuple):
    """What each node gets, all nodes named; and what a person should know: providers that are not there."""

    provided: dict[NodeId, Provided]
    notes: tuple[str, ...]


def told_apart(entries: Iterable[ProviderEntry]) -> tuple[ProviderEntry, ...]:
    """Return the entries of all files; raises InvalidRecord if two have the same identification (K2)."""
    seen: dict[tuple[str | None, str | None], ProviderEntry] = {}
    for entry in entries:
        first = seen.setdefault((entry.uuid, entry.name), entry)
        if first is not entry:
            raise InvalidRecord(f"{entry.where}: provider {entry.about!r} is identified at {first.where} already", where=entry.where)
    return tuple(seen.values())


def resolved(entries: Sequence[ProviderEntry], nodes: Sequence[NodeNamed]) -> Resolved:
    """Return what each node gets from some entries that `told_apart` has passed.

    Raises InvalidRecord if one node is identified by its name and by its uuid.
    """
    common = next((entry for entry in entries if entry.uuid is None and entry.name is None), None)
    chosen: dict[NodeId, ProviderEntry] = {}
    notes = []
    for entry in entries:
        if entry is common:
            continue
        found = [each.node for each in nodes if each.node == entry.uuid or (entry.name is not None and each.name == entry.name)]
        if not found:
            notes.append(f"{entry.where}: provider {entry.about!r} is not in this ledger; its entry is passed over")
        for node in found:
            first = chosen.setdefault(node, entry)
            if first is not entry:
                detail = f"{entry.where}: provider {entry.about!r} is the node that {first.where} identifies as {first.about!r}"
                raise InvalidRecord(detail, where=entry.where)
    given = {node: entry.provided for node, entry in chosen.items() if entry.provided != Provided()}
    fallback = common.provided if common is not None else Provided()
    return Resolved({each.node: given.get(each.node, fallback) for each in nodes}, tuple(notes))
