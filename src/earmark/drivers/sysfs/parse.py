"""The small formats of /sys and /proc.

Rules of this file: each parser is total (any text in, a value or None out) and strict: what is not exactly the format is None, so that
nobody takes a half-read figure for a fact. ASCII only, bounded lengths.
"""

from __future__ import annotations

import re
import string

from earmark.core.model.cpuset import CPU_MAX, cpus_of, parse_cpu_list
from earmark.core.model.units import BYTES_MAX, KIB
from earmark.errors import InvalidRequest

NUMBER = re.compile(r"-?[0-9]{1,20}")
HEXADECIMAL = re.compile(r"0x[0-9a-f]{1,16}", re.IGNORECASE)
CPU_LIST = re.compile(r"[0-9,\-\s]*")
MASK = re.compile(r"(?:0x)?[0-9a-f]{1,2048}(?:,[0-9a-f]{1,8}){0,1024}", re.IGNORECASE)
UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
MEM_TOTAL = re.compile(r"^(?:Node[ \t]+[0-9]+[ \t]+)?MemTotal:[ \t]+([0-9]{1,15})[ \t]+kB[ \t]*$", re.MULTILINE)
PCI_ADDRESS = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
SERIAL = re.compile(r"[!-~]{1,64}")
NUMBER_MAX = (1 << 63) - 1


def whole(text: str) -> int | None:
    """Return a decimal number from -2^63 to 2^63 - 1."""
    if not NUMBER.fullmatch(text):
        return None
    number = int(text)
    return number if abs(number) <= NUMBER_MAX else None


def count(text: str) -> int | None:
    """Return a decimal number that is not negative."""
    number = whole(text)
    return number if number is not None and number >= 0 else None


def functions(text: str) -> int | None:
    """Return a number or distance of PCI functions, which has 16 bits (PCI Express SR-IOV)."""
    number = count(text)
    return number if number is not None and number < 1 << 16 else None


def size(text: str) -> int | None:
    """Return a number of bytes, up to 2^60."""
    number = count(text)
    return number if number is not None and number <= BYTES_MAX else None


def identifier(text: str) -> int | None:
    """Return the number of a package, die or cell; -1, the kernel's "none", stays -1."""
    number = whole(text)
    return number if number is not None and -1 <= number < 1 << 31 else None


def hexadecimal(text: str, digits: int) -> str | None:
    """Return a number such as "0x10de" as lower-case hexadecimal of `digits` digits, without "0x"."""
    if not HEXADECIMAL.fullmatch(text):
        return None
    plain = f"{int(text, 16):0{digits}x}"
    return plain if len(plain) == digits else None


def cpu_list(text: str) -> tuple[int, ...] | None:
    """Return the CPUs of a list such as "0-3,8", ascending; the empty text is no CPU (Linux, cputopology)."""
    if not CPU_LIST.fullmatch(text):
        return None
    try:
        return parse_cpu_list(text)
    except InvalidRequest:
        return None


def cpu_mask(text: str) -> tuple[int, ...] | None:
    """Return the CPUs of a mask such as "00000000,0000000f", ascending; words after the first have 32 bits (Linux, bitmap %*pb)."""
    if not MASK.fullmatch(text):
        return None
    first, *words = text.removeprefix("0x").removeprefix("0X").split(",")
    mask = int(first, 16)
    for word in words:
        mask = mask << 32 | int(word, 16)
    return cpus_of(mask) if mask.bit_length() <= CPU_MAX + 1 else None


def mem_total_bytes(text: str) -> int | None:
    """Return MemTotal of /proc/meminfo or of a node's meminfo, in bytes."""
    match = MEM_TOTAL.search(text)
    return int(match[1]) * KIB if match else None


def numbers(text: str) -> tuple[int, ...] | None:
    """Return a row of numbers that are not negative, such as a node's distances."""
    row = tuple(count(word) for word in text.split())
    return tuple(number for number in row if number is not None) if None not in row and row else None


def uuid(text: str) -> str | None:
    """Return a lower-case uuid."""
    return text if UUID.fullmatch(text) else None


def serial(text: str) -> str | None:
    """Return a serial number of 1 to 64 visible ASCII characters that says something (not only zeros, blanks or fillers)."""
    plain = text.strip(string.whitespace)
    return plain if SERIAL.fullmatch(plain) and plain.strip("0-?_.:xXfF") else None
