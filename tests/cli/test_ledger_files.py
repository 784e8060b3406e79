"""The commands on a real ledger on disk: init, backup, export, import, archive, selftest, discover."""

from __future__ import annotations

import grp
import json
import os
import stat
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner
from tests.cli.conftest import Said

from earmark.cli import output, output_machine
from earmark.cli.main import cli

CELL = "devices/system/node/node0"


class Disk:
    """A command line whose ledger is a file in a folder of a test."""

    def __init__(self, folder: Path) -> None:
        self.ledger = folder / "ledger.db"
        folder.mkdir(mode=0o700, exist_ok=True)

    def __call__(self, *words: str, stdin: bytes | None = None, **env: str) -> Said:
        """Run `earmark WORDS` as a user would."""
        result = CliRunner().invoke(cli, [*words], input=stdin, env={"EARMARK_LEDGER": str(self.ledger), "TERM": "dumb", **env})
        return Said(result.exit_code, result.stdout, result.stderr)

    def good(self, *words: str, stdin: bytes | None = None) -> str:
        """Run a command that must end with 0 and return its standard output."""
        said = self(*words, stdin=stdin)
        assert said.code == 0, said
        return said.out


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    """Give a command line with a ledger of its own."""
    return Disk(tmp_path / "one")


def test_the_first_command_makes_a_private_ledger_and_says_so(disk: Disk) -> None:
    """On a fresh machine the first command shows the real machine; the ledger it made is the user's alone, and a claim says that."""
    out = disk.good()
    assert "nothing is held yet" in out
    assert f"{os.cpu_count()} CPU" in out or "CPUs" in out
    assert "private: other users of this machine do" in " ".join(out.split())
    assert stat.S_IMODE(disk.ledger.stat().st_mode) == 0o600
    said = disk("claim", "--mem", "1MiB")
    assert "other users of this machine do not see this claim" in said.err
    assert json.loads(disk.good("claim", "--mem", "1MiB", "--json"))["notices"]
    assert json.loads(disk.good("--json"))["ledger"]["private"] is True


def test_init_shares_a_ledger_with_a_group(tmp_path: Path) -> None:
    """`init --shared DIR --group G` makes a group's ledger and announces it; claims in it carry no notice; --group alone is refused."""
    root = tmp_path / "root"
    (root / "var/tmp").mkdir(parents=True)
    (root / "var/tmp").chmod(0o1777)
    group = grp.getgrgid(os.getegid()).gr_name
    env = {"EARMARK_MACHINE_ROOT": str(root), "EARMARK_LEDGER": ""}
    shared = tmp_path / "shared"

    def run(*words: str) -> Said:
        result = CliRunner().invoke(cli, [*words], env={key: value or None for key, value in env.items()})
        return Said(result.exit_code, result.stdout, result.stderr)

    assert run("init", "--shared", str(shared)).code == run("init", "--group", group).code == 2
    said = run("init", "--shared", str(shared), "--group", group)
    assert said.code == 0, said
    assert "shared by its group" in said.out
    assert (shared / "ledger.db").exists()
    claimed = CliRunner().invoke(
        cli, ["--ledger", str(shared / "ledger.db"), "claim", "--mem", "1MiB"], env={"EARMARK_MACHINE_ROOT": str(root)}
    )
    assert (claimed.exit_code, claimed.stderr) == (0, "")


def test_init_makes_the_machines_ledger(tmp_path: Path) -> None:
    """`init --system` makes and announces the machine's ledger, which later commands use by themselves and call the machine's."""
    root = tmp_path / "root"
    (root / "var/lib").mkdir(parents=True)
    (root / "etc").mkdir()
    for folder in (root, root / "var", root / "var/lib", root / "etc"):
        folder.chmod(0o755)
    env = {"EARMARK_MACHINE_ROOT": str(root), "EARMARK_LEDGER": None}
    made = CliRunner().invoke(cli, ["init", "--system"], env=env)
    assert made.exit_code == 0, made.output
    assert "the machine's" in made.stdout
    claimed = CliRunner().invoke(cli, ["claim", "--mem", "1MiB", "--json"], env=env)
    assert claimed.exit_code == 0, claimed.output
    assert json.loads(claimed.stdout)["notices"] == []
    assert (root / "var/lib/earmark/ledger.db").exists()


