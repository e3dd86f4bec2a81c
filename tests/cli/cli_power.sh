#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs the tool on a real POWER kernel, as root in the guests ppc64le-pseries and ppc64le-powernv9:
#   guests/boot ppc64le-pseries --add tests/cli/expect.sh --add tests/cli/cli_power.sh:/root/cli_power.sh -- \
#       sh cli_power.sh "$(guests/disk-image - | sha256sum | cut -d' ' -f1)"
# Its argument is the SHA-256 of the first NVMe's disk image, computed outside the guest.
# shellcheck source=tests/cli/expect.sh
. "$(dirname "$0")/expect.sh"

[ "${1-}" ] || { echo 'which SHA-256 does the disk have?'; exit 2; }
command -v postern >/dev/null || { echo "there is no postern in PATH"; exit 2; }
image=$1
# Properties of the two machines: the default window and its table in KiB, and whether there is EEH.
if grep -q PowerNV /proc/cpuinfo; then
    disk=0000:01:00.0 edu=0003:01:00.0 window=2097152 table=8192 end=0x7fffffff eeh=normal
else
    disk=0000:00:00.0 edu=0003:00:00.0 window=1048576 table=2048 end=0x3fffffff eeh=null
fi
high=0x800000000000000 # start of the second window on both machines
passes='spapr, version 2, default window; spapr, version 2, created window; spapr, version 1'

group=$(basename "$(readlink /sys/bus/pci/devices/$disk/iommu_group)")
digest_of() { sha256sum | cut -d' ' -f1; }
# as_user KIB COMMAND: runs without privileges, with this limit of locked memory.
as_user() { run sh -c 'ulimit -l "$1" && exec su user -c "$2"' sh "$1" "$2"; }
# shellcheck disable=SC2317 # called by "that"
is() { [ "$1" = "$2" ]; }

echo '# before anything is bound'
run postern devices
expect 'devices lists the NVMe with its ids and its driver' 0 out "$disk  1b36:0010" out nvme
run postern backends
expect 'spapr can be used, in both versions' 0 out 'spapr    available  2, 1' out 'type1    not built' out 'iommufd  not built'
run postern backends --json
json /backends/0/versions '[2,1]' 'backends in JSON has the versions'
run postern doctor
expect 'doctor finds no unmet condition, and no condition of x86' 0 out 'by the PCI host bridge' out 'ok  backend spapr' out 'no unmet conditions' no-out /dev/iommu no-out intel no-out CONFIG_ no-out cannot
run postern doctor $disk
expect 'doctor reports that the device must be bound' 1 out "\"postern bind $disk\"" out '1 condition is not met' no-out CDEV
run postern show $disk
expect 'show of an unbound device does not ask for a cdev' 0 out 'none (not on this architecture)'
run postern check $disk
expect 'check of an unbound device fails with the command to bind it' 1 err "\"postern bind $disk\""
run postern bind $disk
expect 'bind takes it from its driver' 0 out "$disk: nvme -> vfio-pci"

echo '# a bound device'
run postern doctor $disk --memory 16G
expect 'doctor finds every condition met' 0 out 'no unmet conditions' no-out 'NO ' no-out ' ?  '
run postern show $disk
expect 'show has the windows, what can be created, and EEH' 0 out 'backend spapr' out "0x0-$end" out '4 KiB, 64 KiB, 2 MiB' out 'registered memory' out EEH
run postern show $disk --json
json /opened/backends/spapr/dma_windows/list/0/last $end 'show in JSON has the default window'
json /opened/backends/spapr/dma_windows/list/0/created false 'and that it was not created'
json /opened/backends/spapr/dma_windows/windows 2 'and how many there can be'
json /opened/backends/spapr/dirty_pages null 'and no dirty pages'
json /opened/backends/spapr/eeh $eeh 'and the state of EEH'

echo '# check of an NVMe'
run postern check $disk
expect 'check passes in every version, and in a created window' 0 out "$disk passes through with $passes" no-out FAIL
expect 'the three passes read the same bytes' 0 out '3 passes read the same bytes'
that 'which are those of the disk image outside the guest' is \
    "$(echo "$out" | sed -n 's/^ *sha256 \([0-9a-f]*\) .*/\1/p' | tr '\n' ' ')" "$image $image $image "
that 'each pass leaves nothing behind' is "$(echo "$out" | grep -c 'ok    left behind  nothing')" 3
that 'each receives a completion by interrupt' is "$(echo "$out" | grep -c 'completed by MSI-X')" 3
that 'check explains that sPAPR does not track dirty pages' is \
    "$(echo "$out" | grep -c 'skip  dirty pages  not supported by this kernel interface; migration must')" 3
that 'the window is made and removed again' is "$(echo "$out" | grep -c 'ok    window')" 2
run postern check $disk --bytes 1M --memory 1M --json
json /ok true 'check in JSON is ok'
json /passes/0/window default 'the first pass is in the default window'
json /passes/0/version 2 'of version 2'
json /passes/1/window created 'the second in a created one'
json /passes/1/steps/2/first $high 'which is high above 4 GiB'
case $(printf '%s' "$out" | postern-json /passes/1/steps/6/first) in
    ${high%???????}*) ok 'and the disk wrote there' ;;
    *) not_ok 'and the disk wrote there' "$out" ;;
