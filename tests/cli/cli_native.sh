#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs the tool on any machine, without hardware and without root: help, wrong arguments, missing devices, JSON, exit codes.
# Usage: cli_native.sh [TOOL] (default: postern in PATH). Checks JSON only if postern-json is in TOOL's folder.
# shellcheck source=tests/cli/expect.sh
. "$(dirname "$0")/expect.sh"

if [ $# -gt 0 ]; then
    PATH=$(cd "$(dirname "$1")" && pwd):$PATH
fi
command -v postern >/dev/null || { echo "there is no postern in PATH"; exit 2; }

run postern --help
expect 'help goes to standard output, with examples and the exit codes' 0 out 'postern devices' out 'Exit codes:' out '  check '
run postern --version
expect 'the version is a name and a number' 0 out 'postern 0'
run postern
expect 'no arguments at all are wrong usage, and give the help on standard error' 2 err 'Commands:' no-out Commands
run postern chekc
expect 'a misspelt command gets a suggestion, and the list' 2 err 'unknown command "chekc"' err 'did you mean "check"?' err 'devices, show'
run postern frobnicate
expect 'an unknown command without a similar one gets only the list' 2 err 'unknown command "frobnicate"' no-err 'did you mean' err 'the commands are'
run postern --frobnicate
expect 'a wrong option before the command is wrong usage' 2 err frobnicate

for command in devices show backends doctor bind unbind check reset serve; do
    run postern $command --help
    expect "$command has a help of its own with an example" 0 out Example out --json
    run postern $command --frobnicate
    expect "$command refuses an option that it does not have" 2 err "postern $command" err --frobnicate
done
for command in show bind unbind check reset serve; do
    run postern $command
    expect "$command wants a device" 2 err 'DEV is required' err "postern $command --help"
    run postern $command 00:01
    expect "$command refuses what is no PCI address, and says what one looks like" 2 err '"00:01"' err 0000:00:01.0
    run postern $command fff0:fe:1f.7
    expect "$command of a device that is not there fails and says how to list them" 1 err fff0:fe:1f.7 err 'postern devices'
    run postern $command fff0:fe:1f.7 --json
    expect "$command of a device that is not there keeps standard error empty when JSON is asked for" 1 no-err postern
    json /error/errno ENOENT "$command of a device that is not there gives the errno in JSON"
done
run postern doctor fff0:fe:1f.7
expect 'doctor of a device that is not there says so among the conditions' 1 out 'NO  device' out 'postern devices'
run postern show 00:20.0
expect 'a device number above 1f is no PCI address' 2 err '00:20.0'
run postern show 00:01.0 00:02.0
expect 'a second device is refused' 2 err '00:02.0'

run postern check 00:01.0 --memory 64Q
expect 'a size with an unknown unit is refused and a right one shown' 2 err 'size "64Q"' err 64M
run postern check 00:01.0 --bytes 0
expect 'a size of zero is refused' 2 err 'must not be zero'
run postern check 00:01.0 --memory 99999999999G
expect 'a size beyond 64 bits is refused' 2 err '64 bits'
run postern check 00:01.0 --vf-token nonsense
expect 'a VF token is a UUID' 2 err 'VF token "nonsense"' err uuidgen
run postern check 00:01.0 --memory 18446744073709551615
expect 'memory that no process can have is refused' 2 err 'more memory than any process can have'
run postern doctor 00:01.0 --memory 9E
expect 'by doctor, too' 2 err 'more memory than any process can have'
run postern check 00:01.0 --backend legacy
expect 'a backend that does not exist is refused and the others are listed' 2 err 'no backend has this name' err 'use one of: auto, '
run postern reset 00:01.0 --backend legacy
expect 'reset refuses such a backend, too' 2 err 'use one of: auto, '
run postern check 00:01.0 --version 99
expect 'a version that no backend has is refused and the others are listed' 2 err 'no backend has a version 99; use one of: 2, 1'
run postern check 00:01.0 --version two
expect 'a version is a number' 2 err --version err two
run postern check 00:01.0 --memory 64Q --json
expect 'wrong usage keeps its exit code in JSON' 2
json /error/errno EINVAL 'wrong usage is an error in JSON too'
json /error/operation arguments 'wrong usage in JSON blames the arguments'

run postern doctor --json
json /host/0/condition iommu 'the first condition of doctor in JSON is the IOMMU'
run postern backends --json
json /backends/0/built true 'backends in JSON says that a backend is built'
if [ -d /sys/bus/pci/devices ]; then
    run postern devices
    expect 'devices prints a table with headings' 0 out ADDRESS out DRIVER
    run postern devices --json
    address=$(printf '%s' "$out" | postern-json /devices/0/address 2>/dev/null)
    if [ "$address" ]; then
        that 'the first device of the JSON is in sysfs' test -e "/sys/bus/pci/devices/$address"
        run postern show "$address"
        expect 'show works whatever the driver' 0 out "$address" out class
        run postern show "$address" --json
        json /address "$address" 'show gives its address in JSON'
    else
        skip 'show works whatever the driver' 'this machine has no PCI device'
    fi
else
    skip 'devices prints a table with headings' 'this machine has no PCI'
fi

if [ -w /dev/full ]; then
    postern --help >/dev/full 2>"$scratch/err"
    code=$? out='' err=$(cat "$scratch/err")
    expect 'output that cannot be written is no success' 1 err 'standard output'
fi
if [ -w /dev/full ]; then
    code=0
    postern show fff0:fe:1f.7 2>/dev/full || code=$?
    out='' err=''
    expect 'an error that cannot be printed sets the exit code, without a crash' 1
fi
(
    sleep 0.3
    code=0
    postern devices --host sim 2>"$scratch/err" || code=$?
    echo $code >"$scratch/code"
) | true
code=$(cat "$scratch/code") out='' err=$(cat "$scratch/err")
expect 'a pipe without a reader does not kill it' 1 err 'standard output'
run env TERM=xterm postern doctor
case $out in
    *"$(printf '\033')"*) not_ok 'there is no colour where the output is no terminal' ;;
    *) ok 'there is no colour where the output is no terminal' ;;
