"""Provider configuration files: what is read, where an error is, which node gets what, and that a load can be repeated (K1-K3, W28)."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.nodes.worlds import bare_metal, held

from earmark.core.model.ids import NodeId, ResourceClass, Trait
from earmark.core.model.inventory import Inventory
from earmark.core.model.node import NodeSettings, Provided
from earmark.core.model.provider import NodeNamed, resolved
from earmark.core.model.refusal import Refusal
from earmark.core.model.request import Request, ResourceAmount
from earmark.drivers.provider_files import FILE_BYTES_MAX, ProviderFiles, read_provider_files
from earmark.errors import InvalidRecord, InvalidRequest
from earmark.testing import bench

A, B = NodeId("00000000-0000-4000-8000-00000000000a"), NodeId("00000000-0000-4000-8000-00000000000b")
LICENCE = ResourceClass("CUSTOM_LICENCE")
GOOD = """\
meta:
  schema_version: '1.0'
providers:
  - identification:
      uuid: $COMPUTE_NODE
    inventories:
      additional:
        - CUSTOM_LICENCE:
            total: 8
            reserved: 1
            min_unit: 1
            max_unit: 4
            step_size: 1
            allocation_ratio: 1.5
    traits:
      additional:
        - CUSTOM_RACK_7
        - CUSTOM_FAST
  - identification: {name: n1}
    traits:
      additional: [CUSTOM_EXPLICIT]
