"""The small files beside a ledger: `node.json`, which node this machine is in it, and `scrub.key`, the redactor's key.

Rules of this file: of two processes that make one at once one wins and both see the same; a file that is not understood is an error, never
replaced; another machine id means that the ledger was copied.
"""

import os
from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta

from earmark.core.model.ids import NodeId, name, node_id
from earmark.core.model.value import Value
from earmark.errors import InvalidRecord, InvalidRequest, UnsafePlace
from earmark.logs import fleeting_key
from earmark.stores.place import Place
from earmark.stores.safe_files import create_once, read_small, replace_file

FILE_NAME = "node.json"
FILE_BYTES_MAX = 4096
KEY_NAME = "scrub.key"
KEY_BYTES = 32
MODE, MODE_GROUP = 0o600, 0o640


class NodeFile(Value, frozen=True):
    """What node.json holds. `machine_ref` is a one-way hash of the machine id, None where the machine has none."""

    uuid: str
    name: str
    machine_ref: Annotated[str, Meta(min_length=1, max_length=128)] | None = None
    format: Annotated[int, Meta(ge=1, le=1)] = 1


class Identity(NamedTuple):
    """The node that this machine is in this ledger; `copied`: the file was made on another machine."""

    uuid: NodeId
    name: str
    copied: bool


def identity(place: Place, machine_ref: str | None, *, hostname: str, uuid: str | None = None) -> Identity:
    """Return this machine's node; make the file if it is missing, with `uuid` if the caller knows it, else with a new one.

    It is copied if both machine ids are known and differ. Raises InvalidRecord, UnsafePlace.
    """
    found = read(place)
    if found is None:
        made = NodeFile(uuid=node_id(uuid or new_uuid()), name=name(hostname, "host name"), machine_ref=machine_ref)
        create_once(place.folder / FILE_NAME, encode(made), mode=MODE if place.gid is None else MODE_GROUP, gid=place.gid)
        found = read(place)
        if found is None:
            raise UnsafePlace(f"{place.folder / FILE_NAME} was made and is gone again", path=str(place.folder))
    differs = found.machine_ref is not None and machine_ref is not None and found.machine_ref != machine_ref
    return Identity(NodeId(found.uuid), found.name, copied=differs)


def rebind(place: Place, machine_ref: str | None, *, hostname: str) -> Identity:
    """Bind the node of a copied ledger to this machine: the uuid stays, machine and name are this one's. Raises InvalidRecord, UnsafePlace."""
    found = read(place)
    uuid = new_uuid() if found is None else found.uuid
    made = NodeFile(uuid=uuid, name=name(hostname, "host name"), machine_ref=machine_ref)
    replace_file(place.folder / FILE_NAME, encode(made), mode=MODE if place.gid is None else MODE_GROUP, gid=place.gid)
    return Identity(NodeId(uuid), made.name, copied=False)


def read(place: Place) -> NodeFile | None:
    """Return what node.json holds, None if there is none; raises InvalidRecord, UnsafePlace."""
    path = place.folder / FILE_NAME
    content = read_small(path, owners={0, os.geteuid()}, gid=place.gid, bytes_max=FILE_BYTES_MAX, one_name=False)
    if content is None:
        return None
    try:
        found = msgspec.json.decode(content, type=NodeFile)
        node_id(found.uuid)
        name(found.name, "host name")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, InvalidRequest) as error:
        raise InvalidRecord(f"{path} does not say which node this is: {error}", path=str(path)) from error
    return found


def scrub_key(place: Place) -> bytes:
    """Return the key of the redactor for this ledger, made at the first call: with it pseudonyms are equal over all processes.

    Whoever reads it can test guesses against a scrubbed text, so it has the ledger's own modes. Raises UnsafePlace, InvalidRecord.
    """
    path = place.folder / KEY_NAME
    for _ in range(2):
        found = read_small(path, owners={0, os.geteuid()}, gid=place.gid, bytes_max=KEY_BYTES, one_name=False)
        if found is not None and len(found) != KEY_BYTES:
            raise InvalidRecord(f"{path} has {len(found)} bytes, a key has {KEY_BYTES}", path=str(path))
        if found is not None:
            return found
        create_once(path, os.urandom(KEY_BYTES), mode=MODE if place.gid is None else MODE_GROUP, gid=place.gid)
    raise UnsafePlace(f"{path} was made and is gone again", path=str(path))


def log_key(place: Place) -> bytes:
    """Return the ledger's key for log lines, or the process's own where the ledger's can be neither read nor made."""
    try:
        return scrub_key(place)
    except (UnsafePlace, InvalidRecord):
        return fleeting_key()


def encode(made: NodeFile) -> bytes:
    """Return the bytes of node.json."""
    return msgspec.json.encode(made) + b"\n"


def new_uuid() -> str:
    """Return a random uuid (RFC 9562 version 4)."""
    import uuid  # noqa: PLC0415 - needed once in a ledger's life

    return str(uuid.uuid4())