esac

echo '# a simulated host'
disk=0000:00:01.0 other=0000:00:02.0 twin=0000:01:00.0
run postern devices --host sim
expect 'devices lists what is on it' 0 out "$disk" out vfio-pci out "$twin" out nvme
run postern doctor $disk --host sim
expect 'doctor finds every condition met' 0 out 'no unmet conditions' no-out 'NO '
run postern check $disk --host sim
expect 'check passes on every backend, in every version' 0 out "$disk passes through with iommufd; type1, version 2; type1, version 1" no-out FAIL out 'completed by MSI-X'
expect 'all passes read the same' 0 out '3 passes read the same bytes'
expect 'its page table reports exactly the written pages' 0 out '37 pages written, all of them among the 37 of 256 reported dirty; tracked by the IOMMU'
run postern check $disk --host sim:pc --bytes 1M --write-test --json
json /ok true 'in JSON too, and with writing'
run postern check $disk --host sim:pc --bytes 1M --backend iommufd --write-test --keep-in "$scratch/kept"
expect 'the file with the contents of a disk is announced before writing, and removed after' 0 err "is kept in $scratch/kept/$disk-namespace-1-block-" out 'and the old content restored'
that 'the folder that was named was used' test -d "$scratch/kept"
that 'and nothing is left in it' test -z "$(ls "$scratch/kept")"
: >"$scratch/kept/$disk-namespace-1-block-130944"
run postern check $disk --host sim:pc --bytes 1M --backend iommufd --write-test --keep-in "$scratch/kept"
expect 'a file left by an earlier write test is not overwritten' 1 out 'FAIL  write' out 'an earlier write test ended' out 'conv=notrunc'
run postern check $other --host sim
expect 'a device that is bound to its own driver is refused' 1 err "\"postern bind $other --host sim\"" err "starts fresh in each run"
run postern doctor 00:01.0 --host sim:arm --memory 1P
expect 'doctor says where the width of the IOMMU is unknown' 0 out '?  address width'
run postern doctor $disk --host sim --memory 1024G
expect 'doctor reports more memory than the IOMMU can translate' 1 out 'NO  address width' out '0x0-0x7fffffffff'
run postern check $disk --host sim --vf-token bd8d9d2b-5a5f-4f5a-a211-f591514ba1f3
expect 'a VF token for a device that takes none is refused with a reason' 1 out 'takes no VF token' out EINVAL
run postern bind $other --host sim
expect 'bind says what it did' 0 out "$other: nvme -> vfio-pci"
that 'and records nothing on this machine' test ! -e /run/postern/bind/$other.json
run postern bind $other --host sim --driver ../../../../tmp/vfio
expect 'a driver that is a path is refused' 1 err EINVAL
run postern reset $disk --host sim
expect 'reset prints its method' 0 out "$disk: reset by flr"
run postern check 0000:00:04.0 --host sim
expect 'edu passes too, with its DMA engine and both kinds of interrupts' 0 out 'every byte compared' out 'MSI received' out 'INTx received' out "passes through with iommufd; type1, version 2; type1, version 1"
run postern --host sim devices
expect 'an option before the command is wrong usage, with the right order' 2 err 'unexpected argument: --host sim' \
    err 'options go after the command: "postern devices --host sim"'
