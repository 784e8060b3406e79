#!/usr/bin/env bash
# The main job on this host, with real resources, a real ledger and real processes. `make run` runs it.
#
#     bash examples/first_run.sh [LEDGER]
#
# Without LEDGER it works on a ledger in a scratch folder, which it removes at the end: no other ledger is read or written. With LEDGER it
# works on that one, and gives back all that it took. It needs no root, one CPU is enough, and it ends with 0.
set -euo pipefail

SCRATCH=$(mktemp -d "${TMPDIR:-/tmp}/earmark-first-run.XXXXXX")
PIDS=()   # of the processes that this script is to end
CLAIMS=() # that this script is to give back
if [ $# -gt 0 ]; then
  export EARMARK_LEDGER=$1
  NAME="first-run-$$-" # before the names of its consumers: a second run beside it is not disturbed
else
  export EARMARK_LEDGER=$SCRATCH/ledger.db EARMARK_PRIVATE=true # private: its claims bind nobody, whatever other ledger there is
  NAME=''
fi

tidy_up() {
  status=$?
  [ ! -s "$SCRATCH/child" ] || PIDS+=("$(cat "$SCRATCH/child")")
  for pid in "${PIDS[@]}"; do kill -9 "$pid" 2>/dev/null || true; done
  for claim in "${CLAIMS[@]}"; do earmark -q release "$claim" >/dev/null 2>&1 || true; done
  rm -rf "$SCRATCH"
  exit "$status"
}
trap tidy_up EXIT

step() { printf '\n== %s\n' "$*"; }
show() { # show a command as a person would type it, and run it
  printf '\n$ %s\n' "$(quoted "$@")"
  "$@" 2>&1
}
quoted() {
  local word line=''
  for word in "$@"; do
    case $word in *[!A-Za-z0-9_./:=,@+-]*) line+=" '$word'" ;; *) line+=" $word" ;; esac
  done
  printf '%s' "${line# }"
}
fits() { earmark -q fit "$@" >/dev/null 2>&1; }
claim() { # claim NAME [request]: show it, and remember it for the end
  show earmark claim --consumer "$@"
  CLAIMS+=("$1")
}
until_said() { # until_said SECONDS TEXT COMMAND...: wait until a command says a text
  local tries=$(($1 * 10)) text=$2
  shift 2
  until [[ $("$@" 2>/dev/null || true) == *"$text"* ]]; do
    tries=$((tries - 1))
    [ "$tries" -gt 0 ] || { echo "first_run.sh: '$(quoted "$@")' did not say '$text' in time" >&2; return 1; }
    sleep 0.1
  done
}

if ! command -v earmark >/dev/null; then
  echo "first_run.sh: there is no earmark on the PATH; 'make run' sets one up, so does 'pip install .'" >&2
  exit 1
fi

MEM=()
for size in 512MiB 64MiB 4MiB; do
  if fits --mem "$size"; then MEM=(--mem "$size"); break; fi
done

step "1. The machine, as it is"
show earmark
[ ${#MEM[@]} -gt 0 ] || echo "(there are not even 4 MiB to hand out here: the claims below go without memory)"

CPU=(--cpus 1:dedicated)
if ! fits "${CPU[@]}"; then
  echo "(no CPU can be dedicated here now: the claims below take a shared one)"
  CPU=(--cpus 1:shared)
fi

step "2. Claim a CPU and memory; ask who holds the CPU"
claim "${NAME}db" "${CPU[@]}" "${MEM[@]}" --ttl 2h
HELD=$(earmark -q show "${NAME}db" --format env | sed -n 's/^export EARMARK_CPUS=\([0-9]*\).*/\1/p')
show earmark who "${HELD:-0}"

step "3. Ask for too much, and why it does not fit"
show earmark why-not --cpus 100000:dedicated --mem 900TiB

step "4. Give it back, and run a command confined to a claim of its own"
show earmark release "${NAME}db"
show earmark run "${CPU[@]}" "${MEM[@]}" -- sh -c 'echo "$EARMARK_CLAIM: $(grep Cpus_allowed_list /proc/self/status)"'

step "5. Kill the runner with -9: its child still uses the CPU, so nobody else gets it"
cat >"$SCRATCH/job" <<'JOB'
#!/bin/sh
echo $$ >"$1.new" && mv "$1.new" "$1" # so that the script can end it
exec sleep 300
JOB
chmod +x "$SCRATCH/job"
printf '\n$ earmark run --consumer %s %s -- sleep 300 &\n' "${NAME}job" "$(quoted "${CPU[@]}" "${MEM[@]}")"
earmark -q run --consumer "${NAME}job" "${CPU[@]}" "${MEM[@]}" -- "$SCRATCH/job" "$SCRATCH/child" &
RUNNER=$!
disown "$RUNNER"
PIDS+=("$RUNNER")
until_said 30 child find "$SCRATCH" -name child
CHILD=$(cat "$SCRATCH/child")
JOB_ID=$(earmark -q show "${NAME}job" --format env | sed -n 's/^export EARMARK_CLAIM=//p')
printf '$ kill -9 %s        # the runner\n' "$RUNNER"
kill -9 "$RUNNER"
until_said 30 draining earmark list --consumer "${NAME}job"
show earmark list --consumer "${NAME}job"
printf '\n$ kill -9 %s        # the child\n' "$CHILD"
kill -9 "$CHILD"
until_said 30 'ended' earmark log "$JOB_ID"
show earmark log "$JOB_ID"

step "6. Is the ledger right?"
show earmark audit
show earmark verify

step "7. Two claims, and the picture"
claim "${NAME}db" "${CPU[@]}" "${MEM[@]}" --ttl 2h
WEB=()
! fits --cpus 1:shared || WEB=(--cpus 1:shared)
! fits "${WEB[@]}" "${MEM[@]}" || WEB+=("${MEM[@]}")
if [ ${#WEB[@]} -gt 0 ]; then
  claim "${NAME}web" "${WEB[@]}"
else
  echo "(this machine has no room for a second claim)"
fi
show earmark

printf '\nAll of this was real. '
if [ $# -gt 0 ]; then
  echo "What was claimed in $EARMARK_LEDGER is given back now."
else
  echo "The scratch ledger is removed now; 'earmark' alone begins your own."
fi
