"""Cases asked as the command line asks them: a dict goes in as a line, the answer comes out as the JSON of --json."""

from __future__ import annotations

import json
from typing import Any

from earmark.cli.case_lines import Line, answer_bundle

Made = dict[str, Any]


def ask(case: Made) -> Made:
    """Return the answer to one case."""
    return ask_line(json.dumps(case).encode())


def ask_line(raw: bytes) -> Made:
    """Return the answer to one line."""
    (done,) = answer_bundle([Line(1, raw)], texts=True)
    found: Made = json.loads(done.text)
    return found