def test_an_exclusive_grant_beside_the_machines_ledger_needs_private(tmp_path: Path) -> None:
    """Where the machine has a ledger, a private one refuses exclusive grants and names it; --private grants them all the same."""
    root = tmp_path / "root"
    for folder in (root, root / "var", root / "var/lib", root / "etc"):
        folder.mkdir(mode=0o755)
    env = {"EARMARK_MACHINE_ROOT": str(root), "EARMARK_LEDGER": None}
    assert CliRunner().invoke(cli, ["init", "--system"], env=env).exit_code == 0
    private = Disk(tmp_path / "own")
    said = private("claim", "--cpus", "1:dedicated", EARMARK_MACHINE_ROOT=str(root))
    assert said.code == 3
    assert str(root / "var/lib/earmark/ledger.db") in said.err
    assert private("claim", "--cpus", "1:dedicated", "--private", EARMARK_MACHINE_ROOT=str(root)).code == 0
    assert private("claim", "--mem", "1MiB", EARMARK_MACHINE_ROOT=str(root)).code == 0


def test_init_without_options_says_which_ledger_is_used(disk: Disk) -> None:
    """Plain init makes the ledger that would be used anyway, and may be repeated."""
    first = disk.good("init")
    assert str(disk.ledger) in first
    assert disk.good("init") == first
    assert disk.good("init", "-q") == ""


def test_a_backup_is_a_ledger(disk: Disk, tmp_path: Path) -> None:
    """A backup holds everything and opens as a ledger; an existing file is not overwritten."""
    claim = disk.good("claim", "-q", "--mem", "1MiB").strip()
    target = tmp_path / "copy" / "ledger.db"
    target.parent.mkdir(mode=0o700)
    made = msgspec.json.decode(disk.good("backup", str(target), "--json"), type=output.FileOut)
    assert made.bytes == target.stat().st_size
    assert disk("backup", str(target)).code == 2
    copy = Disk(target.parent)
    assert claim in copy.good("list", "--json")
    assert len(json.loads(copy.good("node", "list", "--json"))) == 1
    assert copy.good("release", claim) == f"{claim} released\n"


def test_an_export_comes_back_as_it_was(disk: Disk, tmp_path: Path) -> None:
    """Export to standard output and to a file are the same; an import takes it into an empty ledger, byte for byte, and no other."""
    disk.good("claim", "--mem", "1MiB", "--consumer", "vm-1")
    text = disk.good("export")
    file = tmp_path / "events.jsonl"
    assert "events" in disk.good("export", str(file))
    assert file.read_text() == text
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert disk("export", str(file)).code == 2
    other = Disk(tmp_path / "two")
    assert "events" in other.good("import", str(file))
    assert other("import", str(file)).code == 2
    third = Disk(tmp_path / "three")
    third.good("import", "-", stdin=text.encode())
    lines = [line for line in text.splitlines() if '"line":"event"' in line]
    assert [line for line in third.good("export").splitlines() if '"line":"event"' in line] == lines
    assert third.good("show", "vm-1") == disk.good("show", "vm-1")


@pytest.mark.rule("A10")
def test_a_ledger_of_another_machine_must_be_given_to_this_one(disk: Disk, tmp_path: Path) -> None:
    """An import from another machine is read and not written, until `node rehome` says that it is this machine's now."""
    claim = disk.good("claim", "-q", "--mem", "1MiB").strip()
    node = json.loads((disk.ledger.parent / "node.json").read_text())
    if node.get("machine_ref") is None:
        pytest.skip("this machine has no machine id, so another one cannot be told from it")
    (disk.ledger.parent / "node.json").write_text(json.dumps({**node, "machine_ref": "0" * 64}))
    assert claim in disk.good("list")
    said = disk("release", claim)
    assert said.code == 6
    assert "earmark node rehome" in said.err
    assert disk("claim", "--mem", "1MiB").code == 6
    disk.good("node", "rehome", "--reason", "moved to a new board")
    disk.good("release", claim)


@pytest.mark.parametrize("text", [b"", b"{}\n", b"not json\n", b'{"line":"export","version":1,"ledger":"x"}\n', b"\xff\xfe"])
def test_a_broken_export_is_refused_whole(tmp_path: Path, text: bytes) -> None:
    """What is no complete export leaves the ledger empty and exits 2."""
    disk = Disk(tmp_path / "one")
    assert disk("import", "-", stdin=text).code == 2
    assert disk("import", str(tmp_path / "none")).code == 2


