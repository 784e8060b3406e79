"""The loader of settings: strict, and what comes last wins."""

from __future__ import annotations

import os
import re
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.house.sources import sources

from earmark.errors import InvalidSetting
from earmark.settings import Settings, explain, keys, load, read_file


def env_at(tmp_path: Path, **variables: str) -> dict[str, str]:
    """Return an environment whose machine root, home and configuration are below `tmp_path`."""
    for folder in ("machine/etc/earmark", "config/earmark"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True, mode=0o755)
    return {
        "HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / "config"), "EARMARK_MACHINE_ROOT": str(tmp_path / "machine"), **variables,
    }  # fmt: skip


def write(path: Path, text: str, mode: int = 0o644) -> None:
    """Write a settings file with a mode."""
    path.write_text(text)
    path.chmod(mode)


@pytest.mark.rule("K4")
def test_the_defaults_are_safe(tmp_path: Path) -> None:
    """Without any source: ten minutes to confirm, no end, quarantine after a minute, redacted logs, nothing private."""
    settings = load(environ=env_at(tmp_path))
    assert (settings.hold_timeout_ms, settings.default_ttl_ms, settings.drain_grace_ms) == (600_000, None, 60_000)
    assert settings.log_scrub
    assert not settings.private
    assert settings.log_level == "warning"
    assert settings.state_home == f"{tmp_path}/.local/state"


def test_the_last_source_wins(tmp_path: Path) -> None:
    """Machine file, user file, environment and flags override each other in this order, and explain says which one decided."""
    env = env_at(tmp_path)
    seen = [load(environ=env).hold_timeout_ms]
    write(tmp_path / "machine/etc/earmark/earmark.toml", 'hold_timeout = "1m"\nepoch = 3\n')
    seen.append(load(environ=env).hold_timeout_ms)
    write(tmp_path / "config/earmark/earmark.toml", 'hold_timeout = "2m"\n')
    seen.append(load(environ=env).hold_timeout_ms)
    env["EARMARK_HOLD_TIMEOUT"] = "3m"
    seen.append(load(environ=env).hold_timeout_ms)
    seen.append(load({"hold_timeout": "4m", "epoch": None}, environ=env).hold_timeout_ms)
    assert seen == [600_000, 60_000, 120_000, 180_000, 240_000]
    loaded = explain({"hold_timeout": "4m"}, environ=env)
    assert loaded.origins["hold_timeout"] == "flags"
    assert loaded.origins["epoch"] == str(tmp_path / "machine/etc/earmark/earmark.toml")
    assert loaded.origins["disks"] == "default"
    assert loaded.settings.epoch == 3


@pytest.mark.rule("W48")
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("hold_timout = '1m'\n", "line 1: 'hold_timout' is no setting"),
        ("epoch = 1\n\n[disk]\nroot = '/'\n", "line 3: 'disk' is no setting"),
        ("machine_root = '/'\n", "may not stand in a file"),
        ("hold_timeout = 60\n", "not a duration in quotes"),
        ("hold_timeout = 'soon'\n", "'soon' is not a duration"),
        ("hold_timeout = '1ms'\n", "hold_timeout"),
        ("epoch = 'one'\n", "whole number"),
        ("epoch = 0\n", "`int` >= 1"),
        ("epoch = true\n", "Expected `int`"),
        ("epoch = 1.0\n", "epoch"),
        ("log_scrub = 0\n", "Expected `bool`"),
        ("log_scrub = 'perhaps'\n", "true or false"),
        ("log_level = 'loud'\n", "log_level"),
        ("color = 1\n", "color"),
        ("ledger = 'ledger.db'\n", "not an absolute path"),
        ("state_home = ''\n", "is not a path"),
        ("[disks]\nroot = 'relative'\n", "name=/absolute/path"),
        ("[disks]\nRoot = '/'\n", "name=/absolute/path"),
        ("[disks]\nroot = '/'\nalso = '/.'\n", "stands twice"),
        ("[disks]\nroot = 3\n", "disks"),
        ("hold_timeout = '5s'\nbusy_timeout = '10s'\n", "a hold could expire before its answer"),
        ("epoch = \n", "is not TOML"),
        ("\x00", "is not TOML"),
        ("#" * 70_000, "larger than"),
    ],
)
def test_a_wrong_file_is_an_error_that_names_it(tmp_path: Path, text: str, said: str) -> None:
    """Unknown keys, wrong types, impossible values and impossible sums are refused with the source and the key."""
    env = env_at(tmp_path)
    write(tmp_path / "config/earmark/earmark.toml", text)
    with pytest.raises(InvalidSetting) as caught:
        load(environ=env)
    assert said in caught.value.message
    assert "earmark.toml" in caught.value.message


