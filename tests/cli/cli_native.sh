#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs the tool on any machine, without hardware and without root: help, wrong arguments, missing devices, JSON, exit codes.
# Usage: cli_native.sh [TOOL]; without one, the postern in PATH. JSON is looked into where postern-json is in TOOL's folder too.
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
expect 'no arguments at all are wrong usage, and give the help on standard error' 2 err 'Verbs:' no-out Verbs
run postern chekc
expect 'a wrong verb gets the one that was meant, and the list' 2 err 'there is no verb "chekc"' err 'did you mean "check"?' err 'devices, show'
run postern frobnicate
expect 'a verb that is like none gets the list alone' 2 err 'there is no verb "frobnicate"' no-err 'did you mean' err 'the verbs are'
run postern --frobnicate
expect 'a wrong option before the verb is wrong usage' 2 err frobnicate

for verb in devices show backends doctor bind unbind check reset; do
    run postern $verb --help
    expect "$verb has a help of its own with an example" 0 out Example out --json
    run postern $verb --frobnicate
    expect "$verb refuses an option that it does not have" 2 err "postern $verb" err --frobnicate
done
for verb in show bind unbind check reset; do
    run postern $verb
    expect "$verb wants a device" 2 err 'DEV is required' err "postern $verb --help"
    run postern $verb 00:01
    expect "$verb refuses what is no PCI address, and says what one looks like" 2 err '"00:01"' err 0000:00:01.0
    run postern $verb fff0:fe:1f.7
    expect "$verb of a device that is not there fails and says how to list them" 1 err fff0:fe:1f.7 err 'postern devices'
    run postern $verb fff0:fe:1f.7 --json
    expect "$verb of a device that is not there keeps standard error empty when JSON is asked for" 1 no-err postern
    json /error/errno ENODEV "$verb of a device that is not there gives the errno in JSON"
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
expect 'a size of zero is refused' 2 err 'zero bytes'
run postern check 00:01.0 --memory 99999999999G
expect 'a size beyond 64 bits is refused' 2 err '64 bits'
run postern check 00:01.0 --vf-token nonsense
expect 'a VF token is a UUID' 2 err 'VF token "nonsense"' err uuidgen
run postern check 00:01.0 --memory 18446744073709551615
expect 'memory that no process can have is refused' 2 err 'more memory than any process can have'
run postern doctor 00:01.0 --memory 9E
expect 'by doctor, too' 2 err 'more memory than any process can have'
run postern check 00:01.0 --backend legacy
expect 'a backend that does not exist is refused and the others are listed' 2 err 'no backend of this name' err 'use one of: auto, '
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
        expect 'show tells of a device whatever its driver' 0 out "$address" out class
        run postern show "$address" --json
        json /address "$address" 'show gives its address in JSON'
    else
        skip 'show tells of a device whatever its driver' 'this machine has no PCI device'
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
    expect 'an error that cannot be told is one all the same, and no crash' 1
