"""What is generated is up to date, what is promised has its test, and what must not be in the repository is not."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest
from tests.house.sources import ROOT, dotted, sources
from tools import rules_page, secret_scan, settings_page, skips


def test_every_rule_has_tests_or_a_promise_or_a_reason() -> None:
    """Each id of the rules and scenarios is proven by a test, promised by a capability, or not wanted for a reason."""
    rules, _, _ = rules_page.load()
    assert rules_page.problems(rules, rules_page.marked_tests()) == []


def test_the_page_of_rules_is_up_to_date() -> None:
    """docs/reference/rules.md is what tools/rules_page.py makes of the tests that are here."""
    rules, capabilities, groups = rules_page.load()
    assert rules_page.PAGE.read_text() == rules_page.page(rules, capabilities, groups, rules_page.marked_tests()), "make docs"


def test_all_ids_are_there() -> None:
    """The list has the 172 rules, 49 weaknesses and 46 scenarios, each once."""
    assert len(rules_page.IDS) == len(set(rules_page.IDS)) == 172 + 49 + 46
    assert [rule.id for rule in rules_page.load()[0]] == list(rules_page.IDS)


def test_a_rule_without_anything_is_found(tmp_path: Path) -> None:
    """A rule with neither test nor promise nor reason, an unknown id and a test of an unwanted rule are each named."""
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/test_planted.py").write_text(
        "import pytest\npytestmark = pytest.mark.rule('C1')\n"
        "@pytest.mark.rule('C2', 'Z9')\ndef test_one(): ...\n"
        "@pytest.mark.parametrize('x', [pytest.param(1, marks=pytest.mark.rule('C3'))])\ndef test_two(x): ...\n"
        "class TestMore:\n    @pytest.mark.rule('N9')\n    def test_three(self): ...\n"
    )
    marked = rules_page.marked_tests(tmp_path)
    assert [(test.test, test.ids) for test in marked] == [
        ("test_one", ("C1", "C2", "Z9")),
        ("test_two", ("C1", "C3")),
        ("test_three", ("C1", "N9")),
    ]
    rules = [rules_page.Rule(id_, "x", None, None) for id_ in ("C1", "C2", "C3", "C4")] + [rules_page.Rule("N9", "y", None, "old")]
    found = rules_page.problems(rules, marked)
    assert "tests/test_planted.py::test_one marks Z9, which is no rule" in found
    assert "rule C4 (x) has no test, no promise and no reason" in found
    assert "rule N9 is not wanted, but has a test" in found
    assert not any("rule C3 " in line for line in found)


@pytest.mark.rule("W47")
def test_the_page_of_settings_is_up_to_date() -> None:
    """docs/reference/settings.md is what tools/settings_page.py makes of the Settings struct."""
    assert settings_page.PAGE.read_text() == settings_page.page(), "make docs"


def test_no_secret_and_no_workplace_is_tracked() -> None:
    """No tracked file holds a credential, a path of somebody's machine, or the host of a private registry."""
    assert secret_scan.scan(ROOT) == []


@pytest.mark.parametrize(
    ("parts", "what"),
    [
        (("-----BEGIN RSA PRIV", "ATE KEY-----"), "a private key"),
        (("AKIA", "ABCDEFGHIJKLMNOP"), "a cloud key"),
        (("ghp_", "a1B2c3D4e5F6g7H8", "i9J0k1L2m3N4o5P6"), "a forge or chat token"),
        (("eyJhbGciOiJIUzI1NiJ9.", "eyJzdWIiOiIxMjM0NTY3.", "SflKxwRJSMeKKF2QT4"), "a signed token"),
        (("postgres://earmark:", "sesame@db/ledger"), "a password in an address"),
        (("password = ", "'correct-horse'"), "a password in an assignment"),
        (("cd /wo", "rk/main"), "a workplace's path"),
        (("https://", "mirror.example.com/simple"), "a private registry"),
        (("x = 'q9Zt0VwLb3XkP7", "mRr2YdEa8HnUfJ5sC6g'"), "a string that looks random"),
    ],
)
def test_the_scan_finds_what_it_looks_for(parts: tuple[str, ...], what: str) -> None:
    """Each kind of planted text is found, and a reason on its line lets it pass."""
    text = "".join(parts)
    assert what in [found.what for found in secret_scan.scan_text("planted", f"first line\n{text}\n")]
    assert list(secret_scan.scan_text("planted", f"{text}  # scan: allowed - an example\n")) == []


@pytest.mark.parametrize(
    "text",
    ["a" * 64, "0123456789abcdef" * 4, "tests/house/test_pages.py::test_no_secret_and_no_workplace_is_tracked", "https://pypi.org/simple"],
)
def test_the_scan_lets_ordinary_text_pass(text: str) -> None:
    """Hashes, paths, names of tests and the public registry are no findings."""
    assert list(secret_scan.scan_text("planted", text)) == []


def test_unexpected_skips_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each skip is printed with its reason, and a reason that CI should not give fails the run."""
    report = tmp_path / "tests.xml"
    case = '<testcase classname="tests.x" name="test_{0}"><skipped type="pytest.skip" message="{1}"/></testcase>'
    good, bad = case.format("a", "mounting is not allowed here: no"), case.format("b", "Skipped: only root can do this")
    report.write_text(f"<testsuites><testsuite>{good}</testsuite></testsuites>")
    assert skips.main(str(report)) == 0
    report.write_text(f"<testsuites><testsuite>{good}{bad}</testsuite></testsuites>")
    assert skips.main(str(report)) == 1
    assert "tests.x.test_b: only root can do this   <- not an expected reason" in capsys.readouterr().out


def test_constraints_pin_every_dependency_and_name_no_host() -> None:
    """constraints.txt has a version for each direct dependency and no address."""
    table = tomllib.loads((ROOT / "pyproject.toml").read_text())
    text = (ROOT / "constraints.txt").read_text()
    pinned = {line.split("==")[0] for line in text.splitlines()}
    wanted = [*table["project"]["dependencies"], *(name for extra in table["project"]["optional-dependencies"].values() for name in extra)]
    assert {re.split(r"[>=<\[]", name)[0].lower() for name in wanted} <= pinned
    assert re.fullmatch(r"(?:[a-z0-9.-]+==[0-9][\w.+!-]*\n)+", text)


def test_the_base_needs_no_development_tools() -> None:
    """`pip install .` brings the six libraries that the product itself imports, and nothing of the tests."""
    table = tomllib.loads((ROOT / "pyproject.toml").read_text())
    base = {re.split(r"[>=<\[]", name)[0] for name in table["project"]["dependencies"]}
    assert base == {"apsw", "click", "immutables", "msgspec", "rich", "structlog"}


@pytest.mark.long
def test_every_skip_in_a_test_says_why() -> None:
    """No test is skipped without a reason, and none is expected to fail."""
    wrong = []
    for source in sources("tests"):
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Attribute) and dotted(node) in ("pytest.mark.xfail", "pytest.xfail"):
                wrong.append(f"{source.path}:{node.lineno} expects a failure")
            if isinstance(node, ast.Call) and dotted(node.func) in ("pytest.skip", "pytest.mark.skip", "pytest.mark.skipif"):
                given = [
                    *node.args[1 if dotted(node.func).endswith("skipif") else 0 :],
                    *(word for word in node.keywords if word.arg == "reason"),
                ]
                if not given:
                    wrong.append(f"{source.path}:{node.lineno} skips without a reason")
    assert wrong == []