@pytest.mark.rule("W48")
@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("EARMARK_HOLD_TIMOUT", "1m"),
        ("EARMARK_hold_timeout", "1m"),
        ("EARMARK_HOLD_TIMEOUT", ""),
        ("EARMARK_HOLD_TIMEOUT", "-1m"),
        ("EARMARK_EPOCH", "0x10"),
        ("EARMARK_EPOCH", " 1"),
        ("EARMARK_DISKS", "root"),
        ("EARMARK_DISKS", "root=/,root=/srv"),
        ("EARMARK_LEDGER", ""),
        ("EARMARK_LOG_SCRUB", "2"),
    ],
)
def test_a_wrong_variable_is_an_error_that_names_it(tmp_path: Path, variable: str, value: str) -> None:
    """An EARMARK_ variable that is no setting, or has no sense, is refused."""
    with pytest.raises(InvalidSetting, match="environment"):
        load(environ=env_at(tmp_path, **{variable: value}))


def test_what_run_tells_its_child_is_no_setting(tmp_path: Path) -> None:
    """The variables that a claim's child finds do not disturb an earmark called by that child."""
    written = {name for source in sources("src") if "launch" in source.name for name in re.findall(r'"(EARMARK_[A-Z_]+)"', source.text)}
    assert "EARMARK_CLAIM" in written
    load(environ=env_at(tmp_path, EARMARK_TEST_POSTGRES="x", **dict.fromkeys(written, "0-3")))


@pytest.mark.parametrize("mode", [0o666, 0o664, 0o646])
def test_a_file_that_others_may_write_is_refused(tmp_path: Path, mode: int) -> None:
    """A settings file with a write bit for group or others is refused, with what to do about it."""
    env = env_at(tmp_path)
    write(tmp_path / "config/earmark/earmark.toml", "epoch = 2\n", mode)
    with pytest.raises(InvalidSetting, match=r"may be written by others .* chmod go-w"):
        load(environ=env)


def test_a_folder_that_others_may_write_is_refused(tmp_path: Path) -> None:
    """Who can exchange the file in its folder can write the settings."""
    env = env_at(tmp_path)
    write(tmp_path / "config/earmark/earmark.toml", "epoch = 2\n")
    (tmp_path / "config/earmark").chmod(0o777)
    with pytest.raises(InvalidSetting, match="may be written by others"):
        load(environ=env)


@pytest.mark.skipif(os.geteuid() != 0, reason="runs as root only: it gives a file to another user")
def test_a_file_of_another_user_is_refused(tmp_path: Path) -> None:
    """A settings file must be root's or the user's own."""
    env = env_at(tmp_path)
    path = tmp_path / "config/earmark/earmark.toml"
    write(path, "epoch = 2\n")
    os.chown(path, 12345, -1)
    with pytest.raises(InvalidSetting, match="belongs to uid 12345"):
        load(environ=env)


def test_a_folder_in_the_place_of_the_file_is_refused(tmp_path: Path) -> None:
    """What is no regular file is an error that says so, and its descriptor is closed."""
    place = tmp_path / "config/earmark/config.toml"
    place.mkdir(parents=True, mode=0o755)
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(InvalidSetting, match="not a regular file"):
        read_file(place)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_pipe_in_the_place_of_the_file_does_not_hang(tmp_path: Path) -> None:
    """A settings file that is a pipe is refused at once."""
    env = env_at(tmp_path)
    os.mkfifo(tmp_path / "config/earmark/earmark.toml", 0o600)
    with pytest.raises(InvalidSetting, match="not a regular file"):
        load(environ=env)


def test_no_color_is_honoured(tmp_path: Path) -> None:
    """NO_COLOR that is not empty turns colours off, unless Earmark's own variable or flag asks for them."""
    assert load(environ=env_at(tmp_path, NO_COLOR="")).color == "auto"
    assert load(environ=env_at(tmp_path, NO_COLOR="1")).color == "never"
    assert load({"color": "always"}, environ=env_at(tmp_path, NO_COLOR="1")).color == "always"


def test_state_home_follows_the_base_directory_specification(tmp_path: Path) -> None:
    """XDG_STATE_HOME counts if it is absolute, else ~/.local/state."""
    assert load(environ=env_at(tmp_path, XDG_STATE_HOME="/srv/state")).state_home == "/srv/state"
    assert load(environ=env_at(tmp_path, XDG_STATE_HOME="state")).state_home == f"{tmp_path}/.local/state"


@given(
    st.dictionaries(st.sampled_from([*keys(), "x"]), st.one_of(st.text(max_size=20), st.integers(), st.booleans(), st.none()), max_size=4)
)
def test_flags_give_settings_or_an_error_of_the_tree(flags: dict[str, object]) -> None:
    """Whatever stands in a flag, the loader returns settings within their bounds or raises InvalidSetting."""
    try:
        settings = load(flags, environ={"HOME": "/nonexistent"})
    except InvalidSetting as error:
        assert error.message
        return
    assert msgspec.convert(msgspec.to_builtins(settings), Settings) == settings


def test_every_setting_is_documented() -> None:
    """Each setting says what it does and what it means for security."""
    for field in msgspec.structs.fields(Settings):
        meta = msgspec.inspect.type_info(field.type)
        assert isinstance(meta, msgspec.inspect.Metadata), field.name
        assert (meta.extra_json_schema or {}).get("description"), field.name
        assert (meta.extra or {}).get("security"), field.name