esac
json /passes/2/version 1 'the third is of version 1'
json /passes/2/window null 'which has no other windows'
run postern check $disk --bytes 1M --memory 1M --version 1
expect 'check of one version leaves the other out' 0 out "$disk passes through with spapr, version 1" no-out 'version 2'
run postern check $disk --backend spapr --version 3
expect 'a version that does not exist is wrong usage' 2 err 'spapr does not have a version 3; use one of: 2, 1'
run postern check $disk --backend type1 --version 1
expect 'a version of a backend that is not in this build blames the build' 1 err POSTERN_BACKENDS
run postern check $disk --bytes 1M --memory 3T --version 2
expect 'more memory than the default window has is left to the created one, which cannot have it either' 1 \
    out 'skip  map' out 'FAIL  map' out 'failed: spapr, version 2, created window (map)'
run postern check $disk --bytes 1M --memory 1M --write-test
expect 'check --write-test writes and restores' 0 out 'the old content restored' no-out FAIL
sleep 30 3<>"/dev/vfio/$group" &
holder=$!
run postern check $disk
expect 'check of a device in use names who has it' 1 out EBUSY out "sleep (pid $holder) has it"
kill $holder
wait $holder 2>/dev/null
postern check $disk --version 2 --memory 1M >"$scratch/killed" 2>&1 &
holder=$!
for _ in $(seq 150); do
    grep -q 'ok    window' "$scratch/killed" && break
    sleep 0.2
done
kill -KILL $holder
wait $holder 2>/dev/null
that 'a check can be killed while it has a window' grep -q 'ok    window' "$scratch/killed"
run postern check $disk --bytes 1M --memory 1M
expect 'and leaves the device and its windows usable' 0 out "passes through with $passes"

echo '# edu, whose registers are big-endian here'
run postern bind $edu
run postern check $edu --memory 1M
expect 'edu passes, with its DMA engine and both kinds of interrupts' 0 out 'identification 0x010000ed' out 'every byte compared' out 'MSI received' out 'INTx received' out "$edu passes through with $passes"
expect 'its DMA engine does not reach a created window, which is said' 0 out 'skip  dma' out 0xfffffff
run postern reset $edu
if [ $eeh = normal ]; then
    expect 'edu resets by its bus' 0 out "$edu: reset by bus"
    run postern reset $edu --bus
    expect 'and so it does by hot reset, being alone' 0 out "$edu  " out "$edu: reset by hot reset"
else
    expect 'edu has no reset' 1 err EOPNOTSUPP err 'its slot or bus cannot be reset either'
    run postern reset $edu --bus
    expect 'nor a hot reset, which is explained' 1 err ENODEV err 'its slot or bus cannot be reset'
fi
run postern unbind $edu
expect 'unbind leaves it without a driver again' 0 out "$edu: vfio-pci -> no driver"

echo '# a user who is not root'
as_user unlimited "postern doctor $disk"
expect 'doctor names the node that the user may not open' 1 out "\"chown user /dev/vfio/$group\""
as_user unlimited "postern check $disk"
expect 'check says why there is no backend to use' 1 err "/dev/vfio/$group" err EACCES
chown user "/dev/vfio/$group"
as_user 8192 "postern doctor $disk --memory 8M"
expect 'doctor counts the table of the window' 1 out "8 MiB to be mapped and $((table / 1024)) MiB for tables: too much" \
    out "$(((window + table) / 1024)) MiB for its whole window and table: too much" out "\"ulimit -l $((8192 + table))\""
as_user $((8192 + table)) "postern doctor $disk --memory 8M"
expect 'and finds that the limit it asked for is enough' 0 out 'for tables: allowed' out 'whole window and table: too much' out 'no unmet conditions'
as_user $((8192 + table)) "postern check $disk --version 2 --memory 8M --bytes 1M"
case $out in
    *'ok    map          8 MiB at 0x1000'*) ok 'the kernel agrees' ;;
    *) not_ok 'the kernel agrees' "$out" ;;
esac
as_user $((8192 + table - 4)) "postern check $disk --version 2 --memory 8M --bytes 1M"
expect 'with one page less it does not, and check says what it counts' 1 out 'FAIL  map' out ENOMEM out 'the table of the default DMA window'
as_user $((window + table)) "postern check $disk --memory 1M --bytes 1M"
expect 'what doctor says of version 1 is enough for every pass' 0 out "passes through with $passes"
as_user $((window + table - 4)) "postern check $disk --version 1 --memory 1M --bytes 1M"
expect 'and with one page less version 1 fails' 1 out ENOMEM out 'failed: spapr, version 1'
as_user 64 "postern check $disk --memory 1M --bytes 1M"
expect 'with next to nothing every pass fails, and leaves nothing behind' 1 out 'version 1 counts the whole window' \
    out 'VFIO_IOMMU_SPAPR_TCE_CREATE: ENOMEM' no-out 'FAIL  left behind' no-out 'passes through'

echo '# without the module that knows the IOMMU'
rmmod vfio_iommu_spapr_tce
run postern backends
expect 'backends says which module is missing' 1 out 'spapr    unavailable' out 'modprobe vfio_iommu_spapr_tce'
run postern doctor $disk
expect 'and so does doctor' 1 out 'NO  backend spapr' out '"modprobe vfio_iommu_spapr_tce"' out '1 condition is not met'
run postern check $disk
expect 'and check' 1 err '"modprobe vfio_iommu_spapr_tce"'

echo '# unbind'
run postern unbind $disk
expect 'unbind gives the device back' 0 out "$disk: vfio-pci -> nvme"
for _ in 1 2 3 4 5 6 7 8 9 10; do
    for block in /sys/class/block/nvme*; do
        case $(readlink -f "$block") in */"$disk"/*) break 2 ;; esac
    done
    sleep 0.5
done
that 'the contents of the disk are unchanged, also where the test wrote' is "$(digest_of <"/dev/${block##*/}")" "$image"
finish