"""
HEAD = "meta: {schema_version: '1.0'}\nproviders:\n"


def read(tmp_path: Path, *texts: str) -> ProviderFiles:
    """Write texts to files and read them."""
    paths = []
    for number, text in enumerate(texts):
        paths.append(tmp_path / f"{number}.yaml")
        paths[-1].write_text(text)
    return read_provider_files(paths)


def provider(identification: str, rest: str = "") -> str:
    """Return a file of one provider."""
    return f"{HEAD}  - identification: {{{identification}}}\n    {rest or 'traits: {additional: [CUSTOM_A]}'}\n"


# --- reading --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.rule("K1", "K2")
def test_a_file_is_read(tmp_path: Path) -> None:
    """Inventories and traits of every node and of a named one, with all numbers."""
    files = read(tmp_path, GOOD)
    every, named = files.entries
    assert files.notes == ()
    assert (every.uuid, every.name, named.name) == (None, None, "n1")
    assert every.provided == Provided(
        inventories=(Inventory(resource_class=LICENCE, total=8, reserved=1, ratio=1500, max_unit=4),),
        traits=(Trait("CUSTOM_FAST"), Trait("CUSTOM_RACK_7")),
    )
    assert every.where == f"{tmp_path}/0.yaml:4:5"


@pytest.mark.rule("K1")
def test_a_folder_stands_for_its_yaml_files_by_name(tmp_path: Path) -> None:
    """Only *.yaml, in the order of their names."""
    (tmp_path / "b.yaml").write_text(provider("name: b"))
    (tmp_path / "a.yaml").write_text(provider("name: a"))
    (tmp_path / "c.yml").write_text("nonsense: [")
    assert [entry.name for entry in read_provider_files([tmp_path]).entries] == ["a", "b"]


@pytest.mark.rule("K1")
@pytest.mark.parametrize(
    ("text", "line", "column", "words"),
    [
        ("", 1, 1, "is empty"),
        ("- x\n", 1, 1, "a provider configuration is not a mapping"),
        ("providers: []\n", 1, 1, "has no meta"),
        ("meta: {}\nproviders: []\n", 1, 7, "no schema_version"),
        ("meta: {schema_version: 1.0}\nproviders: []\n", 1, 24, "'1.0', in quotes"),
        ("meta: {schema_version: '2.0'}\nproviders: []\n", 1, 24, "is not 1.x"),
        ("meta: {schema_version: '1.0'}\n", 1, 1, "has no providers"),
        ("meta: {schema_version: '1.0'}\nproviders: {}\n", 2, 12, "providers is not a list"),
        ("meta: {schema_version: '1.0'}\nproviders: []\nextra: 1\n", 3, 1, "'extra' is no key"),
        ("meta: {schema_version: '1.0'}\nmeta: {}\n", 2, 1, "stands twice"),
        (HEAD + "  - traits: {additional: []}\n", 3, 5, "no identification"),
        (provider("uuid: x"), 3, 28, "neither a uuid nor $COMPUTE_NODE"),
        (provider("name: $COMPUTE_NODE"), 3, 28, "in the place of a uuid"),
        (provider("name: 17"), 3, 28, "is not a text"),
        (provider(f"name: n, uuid: {A}"), 3, 21, "exactly one of them"),
        (provider(""), 3, 21, "exactly one of them"),
        (provider("name: n", "traits: {additional: [HW_CPU_X86_AVX]}"), 4, 27, "not a custom trait"),
        (provider("name: n", "traits: {additional: [CUSTOM_A, CUSTOM_A]}"), 4, 37, "given twice"),
        (provider("name: n", "traits: {extra: []}"), 4, 14, "no key of traits"),
        (provider("name: n", "inventories: {additional: [VCPU: {total: 1}]}"), 4, 32, "not a custom resource class"),
        (provider("name: n", "inventories: {additional: [CUSTOM_A: {}]}"), 4, 42, "no total"),
        (provider("name: n", "inventories: {additional: [CUSTOM_A: {total: 0}]}"), 4, 50, "whole number from 1"),
        (provider("name: n", "inventories: {additional: [CUSTOM_A: {total: 0x10}]}"), 4, 50, "whole number"),
        (provider("name: n", "inventories: {additional: [CUSTOM_A: {total: '8'}]}"), 4, 50, "is not int"),
        (provider("name: n", "inventories: {additional: [CUSTOM_A: {total: 4, reserved: 5}]}"), 4, 42, "not between 0 and total"),
        (provider("name: n", "inventories: {additional: [CUSTOM_A: {total: 4, allocation_ratio: 0.0}]}"), 4, 71, "is not a ratio"),
        (provider("name: n", "inventories: {additional: [CUSTOM_A: {total: 1}, CUSTOM_A: {total: 1}]}"), 4, 54, "given twice"),
        ("meta: [\n", 2, 1, "is not YAML"),
        ("meta: !!python/object:os.system {}\n", 1, 7, "the tag"),
        ("meta: {schema_version: '1.0'}\n---\nproviders: []\n", 2, 1, "is not YAML"),
        ("meta: \x01\n", 1, 7, "U+0001"),
        ("[" * 20 + "]" * 20, 1, 17, "nested deeper"),
        ("a: &x [*x]\nmeta: {schema_version: '1.0'}\nproviders: []\n", 1, 1, "'a' is no key"),
    ],
)
def test_an_error_has_its_place(text: str, line: int, column: int, words: str, tmp_path: Path) -> None:
    """Every error says FILE:LINE:COLUMN and what is wrong there."""
    with pytest.raises(InvalidRecord) as caught:
        read(tmp_path, text)
    assert caught.value.message.startswith(f"{tmp_path}/0.yaml:{line}:{column}: ")
    assert words in caught.value.message


@pytest.mark.rule("K1")
def test_a_newer_minor_version_is_noted_and_read(tmp_path: Path) -> None:
    """1.7 is read as 1.0 with a note, and one for each key that 1.0 does not have."""
    text = GOOD.replace("'1.0'", "'1.7'").replace("providers:", "colour: blue\nproviders:")
    files = read(tmp_path, text)
    assert len(files.entries) == 2
    assert ["newer than 1.0" in note or "'colour'" in note for note in files.notes] == [True, True]


@pytest.mark.rule("K1")
def test_an_entry_that_adds_nothing_is_noted_and_stands_in_no_ones_way(tmp_path: Path) -> None:
    """An entry with neither inventories nor traits is passed over: what is for every node still reaches its node."""
    files = read(tmp_path, GOOD.replace("    traits:\n      additional: [CUSTOM_EXPLICIT]\n", ""))
    assert "adds nothing" in files.notes[0]
    given = resolved(files.entries, [NodeNamed(A, "n1")]).provided
    assert given[A].inventories[0].resource_class == LICENCE


def test_hostile_files_are_bounded(tmp_path: Path) -> None:
    """A file too large, one that is no file, one that is not UTF-8, and aliases that multiply end with an error, soon."""
    (tmp_path / "large.yaml").write_bytes(b"#" * (FILE_BYTES_MAX + 1))
    (tmp_path / "latin.yaml").write_bytes(b"meta:\n  schema_version: '1.\xe9'\n")
    laughs = "a: &a [x]\n" + "".join(f"{chr(98 + n)}: &{chr(98 + n)} [{','.join(['*' + chr(97 + n)] * 9)}]\n" for n in range(9))
    (tmp_path / "laughs.yaml").write_text(laughs)
    with pytest.raises(InvalidRecord, match="larger than"):
        read_provider_files([tmp_path / "large.yaml"])
    with pytest.raises(InvalidRecord, match=r"latin\.yaml:2:1: is not UTF-8"):
        read_provider_files([tmp_path / "latin.yaml"])
    with pytest.raises(InvalidRecord, match=r"laughs\.yaml:1:1"):
        read_provider_files([tmp_path / "laughs.yaml"])
    with pytest.raises(InvalidRecord, match="not a regular file"):
        read_provider_files([Path("/dev/zero")])
    with pytest.raises(InvalidRecord, match="cannot be read"):
        read_provider_files([tmp_path / "absent.yaml"])


# --- which node gets what ---------------------------------------------------------------------------------------------------------------


@pytest.mark.rule("K2")
def test_a_named_entry_beats_the_one_for_every_node(tmp_path: Path) -> None:
    """n1 gets what its own entry says and nothing else; the other node gets what is for every node."""
    given = resolved(read(tmp_path, GOOD).entries, [NodeNamed(A, "n1"), NodeNamed(B, "n2")]).provided
    assert given[A] == Provided(traits=(Trait("CUSTOM_EXPLICIT"),))
    assert given[B].traits == ("CUSTOM_FAST", "CUSTOM_RACK_7")


@pytest.mark.rule("K2")
@pytest.mark.parametrize("identification", ["name: n1", f"uuid: {A}", f"uuid: {str(A).upper()}", "uuid: $COMPUTE_NODE"])
def test_one_identification_stands_once(identification: str, tmp_path: Path) -> None:
    """The same identification in two files is an error that names both places."""
    first = provider(identification.replace(str(A).upper(), A))
    with pytest.raises(InvalidRecord, match=r"1\.yaml:3:5: provider .* is identified at .*0\.yaml:3:5 already"):
        read(tmp_path, first, provider(identification))


@pytest.mark.rule("K2")
def test_one_node_by_name_and_by_uuid_is_an_error(tmp_path: Path) -> None:
    """Two identifications that turn out to be one node are an error that names both, before anything is changed."""
    files = read(tmp_path, provider("name: n1"), provider(f"uuid: {A}"))
    with pytest.raises(InvalidRecord, match=r"is the node that .*0\.yaml:3:5 identifies as 'n1'"):
        resolved(files.entries, [NodeNamed(A, "n1")])


@pytest.mark.rule("K3")
def test_an_absent_provider_is_noted_once(tmp_path: Path) -> None:
    """A provider that is not in the ledger is passed over with one note."""
    found = resolved(read(tmp_path, provider("name: n7")).entries, [NodeNamed(A, "n1"), NodeNamed(B, "n2")])
    assert len(found.notes) == 1
    assert "'n7' is not in this ledger" in found.notes[0]


# --- on a node --------------------------------------------------------------------------------------------------------------------------

ADDED = Provided(inventories=(Inventory(resource_class=LICENCE, total=2),), traits=(Trait("CUSTOM_FAST"),))
ONE = Request(resources=(ResourceAmount(resource_class=LICENCE, amount=1),), required_traits=(Trait("CUSTOM_FAST"),))


@pytest.mark.rule("K1", "W28")
def test_the_second_load_is_no_event_and_no_claim_fails() -> None:
    """What was added is claimed; the same again changes nothing, also after a restart, and the next claim is granted."""
    with bench() as made:
        assert isinstance(made.tracker.hold(ONE), Refusal)
        assert made.tracker.provide(ADDED).changed
        held(made, ONE)
        sequence = made.tracker.node().sequence
        for each in (made, made.reopened()):
            answer = each.tracker.provide(ADDED)
            assert (answer.changed, answer.message) == (False, "has that already")
        assert made.tracker.node().sequence == sequence
        held(made, ONE)
        assert isinstance(made.tracker.hold(ONE), Refusal)
        assert made.tracker.audit() == ()


@pytest.mark.rule("K3", "W28")
def test_a_class_that_the_node_has_itself_is_left_and_said() -> None:
    """The node's own inventory stands, the rest is merged; set later, the node's own takes the place of the added one."""
    with bench() as made:
        own = NodeSettings(inventories=(Inventory(resource_class=LICENCE, total=1),), reserved_host_memory_bytes=0)
        made.tracker.configure(own)
        answer = made.tracker.provide(ADDED)
        assert answer.differences == ("CUSTOM_LICENCE is in the node's own inventory, which stands",)
        held(made, ONE)
        assert isinstance(made.tracker.hold(ONE), Refusal)
        assert not made.tracker.provide(ADDED).changed
    with bench() as made:
        made.tracker.provide(ADDED)
        made.tracker.configure(own)
        held(made, ONE)
        assert isinstance(made.tracker.hold(ONE), Refusal)
        assert made.tracker.audit() == ()


@pytest.mark.rule("K1")
def test_only_custom_classes_and_possible_inventories_are_taken() -> None:
    """What no file could say is refused from the library as well."""
    with bench() as made:
        for wrong in (
            Provided(inventories=(Inventory(resource_class=ResourceClass("VCPU"), total=1),)),
            Provided(traits=(Trait("HW_CPU_X86_AVX2"),)),
            Provided(inventories=(Inventory(resource_class=LICENCE, total=0),)),
            Provided(inventories=(Inventory(resource_class=LICENCE, total=1), Inventory(resource_class=LICENCE, total=2))),
        ):
            with pytest.raises(InvalidRequest):
                made.tracker.provide(wrong)
        assert made.tracker.node().provided == Provided()


@pytest.mark.rule("W3", "W28")
def test_every_node_has_its_own_additions() -> None:
    """What is added to one node of a host is not on another."""
    with bench() as made:
        bare_metal(made, "bm1")
        bare_metal(made, "bm2")
        made.tracker.provide(ADDED, node="bm1")
        held(made, ONE, "bm1")
        assert isinstance(made.tracker.hold(ONE, node="bm2"), Refusal)