run postern --json doctor $disk --host sim
expect 'so is one of several' 2 out "options go after the command" out "postern doctor --json $disk --host sim"
run postern --host sim
expect 'and one without a command' 2 err 'options go after the command' err 'postern --help'
run postern devices --host nowhere
expect 'a host that does not exist is wrong usage' 2 err 'no host has this name' err 'sim:arm'
run postern doctor $disk --host sim:arm
expect 'doctor on the Arm server finds no unmet condition, and reports what the host does not show' 0 out 'no unmet conditions' out 'smmu3.0x0000000009050000 does not report it'
run postern show $disk --host sim:arm
expect 'show leaves its window for interrupts out of the usable addresses' 0 out '0x0-0x7ffffff (128 MiB), 0x8100000-0xffffffffffff'
run postern check $disk --host sim:arm
expect 'check passes on the Arm server on every backend, too' 0 out "$disk passes through with iommufd; type1, version 2; type1, version 1" no-out FAIL

case $(postern backends) in
    *'spapr    not built'*)
        run postern doctor 0000:00:00.0 --host sim:pseries
        expect 'doctor says that this build lacks what a POWER host needs, and how to get it' 1 out 'NO  backend spapr' out 'this build of postern leaves it out' out 'cmake --preset default' out '1 condition is not met' no-out modprobe
        ;;
    *) skip 'doctor says that this build lacks what a POWER host needs' 'it has it' ;;
esac

echo '# a host that a file describes'
described=$(dirname "$0")/../../examples/server.json
if [ -e "$described" ]; then
    run postern check 0000:41:00.0 --host "sim:$described"
    expect 'check passes the disk of a described host through' 0 out '0000:41:00.0 passes through with' no-out FAIL
    run postern doctor 0000:43:00.0 --host "sim:$described" --memory 1G
    expect 'doctor finds what its description lets stand in the way' 1 out 'in the way: 0000:44:00.0' \
        out 'limited to 256 MiB; iommufd counts 1 GiB to be mapped, by user: too much; type1 counts 1 GiB to be mapped: too much'
fi
described=$scratch/host.json
echo '{"platform": "pc", "locked_memory": 8388608,
       "functions": [{"address": "00:01.0", "model": "nvme", "iommu_group": 1, "driver": "vfio-pci"}]}' >"$described"
