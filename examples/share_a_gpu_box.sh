#!/usr/bin/env bash
# One ledger for a team on one machine: made, announced, found by default, and what a private ledger beside it may not do.
#
# Everything stands in a scratch folder that plays the machine (EARMARK_MACHINE_ROOT: where announcements are looked for), and who runs this plays
# its root. On a real machine it is one line, as root or without:
#
#     sudo earmark init --system --group lab
#     earmark init --shared /srv/earmark --group lab
set -euo pipefail

SCRATCH=$(mktemp -d "${TMPDIR:-/tmp}/earmark-share.XXXXXX")
trap 'rm -rf "$SCRATCH"' EXIT
mkdir -p "$SCRATCH/machine/var/tmp" "$SCRATCH/home"
chmod 1777 "$SCRATCH/machine/var/tmp"
chmod 755 "$SCRATCH" "$SCRATCH/machine" "$SCRATCH/machine/var"
unset EARMARK_LEDGER XDG_STATE_HOME
export EARMARK_MACHINE_ROOT=$SCRATCH/machine HOME=$SCRATCH/home

show() { printf '\n$ %s\n' "$*"; "$@" 2>&1; }

show earmark init --system --group "$(id -gn)"

# From here on every member's earmark uses it; nobody has to be told.
show earmark claim --cpus 1:dedicated --consumer training --ttl 4h
show earmark list
show earmark

# A ledger of one's own beside it gives no CPU away: its grant would not be seen by the others.
printf '\n$ earmark --ledger mine.db claim --cpus 1:dedicated\n'
if earmark --ledger "$SCRATCH/home/mine.db" claim --cpus 1:dedicated 2>&1; then
  echo "share_a_gpu_box.sh: this should have been refused" >&2
  exit 1
fi
show earmark release training
show earmark log
show earmark audit
