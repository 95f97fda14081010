#!/bin/bash
# What `make test` runs, after it has set up .venv: one line a stage with its seconds, whole logs in target/test-logs,
# and at the end how many tests passed, failed and were skipped. CARGO_FLAGS comes from the Makefile.
set -uo pipefail
cd "$(dirname "$0")/.."
: "${CARGO_FLAGS:?type: make test}"
export REBEL_KERNEL_REQUIRED=1 CARGO_TERM_COLOR=never
export PROPTEST_RNG_SEED=${PROPTEST_RNG_SEED:-24041676} # the same random cases each time; name another for others
logs=${CARGO_TARGET_DIR:-target}/test-logs
mkdir -p "$logs"
rm -f "$logs"/*.log

# stage NAME COMMAND...   runs a command with its output in a file; shows what failed, or the file's end
stage() {
  local name=$1 begin=$SECONDS
  shift
  printf '== %-22s' "$name"
  if "$@" > "$logs/$name.log" 2>&1 < /dev/null; then
    echo "$((SECONDS - begin)) s"
  else
    echo "FAILED after $((SECONDS - begin)) s; the whole log: $logs/$name.log"
    awk '/^ +FAIL /{show=1} /^ +(PASS|SLOW) /{show=0} show' "$logs/$name.log" | head -150
    [ "$name" = tests ] && command -v cargo-nextest > /dev/null || tail -n 80 "$logs/$name.log"
    return 1
  fi
}

# The sum of the numbers before WORD in the runners' closing lines.
count() {
  cat "$logs"/tests.log "$logs"/doctests.log 2> /dev/null |
    grep -E '^ *Summary |^test result:' | grep -oE "[0-9]+ $1" | awk '{ sum += $1 } END { print sum + 0 }'
}

case $CARGO_FLAGS in
  *lapack*) ;;
  *) echo "skipped: the LAPACK tests: OpenBLAS is not installed (type: apt-get install libopenblas-serial-dev)" ;;
esac

stage format cargo fmt --all --check || exit 1
stage lints cargo clippy $CARGO_FLAGS --all-targets -- -D warnings || exit 1
stage kernel .venv/bin/python notebooks/install_kernel.py || exit 1

failed=0
if command -v cargo-nextest > /dev/null; then
  stage build cargo nextest run $CARGO_FLAGS --no-run || exit 1
  stage tests cargo nextest run $CARGO_FLAGS --no-fail-fast --success-output final || failed=1
  stage doctests cargo test $CARGO_FLAGS --doc || failed=1
else
  stage build cargo test $CARGO_FLAGS --no-run || exit 1
  stage tests cargo test $CARGO_FLAGS --no-fail-fast -- --show-output || failed=1
fi

named=$(grep -hiE '^ *skipped' "$logs/tests.log" | sed 's/^ *//' | sort -u)
[ -z "$named" ] || echo "$named"
grep -hoE 'rebel-rust[a-z-]*: first picture after .*' "$logs/tests.log"
skipped=$(printf '%s' "$named" | grep -c .)
echo "$(($(count passed) - skipped)) passed, $(count failed) failed, $((skipped + $(count ignored) + $(count skipped))) skipped"
exit $failed
