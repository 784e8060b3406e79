"""Replays recorded lives of instances (JSON lines, plain or gzipped) and compares every book: `make accounts FILE=…`.

    .venv/bin/python -m tools.accounts FILE… [--store memory|sqlite] [--json]

Ends with "N wrong of M books, K explained"; the status is 1 if a book is wrong or something was refused without a reason in the record, 2 if only a
line (or a file) could not be read.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
from tools.account_file import Malformed, read
from tools.account_format import Sequence
from tools.account_replay import Report, replays

from earmark.stores.contract import Store
from earmark.wiring import file_store, memory_store

SHOWN_MAX = 50
"""So many of each kind are printed; `--json` has all."""


def main(arguments: list[str] | None = None) -> int:
    """Replay the files and print what was found; return the status."""
    asked = _arguments(arguments)
    report = Report()
    malformed: list[Malformed] = []
    with tempfile.TemporaryDirectory(prefix="earmark-accounts-") as folder:
        opener = _memory if asked.store == "memory" else _files(Path(folder))
        for done in replays(_sequences(asked.files, malformed), opener, report):
            _progress(done, report)
    _progress(None, report)
    print(_json(report, malformed) if asked.json else "\n".join(_lines(report, malformed)))
    if report.wrong or report.faults:
        return 1
    return 2 if malformed else 0


def _arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make accounts FILE=…", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="recorded sequences, one a line")
    parser.add_argument("--store", choices=("memory", "sqlite"), default="memory", help="where the ledgers rest")
    parser.add_argument("--json", action="store_true", help="print everything as one JSON object")
    return parser.parse_args(arguments)


def _sequences(files: list[Path], malformed: list[Malformed]) -> Iterator[Sequence]:
    """Yield the sequences of all files; what cannot be read is added to `malformed`."""
    for file in files:
        try:
            for found in read(file):
                if isinstance(found, Malformed):
                    malformed.append(found)
                else:
                    yield found
        except OSError as error:
            malformed.append(Malformed(str(file), 0, "", f"cannot be read: {error.strerror or error}"))


def _memory() -> Callable[[], Store]:
    store = memory_store()
    return lambda: store


def _files(folder: Path) -> Callable[[], Callable[[], Store]]:
    """Return a maker of openers, each of a file of its own."""
    numbers = iter(range(1 << 30))

    def made() -> Callable[[], Store]:
        path = folder / f"{next(numbers)}.db"
        return lambda: file_store(path)

    return made


def _progress(done: Sequence | None, report: Report) -> None:
    """Say on a terminal how far the replay is; nothing elsewhere."""
    if sys.stderr.isatty():
        text = "" if done is None else f"{report.sequences} sequences, {report.books} books, {len(report.wrong)} wrong; last {done.id}"
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()


# --- what is said -------------------------------------------------------------------------------------------------------------------


def _lines(report: Report, malformed: list[Malformed]) -> Iterator[str]:
    """Yield the report, its last line the verdict."""
    yield from _some("malformed", [str(each) for each in malformed])
    yield from _some("fault", [f"{each.place}{', ' + each.instance if each.instance else ''}: {each.text}" for each in report.faults])
    yield from _some("wrong", [f"{each.place}: " + "; ".join(map(str, each.differences)) for each in report.wrong])
    yield from _some(
        "Nova's double grant",
        [
            f"{each.place}: {each.instance} is given {', '.join(each.units)}, held by {', '.join(each.holders)}; compared without {each.instance}"
            for each in report.doubles
        ],
    )
    yield f"{report.sequences} sequences, {report.operations} operations"
    if report.broke_off:
        yield f"{report.broke_off} sequences end where Nova raised in an operation that has to work"
    if report.beyond:
        nodes = {(each.place.sequence, each.place.node) for each in report.beyond}
        of = Counter(resource for each in report.beyond for resource in each.resources)
        what = ", ".join(f"{resource} {count}" for resource, count in sorted(of.items()))
        yield f"{len(nodes)} nodes were given more than there is ({what}), which Nova's compute leaves to Placement (L3); they got more to go on"
    if report.causes or report.nova_wrong:
        yield f"Nova's own book was wrong {report.nova_wrong} times; what began it, and how often:"
        for cause, count in sorted(report.causes.items(), key=lambda item: (-item[1], item[0])):
            yield f"  {count:5}  {cause}"
    yield f"{len(report.wrong)} wrong of {report.books} books, {report.explained} explained"


def _some(what: str, found: list[str]) -> Iterator[str]:
    yield from (f"{what}: {line}" for line in found[:SHOWN_MAX])
    if len(found) > SHOWN_MAX:
        yield f"{what}: and {len(found) - SHOWN_MAX} more (--json has all)"


def _json(report: Report, malformed: list[Malformed]) -> str:
    whole = msgspec.to_builtins(report)
    for key in ("wrong", "doubles", "beyond", "faults"):
        whole[key] = [_named(each) for each in getattr(report, key)]
    whole["malformed"] = [each._asdict() for each in malformed]
    return msgspec.json.format(msgspec.json.encode(whole), indent=2).decode()


def _named(each: object) -> object:
    """Return tuples with names as objects with fields, all the way down."""
    if isinstance(each, tuple) and hasattr(each, "_asdict"):
        return {key: _named(value) for key, value in each._asdict().items()}
    return [_named(value) for value in each] if isinstance(each, tuple) else each


if __name__ == "__main__":
    sys.exit(main())
