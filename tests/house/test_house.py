"""The rules of the house that no linter knows: sizes, names, docstrings, reasons, catches, locks, who may read time and environment."""

from __future__ import annotations

import ast
import re

import pytest
from tests.house.sources import ROOT, Source, classes, comments, dotted, enclosing, functions, sources, words

from earmark.redactor import FIELDS

MODULE_LINES_MAX = 450
TEST_MODULE_LINES_MAX = 600
FUNCTION_LINES_MAX = 70
BANNED_ANYWHERE = {"manager", "helper", "helpers", "util", "utils", "misc"}
BANNED_ALONE = {"data", "info"}
BANNED_VERBS = {"process", "handle", "update"}
NOUNS = {"_process", "process_state"}
"""Functions in whose name a process is a process of the operating system."""

SUPPRESSION = re.compile(r"#\s*(noqa|type:\s*ignore|pragma:|ruff:)(?P<rest>.*)")
REASONED = re.compile(r"(:?\s*(?:noqa:\s*)?[A-Z]+[0-9]+(,\s*[A-Z]+[0-9]+)*|\[[a-z, -]+\])?\s*(-|#|\s{2})?\s*\w{4,}|\w+[:, ]+\w+")

BROAD_CATCHES: dict[str, str] = {}
"""file:function → why a broad catch that does not raise again is right there. None is."""

SWALLOWED = {
    "src/earmark/launch/keeper.py:become": "execve returned, so its error number is the answer that is already kept",
    "src/earmark/launch/keeper.py:leave_world": "a descriptor that cannot be closed is closed already; there is nobody left to tell",
    "src/earmark/launch/keeper.py:remove_folders": "a folder that is not empty has somebody in it, and the next run removes leftovers",
}
"""file:function → why nothing is said of an OSError there."""

TIME_READERS = {
    "src/earmark/clock.py": "the clock itself",
    "src/earmark/launch/keeper.py": "between fork and exec and while signals are forwarded there is no tracker and no clock to be given",
    "src/earmark/launch/cgroups.py": "the age of a leftover folder is compared with the file system's own clock",
    "src/earmark/stores/sqlite/lock.py": "how long a writer waits for another process; no stamp is made from it",
}
ENVIRONMENT_READERS = {
    "src/earmark/settings.py": "the one loader",
    "src/earmark/launch/keeper.py": "the user's command inherits the whole environment, unread",
}
LOCK_MAKERS = {
    "src/earmark/locks.py": "the one kind of lock there is",
    "src/earmark/testing.py": "a fake clock that several threads of a test move",
}
TIME_CALLS = re.compile(
    r"time\.(time|time_ns|monotonic|monotonic_ns|perf_counter|perf_counter_ns)|datetime\.(now|utcnow|today)|date\.today"
)
LOCK_CALLS = re.compile(r"(threading\.)?(Lock|RLock|Condition|Semaphore|BoundedSemaphore)")
WORLDLY_NAMES = {"open", "print", "input", "eval", "exec", "compile", "__import__", "globals", "breakpoint", "id", "hash"}

SRC = sources("src")
ALL = sources("src", "tests", "tools", "bench", "examples")


def ids(source: Source) -> str:
    """Return the name of a case."""
    return source.path


def test_the_source_is_found() -> None:
    """The tests below look at something."""
    assert len(SRC) > 30


def test_modules_and_functions_are_short() -> None:
    """A module has at most 450 lines (400 is the aim; tests 600), a function at most 70 (60 is the aim)."""
    long = []
    for source in ALL:
        lines = len(source.text.splitlines())
        if lines > (TEST_MODULE_LINES_MAX if source.path.startswith("tests/") else MODULE_LINES_MAX):
            long.append(f"{source.path}: {lines} lines")
        for function in functions(source):
            lines = (function.node.end_lineno or 0) - function.node.lineno + 1
            if lines > FUNCTION_LINES_MAX:
                long.append(f"{function.where}: {lines} lines")
    assert not long, "\n".join(long)


def test_everything_public_says_what_it_is_for() -> None:
    """Every module (one to nine lines), public class and public function of the product has a docstring that begins with a sentence."""
    silent = []
    for source in SRC:
        said = ast.get_docstring(source.tree)
        if not said:
            silent.append(f"{source.path}: no docstring")
        public = [node for node in classes(source) if not node.name.startswith("_")]
        silent += [f"{source.path}:{node.lineno} class {node.name}" for node in public if not ast.get_docstring(node)]
        silent += [
            f.where
            for f in functions(source)
            if f.public and not f.name.endswith("__") and not is_overload(f.node) and not ast.get_docstring(f.node)
        ]
    assert not silent, "\n".join(silent)


