# SPDX-License-Identifier: Apache-2.0
# Sourced by the scripts of this folder: runs commands, and prints a line for each check.
# shellcheck shell=sh

passed=0 failed=0 skipped=0
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# Runs a command. Sets $code to its exit code, $out to its output, and $err to its standard error.
run() {
    out=$("$@" 2>"$scratch/err")
    code=$?
    err=$(cat "$scratch/err")
}

ok() {
    passed=$((passed + 1))
    echo "ok - $1"
}

not_ok() {
    failed=$((failed + 1))
    echo "not ok - $1"
    shift
    for line; do echo "    $line"; done
}

skip() {
    skipped=$((skipped + 1))
    echo "skip - $1: $2"
}

# that SENTENCE COMMAND [ARGUMENT...]: checks that the command succeeds.
that() {
    sentence=$1
    shift
    if "$@"; then ok "$sentence"; else not_ok "$sentence" "failed: $*"; fi
}

# expect SENTENCE CODE [WHERE TEXT]...: checks that the last run ended with this code, and that each TEXT is in its output
# (WHERE is out) or standard error (err), or is not (no-out, no-err).
expect() {
    sentence=$1 wanted=$2 wrong=
    shift 2
    [ "$code" = "$wanted" ] || wrong="exit code $code, not $wanted"
    while [ $# -gt 1 ]; do
        case $1 in
            out | no-out) text=$out ;;
            *) text=$err ;;
        esac
        case $1,$text in
            no-*,*"$2"*) wrong="${wrong:+$wrong; }found on $1: $2" ;;
            no-*) ;;
            *,*"$2"*) ;;
            *) wrong="${wrong:+$wrong; }not on $1: $2" ;;
        esac
        shift 2
    done
    if [ -z "$wrong" ]; then
        ok "$sentence"
    else
        not_ok "$sentence" "$wrong" "--- stdout" "$out" "--- stderr" "$err"
    fi
}

# json POINTER VALUE SENTENCE: checks that the output of the last run is one JSON document with this value at POINTER.
json() {
    if ! command -v postern-json >/dev/null; then
        skip "$3" 'there is no postern-json'
        return
    fi
    value=$(printf '%s' "$out" | postern-json "$1" 2>&1)
    if [ "$value" = "$2" ]; then ok "$3"; else not_ok "$3" "at $1: $value, not $2" "$out"; fi
}

finish() {
    echo "$passed passed, $failed failed, $skipped skipped"
    [ "$failed" = 0 ]
    exit
}