def test_a_scrubbed_export_names_nobody(disk: Disk) -> None:
    """With --scrub no consumer, owner or reason is in the export; amounts and CPU numbers are."""
    disk.good("claim", "--mem", "3MiB", "--consumer", "secret-project", "--owner", "alice")
    disk.good("node", "cordon", "0", "--reason", "because of secret-project")
    text = disk.good("export", "--scrub")
    assert "secret-project" not in text
    assert "alice" not in text
    assert str(3 << 20) in text
    assert "secret-project" in disk.good("export")


def test_old_events_are_archived_and_the_rest_still_verifies(disk: Disk, tmp_path: Path) -> None:
    """Archiving moves the old events to a file; list, audit and verify answer as before, and export needs the file."""
    claim = disk.good("claim", "-q", "--mem", "1MiB").strip()
    file = tmp_path / "old.jsonl"
    assert "nothing is that old" in disk.good("archive", str(file))
    assert not file.exists()
    assert "moved" in disk.good("archive", str(file), "--before", "now")
    assert file.stat().st_size > 0
    assert disk("archive", str(file), "--before", "now").code == 2
    assert claim in disk.good("list")
    disk.good("audit")
    disk.good("verify")
    assert disk("export").code == 2
    assert claim in disk.good("export", "--archive", str(file))
    disk.good("claim", "--mem", "1MiB")
    disk.good("verify")


@pytest.mark.long
def test_selftest_kills_writers_and_finds_everything(disk: Disk) -> None:
    """Writers are killed on the disk under the ledger; what they were told is there, and the folder of the test is gone afterwards."""
    found = msgspec.json.decode(disk.good("selftest", "--rounds", "2", "--json"), type=output.SelftestOut)
    assert (found.clean, found.rounds, found.kills, found.lost, found.findings) == (True, 2, 4, 0, [])
    assert found.acknowledged >= 4
    assert not Path(found.folder).exists()
    assert Path(found.folder).parent == disk.ledger.parent


def test_selftest_says_what_was_lost(tmp_path: Path) -> None:
    """An answer that the ledger lacks is reported with the claim it was about."""
    from earmark.cli.proof import compare

    disk = Disk(tmp_path / "one")
    claim = disk.good("claim", "-q", "--mem", "1MiB").strip()
    found = compare(disk.ledger, [f"+ {claim}", f"- {claim}", "+ c-000000000000"], kills=1)
    assert found.lost == (f"- {claim}", "+ c-000000000000")
    assert compare(disk.ledger, [f"+ {claim}", f"- {claim}"], kills=1).lost == ()


def test_discover_needs_no_ledger(disk: Disk) -> None:
    """Discover prints this machine, in words and in its documented shape, and makes no ledger."""
    assert "cpus" in disk.good("discover")
    text = disk.good("discover", "--json")
    found = msgspec.json.decode(text, type=output_machine.DiscoverOut, strict=True)
    assert set(json.loads(text)) == set(output_machine.DiscoverOut.__struct_fields__)
    assert found.cpus
    assert found.cells
    assert not disk.ledger.exists()


def test_discover_reads_a_recorded_machine(disk: Disk, tmp_path: Path) -> None:
    """With --root another machine's files are read; a root that is no folder, or without CPUs, is an error."""
    root = tmp_path / "root"
    for cpu in range(4):
        topology = root / f"sys/devices/system/cpu/cpu{cpu}/topology"
        topology.mkdir(parents=True)
        (topology / "thread_siblings_list").write_text(f"{cpu % 2},{cpu % 2 + 2}\n")
        (topology / "core_cpus_list").write_text(f"{cpu % 2},{cpu % 2 + 2}\n")
    (root / "sys/devices/system/cpu/online").write_text("0-3\n")
    (root / "proc").mkdir()
    (root / "proc/meminfo").write_text("MemTotal:        8388608 kB\n")
    found = json.loads(disk.good("discover", "--root", str(root), "--json"))
    assert found["cpus"] == [0, 1, 2, 3]
    assert found["cores"] == [[0, 2], [1, 3]]
    assert "2, up to 2 threads each" in disk.good("discover", "--root", str(root))
    assert disk("discover", "--root", str(tmp_path / "none")).code == 2
    (tmp_path / "empty").mkdir()
    assert disk("discover", "--root", str(tmp_path / "empty")).code == 5