def is_overload(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Say whether a function is only a signature."""
    return any(dotted(decorator).endswith(("overload", "setter")) for decorator in node.decorator_list)


def test_every_test_says_what_it_shows() -> None:
    """Each test function has a docstring of one sentence."""
    silent = []
    for source in sources("tests"):
        for function in functions(source):
            if function.node.name.startswith("test_"):
                said = (ast.get_docstring(function.node) or "").strip()
                if not said or not said.endswith((".", "?", "”", ")")):
                    silent.append(function.where)
    assert not silent, "\n".join(silent)


def test_test_files_have_names_of_their_own() -> None:
    """No two test files share a name, since they are imported without packages."""
    names = [source.path.rsplit("/", 1)[1] for source in sources("tests") if "/test_" in source.path]
    assert sorted(names) == sorted(set(names))


def test_names_are_words_of_the_trade() -> None:
    """Nothing is called manager, helper, util, misc, data or info, and no function processes, handles or updates."""
    bad = []
    for source in SRC:
        stem = source.name.rsplit(".", 1)[-1]
        if BANNED_ANYWHERE & set(words(stem)) or stem in BANNED_ALONE:
            bad.append(source.path)
        for_class = BANNED_ANYWHERE | BANNED_ALONE
        bad += [f"{source.path}:{node.lineno} {node.name}" for node in classes(source) if for_class & set(words(node.name))]
        for function in functions(source):
            parts = words(function.node.name)
            if (
                BANNED_ANYWHERE & set(parts)
                or (parts[:1] and parts[0] in BANNED_VERBS and function.node.name not in NOUNS)
                or function.node.name in BANNED_ALONE
            ):
                bad.append(function.where)
    assert not bad, "\n".join(bad)


def test_every_exception_to_a_rule_has_its_reason_beside_it() -> None:
    """noqa, type: ignore and pragma carry words that say why, and name the rule that they set aside."""
    bare = []
    for source in ALL:
        for line, text in comments(source):
            match = SUPPRESSION.search(text)
            if match and not REASONED.search(re.sub(r"^:?\s*(\[[^\]]*\]|[A-Z]+[0-9]+(\s*,\s*[A-Z]+[0-9]+)*)", "", match["rest"])):
                bare.append(f"{source.path}:{line} {text.strip()}")
            if match and match[1] == "noqa" and not re.match(r":\s*[A-Z]+[0-9]+", match["rest"]):
                bare.append(f"{source.path}:{line} names no rule: {text.strip()}")
    assert not bare, "\n".join(bare)


@pytest.mark.rule("W41")
def test_no_broad_catch() -> None:
    """Bare except and except Exception stand nowhere; except BaseException only where it raises again at once."""
    broad = []
    for source in SRC:
        for node in ast.walk(source.tree):
            if not isinstance(node, ast.ExceptHandler):
                continue
            caught = {
                dotted(part).rsplit(".", 1)[-1]
                for part in (node.type.elts if isinstance(node.type, ast.Tuple) else [node.type] if node.type else [])
            }
            place = f"{source.path}:{enclosing(source, node.lineno)}"
            raises = any(isinstance(inner, ast.Raise) for inner in ast.walk(node)) and isinstance(node.body[-1], ast.Raise)
            wide = node.type is None or "Exception" in caught or ("BaseException" in caught and not raises)
            if wide and place not in BROAD_CATCHES:
                broad.append(f"{source.path}:{node.lineno}")
    assert not broad, "\n".join(broad)


def test_no_exception_is_swallowed() -> None:
    """No handler consists of pass alone, and suppress is given narrow errors."""
    swallowed = []
    for source in SRC:
        for node in ast.walk(source.tree):
            if isinstance(node, ast.ExceptHandler) and all(isinstance(part, ast.Pass) for part in node.body):
                swallowed.append(f"{source.path}:{node.lineno}")
            if isinstance(node, ast.Call) and dotted(node.func).endswith("suppress"):
                wide = any(dotted(part) in ("Exception", "BaseException", "OSError") for part in node.args)
                place = f"{source.path}:{enclosing(source, node.lineno)}"
                if wide and place not in SWALLOWED:
                    swallowed.append(f"{source.path}:{node.lineno}")
    assert not swallowed, "\n".join(swallowed)


@pytest.mark.rule("X1")
def test_locks_are_context_managers() -> None:
    """Acquire and release of a lock are written once, in locks.py; everybody else says with."""
    by_hand = []
    for source in SRC:
        for node in ast.walk(source.tree):
            if not isinstance(node, ast.Call):
                continue
            name = dotted(node.func)
            held = name.rsplit(".", 1)[0].rsplit(".", 1)[-1].lower() if "." in name else ""
            if (
                name.endswith((".acquire", ".release"))
                and re.search(r"lock|mutex|semaphore|condition|guard", held)
                and source.path != "src/earmark/locks.py"
            ):
                by_hand.append(f"{source.path}:{node.lineno} {name}")
            if LOCK_CALLS.fullmatch(name) and source.path not in LOCK_MAKERS:
                by_hand.append(f"{source.path}:{node.lineno} makes a {name}: use locks.NamedLock")
    assert not by_hand, "\n".join(by_hand)


def test_only_the_clock_reads_time() -> None:
    """Time is read in clock.py, and where a reason stands for it."""
    read = calls(TIME_CALLS)
    assert read - set(TIME_READERS) == set()
    assert set(TIME_READERS) - read == set(), "a reader that is listed no longer reads"


def test_only_the_settings_read_the_environment() -> None:
    """os.environ and getenv stand in settings.py, and where a reason stands for it."""
    read = {
        s.path
        for s in SRC
        for node in ast.walk(s.tree)
        if isinstance(node, ast.Attribute) and dotted(node) in ("os.environ", "os.getenv", "os.environb")
    }
    assert read - set(ENVIRONMENT_READERS) == set()
    assert set(ENVIRONMENT_READERS) - read == set(), "a reader that is listed no longer reads"


def calls(pattern: re.Pattern[str]) -> set[str]:
    """Return the files of the product that call something."""
    return {s.path for s in SRC for node in ast.walk(s.tree) if isinstance(node, ast.Call) and pattern.fullmatch(dotted(node.func))}


@pytest.mark.rule("W39")
def test_core_is_pure() -> None:
    """Core opens, prints and evaluates nothing, asks for no identity of objects, and computes with integers only."""
    impure = []
    for source in SRC:
        if not source.name.startswith("earmark.core"):
            continue
        for node in ast.walk(source.tree):
            where = f"{source.path}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in WORLDLY_NAMES:
                impure.append(f"{where} calls {node.func.id}")
            if isinstance(node, ast.Constant) and isinstance(node.value, float | complex):
                impure.append(f"{where} has the float {node.value}")
            if isinstance(node, ast.BinOp | ast.AugAssign) and isinstance(node.op, ast.Div):
                impure.append(f"{where} divides to a float")
            if isinstance(node, ast.Name) and node.id == "float":
                impure.append(f"{where} speaks of float")
    assert not impure, "\n".join(impure)


@pytest.mark.rule("W42")
def test_log_lines_name_fields_that_the_redactor_knows() -> None:
    """Every field of every log line has a rule of the redactor; no line is prose."""
    unknown = []
    for source in SRC:
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Call) and dotted(node.func) in ("log", "logs.log"):
                unknown += [f"{source.path}:{node.lineno} {k.arg}" for k in node.keywords if k.arg not in FIELDS and k.arg != "level"]
                if not re.fullmatch(r"[a-z_]+(\.[a-z_]+){1,2}", event_of(node)):
                    unknown.append(f"{source.path}:{node.lineno} is not named noun.verb")
    assert not unknown, "\n".join(unknown)


def event_of(node: ast.Call) -> str:
    """Return the event that a call of log names, with "x" for each part that is known only when it runs."""
    first = node.args[0] if node.args else None
    if isinstance(first, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "x" for part in first.values)
    return str(first.value) if isinstance(first, ast.Constant) else ""


@pytest.mark.rule("W43")
def test_no_parameter_is_without_effect() -> None:
    """Every parameter of the product's functions is used in its body, protocols and overrides aside."""
    idle = []
    for source in SRC:
        protocols = {node.name for node in classes(source) if any(dotted(base) == "Protocol" for base in node.bases)}
        for function in functions(source):
            node = function.node
            signature_only = all(isinstance(s, ast.Expr | ast.Pass | ast.Raise) for s in node.body)
            if function.name.split(".")[0] in protocols or signature_only or node.decorator_list:
                continue
            names = {arg.arg for arg in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)} - {"self", "cls"}
            used = {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)}
            excused = re.search(rf"def {node.name}\(.*noqa: ARG", source.text)
            idle += [f"{function.where}({name})" for name in sorted(names - used) if not name.startswith("_") and not excused]
    assert not idle, "\n".join(idle)


def test_the_promises_of_the_review_name_tests_that_exist() -> None:
    """Each test that docs/explanation/review.md and ARCHITECTURE.md name stands in the tree."""
    there = {f"{s.path}::{f.node.name}" for s in sources("tests") for f in functions(s)} | {s.path for s in sources("tests")}
    missing = []
    for page in ("docs/explanation/review.md", "ARCHITECTURE.md"):
        path = ROOT / page
        if path.exists():
            named = re.findall(r"tests/[\w/]+\.py(?:::\w+)?", path.read_text())
            missing += [f"{page}: {name}" for name in named if name not in there]
            assert named, f"{page} names no test"
    assert not missing, "\n".join(missing)
