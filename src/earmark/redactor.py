"""The one redactor: what may be said of a value on a log line or in a scrubbed export.

Rules of this file: default deny. Numbers pass; text passes only if it is a word of the program's own vocabulary or the name of an
ordinary unit, pool or hardware id; identities become keyed pseudonyms of the same form, equal for equal values, so that what belongs
together still does; all other text is dropped. What a field is stands in one table; a field that is not there holds a secret.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Any, Literal, get_args

import msgspec

from earmark.core.ledger import commands, events
from earmark.core.model import claim, grant, instance, node, refusal, request
from earmark.errors import EarmarkError, InvalidRecord

Kind = Literal["claim", "id", "name", "uuid", "stream", "unit", "pool", "class", "trait", "path", "digest", "hardware", "word", "text"]

DROPPED = "[dropped]"
KEY_BYTES = 32
DEPTH_MAX = 24
DIGEST_LETTERS = 16
CORE_WORDS = (
    claim.Phase, claim.Purpose, claim.Leg, claim.Cause, claim.Role, claim.Liveness, grant.Use, instance.InstanceState,
    instance.MoveKind, instance.MoveStatus, commands.Outcome, refusal.ReasonCode,
    request.CpuPolicy, request.ThreadPolicy, request.EmulatorPolicy, request.PageWish, request.Placement, request.Affinity,
    node.NodePolicy,
)  # fmt: skip
OTHER_WORDS = frozenset({
    "accelerator", "bridge", "gpu", "mig", "mig-parent", "nic", "nvme", "other", "storage", "usb", "vf", "performance", "efficiency",
    "vcpu", "memory", "pages", "share", "disk", "cpu", "pci", "class", "named", "debug", "info", "warning", "error", "off", "console", "json", "unknown", "log_scrub",
})  # fmt: skip
CLASSES = frozenset({
    "VCPU", "PCPU", "MEMORY_MB", "MEMORY_BYTES", "DISK_GB", "DISK_BYTES", "VGPU", "PGPU", "PCI_DEVICE", "SRIOV_NET_VF", "NUMA_SOCKET",
    "NUMA_CORE", "NUMA_THREAD", "NUMA_MEMORY_MB", "IPV4_ADDRESS", "MEM_ENCRYPTION_CONTEXT", "FPGA",
})  # fmt: skip
"""The classes of os-resource-classes 1.1; all others are somebody's own."""
UNIT = re.compile(r"cpu:\d{1,5}|pci:[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
POOL = re.compile(r"vcpu(:\d{1,5})?|memory|pages:\d{1,5}:\d{1,12}")
TRAIT = re.compile(r"(HW|COMPUTE|STORAGE|MISC)_[A-Z0-9_]{1,80}")
HARDWARE = re.compile(r"(0x)?[0-9a-f]{2,6}|[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
CLAIM = re.compile(r"c-[0-9a-z]{4,26}")
STREAM_KINDS = frozenset({"node", "consumer", "owner", "group"})


def _of(kind: Kind, names: str) -> dict[str, Kind]:
    return dict.fromkeys(names.split(), kind)


FIELDS: Mapping[str, Kind] = {
    **_of("claim", "claim claim_id claims source target touched"),
    **_of("name", "actor owner consumer name hostname host user uid gid group project instance command correlation move identity"),
    **_of("id", "id"),
    **_of("name", "machine machine_ref writer"),
    **_of("uuid", "node boot_id ledger_id"),
    **_of("stream", "stream"),
    **_of("unit", "unit units slot slots parent device_units"),
    **_of("pool", "pool resource"),
    **_of("class", "resource_class"),
    **_of("trait", "traits required_traits forbidden_traits"),
    **_of("path", "path ledger cgroup folder"),
    **_of("uuid", "uuid"),
    **_of("name", "reporter"),
    **_of("word", "failures"),
    **_of("word", "severity guests complete findings"),
    **_of("text", "labels task token retired"),
    **_of("unit", "named"),
    **_of("word", "legs destination state failed_builds confirmed_at_ms max_concurrent_builds allow_resize_to_same_host"),
    **_of("word", "allow_migrate_to_same_host live_migratable_kinds resize_confirm_window_s opened_at_ms ended_at_ms status how moves"),
    **_of("word", "file_backed_memory_bytes provided seen_free_bytes sources"),
    **_of("digest", "previous hash"),
    **_of("hardware", "address class_id vendor_id product_id"),
    **_of("text", "reason evidence message detail notes differences what model profile driver subsystem fits_if error match"),
    **_of("word", "affinity amount amounts asked at_ms base_page_kib cause cell cells changed code cordon core count cpu cpu_policy"),
    **_of("word", "cpu_allocation_ratio cpu_dedicated_set cpu_shared_set cpus data deadline_ms dedicated dedicated_vcpus device_kinds"),
    **_of("word", "devices die disk_allocation_ratio disk_bytes disks distances draining_since_ms emulator_cpus emulator_policy epoch"),
    **_of("word", "event found_type found_version free free_bytes generation grant guest_cell guest_cells held_at_ms holders host_cell"),
    **_of("word", "holders_left_out inventories inventory_version iommu_group isolated kind l3 leg level linked max_unit memory_bytes"),
    **_of("word", "memory_limit_bytes min_unit nodes now_ms offline_cpus outcome package page_kib pages phase pid pid_namespace pins"),
    **_of("word", "placement position purpose quarantined ram_allocation_ratio ratio reasons request reserved reserved_host_cpus"),
    **_of("word", "reserved_host_disk_bytes reserved_host_memory_bytes reserved_huge_pages resettable resources role sequence session"),
    **_of(
        "word",
        "cores_named initiators sriov_offset sriov_stride setting settings shared_vcpus short since_ms size_kib sriov_total start_ticks step_size thread_policy took_ms total",
    ),
    **_of(
        "word", "certificate fits_after host_cells realtime_vcpus locked_memory topology sockets cores threads tunnel share network_cells"
    ),
    **_of("word", "keep_iommu_groups device_rules named_resources mdev_types mdev_type max_instances shares live_migratable one_time_use"),
    **_of("word", "cpu_power_management dev_type observed_kind hand_out"),
    **_of("text", "requirements tags label"),
    **_of("name", "alias network networks"),
    **_of("unit", "freed within links unread"),
    **_of("text", "fault"),
    **_of("word", "total_bytes type until_ms usable_cpus use value vcpu vcpus version waited_ms events"),
}
"""What each field holds. A `word` field holds numbers, structs, or words of the vocabulary; a `text` field is dropped."""


class Redactor:
    """A redactor with its own key: equal values have equal pseudonyms under one key, and none can be computed without it."""

    def __init__(self, key: bytes) -> None:
        self._key = hashlib.blake2b(key, digest_size=KEY_BYTES).digest()

    def scrub(self, value: object, field: str = "") -> object:
        """Return what may be said of a value that stands in `field`: numbers, lists, dicts and harmless text."""
        return self._scrub(value, FIELDS.get(field, "text"), 0)

    def fields(self, fields: Mapping[str, object]) -> dict[str, object]:
        """Return the fields of a log line as they may be written; a name that is no plain field name is replaced too."""
        return {self._key_of(name): self.scrub(value, name) for name, value in fields.items()}

    def envelope(self, raw: bytes) -> bytes:
        """Return a stored event with every identity replaced and all free text dropped; still an event of the same type.

        Its bytes no longer fit the chain of hashes: a scrubbed export is for reading, not for restoring. Raises InvalidRecord.
        """
        try:
            value = msgspec.json.decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidRecord(f"an event's bytes are not JSON: {error}") from error
        if not isinstance(value, dict):
            raise InvalidRecord("an event's bytes are not a JSON object", found=type(value).__name__)
        return msgspec.json.encode(self._mapping(value, 0))

    def pseudonym(self, text: str) -> str:
        """Return the keyed pseudonym of a text: 16 letters of 0-9a-f."""
        return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), key=self._key, digest_size=DIGEST_LETTERS // 2).hexdigest()

    def _scrub(self, value: object, kind: Kind, depth: int) -> object:
        if depth > DEPTH_MAX:
            return DROPPED
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int | float):
            return f"name-{self.pseudonym(str(value))}" if kind == "name" else value
        if isinstance(value, str):
            return self._text(str(value), kind)
        if isinstance(value, Mapping):
            return self._mapping(value, depth)
        if isinstance(value, msgspec.Struct):
            return self._mapping(msgspec.structs.asdict(value), depth)
        if isinstance(value, AbstractSet):
            return sorted((self._scrub(item, kind, depth + 1) for item in value), key=repr)
        if isinstance(value, list | tuple):
            return [self._scrub(item, kind, depth + 1) for item in value]
        if isinstance(value, EarmarkError):
            return value.code
        return DROPPED

    def _mapping(self, value: Mapping[Any, object], depth: int) -> dict[str, object]:
        return {self._key_of(key): self._scrub(item, FIELDS.get(str(key), "text"), depth + 1) for key, item in value.items()}

    def _key_of(self, key: object) -> str:
        return key if isinstance(key, str) and key in FIELDS else f"field-{self.pseudonym(str(key))}"

    def _text(self, text: str, kind: Kind) -> str:
        """Return what may be said of a text of one kind; pseudonyms have the form that the kind's own values have."""
        if not text:
            return text
        head, _, rest = text.partition(":")
        match kind:
            case "claim":
                return "c-" + self.pseudonym(text)
            case "id" | "name":
                return self._id(text)
            case "uuid":
                return self._uuid(text) if UUID.fullmatch(text) else self._id(text)
            case "stream":
                return f"{head if head in STREAM_KINDS else 'stream'}:{self._text(rest, 'uuid')}"
            case "unit":
                return text if UNIT.fullmatch(text) else f"{head if head in OTHER_WORDS else 'unit'}:{self.pseudonym(text)}"
            case "pool":
                return self._pool(text, head, rest)
            case "class":
                return text if text in CLASSES else "CUSTOM_" + self.pseudonym(text).upper()
            case "trait":
                return text if TRAIT.fullmatch(text) else "CUSTOM_" + self.pseudonym(text).upper()
            case "path":
                return "/path-" + self.pseudonym(text)
            case "digest":
                return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), key=self._key, digest_size=32).hexdigest()
            case "hardware":
                return text if HARDWARE.fullmatch(text) else DROPPED
            case "word" | "text":
                return text if text in vocabulary() else DROPPED

    def _id(self, text: str) -> str:
        if CLAIM.fullmatch(text):
            return "c-" + self.pseudonym(text)
        return self._uuid(text) if UUID.fullmatch(text) else "name-" + self.pseudonym(text)

    def _uuid(self, text: str) -> str:
        digits = hashlib.blake2b(text.encode(), key=self._key, digest_size=16).hexdigest()
        return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"

    def _pool(self, text: str, head: str, rest: str) -> str:
        if POOL.fullmatch(text) or text in CLASSES or text in OTHER_WORDS:
            return text
        if head == "class":
            return "class:" + self._text(rest, "class")
        if head == "share":
            return "share:" + self._text(rest, "unit")
        return f"{head if head in OTHER_WORDS else 'pool'}:{self._id(rest or text)}"


@functools.cache
def vocabulary() -> frozenset[str]:
    """Return the words that the program itself says: values of its literals, event types, error codes."""
    words = {word for literal in CORE_WORDS for word in get_args(literal)}
    words.update(event.type for event in events.EVENTS)
    words.update(error.code for error in _errors(EarmarkError))
    return frozenset(words) | OTHER_WORDS


def _errors(root: type[EarmarkError]) -> Iterator[type[EarmarkError]]:
    """Yield an error class and all below it."""
    yield root
    for below in root.__subclasses__():
        yield from _errors(below)
