"""The comparison with recorded lives: every book, what Nova granted twice, what is wrong on purpose, what cannot be read."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.accounts.making import (
    OTHER,
    OTHER_BOOK,
    OWN,
    SWAP_CAUSE,
    Made,
    all_of_them,
    beyond,
    building,
    claim,
    double,
    fleeing,
    guest_cell,
    moving,
    placed,
    sequence,
    step,
    written,
)
from tools import accounts
from tools.account_books import Book, CellFigures, expected_book
from tools.account_file import Malformed, read
from tools.account_format import Sequence
from tools.account_record import Record

from earmark.core.model.units import MIB

pytestmark = pytest.mark.long


def spoiled(made: Made, *path: str | int, to: object) -> Made:
    """Return a life with one value replaced."""
    whole = copy.deepcopy(made)
    inner: Any = whole
    for part in path[:-1]:
        inner = inner[part]
    inner[path[-1]] = to
    return whole


@pytest.mark.parametrize("store", ["memory", "sqlite"])
@pytest.mark.rule("M4", "M5", "M6", "M7", "M8", "M9", "M20", "M21", "C1", "C2", "C3", "C7", "N18", "N19")
def test_every_book_of_a_life_is_right(store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Builds, moves, an evacuation and restarts give the books that stand beside them, in memory and in a file."""
    assert accounts.main([str(written(tmp_path, *all_of_them(), zipped=True)), "--store", store]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[-1] == "0 wrong of 96 books, 0 explained"
    assert any(line.strip() == f"1  {SWAP_CAUSE}" for line in said)


def test_expected_books_are_the_sum_of_what_was_claimed(tmp_path: Path) -> None:
    """What is compared with is, at every operation, the host's reserve and the shares of the claims that the record says are held."""
    for life in lives(written(tmp_path, *all_of_them(), double())):
        compared(life)


@pytest.mark.parametrize(
    ("path", "wrong", "said"),
    [
        (("ops", 0, "after", "n0", "vcpus_used"), 3, "built op 0 build_claim on n0: vcpus_used: expected 3, found 1"),
        (("ops", 2, "ledger", "n0", "local_gb_used"), 5, "built op 2 build_claim on n0: local_gb_used: expected 5, found 11/2"),
        (("ops", 5, "after", "n1", "cells", "1", "pinned_cpus"), [5, 14], "cells.1.pinned_cpus: expected 5,14, found 5,13"),
        (("ops", 5, "after", "n1", "cells", "1", "pages", "2048"), 31, "cells.1.pages.2048: expected 31, found 32"),
        (("ops", 5, "after", "n1", "pci"), {}, "pci.0000:20:02.0: expected free, found i2"),
    ],
)
def test_a_book_that_is_wrong_is_counted_and_shown(
    path: tuple[str | int, ...], wrong: object, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A spoiled figure gives the status 1, the place, what was expected and what was found; --json has the same."""
    file = written(tmp_path, spoiled(building(), *path, to=wrong))
    assert accounts.main([str(file)]) == 1
    out = capsys.readouterr().out
    assert said in out
    assert not out.splitlines()[-1].startswith("0 wrong")
    assert accounts.main([str(file), "--json"]) == 1
    whole = json.loads(capsys.readouterr().out)
    assert whole["wrong"][0]["place"]["sequence"] == "built"
    assert {"figure", "expected", "found"} == set(whole["wrong"][0]["differences"][0])


@pytest.mark.rule("W1", "W2", "W8")
def test_a_double_grant_is_named_and_the_rest_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """CPUs and a card that others hold are refused to the second instance, who holds them is said, and all others' books are right."""
    assert accounts.main([str(written(tmp_path, double()))]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == (
        "Nova's double grant: twice op 2 build_claim on n0: i2 is given cpu:1, pci:0000:20:00.0, held by i1; compared without i2"
    )
    assert said[-1] == "0 wrong of 14 books, 4 explained"
    assert accounts.main([str(written(tmp_path, spoiled(double(), "ops", 3, "after", to={"n0": building()["start"]["n0"]})))]) == 1


@pytest.mark.rule("L3", "W27")
def test_what_compute_leaves_to_placement_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Floating guests beyond the shared CPUs are granted after the node got more to go on, and that is reported."""
    assert accounts.main([str(written(tmp_path, beyond()))]) == 0
    assert "2 nodes were given more than there is (vcpu 2)" in capsys.readouterr().out


def test_a_refusal_that_the_record_does_not_explain_is_a_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """More huge pages than a cell has, with nobody else there, is refused, shown with the reason, and not swallowed."""
    huge = placed(guest_cell(0, {}, memory=2048, page=2048, shared=(0,)))
    assert accounts.main([str(written(tmp_path, sequence("odd", claim("build_claim", "i1", "n0", "huge", huge))))]) == 1
    out = capsys.readouterr().out
    assert out.startswith(
        "fault: odd op 0 build_claim on n0, i1: Earmark refuses what was granted: pages:0:2048 on cell 0: 1024 asked, 512 free"
    )


def test_a_step_that_cannot_be_is_a_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A confirm without a move is answered with what is wrong, and the sequence goes on."""
    life = fleeing()
    life["ops"][1]["op"] = "confirm"
    assert accounts.main([str(written(tmp_path, life))]) == 1
    assert "fault: fled op 1 confirm on no node, i1: UnknownMove" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("spoil", "place", "message"),
    [
        (lambda made: "{", "", "truncated"),
        (lambda made: "[]", "", "Expected `object`"),
        (lambda made: spoiled(made, "surprise", to=1), "", "unknown field `surprise`"),
        (lambda made: spoiled(made, "ops", 1, "op", to="teleport"), "ops[1].op", "Invalid enum value 'teleport'"),
        (lambda made: spoiled(made, "ops", 0, "extra", to=1), "ops[0]", "unknown field `extra`"),
        (lambda made: spoiled(made, "ops", 0, "node", to="n7"), "ops[0].node", "no node 'n7'"),
        (lambda made: spoiled(made, "ops", 0, "flavor", to="x"), "ops[0].flavor", "no flavor 'x'"),
        (lambda made: spoiled(made, "ops", 0, "placement", to=None), "ops[0]", "needs the field `placement`"),
        (lambda made: spoiled(made, "ops", 0, "after", "n0", "vcpus_used", to="1"), "ops[0].after[...].vcpus_used", "Expected `int`"),
        (lambda made: spoiled(made, "ops", 5, "placement", "cells", 0, "host_cell", to=9), "ops[5].placement.cells[0].host_cell", "no cell 9"),
        (lambda made: spoiled(made, "ops", 5, "placement", "pci", to=["0000:99:00.0"]), "ops[5].placement.pci", "no device"),
        (lambda made: spoiled(made, "nodes", 0, "host", "pci", 1, "parent", to="x"), "nodes[0].host.pci[1].parent", "no device"),
        (lambda made: spoiled(made, "nodes", 1, "name", to="n0"), "nodes", "one name"),
        (lambda made: spoiled(made, "start", "n0", "vcpus_used", to=4), "start.n0", "empty nodes"),
    ],
)  # fmt: skip
def test_a_line_that_is_no_sequence_is_left_out(
    spoil: Callable[[Made], Made | str], place: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file, line and place of the error are said, the other lines are replayed, and the status is 2."""
    file = written(tmp_path, fleeing(), spoil(building()), moving())
    assert accounts.main([str(file)]) == 2
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith(f"malformed: {file}:2: {place + ': ' if place else ''}")
    assert message in said[0]
    assert said[1].startswith("2 sequences, 31 operations")


def test_a_file_that_breaks_off_keeps_its_beginning(tmp_path: Path) -> None:
    """A gzipped file that was cut short gives the lines before the cut, then an error; one that is absent only an error."""
    file = written(tmp_path, *all_of_them() * 50, zipped=True)
    file.write_bytes(file.read_bytes()[:-300])
    found = list(read(file))
    assert isinstance(found[0], Sequence)
    assert isinstance(found[-1], Malformed)
    assert accounts.main([str(tmp_path / "absent")]) == 2


def test_who_was_left_out_comes_back_with_its_next_build(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An instance that was granted twice is compared again once it has given everything back and is built elsewhere."""
    first, again = moving()["ops"][0], claim("build_claim", "i2", "n0", "own", placed(OWN))
    there = claim("build_claim", "i2", "n1", "own", placed(OTHER), after={"n1": OTHER_BOOK})
    both = spoiled_double()
    life = sequence("again", first, {**again, "after": {"n0": both}}, step("build_abort", "i2", "n0", after=first["after"]), there)
    assert accounts.main([str(written(tmp_path, life))]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "0 wrong of 8 books, 1 explained"
    assert accounts.main([str(written(tmp_path, spoiled(life, "ops", 3, "after", "n1", "vcpus_used", to=1)))]) == 1


def test_an_own_cpu_twice_is_refused_to_the_same_instance_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A resize on one host that gives the guest the CPUs that it has is named as a double grant to itself."""
    life = sequence(
        "itself",
        claim("build_claim", "i1", "n0", "own", placed(OWN), after={"n0": moving()["ops"][0]["after"]["n0"]}),
        claim("resize_claim", "i1", "n0", "own", placed(OWN), after={"n0": spoiled_double()}, **{"from": "n0"}),
    )
    assert accounts.main([str(written(tmp_path, life))]) == 0
    assert "i1 is given cpu:1, cpu:9, held by i1" in capsys.readouterr().out


def spoiled_double() -> Made:
    """Return the book of a node on which one instance has the same CPUs in two claims."""
    made: Made = copy.deepcopy(moving()["ops"][8]["after"]["n0"])
    made["cells"]["0"]["pinned_cpus"] = [1, 9]
    return made


@pytest.mark.shared
@pytest.mark.long
@pytest.mark.rule("W1", "W2", "W3", "W4", "W5", "W10")
def test_the_recorded_lives_have_no_wrong_book(shared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All recorded lives on the real Nova: no book is wrong where the right one is known, two double grants are refused."""
    file = shared / "oracle" / "accounts-dev.jsonl.gz"
    assert accounts.main([str(file)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[-1] == "0 wrong of 12715 books, 7 explained"
    assert sum(line.startswith("Nova's double grant") for line in said) == 2
    for life in lives(file):
        compared(life)


# --- a second answer ----------------------------------------------------------------------------------------------------------------


def lives(file: Path) -> list[Sequence]:
    """Return the sequences of a file that has no other lines."""
    found = list(read(file))
    assert not [each for each in found if isinstance(each, Malformed)]
    return [each for each in found if isinstance(each, Sequence)]


def compared(life: Sequence) -> None:
    """Add up what the record says is held, and hold it against the expected book of each node that is up, at each operation."""
    record, last, down = Record(life), dict(life.start), set[str]()
    for number, op in enumerate(life.ops):
        record.apply(op)
        last |= op.after
        down = down | {op.node or ""} if op.op == "node_down" else down - {op.node or ""} if op.op == "node_restart" else down
        for name in set(last) - down:
            assert summed(record, name) == expected_book(op, last[name], name), (life.id, number, name)


def summed(record: Record, name: str) -> Book:
    """Return the sum of all shares on a node, and what is kept for the host."""
    node, shares = record.nodes[name], record.on(name)
    cells = []
    for there in sorted(node.host.cells, key=lambda cell: cell.id):
        parts = [share.cells[there.id] for share in shares if there.id in share.cells]
        pages = {each.size_kb: sum(dict(part.pages).get(each.size_kb, 0) for part in parts) for each in there.pages}
        cells.append(
            (
                there.id,
                CellFigures(
                    pinned_cpus=tuple(sorted({cpu for part in parts for cpu in part.pinned_cpus})),
                    memory_bytes=sum(part.memory_bytes for part in parts), shared_vcpus=sum(part.shared_vcpus for part in parts),
                    pages=tuple(sorted(pages.items())),
                ),
            )
        )  # fmt: skip
    return Book(
        vcpus=sum(share.vcpus for share in shares), memory_bytes=node.reserved_memory_mb * MIB + sum(share.memory_bytes for share in shares),
        disk_bytes=sum(share.disk_bytes for share in shares), cells=tuple(cells),
        pci=tuple(sorted({address: share.instance for share in shares for address in share.pci}.items())),
    )  # fmt: skip
