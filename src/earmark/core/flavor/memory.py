"""How the guest's memory is wanted: page size, locked, encrypted, and persistent memory (H1, H6, V6, V7).

Rules of this file: no floating point; a size in words is exact and then cut to whole KiB, as Nova cuts it. Sources: Nova 34,
virt/hardware.py (_get_numa_pagesize_constraint, get_locked_memory_constraint, get_mem_encryption_constraint, get_vpmems), oslo_utils
strutils.string_to_bytes, os_resource_classes normalize_name.
"""

import re
from fractions import Fraction
from typing import cast, get_args

from earmark.core.flavor.texts import Texts, conflict, invalid, truth
from earmark.core.model.request import PageWish
from earmark.errors import InvalidFlavor

PAGE_WISHES = get_args(PageWish)
PAGE_KIB_MAX = 1 << 40
KIB_NUMBER = re.compile(r"[0-9]{1,18}")
SIZE = re.compile(r"([0-9]{0,18}\.?[0-9]{1,18})([KMGTPE]?)i?(B|b|bit)")
POWERS = " KMGTPE"
BITS_OF_BYTE = 8
PMEM_PREFIX = "CUSTOM_PMEM_NAMESPACE_"
LABEL = re.compile(r"[A-Za-z0-9_.-]{1,200}")
ENCRYPTION_MODELS = {"amd-sev": "HW_CPU_X86_AMD_SEV", "amd-sev-es": "HW_CPU_X86_AMD_SEV_ES"}
PMEM_KEY = "hw:pmem"


def page_wish(texts: Texts) -> int | PageWish | None:
    """Return the page size in KiB or by name, None for ordinary memory; raises InvalidFlavor.

    An image may choose one only where its flavor leaves the choice: any or large (H1).
    """
    flavor, image = texts.both("mem_page_size")
    if flavor is None:
        if image is not None:
            raise invalid(
                "MemoryPageSizeForbidden", "hw_mem_page_size", image, "an image may say it only if hw:mem_page_size is any or large"
            )
        return None
    size = _page_size(flavor, "hw:mem_page_size")
    if image is None:
        return size
    if size not in ("any", "large"):
        why = "an image may choose only where its flavor says any or large"
        raise conflict("MemoryPageSizeForbidden", "mem_page_size", flavor, image, why)
    return _page_size(image, "hw_mem_page_size")


def _page_size(text: str, key: str) -> int | PageWish:
    """Return small, large, any, or KiB: a number of KiB or a size with its unit (2MB, 1GiB; b and bit are bits)."""
    if text in PAGE_WISHES:
        return cast("PageWish", text)
    if KIB_NUMBER.fullmatch(text):
        kib = int(text)
    else:
        match = SIZE.fullmatch(text)
        if match is None:
            raise invalid("MemoryPageSizeInvalid", key, text, "neither small, large, any, a number of KiB, nor a size such as 2MB")
        size = Fraction(match[1]) * 1024 ** POWERS.index(match[2] or " ")
        if match[3] != "B":
            size *= Fraction(1, BITS_OF_BYTE)
        kib = -(-size.numerator // size.denominator) // 1024
    if kib > PAGE_KIB_MAX:
        raise invalid("BeyondBounds", key, text, f"a page has at most {PAGE_KIB_MAX} KiB")
    if not kib:
        raise invalid("MemoryPageSizeInvalid", key, text, "a page has at least 1 KiB")
    return kib


def locked(texts: Texts) -> bool:
    """Return whether the memory is to be locked, which needs a page size (H6); an empty text means no. Raises InvalidFlavor."""
    flavor, image = texts.specs.get("hw:locked_memory"), texts.image.get("hw_locked_memory")
    of_flavor = False if flavor == "" else truth(flavor, "hw:locked_memory")
    of_image = False if image == "" else truth(image, "hw_locked_memory")
    if of_flavor is not None and of_image is not None and of_flavor != of_image:
        raise conflict("FlavorImageLockedMemoryConflict", "locked_memory", str(flavor), str(image), "they must agree")
    wanted = bool(of_image if of_flavor is None else of_flavor)
    if wanted and not any(texts.both("mem_page_size")):
        raise invalid("LockMemoryForbidden", texts.source("locked_memory"), "true", "needs hw:mem_page_size")
    return wanted


def encrypted(texts: Texts, *, image_known: bool) -> bool:
    """Return whether the memory is to be encrypted (V7); raises InvalidFlavor.

    The image must boot by UEFI and not be of another machine type than q35; without an image nothing is known of that.
    """
    flavor, image = texts.both("mem_encryption")
    of_flavor, of_image = truth(flavor, "hw:mem_encryption"), truth(image, "hw_mem_encryption")
    if not of_flavor and not of_image:
        return False
    if of_flavor is not None and of_image is not None and of_flavor != of_image:
        raise conflict("FlavorImageConflict", "mem_encryption", str(flavor), str(image), "they must agree")
    firmware, machine = texts.image.get("hw_firmware_type"), texts.image.get("hw_machine_type")
    if image_known and firmware != "uefi":
        raise invalid("FlavorImageConflict", "hw_firmware_type", firmware, "memory encryption needs an image that boots by uefi")
    if machine is not None and "q35" not in machine:
        raise invalid("InvalidMachineType", "hw_machine_type", machine, "memory encryption needs a q35 machine")
    return True


def encryption_trait(texts: Texts) -> str | None:
    """Return the trait of the processor that hw:mem_encryption_model asks for, None if no model is named; raises InvalidFlavor."""
    flavor, image = texts.both("mem_encryption_model")
    if flavor is not None and image is not None and flavor != image:
        raise conflict("FlavorImageConflict", "mem_encryption_model", flavor, image, "they must be equal")
    model = flavor or image
    if model is None:
        return None
    if model not in ENCRYPTION_MODELS:
        raise invalid("ValidationError", texts.source("mem_encryption_model"), model, f"not one of {', '.join(ENCRYPTION_MODELS)}")
    return ENCRYPTION_MODELS[model]


def pmem_amounts(texts: Texts) -> tuple[dict[str, int], InvalidFlavor | None]:
    """Return the number of namespaces by resource class that hw:pmem names (V6), and what is wrong with a label, if one is wrong."""
    amounts: dict[str, int] = {}
    text = texts.specs.get(PMEM_KEY, "")
    for label in text.split(","):
        if not label.strip():
            continue
        if not LABEL.fullmatch(label.strip()):
            return {}, invalid("ValidationError", PMEM_KEY, text, f"{label!r} is not a label: letters, digits, _, - and . are")
        name = PMEM_PREFIX + re.sub(r"[^A-Z0-9_]", "_", label.strip().upper())
        amounts[name] = amounts.get(name, 0) + 1
    return amounts, None
