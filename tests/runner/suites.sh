# SPDX-License-Identifier: Apache-2.0
# Sourced by ./test and by its own test: runs suites of tests in parallel, and prints a table of their results and run times. The
# caller sets logs, and times to a list of earlier run times, if any; then it calls begin_suites, suite..., end_suites.
# shellcheck shell=bash disable=SC2154 # the caller sets logs

lane=native     # the lane whose suites are started
at_once=2       # how many of a lane's suites run at a time
wanted=()       # names of suites; empty: all
missing=''      # why the next suites cannot run; empty: they can
must_run=no     # whether that is a failure
planning=no     # whether suite only prints what it would start
budget=''       # limit of the total run time, in seconds
rows=0          # suites started in this lane

# Locks the folder of logs against other runs, and ends background jobs on a signal.
begin_suites() {
    mkdir -p "$logs"
    exec {suites_lock}>"$logs/lock"
    flock --nonblock "$suites_lock" || { echo "waiting for another run of the tests in this folder" >&2; flock "$suites_lock"; }
    rm -f "$logs"/*.row "$logs/failed" "$logs/builds"
    trap 'end_at_once 130' INT
    trap 'end_at_once 143' TERM
    trap 'end_at_once 129' HUP
    suites_started=$SECONDS
}

# Ends the whole process group, since the shell makes its background jobs ignore an interrupt.
end_at_once() {
    trap '' INT TERM HUP
    echo "interrupted: ending what runs" >&2
    kill -TERM 0
    wait
    exit "$1"
}

# Writes a row of the table: FILE SUITE WHERE PASSED FAILED SKIPPED SECONDS [WHY]
row() { printf '%-14s %-18s %7s %7s %8s %8s  %s\n' "${@:2}" >"$1"; }

# Prints the numbers of tests that passed, failed and were skipped, from the output of GoogleTest, CTest, or our own scripts ("N
# passed, N failed, N skipped"). A suite with no such output counts as one test.
count() { # LOG EXIT-CODE
    awk -v code="$2" '
        /^\[  PASSED  \] [0-9]+ test/ { passed += $4; counted = 1 }
        /^\[  FAILED  \] [0-9]+ test/ { failed += $4; counted = 1 }
        /^\[  SKIPPED \] [0-9]+ test/ { skipped += $4; counted = 1 }
        /^ *[0-9]+\/[0-9]+ Test +#[0-9]+: / {
            if (/\*\*\*Skipped/) skipped++; else if (/ Passed +[0-9.]+ sec$/) passed++; else failed++
            counted = 1
        }
        /^[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$/ { passed += $1; failed += $3; skipped += $5; counted = 1 }
        END {
            if (!counted) { passed = code == 0; failed = code != 0 }
            else if (code != 0 && failed == 0) failed = 1   # it died before the end
            print passed + 0, failed + 0, skipped + 0
        }' "$1"
}

# Runs a suite: SUITE WHERE COMMAND... Until it has ended, its row reports a failure.
run_suite() {
    local row=$1 name=$2 where=$3 code=0 passed failed skipped started=$SECONDS
    local log=$logs/$name-$where.log
    shift 3
    row "$row" "$name" "$where" 0 1 0 - 'it did not end'
    echo "== $name ($where)" >&2
    "$@" >"$log" 2>&1 {suites_lock}>&- || code=$?
    read -r passed failed skipped < <(count "$log" "$code")
    echo "   $name ($where): $passed passed, $failed failed, $skipped skipped; $((SECONDS - started)) s" >&2
    ((failed == 0)) || echo "$log" >>"$logs/failed"
    row "$row" "$name" "$where" "$passed" "$failed" "$skipped" $((SECONDS - started))
}

# in_lane NAME AT_ONCE COMMAND: runs COMMAND, which starts suites, in parallel with other lanes. Guests have their own lane, since
# they are idle most of the time.
in_lane() {
    if [[ $planning == yes ]]; then
        lane=$1 at_once=$2 "$3"
    else
        { lane=$1 at_once=$2 "$3"; wait; } &
    fi
}

# Starts a suite as soon as fewer than at_once are running: SUITE WHERE COMMAND...
suite() {
    local name=$1 where=$2 row
    if ((${#wanted[@]})) && [[ " ${wanted[*]} " != *" $name "* ]]; then return; fi
    rows=$((rows + 1))
    if [[ $planning == yes ]]; then
        echo "$name $where $lane $at_once"
        return
    fi
    row=$logs/$lane-$(printf %02d "$rows").row
    if [[ $missing && $must_run == yes ]]; then
        row "$row" "$name" "$where" 0 1 0 0 "could not run: $missing"
    elif [[ $missing ]]; then
        row "$row" "$name" "$where" 0 0 1 0 "skipped: $missing"
    else
        while (($(jobs -rp | wc -l) >= at_once)); do wait -n || true; done
        run_suite "$row" "$@" &
    fi
}

# Runs a command that builds NAME, and records its run time: NAME COMMAND...
timed_build() {
    local name=$1 started=$SECONDS code=0
    shift
    "$@" || code=$?
    echo "$name $((SECONDS - started))" >>"$logs/builds"
    return $code
}

# plan COMMAND: prints the suites that COMMAND would start, and an estimate from the list of times. Sets planned to a line for each
# suite: "NAME WHERE LANE AT_ONCE".
plan() {
    planned=$(planning=yes && "$1")
    [[ $planned ]] || { echo "no suite has one of these names: ${wanted[*]}" >&2; exit 2; }
    awk '
        FILENAME == ARGV[1] { if (!/^#/) took[$1 " " $2] = $3; next }
        {
            where[$1] = where[$1] " " $2
            if (!known[$1]++) names[++count] = $1
            lane[$3] += took[$1 " " $2] / $4
            if (lane[$3] > longest) longest = lane[$3]
        }
        END {
            for (i = 1; i <= count; i++) line = line (i > 1 ? ", " : "") names[i] " (" substr(where[names[i]], 2) ")"
            print "Suites: " line
            if (longest) printf "They take about %d min once all is built.\n", longest / 60 + 1
        }' "${times:-/dev/null}" <(echo "$planned") | fold -s -w 100 >&2
}

# Prints the suites that took over 1.5 times their time in the list of times plus 20 s.
grown() {
    awk 'FILENAME == ARGV[1] { if (!/^#/) took[$1 " " $2] = $3; next }
        {
            before = took[$1 " " $2]
            if ($6 > 1.5 * before + 20) printf "%d %s (%s) took %d s, %s\n", $6 - before, $1, $2, $6,
                before == "" ? "and is not in the list of times" : before " s before"
        }' "${times:-/dev/null}" "$logs/table" | sort -rn | cut -d' ' -f2-
}

# Waits for all suites and prints the table. Fails if a suite failed, or if the total time exceeds the budget.
end_suites() {
    local log total
    wait
    total=$((SECONDS - suites_started))
    cat "$logs"/*.row >"$logs/table"
    while read -r log; do
        echo
        echo "---- $log, its end:"
        tail -n 40 "$log"
    done < <(cat "$logs/failed" 2>/dev/null)
    if [[ $budget ]] && ((total > budget)); then
        row "$logs/zz.row" budget all 0 1 0 "$total" "over its $budget s"
        cat "$logs/zz.row" >>"$logs/table"
        echo
        echo "All suites together took $total s, which is over the budget of $budget s. Which grew:"
        grown | sed 's/^/    /'
    fi
    echo
    printf '%-14s %-18s %7s %7s %8s %8s\n' suite where passed failed skipped seconds
    cat "$logs/table"
    if [[ -e $logs/builds ]]; then
        echo
        sort -k2 -rn "$logs/builds" | awk '{ printf "%-14s %-18s %33s\n", "build", $1, $2 }'
    fi
    printf '%-14s %-18s %33s\n' 'all' '' "$total"
    echo
    awk '{ passed += $3; failed += $4; skipped += $5 }
        END { print passed + 0 " passed, " failed + 0 " failed, " skipped + 0 " skipped"; exit failed != 0 }' "$logs/table"
}
