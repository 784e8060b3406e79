"""Makes docs/reference/rules.md: for each rule and scenario its tests, or what will bring them, or why it is not wanted.

The ids and titles stand in docs/reference/rules.toml, the tests are found by their `rule` markers without importing them.
"""

from __future__ import annotations

import ast
import functools
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tools.made import written

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "docs/reference/rules.toml"
PAGE = ROOT / "docs/reference/rules.md"
NOT_WANTED = "not: "
COUNTS = {"L": 17, "M": 32, "A": 16, "C": 15, "N": 25, "H": 7, "P": 26, "V": 7, "R": 11, "K": 4, "T": 6, "X": 6}
IDS = (
    *(f"{letter}{n}" for letter, count in COUNTS.items() for n in range(1, count + 1)),
    *(f"W{n}" for n in range(49)),
    *(f"S{n:02}" for n in range(1, 47)),
)
HEAD = """# Rules and scenarios

<!-- made by tools/rules_page.py from rules.toml and the tests; do not edit -->

The rules of the trade (what OpenStack Nova's compute tracker does, and where it goes wrong) and the scenarios of the accounting, each with
the tests that prove it here, or with the capability that will bring it, or with the reason why it is not wanted. Where Earmark differs
on purpose: [differences from Nova](../explanation/differences-from-nova.md).

"""


class Marked(NamedTuple):
    """A test that names rules."""

    path: str
    test: str
    ids: tuple[str, ...]


class Rule(NamedTuple):
    """A rule of rules.toml. `coming` is a key of the capabilities, `unwanted` a reason; both None: its tests are here."""

    id: str
    title: str
    coming: str | None
    unwanted: str | None


@functools.cache
def marked_tests(root: Path = ROOT) -> list[Marked]:
    """Return the tests with a `rule` marker, by file and line; a marker on a class or module counts for each of its tests."""
    found: list[Marked] = []
    for path in sorted((root / "tests").rglob("test_*.py")):
        tree = ast.parse(path.read_text())
        for_all = tuple(id_ for node in tree.body if is_pytestmark(node) for id_ in rule_ids(node))
        found.extend(Marked(str(path.relative_to(root)), *item) for item in tests_of(tree.body, for_all))
    return found


def is_pytestmark(node: ast.stmt) -> bool:
    """Say whether a statement sets `pytestmark`."""
    return isinstance(node, ast.Assign) and any(isinstance(target, ast.Name) and target.id == "pytestmark" for target in node.targets)


def tests_of(body: list[ast.stmt], inherited: tuple[str, ...]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield (name, ids) of the marked tests in a body."""
    for node in body:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        own = tuple(id_ for decorator in node.decorator_list for id_ in rule_ids(decorator))
        if isinstance(node, ast.ClassDef):
            yield from tests_of(node.body, (*inherited, *own))
        elif node.name.startswith("test") and (own or inherited):
            yield node.name, tuple(dict.fromkeys((*inherited, *own)))


def rule_ids(node: ast.AST) -> Iterator[str]:
    """Yield the ids in calls of pytest.mark.rule below a node (a parametrised test may mark single cases)."""
    for call in ast.walk(node):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "rule":
            for argument in call.args:
                if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                    yield argument.value


def load() -> tuple[list[Rule], dict[str, str], dict[str, str]]:
    """Return the rules in order, the capabilities and the titles of the groups; raises ValueError for what cannot be."""
    table = tomllib.loads(SOURCE.read_text())
    capabilities: dict[str, str] = table["capabilities"]
    rules = []
    for id_, (title, *rest) in table["rules"].items():
        word = rest[0] if rest else None
        unwanted = word.removeprefix(NOT_WANTED) if word and word.startswith(NOT_WANTED) else None
        if word and not unwanted and word not in capabilities:
            raise ValueError(f"rule {id_}: {word!r} is no capability")
        rules.append(Rule(id_, title, word if word and not unwanted else None, unwanted))
    return rules, capabilities, table["groups"]


def problems(rules: list[Rule], marked: list[Marked]) -> list[str]:
    """Return what is wrong: ids missing or unknown, rules with neither tests nor a promise nor a reason, tests of unwanted rules."""
    known = [rule.id for rule in rules]
    tested = {id_ for test in marked for id_ in test.ids}
    found = [f"rule {id_} stands in no line of rules.toml" for id_ in IDS if id_ not in known]
    found += [f"rules.toml: there is no rule {id_}" for id_ in known if id_ not in IDS]
    found += [f"{test.path}::{test.test} marks {id_}, which is no rule" for test in marked for id_ in test.ids if id_ not in IDS]
    found += [f"rule {rule.id} ({rule.title}) has no test, no promise and no reason" for rule in rules if bare(rule, tested)]
    found += [f"rule {rule.id} is not wanted, but has a test" for rule in rules if rule.unwanted and rule.id in tested]
    return found


def bare(rule: Rule, tested: set[str]) -> bool:
    """Say whether nothing speaks for a rule."""
    return not rule.coming and not rule.unwanted and rule.id not in tested


def page(rules: list[Rule], capabilities: dict[str, str], groups: dict[str, str], marked: list[Marked]) -> str:
    """Return the whole page."""
    tests: dict[str, list[str]] = {}
    for test in marked:
        for id_ in test.ids:
            tests.setdefault(id_, []).append(f"[{test.test}](../../{test.path})")
    proven = sum(1 for rule in rules if rule.id in tests and not rule.coming)
    begun = sum(1 for rule in rules if rule.id in tests and rule.coming)
    coming = sum(1 for rule in rules if rule.id not in tests and rule.coming)
    unwanted = sum(1 for rule in rules if rule.unwanted)
    parts = [HEAD, f"{len(rules)} ids: {proven} proven here, {begun} begun, {coming} still to come, {unwanted} not wanted.\n"]
    for letter, title in groups.items():
        parts.append(f"\n## {title}\n\n| id | rule | where |\n|---|---|---|\n")
        for rule in rules:
            if rule.id[0] != letter:
                continue
            cells = tests.get(rule.id, [])
            if rule.coming:
                cells = [*cells, f"{'more ' if cells else ''}with *{capabilities[rule.coming]}*"]
            if rule.unwanted:
                cells = [f"not wanted: {rule.unwanted}"]
            parts.append(f"| {rule.id} | {rule.title} | {'<br>'.join(cells) or '**nothing yet**'} |\n")
    return "".join(parts)


def main(arguments: list[str]) -> int:
    """Write the page, or with --check return 1 if it is not up to date or a rule has nothing to show."""
    rules, capabilities, groups = load()
    marked = marked_tests()
    wrong = problems(rules, marked)
    for line in wrong:
        print(line)
    return written({PAGE: page(rules, capabilities, groups, marked)}, arguments) + len(wrong)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
