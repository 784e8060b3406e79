"""The process that asks NVML: it writes what it finds as lines of JSON, each as soon as it is known, and ends.

Rules of this file: it runs alone (`python -m earmark.drivers.nvml.look`), since a driver can hang or crash whoever asks it; it imports
nothing of Earmark that needs time; nothing is guessed: what NVML refuses is told with its code. Source: NVML API reference (nvml.h of
driver 550 and later), through the binding nvidia-ml-py.
"""

from __future__ import annotations

import importlib
import json
import signal
import sys
from typing import Any

QUIET = frozenset({2, 3, 6, 13})
"""Invalid argument, not supported, not found, no such function: this GPU or driver has no such thing."""
NO_BINDING = -1
LIMIT_S = 60
"""Nobody waits so long; without a limit a process whose caller was killed could stay."""
WORD_BITS = 64
NODE_WORDS = 16
GPUS_MAX = 256
INSTANCES_MAX = 64
PEERS_MAX = 64
FAILURES_MAX = 32
TEXT_MAX = 200
ENDS = {0: "gpu", 2: "switch"}
"""NVML_NVLINK_DEVICE_TYPE_GPU and _SWITCH."""


class Asker:
    """Asks NVML about one GPU and keeps what it refuses."""

    def __init__(self, nvml: Any) -> None:
        self.nvml = nvml
        self.failures: list[dict[str, object]] = []

    def ask(self, what: str, function: str, *arguments: object) -> Any:
        """Return the answer of one function, None if there is none."""
        try:
            return getattr(self.nvml, function)(*arguments)
        except self.nvml.NVMLError as error:
            if error.value not in QUIET and len(self.failures) < FAILURES_MAX:
                self.failures.append(failure(what, error.value, str(error)))
            return None


def main(limit_s: int = LIMIT_S) -> None:
    """Tell how many GPUs there are, then each of them, then that this is all; end by the signal ALRM after so many seconds."""
    signal.alarm(limit_s)
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError as error:
        tell(failure=failure("binding", NO_BINDING, str(error)))
        return
    try:
        nvml.nvmlInit()
        count = min(nvml.nvmlDeviceGetCount(), GPUS_MAX)
    except nvml.NVMLError as error:
        tell(failure=failure("init", error.value, str(error)))
        return
    tell(count=count)
    for index in range(count):
        tell(gpu=gpu(nvml, index))
    tell(done=True)


def tell(**line: object) -> None:
    """Write one line at once: what comes later may never come."""
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def failure(what: str, code: int, words: str) -> dict[str, object]:
    """Return an error as it is told."""
    return {"what": what, "code": code, "text": text(words) or "no words"}


def gpu(nvml: Any, index: int) -> dict[str, object]:
    """Return what NVML says of one GPU."""
    asker = Asker(nvml)
    told: dict[str, object] = {"index": index}
    handle = asker.ask("handle", "nvmlDeviceGetHandleByIndex", index)
    if handle is not None:
        place(told, asker.ask("address", "nvmlDeviceGetPciInfo", handle))
        told["uuid"] = text(asker.ask("UUID", "nvmlDeviceGetUUID", handle))
        told["name"] = text(asker.ask("name", "nvmlDeviceGetName", handle), 100)
        told["memory_bytes"] = getattr(asker.ask("memory", "nvmlDeviceGetMemoryInfo", handle), "total", None)
        words = asker.ask("NUMA cell", "nvmlDeviceGetMemoryAffinity", handle, NODE_WORDS, 0)
        told["cells"] = bits(words)[:WORD_BITS]
        modes = asker.ask("MIG mode", "nvmlDeviceGetMigMode", handle)
        if modes is not None:
            told["mig"], told["mig_next"] = (bool(mode) for mode in modes)
        told["instances"] = instances(asker, handle) if told.get("mig") else []
        told["peers"] = peers(asker, handle)
    told["failures"] = asker.failures
    return told


def place(told: dict[str, object], info: Any) -> None:
    """Enter a PCI address as sysfs writes it, and the ids; a GPU is function 0 of its device."""
    if info is None:
        return
    told["address"] = address(info)
    told["product_id"] = f"{info.pciDeviceId >> 16:04x}"
    told["subsystem"] = f"{info.pciSubSystemId & 0xFFFF:04x}:{info.pciSubSystemId >> 16:04x}"


def address(info: Any) -> str:
    """Return a PCI address as sysfs writes it."""
    return f"{info.domain:04x}:{info.bus:02x}:{info.device:02x}.0"


def instances(asker: Asker, handle: Any) -> list[dict[str, object]]:
    """Return the MIG instances of a GPU; one without a UUID cannot be handed out and is an error."""
    found: list[dict[str, object]] = []
    most = asker.ask("MIG instances", "nvmlDeviceGetMaxMigDeviceCount", handle) or 0
    for index in range(min(most, INSTANCES_MAX)):
        part = asker.ask("MIG instance", "nvmlDeviceGetMigDeviceHandleByIndex", handle, index)
        if part is None:
            continue
        uuid = text(asker.ask("MIG UUID", "nvmlDeviceGetUUID", part))
        if uuid is not None:
            memory = asker.ask("MIG memory", "nvmlDeviceGetMemoryInfo", part)
            name = text(asker.ask("MIG name", "nvmlDeviceGetName", part), 100)
            found.append({"uuid": uuid, "name": name, "memory_bytes": getattr(memory, "total", None)})
    return found


def peers(asker: Asker, handle: Any) -> list[dict[str, object]]:
    """Return what is at the other end of each active link, each once."""
    found: dict[str, dict[str, object]] = {}
    for link in range(PEERS_MAX):
        state = asker.ask("link", "nvmlDeviceGetNvLinkState", handle, link)
        if state is None:
            break
        info = asker.ask("link's end", "nvmlDeviceGetNvLinkRemotePciInfo", handle, link) if state else None
        if info is not None:
            kind = asker.ask("link's end", "nvmlDeviceGetNvLinkRemoteDeviceType", handle, link)
            end = "gpu" if kind is None else ENDS.get(kind, "other")
            found.setdefault(address(info), {"kind": end, "address": address(info)})
    return list(found.values())


def bits(words: Any) -> list[int]:
    """Return the numbers of the bits that are set in an array of 64-bit words, ascending; none for None."""
    return (
        [] if words is None else [word * WORD_BITS + bit for word, mask in enumerate(words) for bit in range(WORD_BITS) if mask >> bit & 1]
    )


def text(found: Any, most: int = TEXT_MAX) -> str | None:
    """Return a text of NVML in plain ASCII and at most so long, None for none."""
    if isinstance(found, bytes):
        found = found.decode("ascii", "replace")
    return None if not found else "".join(each if " " <= each <= "~" else "?" for each in str(found))[:most]


if __name__ == "__main__":
    main()
