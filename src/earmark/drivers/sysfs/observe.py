"""One look at a whole Linux host.

Rules of this file: facts of the running process (affinity, cgroups, page size, file systems, name) are asked only where the root is
the host's own; a recorded root gets what its files say. The machine id leaves this file only as a keyed hash.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from earmark.drivers.contract import GpuDriver, Observation
from earmark.drivers.sysfs.boot import read_boot_id
from earmark.drivers.sysfs.tree import Tree

if TYPE_CHECKING:
    from earmark.core.model.sample import Sample

MACHINE_IDS = ("/etc/machine-id", "/var/lib/dbus/machine-id")
MACHINE_ID = re.compile(r"[0-9a-f]{32}")
MACHINE_KEY = b"earmark: the machine under a ledger"
"""The application's key, as machine-id(5) asks for: the id itself is confidential and never stored."""
HOSTNAMES = ("/proc/sys/kernel/hostname", "/etc/hostname")
HOSTNAME_LENGTH_MAX = 253


class SysfsDriver:
    """Sees the host below `root`. `disks` are (name, path) pairs; `use_process_limits` False ignores affinity and cgroups.

    `gpus` makes what is asked for more than the kernel's files say of GPUs.
    """

    def __init__(
        self,
        root: Path = Path("/"),
        disks: tuple[tuple[str, str | os.PathLike[str]], ...] = (),
        *,
        use_process_limits: bool = True,
        gpus: Callable[[], GpuDriver] | None = None,
    ) -> None:
        self.root = root
        self.disks = disks
        self.use_process_limits = use_process_limits
        self.gpus = gpus

    def observe(self) -> Observation:
        """Look at the whole host; raises HostUnavailable only if not even one CPU can be found."""
        from earmark.drivers.sysfs.whole import read_machine  # noqa: PLC0415 - most commands do not look at the machine

        machine = read_machine(Tree(self.root), self.disks, process_limits=self.use_process_limits)
        if self.gpus is not None:
            machine = self.gpus().enrich(machine)
        return Observation(machine=machine, hostname=self.hostname(), boot_id=self.boot_id(), machine_ref=self.machine_ref())

    def sample(self, at_ms: int) -> Sample:
        """Look at the counters of the host; raises HostUnavailable if there are none."""
        from earmark.drivers.monitor import read_sample  # noqa: PLC0415 - only a monitor needs it

        return read_sample(at_ms, self.root)

    def boot_id(self) -> str:
        """Return the id of this boot ("" where the kernel gives none)."""
        return read_boot_id(self.root / "proc")

    def machine_ref(self) -> str | None:
        """Return the keyed SHA-256 of the machine id in hexadecimal; None where there is no machine id."""
        tree = Tree(self.root)
        for path in MACHINE_IDS:
            text = tree.text(path)
            if text is not None and MACHINE_ID.fullmatch(text) and text.strip("0"):
                return hmac.new(MACHINE_KEY, text.encode("ascii"), hashlib.sha256).hexdigest()
        return None

    def hostname(self) -> str:
        """Return the host's name; "" where a recorded root does not tell it."""
        tree = Tree(self.root)
        names = (os.uname().nodename,) if tree.is_host else (tree.text(path) for path in HOSTNAMES)
        return next((name for name in names if name and len(name) <= HOSTNAME_LENGTH_MAX and name.isprintable()), "")
