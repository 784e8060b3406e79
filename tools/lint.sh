#!/usr/bin/env bash
# What a commit must pass before its tests are run: style, types, floors, secrets, generated pages.
set -euo pipefail
cd "$(dirname "$0")/.."
BIN=${VENV:-.venv}/bin

step() { printf -- '-- %s\n' "$1"; shift; "$@"; }

step "style (ruff check)" "$BIN/ruff" check --no-cache --quiet
step "format (ruff format)" "$BIN/ruff" format --check --no-cache --quiet
step "types (mypy --strict)" "$BIN/mypy" --no-error-summary
step "floors (import-linter)" "$BIN/lint-imports" --no-cache --no-logo
step "secrets and places" "$BIN/python" tools/secret_scan.py
step "generated: rules" "$BIN/python" -m tools.rules_page --check
step "generated: settings" "$BIN/python" -m tools.settings_page --check
step "generated: events" "$BIN/python" -m tools.events_page --check
step "generated: command line" "$BIN/python" -m tools.cli_page --check
echo "lint: all well"
