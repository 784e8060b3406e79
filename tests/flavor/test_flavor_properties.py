"""What holds for any texts whatever: an answer or InvalidFlavor, nothing changed, no order that matters."""

from __future__ import annotations

import random
import re
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.flavor.flavors import LISTS, PROPERTIES, SPECS, random_request

from earmark.core.fit.guest import guest_of, is_bound
from earmark.core.fit.request import check_request
from earmark.core.flavor.alias import PciAlias
from earmark.core.flavor.flavor import Flavor, Image
from earmark.core.flavor.placement import placement_wish
from earmark.core.flavor.translate import translate
from earmark.core.flavor.vcpus import read_list, read_mask
from earmark.core.model.request import Request
from earmark.errors import InvalidFlavor

FLAVOR_KEYS = (
    *SPECS, "hw:numa_cpus.0", "hw:numa_cpus.1", "hw:numa_mem.0", "hw:numa_mem.1", "hw:pmem", "hw:mem_encryption", "hw:mem_encryption_model",
    "hw:cpu_sockets", "hw:cpu_cores", "hw:cpu_threads", "hw:cpu_max_sockets", "hw:cpu_max_cores", "hw:cpu_max_threads",
    "pci_passthrough:alias", "resources:MEMORY_MB", "resources:DISK_GB", "resources:VGPU", "resources1:VGPU", "trait:CUSTOM_X",
    "trait1:CUSTOM_X", "resources_Ä:VGPU", "resources:", "trait:", "group_policy", "hw:", "", "quota:cpu_shares",
)  # fmt: skip
IMAGE_KEYS = (
    *PROPERTIES, "hw_numa_cpus.0", "hw_numa_mem.0", "hw_mem_encryption", "hw_firmware_type", "hw_machine_type", "hw_cpu_sockets",
    "hw_cpu_max_threads", "trait:CUSTOM_X", "trait:", "os_type",
)  # fmt: skip
NEAR_WORDS = sorted({word for words in (*SPECS.values(), *PROPERTIES.values()) for word in words} | set(LISTS))
ODD = (
    "\x00",
    "\u0661",
    "²",
    "0" * 5000,
    "9" * 5000,
    "0-" + "9" * 18,
    "^",
    "^^0",
    "-",
    "--1",
    "\ud800",
    "1e3",
    "\u0663-\u0664",
    "1_0",
    "\uff10",
    "0,\n1",
    "vf:²",
    "vf:1:1",
)
WORDS = st.one_of(
    st.sampled_from(NEAR_WORDS),
    st.sampled_from(ODD),
    st.text(alphabet="0123456789-^, :MGBbk", max_size=12),
    st.text(max_size=8),
    st.sampled_from(("uefi", "q35", "amd-sev", "required", "forbidden", "vf:1", "vf:2,vf:1", "isolate", "none", "a,b")),
)
ALIASES = (PciAlias(name="vf", vendor_id="8086", product_id="154c"),)
ALL_REAL_TIME = {"hw:cpu_realtime": "yes", "hw:emulator_threads_policy": "isolate"}


def answer(flavor: Flavor, image: Image | None, **more: Any) -> Request | str:
    """Return the request, or the whole text of the error."""
    try:
        return translate(flavor, image, **more)
    except InvalidFlavor as error:
        return f"{error.kind} {error}"


