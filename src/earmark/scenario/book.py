"""The scenarios that come with the program, one file each: those of the accounting that every tracker is held against."""

from __future__ import annotations

from importlib import resources

from earmark.errors import InvalidRequest
from earmark.scenario.language import parse
from earmark.scenario.steps import Scenario

FOLDER = "texts"
ENDING = ".scenario"


def names() -> tuple[str, ...]:
    """Return the names of the scenarios, in order."""
    found = (resources.files("earmark.scenario") / FOLDER).iterdir()
    return tuple(sorted(each.name.removesuffix(ENDING) for each in found if each.name.endswith(ENDING)))


def text(name: str) -> str:
    """Return the text of a scenario; raises InvalidRequest for a name that none has."""
    if name not in names():
        raise InvalidRequest(f"there is no scenario {name!r}; 'earmark scenario --list' lists them", found=name)
    return (resources.files("earmark.scenario") / FOLDER / (name + ENDING)).read_text("utf-8")


def scenario(name: str) -> Scenario:
    """Return a scenario; raises InvalidRequest for a name that none has."""
    return parse(text(name), name)