run postern doctor $disk --host "sim:$described" --memory 16M
# shellcheck disable=SC2016 # for the operator's shell
expect 'doctor says what each backend would count as locked memory, and three ways to be allowed it' 1 \
    out 'iommufd counts 16 MiB to be mapped, by user: too much; type1 counts 16 MiB to be mapped: too much' \
    out '"ulimit -l 16384"' out '"sudo prlimit -p $$ -l$((16384*1024))"' out 'LimitMEMLOCK=16384K'
run postern check $disk --host "sim:$described" --memory 16M
expect 'check fails with the same number' 1 out 'FAIL  map' out ENOMEM out '"ulimit -l 16384"'
run postern doctor $disk --host "sim:$described" --memory 8M
expect 'doctor finds that the limit itself is enough' 0 \
    out 'by user: allowed unless other processes of this user have pinned more than 0 bytes; type1 counts 8 MiB to be mapped: allowed'
run postern doctor $disk --host "sim:$described" --memory 16M --json
json /locked_memory/mapped 16777216 'doctor in JSON has the size that was asked about'
json /locked_memory/limit 8388608 'and the limit'
json /locked_memory/exempt false 'and whether it applies'
json /locked_memory/needs/0/backend iommufd 'and the need of each backend'
json /locked_memory/needs/0/counter user 'by user'
json /locked_memory/needs/1/counter process 'or by process'
json /locked_memory/needs/1/bytes/at_most 16777216 'in bytes'
json /locked_memory/needs/1/containers/at_most 1 'for so many containers'
json /locked_memory/needs/1/verdict refused 'and the verdict'
run postern doctor $disk --host "sim:$described" --json
case $out in
    *'"locked_memory": {'*) not_ok 'and none of it without --memory' "$out" ;;
    *) ok 'and none of it without --memory' ;;
esac
for size in 0 -1 M 16Mx 99999999999G; do
    run postern doctor $disk --host "sim:$described" --memory "$size"
    expect "doctor refuses --memory $size" 2 err --memory
done
run postern doctor 00:09.0 --host "sim:$described" --memory 16M
expect 'doctor judges the limit also for a device that is not there' 1 out 'NO  device' out 'type1 counts 16 MiB'
run postern doctor $disk --host sim --memory 16M
expect 'without a limit every backend may count' 0 out 'type1 counts 16 MiB to be mapped: no limit'
case $(postern backends) in
    *'spapr    not built'*) skip 'doctor counts the windows of a POWER host' 'this build lacks spapr' ;;
    *)
        echo '{"platform": "pseries", "locked_memory": 8388608,
               "functions": [{"address": "00:00.0", "model": "nvme", "iommu_group": 0, "driver": "vfio-pci"}]}' >"$described"
        run postern doctor 0000:00:00.0 --host "sim:$described" --memory 8M
        expect 'doctor counts the windows of a POWER host' 1 out 'version 2 of spapr counts 8 MiB to be mapped and 2 MiB for tables: too much' \
            out 'version 1 of spapr counts 1026 MiB for its whole window and table: too much' out '"ulimit -l 10240"'
        sed -i 's/8388608/2147483648/' "$described"
        run postern doctor 0000:00:00.0 --host "sim:$described" --memory 64G
        expect 'doctor leaves version 1 of spapr out where its window is too small' 1 out 'version 2 of spapr counts' \
            no-out 'version 1 of spapr'
        ;;
esac
echo '{"platform": "pc", "functions": [{"address": "00:01.0", "model": "nvme", "iommu_group": null}]}' >"$described"
run postern doctor $disk --host "sim:$described"
expect 'doctor finds that a host without groups has its IOMMU off' 1 out 'off: /sys/kernel/iommu_groups is empty' out 'none: no IOMMU translates' out 'no DMAR' no-out 'virtual machine'
run postern bind $disk --host "sim:$described"
expect 'bind says why the driver refuses the device' 1 err 'in no IOMMU group'
run postern backends --host "sim:$described"
expect 'backends finds none that can be used' 1 out 'uses no IOMMU'
echo '{"platform": "pc", "enable_unsafe_noiommu_mode": true,
       "functions": [{"address": "00:01.0", "model": "nvme", "iommu_group": null, "driver": "vfio-pci"}]}' >"$described"
