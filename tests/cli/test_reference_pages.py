"""The reference of the command line is what the commands are."""

from __future__ import annotations

import json
import re

from tools import cli_page

from earmark import errors
from earmark.cli.main import EXIT_BROKEN_PIPE, EXIT_INTERNAL, EXIT_INTERRUPTED, EXIT_OUTPUT_LOST


def test_the_pages_of_the_command_line_are_up_to_date() -> None:
    """docs/reference/cli.md, json.md and json-schema.json are what tools/cli_page.py makes of commands and structs."""
    assert cli_page.CLI.read_text() == cli_page.cli_page(), "make docs"
    assert cli_page.JSON.read_text() == cli_page.json_page(), "make docs"
    assert cli_page.SCHEMA.read_text() == cli_page.schema_file(), "make docs"


def test_every_shape_has_a_schema_that_says_what_it_is() -> None:
    """Each struct of --json is in the schema, with a description, and every key of an answer is required."""
    schemas = json.loads(cli_page.schema_file())["$defs"]
    for _, shape in cli_page.shapes():
        assert schemas[shape.__name__]["description"]
    answers = {name: schema for name, schema in schemas.items() if name.endswith("Out")}
    assert answers
    later = {"DiscoverOut": ["unread"]}  # also read back from files, and those of earlier versions have it not
    for name, schema in answers.items():
        assert sorted([*schema["required"], *later.get(name, [])]) == sorted(schema["properties"]), name


def test_the_page_of_exit_codes_has_every_code() -> None:
    """Each exit code of an error class, and each of the command line's own, is documented."""
    page = (cli_page.FOLDER / "exit-codes.md").read_text()
    listed = {int(code) for code in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)}

    def codes(kind: type[errors.EarmarkError]) -> set[int]:
        return {kind.exit_code}.union(*(codes(each) for each in kind.__subclasses__()))

    assert listed == codes(errors.EarmarkError) | {0, 1, EXIT_INTERNAL, EXIT_OUTPUT_LOST, EXIT_INTERRUPTED, EXIT_BROKEN_PIPE}