@given(
    specs=st.dictionaries(st.one_of(st.sampled_from(FLAVOR_KEYS), st.text(max_size=6)), WORDS, max_size=8),
    image=st.one_of(st.none(), st.dictionaries(st.sampled_from(IMAGE_KEYS), WORDS, max_size=4)),
    vcpus=st.sampled_from((0, 1, 2, 4, 6, 1 << 20)),
    memory=st.sampled_from((0, 1, 4096, 1 << 38)),
    aliases=st.sampled_from(((), ALIASES)),
)
@example(specs={"hw:numa_nodes": "2", "hw:numa_mem.0": "9" * 5000}, image=None, vcpus=4, memory=4096, aliases=())
@example(specs={"hw:numa_nodes": "4", "hw:cpu_policy": "dedicated"}, image={}, vcpus=1 << 20, memory=1 << 38, aliases=())
@example(specs={"pci_passthrough:alias": "vf:1"}, image=None, vcpus=0, memory=0, aliases=ALIASES)
@example(specs={"resources:VCPU": "2", "hw:cpu_sockets": "4"}, image=None, vcpus=4, memory=1, aliases=())
@example(specs={"hw:cpu_policy": "mixed", **ALL_REAL_TIME}, image={}, vcpus=4, memory=4096, aliases=())
def test_any_texts_give_a_request_or_a_fault(
    specs: dict[str, str], image: dict[str, str] | None, vcpus: int, memory: int, aliases: tuple[PciAlias, ...]
) -> None:
    """Arbitrary texts under any key give a request that makes sense or InvalidFlavor, never another error; so does Placement's view."""
    flavor = Flavor(vcpus=vcpus, memory_mb=memory, root_gb=1, extra_specs=specs)
    properties = None if image is None else Image(properties=image)
    got = answer(flavor, properties, aliases=aliases)
    if isinstance(got, str):
        assert re.match(r"[A-Z][A-Za-z]+ (flavor|alias)", got)
        return
    check_request(got)
    assert msgspec.json.decode(msgspec.json.encode(got), type=Request) == got
    assert is_bound(got) == (got.cells is not None)
    wish = placement_wish(flavor, properties)
    assert all(amount > 0 for amount in wish.amounts.values())
    if is_bound(got):
        guest = guest_of(got)
        assert sum(cell.memory_bytes for cell in guest.cells) == got.memory_bytes
        pinned = sum(len(cell.dedicated) + cell.emulator for cell in guest.cells)
        assert wish.amounts.get("PCPU", 0) == pinned  # type: ignore[call-overload]  # plain text for a NewType


@given(seed=st.integers(0, 1 << 32), mixer=st.randoms(use_true_random=False))
def test_the_order_of_keys_does_not_matter(seed: int, mixer: random.Random) -> None:
    """The same texts in another order give the same request, or the same error in the same words."""
    asked = random_request(random.Random(seed))  # noqa: S311 - no secret is made of it
    sides = []
    for name in ("extra_specs", "image_properties"):
        pairs = list(asked[name].items())
        mixer.shuffle(pairs)
        sides.append((asked[name], dict(pairs)))
    answers = [
        answer(Flavor(vcpus=4, memory_mb=4096, extra_specs=specs), Image(properties=image)) for specs, image in zip(*sides, strict=True)
    ]
    assert answers[0] == answers[1]


@given(seed=st.integers(0, 1 << 32))
def test_translating_changes_nothing_and_says_the_same_again(seed: int) -> None:
    """Flavor, image and aliases are what they were, and asking twice gives one answer."""
    asked = random_request(random.Random(seed))  # noqa: S311 - no secret is made of it
    flavor = Flavor(vcpus=4, memory_mb=4096, extra_specs=asked["extra_specs"] | {"pci_passthrough:alias": "vf:1"})
    image = Image(properties=asked["image_properties"])
    before = msgspec.json.encode((flavor, image, ALIASES))
    got = answer(flavor, image, aliases=ALIASES)
    assert got == answer(flavor, image, aliases=iter(ALIASES))
    if not isinstance(got, str):
        check_request(got)
    assert msgspec.json.encode((flavor, image, ALIASES)) == before


@pytest.mark.rule("N10")
@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 14), st.integers(0, 4), st.booleans()), max_size=6),
    st.integers(1, 12),
    st.booleans(),
)
def test_lists_of_vcpus_are_sets(items: list[tuple[bool, int, int, bool]], count: int, as_mask: bool) -> None:
    """A list is what its numbers and ranges give, less those after ^, with a note of what the flavor does not have."""
    parts = [f"{'^' if leave else ''}{low}{f'-{low + more}' if spread or more else ''}" for leave, low, more, spread in items]
    take = {n for leave, low, more, _ in items if not leave for n in range(low, low + more + 1)}
    drop = {n for leave, low, more, _ in items if leave for n in range(low, low + more + 1)}
    text = ",".join(parts)
    if as_mask and text.startswith("^"):
        take |= set(range(count))
    found = (read_mask if as_mask else read_list)(text, count, "mask")
    wanted = take - drop
    assert found.numbers == tuple(sorted(n for n in wanted if n < count))
    assert found.beyond == min((n for n in wanted if n >= count), default=None)
    assert found.empty == (not wanted)