run postern doctor $disk --host "sim:$described"
expect 'doctor warns of a device that VFIO took without an IOMMU' 1 out 'all groups are those of no-IOMMU mode' out 'its DMA reaches all of memory'
run postern devices --host "sim:$described"
expect 'devices marks its group as one without an IOMMU' 0 out ' noiommu-0 '
run postern show $disk --host "sim:$described"
expect 'and so does show' 0 out 'noiommu-0: no IOMMU translates its DMA'
run postern check $disk --host "sim:$described"
expect 'check does not let it do DMA' 1 err 'mappings are not translated' no-out 'identify'
run postern backends --host "sim:$described"
expect 'and its group makes no backend usable' 1 out 'has no group of an IOMMU'
rm "$described"
run postern devices --host "sim:$described"
expect 'a file that is not there is wrong usage' 2 err 'No such file'
echo '{"platform": "pc", "functions": [{"address": "00:01.0", "model": "nvm", "iommu_group": 1}]}' >"$described"
run postern devices --host "sim:$described"
expect 'an invalid description is reported with the file, the position and the allowed values' 2 err "$described: functions[0].model: \"nvm\" is not allowed here" err '"nvme", "bridge"'
run postern devices --host "sim:$described" --json
json /error/operation arguments 'and in JSON, when JSON is asked for'
echo '{"platform": "pc",}' >"$described"
run postern devices --host "sim:$described"
expect 'invalid JSON is reported with line and column' 2 err 'line 1, column 19'
echo '{"platform": "pc", "address_bits": 1e999, "functions": []}' >"$described"
run postern devices --host "sim:$described"
expect 'a number out of range is reported with key, line and column' 2 err 'address_bits: the number 1e999 is out of range (line 1, column 36)'
mkfifo "$scratch/fifo"
for file in "$scratch/fifo" /dev/zero "$scratch/."; do
    run timeout 10 postern devices --host "sim:$file"
    expect "$file is no regular file, and is not waited for" 2 err 'not a regular file'
done
run postern bind 0000:00:03.0 --host sim
expect 'vfio-pci takes no bridge' 1 err EINVAL err 'vfio-pci does not support bridges'

run postern serve $disk --host sim:pc
expect 'serve wants a socket' 1 err 'no socket is given' err '--socket PATH'
run postern serve $disk --host sim:pc --socket "$scratch/a" --fd 3
expect 'serve takes one socket' 2 err '--socket excludes --fd'
run postern serve $disk --host sim:pc --socket "$scratch/a" --socket-mode 999
expect 'a socket mode is an octal number' 2 err --socket-mode err '"999"'
run postern serve $disk --host sim:pc --socket "$scratch/a" --allow-uid nobody
expect 'a user is a number' 2 err --allow-uid err '"nobody"'
run postern serve $disk --host sim:pc --socket "$scratch/no/such/folder"
expect 'a socket in no folder is refused, with the errno' 1 err "$scratch/no/such/folder" err ENOENT
touch "$scratch/file"
run postern serve $disk --host sim:pc --socket "$scratch/file"
expect 'serve does not replace a file' 1 err 'no socket has this name'
that 'and the file is still there' test -f "$scratch/file"
run postern serve $other --host sim --socket "$scratch/a"
expect 'serve of a device that is bound to its own driver is refused' 1 err "\"postern bind $other --host sim\""

