"""Makes docs/reference/settings.md from the Settings struct; with --check only says whether it is up to date."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
from tools.made import written

from earmark.core.model.units import format_duration, format_ratio
from earmark.settings import ONLY_OUTSIDE_FILES, PREFIX, Settings, keys

PAGE = Path(__file__).resolve().parents[1] / "docs/reference/settings.md"
HEAD = """# Settings

<!-- made by tools/settings_page.py from src/earmark/settings.py; do not edit -->

Earmark reads, the last one wins: its defaults, `/etc/earmark/earmark.toml`, `$XDG_CONFIG_HOME/earmark/earmark.toml` (else
`~/.config/earmark/earmark.toml`), the environment (`EARMARK_` and the key in capitals), and the flags of the command line.

A key that does not exist, a value of the wrong type or out of its bounds, or a combination that cannot work is an error that names the
source and the key; nothing is ignored. A file is refused if it, or its folder, belongs to neither root nor you or may be written by
others. Durations are written `"90s"`, `"10m"`, `"1h30m"`, ratios `4`, `1.5`.

"""


def shown(field: str, value: object) -> str:
    """Return a default as a person would write it in a file."""
    if field == "state_home":
        return "`$XDG_STATE_HOME`, else `~/.local/state`"
    if value is None:
        return "unset"
    if field.endswith("_ms") and isinstance(value, int):
        return f'`"{format_duration(value)}"`'
    if field.endswith("_milli") and isinstance(value, int):
        return f"`{format_ratio(value)}`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return "`" + ",".join(f"{item.name}={item.path}" for item in value) + "`"
    return f'`"{value}"`' if isinstance(value, str) else f"`{value}`"


def page() -> str:
    """Return the whole page."""
    parts = [HEAD]
    defaults = Settings()
    for key, field in zip(keys(), msgspec.structs.fields(Settings), strict=True):
        meta = msgspec.inspect.type_info(field.type)
        if not isinstance(meta, msgspec.inspect.Metadata) or not meta.extra:
            raise TypeError(f"setting {key} has no description")
        schema = meta.extra_json_schema or {}
        where = "environment and flags only" if key in ONLY_OUTSIDE_FILES else f"`{key}` in a file, `{PREFIX}{key.upper()}` outside"
        parts.append(f"## {key}\n\n{schema['description']}\n\n")
        parts.append(
            f"- Default: {shown(field.name, getattr(defaults, field.name))}\n- Where: {where}\n- Security: {meta.extra['security']}\n\n"
        )
    return "".join(parts).rstrip() + "\n"


if __name__ == "__main__":
    sys.exit(written({PAGE: page()}, sys.argv[1:]))