fi
(
    sleep 0.3
    code=0
    postern devices --host sim 2>"$scratch/err" || code=$?
    echo $code >"$scratch/code"
) | true
code=$(cat "$scratch/code") out='' err=$(cat "$scratch/err")
expect 'a pipe that nobody reads any more does not kill it' 1 err 'standard output'
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
expect 'doctor finds every condition met' 0 out 'nothing stands in the way' no-out 'NO '
run postern check $disk --host sim
expect 'check passes on every backend, in every version' 0 out "$disk passes through with iommufd; type1, version 2; type1, version 1" no-out FAIL out 'completed by MSI-X'
expect 'all passes read the same' 0 out '3 passes read the same bytes'
expect 'its page table tells exactly the pages that were written' 0 out '37 pages written, all of them among the 37 of 256 that its IOMMU told'
run postern check $disk --host sim:pc --bytes 1M --write-test --json
json /ok true 'in JSON too, and with writing'
run postern check $disk --host sim:pc --bytes 1M --backend iommufd --write-test --keep-in "$scratch/kept"
expect 'what a disk held while it is written to is told of before, and gone after' 0 err "is kept in $scratch/kept/$disk-namespace-1-block-" out 'and the old content restored'
that 'the folder that was named was used' test -d "$scratch/kept"
that 'and nothing is left in it' test -z "$(ls "$scratch/kept")"
: >"$scratch/kept/$disk-namespace-1-block-130944"
run postern check $disk --host sim:pc --bytes 1M --backend iommufd --write-test --keep-in "$scratch/kept"
expect 'what an earlier write test has left there is not written over' 1 out 'FAIL  write' out 'an earlier write test was ended' out 'conv=notrunc'
run postern check $other --host sim
expect 'a device that is bound to its own driver is refused' 1 err "\"postern bind $other --host sim\"" err "begins anew in each run"
run postern doctor $disk --host sim --memory 1024G
expect 'doctor finds that so much memory has no room in what the IOMMU translates' 1 out 'NO  address width' out '0x0-0x7fffffffff'
run postern check $disk --host sim --vf-token bd8d9d2b-5a5f-4f5a-a211-f591514ba1f3
expect 'a VF token for what wants none is refused in words' 1 out 'takes no VF token' out EINVAL
run postern bind $other --host sim
expect 'bind says what it did' 0 out "$other: nvme -> vfio-pci"
that 'and remembers nothing of it on this machine' test ! -e /run/postern/bind/$other.json
run postern bind $other --host sim --driver ../../../../tmp/vfio
expect 'a driver that is a path is refused' 1 err EINVAL
run postern reset $disk --host sim
expect 'reset says which way it took' 0 out "$disk: reset by flr"
run postern check 0000:00:04.0 --host sim
expect 'edu passes too, with its DMA engine and both kinds of interrupts' 0 out 'every byte compared' out 'MSI came' out 'INTx came' out "passes through with iommufd; type1, version 2; type1, version 1"
run postern devices --host nowhere
expect 'a host that does not exist is wrong usage' 2 err 'no host has this name' err 'sim:arm'
run postern doctor $disk --host sim:arm
expect 'doctor on the Arm server finds nothing in the way, and says what the host does not tell' 0 out 'nothing stands in the way' out 'smmu3.0x0000000009050000 does not say'
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
    expect 'doctor finds what its description lets stand in the way' 1 out 'in the way: 0000:44:00.0' out 'limited to 256 MiB, but 1 GiB is needed'
fi
described=$scratch/host.json
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
expect 'devices tells its group from one that an IOMMU translates for' 0 out ' noiommu-0 '
run postern show $disk --host "sim:$described"
expect 'and so does show' 0 out 'noiommu-0: no IOMMU translates for it'
run postern check $disk --host "sim:$described"
expect 'check does not let it do DMA' 1 err 'what is mapped is not translated' no-out 'identify'
run postern backends --host "sim:$described"
expect 'and its group makes no backend usable' 1 out 'has no group of an IOMMU'
rm "$described"
run postern devices --host "sim:$described"
expect 'a file that is not there is wrong usage' 2 err 'No such file'
echo '{"platform": "pc", "functions": [{"address": "00:01.0", "model": "nvm", "iommu_group": 1}]}' >"$described"
run postern devices --host "sim:$described"
expect 'what a description must not say is told with the file, the place and what is allowed' 2 err "$described: functions[0].model: \"nvm\" is not allowed here" err '"nvme", "bridge"'
run postern devices --host "sim:$described" --json
json /error/operation arguments 'and in JSON, when JSON is asked for'
echo '{"platform": "pc",}' >"$described"
run postern devices --host "sim:$described"
expect 'of what is no JSON the line and the column are told' 2 err 'line 1, column 19'
echo '{"platform": "pc", "address_bits": 1e999, "functions": []}' >"$described"
run postern devices --host "sim:$described"
expect 'of a number out of range the key, the line and the column are told' 2 err 'address_bits: the number 1e999 is out of range (line 1, column 36)'
mkfifo "$scratch/fifo"
for file in "$scratch/fifo" /dev/zero "$scratch/."; do
    run timeout 10 postern devices --host "sim:$file"
    expect "$file is no regular file, and is not waited for" 2 err 'no regular file'
done
run postern bind 0000:00:03.0 --host sim
expect 'vfio-pci takes no bridge' 1 err EINVAL err 'vfio-pci takes no bridge'
finish