# serve ARGUMENT...: starts it with --host sim:pc, and waits until it listens. Its output goes to $scratch/served.
serve() {
    rm -f "$scratch/served"  # that of the server before
    postern serve $disk --host sim:pc --socket "$scratch/socket" "$@" >"$scratch/served" 2>"$scratch/err" &
    server=$!
    soon grep -q listening "$scratch/served"
}
# Waits until a command succeeds, but not for ever.
soon() {
    tries=0
    until "$@" || [ $tries = 300 ]; do
        sleep 0.1
        tries=$((tries + 1))
    done
}
# Ends it, and sets what run() sets.
served() {
    [ -z "${1-}" ] || kill "$1" "$server" 2>/dev/null
    wait "$server"
    code=$?
    out=$(cat "$scratch/served")
    err=$(cat "$scratch/err")
}
if command -v postern-vfio-user-client >/dev/null; then
    serve
    run postern-vfio-user-client "$scratch/socket"
    expect 'a client reads the ids of the disk' 0 out 1b36:0010
    run postern-vfio-user-client "$scratch/socket" no-memory
    expect 'the next client finds the device' 0 out 1b36:0010
    run postern serve $disk --host sim:pc --socket "$scratch/socket"
    expect 'a second server at the same socket is refused' 1 err 'a server listens there' err EADDRINUSE
    mkfifo "$scratch/hold"
    postern-vfio-user-client "$scratch/socket" hold <"$scratch/hold" >"$scratch/first" &
    first=$!
    exec 9>"$scratch/hold"
    soon grep -q 1b36 "$scratch/first"
    run postern-vfio-user-client "$scratch/socket"
    expect 'a client is disconnected while another is served' 1 err ''
    kill -9 $first
    exec 9>&-
    # shellcheck disable=SC2016 # expanded by that shell
    soon sh -c '[ "$(grep -c gone "$1")" = 3 ]' sh "$scratch/served"
    run postern-vfio-user-client "$scratch/socket"
    expect 'after a client was killed, the next one is served' 0 out 1b36:0010
    served -TERM
    expect 'SIGTERM ends it, and it has told what happened' 0 out "listening: $disk at $scratch/socket, by iommufd" \
        out 'client: process' out 'no memory: the client' out 'another client is served' out 'gone: it closed the connection; 1 MiB were mapped'
    that 'and the socket is gone' test ! -e "$scratch/socket"

    serve --once --json --memory-limit 64K
    run postern-vfio-user-client "$scratch/socket"
    expect 'a client gets no more memory than --memory-limit' 1 err 'Cannot allocate memory'
    served
    expect 'with --once the server ends with its client' 0 out '"event":"connected"'
    out=$(tail -n 1 "$scratch/served")
    json /event gone 'with --json each line is a document'
    serve --allow-uid 12345 --backend type1
    run postern-vfio-user-client "$scratch/socket"
    expect 'a user who is not allowed is disconnected' 1 err ''
    served -HUP  # the shell lets background processes ignore SIGINT
    expect 'and the server says so, and goes on' 0 out 'by type1' out 'refused: process' out 'the policy does not let it connect'
    run postern serve $disk --host sim:pc --socket "$scratch/socket" --bars all
    expect 'there are two ways to access BARs' 2 err '--bars' err 'trap' err 'device-fd'
    serve
    run postern-vfio-user-client "$scratch/socket" map-bar
    expect 'BARs are trapped unless asked for' 0 out 'BAR 0 cannot be mapped'
    served -TERM
    serve --bars device-fd
    run postern-vfio-user-client "$scratch/socket" map-bar
    expect 'with --bars device-fd a client maps a BAR' 0 out 'BAR 0 begins with '
    run postern-vfio-user-client "$scratch/socket" map-bar
    expect 'and so does the next one' 0 out 'BAR 0 begins with '
    served -TERM
    expect 'without a message for it' 0 out '0 accesses to BARs were messages'
    lend_disk "$scratch/lent" >"$scratch/served" 2>"$scratch/err" &
    server=$!
    soon test -S "$scratch/lent"
    run postern-vfio-user-client "$scratch/lent"
    expect 'the example lends its disk' 0 out 1b36:0010
    served
    expect 'and ends with its client' 0 out 'gone: it closed the connection'
else
    skip 'clients of serve' 'there is no postern-vfio-user-client'
fi
finish
