#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs every command of the tool on a real kernel, as root in the x86_64 guest, and provokes each error:
#   guests/boot x86_64 --add tests/cli/expect.sh --add tests/cli/cli_guest.sh:/root/cli_guest.sh --add /usr/bin/script -- sh cli_guest.sh
# NVMe at 00:01.0, 01:00.0 and, two functions in one group, at 02:00.0 and 02:00.1; edu at 00:02.0.
# shellcheck source=tests/cli/expect.sh
. "$(dirname "$0")/expect.sh"

disk=0000:00:01.0 edu=0000:00:02.0 port=0000:00:03.0 twin=0000:02:00.0 other_twin=0000:02:00.1 behind_port=0000:01:00.0
sata=0000:00:1f.2

[ -e /sys/bus/pci/devices/$disk ] || { echo "this is not the x86_64 guest: there is no $disk"; exit 2; }
command -v postern >/dev/null || { echo "there is no postern in PATH"; exit 2; }

driver_of() { basename "$(readlink "/sys/bus/pci/devices/$1/driver")" 2>/dev/null; }
group_of() { basename "$(readlink "/sys/bus/pci/devices/$1/iommu_group")"; }
cdev_of() { echo "/dev/vfio/devices/$(ls "/sys/bus/pci/devices/$1/vfio-dev")"; }
# Waits for the block device of an NVMe function, and prints its name.
block_of() {
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        for block in /sys/class/block/nvme*; do
            case $(readlink -f "$block") in */"$1"/*) echo "/dev/${block##*/}" && return ;; esac
        done
        sleep 0.2
    done
}
digest_of() { sha256sum | cut -d' ' -f1; }
as_user() { run su user -c "$1"; }
# shellcheck disable=SC2317 # called by "that"
is() { [ "$1" = "$2" ]; }

echo '# before anything is bound'
run postern devices
expect 'devices lists the NVMe with its ids and its driver' 0 out "$disk  1b36:0010" out nvme out ADDRESS
run postern devices --json
json /devices/1/address $disk 'devices in JSON has the same order'
json /devices/1/driver nvme 'devices in JSON has the driver'
run postern backends
expect 'both backends can be used' 0 out 'iommufd  available' out 'type1    available'
run postern backends --json
json /backends/0/available true 'backends in JSON says that it is available'
run postern doctor
expect 'doctor has nothing to complain of on this host' 0 out 'IOMMU' out 'on, ' out 'remapping by dmar0' out 'no unmet conditions'
run postern doctor --append
expect 'doctor refuses an option that it does not have' 2
run postern doctor $disk
expect 'doctor reports that the device must be bound, and the command' 1 out 'nvme, which is not a VFIO driver' out "\"postern bind $disk\"" out '1 condition is not met'
run postern doctor $disk --json
json /ok false 'doctor in JSON is not ok'
json /address $disk 'doctor in JSON names the device'
run postern show $disk
expect 'show of an unbound device shows what sysfs knows and says how to see more' 0 out 'IOMMU group' out 'reset methods' out "postern bind $disk"
run postern check $disk
expect 'check of an unbound device fails with the command to bind it' 1 err nvme err "\"postern bind $disk\""
run postern check $disk --json
json /error/remedy "\"postern bind $disk\"" 'check of an unbound device gives the remedy in JSON'
run postern unbind $disk
expect 'unbind of a device that is not bound to VFIO does nothing' 0 out 'nothing to do'
that 'and leaves the device with its driver' is "$(driver_of $disk)" nvme
whole=$(digest_of <"$(block_of $disk)")
first_mib=$(head -c 1048576 "$(block_of $disk)" | digest_of)

run postern reset $disk
expect 'reset of an unbound device fails with the command to bind it' 1 err nvme err "\"postern bind $disk\""

echo '# bind'
run postern bind $disk --driver nvme
expect 'bind to a driver that is no VFIO driver is wrong usage' 2 err 'nvme is not a VFIO driver'
run postern bind $disk --driver no-such-vfio-pci
expect 'bind to a driver that is not loaded fails with the command that loads it' 1 err 'modprobe no-such-vfio-pci'
that 'and leaves the device with its driver, too' is "$(driver_of $disk)" nvme
that 'and records nothing' test ! -e /run/postern/bind/$disk.json
as_user "postern bind $disk"
expect 'bind needs root and says so' 1 err root
run postern bind $port
expect 'bind of a bridge is refused by the driver and fails' 1 err $port
that 'and the bridge is back with its driver' is "$(driver_of $port)" pcieport
run postern bind $disk
expect 'bind says in one line what it did' 0 out "$disk: nvme -> vfio-pci"
that 'only root can read the record' is "$(stat -c %a /run/postern/bind)" 700
run cat /run/postern/bind/$disk.json
json /driver nvme 'the original driver is recorded'
run postern bind $disk
expect 'bind of a device that is bound already is no error' 0 out "$disk: already bound to vfio-pci"
run cat /run/postern/bind/$disk.json
json /driver nvme 'and does not overwrite the record'

echo '# show and doctor of a bound device'
run postern show $disk
expect 'show opens a bound device' 0 out 'BAR 0' out '16 KiB' out 'MSI-X' out 'PCI Express' out 'backend iommufd' out 'backend type1' out '0x0-0xfedfffff'
expect 'show prints the source of dirty pages, and the largest bitmap' 0 out 'not tracked: its IOMMU has no dirty bits' out 'pages of 4 KiB, bitmap to 256 MiB' out 'tracked by the IOMMU'
run postern show $disk --json
json /opened/backends/type1/dirty_pages/0/source iommu 'show in JSON has it, too'
json /opened/regions/0/length 16384 'show in JSON has the regions'
json /opened/backends/type1/mapping_limit 65535 'show in JSON has the limits of each backend'
run postern doctor $disk --memory 16G
expect 'doctor finds every condition met' 0 out 'no unmet conditions' no-out 'NO '
run postern doctor $disk --json
json /ok true 'and says so in JSON'

echo '# check of an NVMe'
run postern check $disk
expect 'check passes on every backend, in every version' 0 out "$disk passes through with iommufd; type1, version 2; type1, version 1" no-out FAIL out 'completed by MSI-X' out 'by flr'
expect 'check reads in every pass what the kernel itself reads' 0 out "sha256 $whole  first 67108864 bytes" out '3 passes read the same bytes'
expect 'check reports that a page table has no dirty bits' 0 out 'dirty pages  not tracked, so every page is reported dirty: its IOMMU has no dirty bits'
expect 'check finds every written page among those that type1 reports' 0 out '37 pages written, all of them among the 256 of 256 reported dirty; tracked by the IOMMU'
expect 'check reports that version 1 does not track pages' 0 out 'skip  dirty pages  not supported by this kernel interface'
expect 'check skips the hot reset if the device has none' 0 out 'skip  hot reset' out 'because it is on a root bus'
expect 'check leaves nothing behind' 0 out 'left behind  nothing'
expect 'check prints no progress when it is piped' 0 no-out "$(printf '\033')" no-err "$(printf '\033')" no-err reading
run postern check $disk --backend auto --bytes 1M
expect 'check with --backend auto uses only the best' 0 out 'passes through with iommufd' no-out type1
that 'and reads the requested amount' is "$(echo "$out" | sed -n 's/.*sha256 \([0-9a-f]*\).*/\1/p')" "$first_mib"
run postern check $disk --backend type1 --bytes 1M --json
json /ok true 'check in JSON is ok'
json /passes/0/backend type1 'check in JSON names the backend'
json /passes/0/steps/5/sha256 "$first_mib" 'check in JSON has the digest'
json /passes/0/version 2 'check in JSON names the version'
json /passes/0/steps/6/source iommu 'check in JSON has the source of dirty pages'
json /passes/0/steps/6/written 37 'and how many were written'
json /passes/1/version 1 'check in JSON has the older version too'
json /passes/0/window null 'a backend without DMA windows has none in JSON'
run postern check $disk --bytes 1M --version 1
expect 'check of one version leaves out the others, and backends without versions' 0 out 'passes through with type1, version 1' no-out 'version 2' no-out 'with iommufd'
run postern check $disk --backend iommufd --version 1
expect 'a version that the backend does not have is wrong usage' 2 err 'iommufd does not have a version 1'
run postern check $disk --backend type1 --bytes 100
expect 'check of less than a block reads nothing and says so' 0 out 'skip  dma'
run postern check $disk --memory 1T --bytes 1M
expect 'check of more memory than the host has fails in that step and continues' 1 out 'FAIL  map' out 'ok    dma' out 'ok    reset' out 'failed: iommufd (map); type1, version 2 (map); type1, version 1 (map)'
run postern check $disk --backend no-such-backend
expect 'check on a backend that does not exist is wrong usage' 2 err 'use one of'
run postern check $disk --bytes 1M --write-test
expect 'check --write-test writes and restores' 0 out 'the old content restored'

echo '# reset'
run postern reset $disk
expect 'reset prints its method' 0 out "$disk: reset by flr"
for backend in iommufd type1; do
    run postern reset $disk --backend $backend --json
    json /method flr "reset with $backend says so in JSON"
    json /backend $backend 'and the backend that opened it'
done
run postern reset $disk --bus
expect 'reset of a device on the root bus reports that there is no bus to reset' 1 err ENODEV err 'root bus'
run postern reset $disk --bus --json
json /error/operation VFIO_DEVICE_GET_PCI_HOT_RESET_INFO 'and names the failed call in JSON'

echo '# a device that somebody has open'
sleep 30 3<>"/dev/vfio/$(group_of $disk)" &
holder=$!
run postern doctor $disk
expect 'doctor names who has the device open' 1 out "sleep (pid $holder) has it"
run postern check $disk
expect 'check of a device in use fails on every backend and names who has it' 1 out EBUSY out "sleep (pid $holder) has it" out 'failed: iommufd (attach); type1, version 2 (attach); type1, version 1 (attach)'
for bus in '' --bus; do
    run postern reset $disk $bus
    expect "reset $bus of a device in use names who has it" 1 err EBUSY err "sleep (pid $holder) has it"
done
run postern show $disk
expect 'show of a device in use says why it cannot be opened, and shows the rest' 0 out 'reset methods' out EBUSY
kill $holder
wait $holder 2>/dev/null
postern check $disk --bytes all >/dev/null 2>&1 &
holder=$!
sleep 0.7
kill -KILL $holder
wait $holder 2>/dev/null
run postern check $disk --bytes 1M
expect 'a check that was killed in the middle leaves the device usable' 0 out 'passes through'

echo '# unbind'
sleep 3 3<>"$(cdev_of $disk)" &
holder=$!
run postern unbind $disk
expect 'unbind waits for who has the device open, and says so' 0 out "$disk: vfio-pci -> nvme" err "waiting for sleep (pid $holder) to release"
wait $holder 2>/dev/null
that 'the device is back with its driver' is "$(driver_of $disk)" nvme
that 'its driver_override is gone' is "$(cat /sys/bus/pci/devices/$disk/driver_override)" '(null)'
that 'the record is removed' test ! -e /run/postern/bind/$disk.json
that 'the contents of the disk are unchanged, also where the test wrote' is "$(digest_of <"$(block_of $disk)")" "$whole"
echo vfio-pci >/sys/bus/pci/devices/$disk/driver_override
echo $disk >/sys/bus/pci/devices/$disk/driver/unbind
echo $disk >/sys/bus/pci/drivers_probe
run postern unbind $disk
expect 'unbind of a device that postern did not bind lets the kernel choose' 0 out "$disk: vfio-pci -> nvme"
mkdir -p /run/postern/bind
echo '{"bus": "pci"' >/run/postern/bind/$disk.json
run postern bind $disk
expect 'bind fails if it cannot read the record' 1 err /run/postern/bind/$disk.json err 'remove it'
rm /run/postern/bind/$disk.json
postern bind $disk >/dev/null
echo $disk >/sys/bus/pci/devices/$disk/driver/unbind
run postern bind $disk
run cat /run/postern/bind/$disk.json
json /driver nvme 'bind of a device that an earlier bind left without a driver keeps the recorded original'
sed -i s/nvme/ahci/ /run/postern/bind/$disk.json
echo >/sys/bus/pci/devices/$disk/driver_override
echo $disk >/sys/bus/pci/devices/$disk/driver/unbind
echo $disk >/sys/bus/pci/drivers_probe
run postern bind $disk
run cat /run/postern/bind/$disk.json
json /driver nvme 'bind of a device that was moved to another driver since records that one'
run postern unbind $disk
expect 'and unbind gives it back to that' 0 out "$disk: vfio-pci -> nvme"
if mkswap "$(block_of $twin)" >/dev/null 2>&1 && swapon "$(block_of $twin)" 2>/dev/null; then
    run postern bind $twin
    expect 'bind does not take a disk that this host uses' 1 err EBUSY err swap err --force
    that 'and leaves it with its driver' is "$(driver_of $twin)" nvme
    swapoff "$(block_of $twin)"
else
    skip 'bind does not take a disk that this host uses' 'this kernel has no swap'
fi

echo '# a group of two'
run postern bind $twin --json
json /before nvme 'bind in JSON has the previous driver'
json /after vfio-pci 'bind in JSON has the new driver'
run postern bind $twin
expect 'bind names the members of the group that block it' 0 err "in the way: $other_twin (nvme)" err "postern bind $other_twin"
run postern doctor $twin
expect 'doctor names the blocking member, and the command' 1 out "in the way: $other_twin (nvme)" out "postern bind $other_twin"
run postern show $twin
expect 'show marks the blocking member, and says why the device cannot be opened' 0 out "$other_twin  nvme      blocks the group" out EPERM
run postern check $twin
expect 'check of a group that is not viable names the blocking member' 1 out $other_twin out EPERM out "postern bind $other_twin" out 'failed: iommufd (attach); type1, version 2 (attach); type1, version 1 (attach)'
run postern reset $twin --bus
expect 'reset of a group that is not viable names the blocking member' 1 err EPERM err "postern bind $other_twin" no-out OWNER
echo $other_twin >/sys/bus/pci/devices/$other_twin/driver/unbind
for backend in iommufd type1; do
    run postern reset $twin --bus --backend $backend
    expect "reset --bus with $backend shows first what it would reset, and names what has no driver" 1 \
        out "$other_twin" out 'bound to no driver' err "$other_twin (bound to no driver)" err "\"postern bind $other_twin\"" no-out 'by hot reset'
done
run postern reset $twin --bus --json
json /ok false 'in JSON it says that it did not reset'
json /members/0/owned true 'who owns each device'
json /members/1/blocker 'bound to no driver' 'what is in the way'
json /error/errno EPERM 'and why'
run postern reset $twin
expect 'a function can be reset alone even so' 0 out "$twin: reset by flr"
echo $other_twin >/sys/bus/pci/drivers_probe
run postern bind $other_twin
expect 'the other one is bound without a note' 0 out "$other_twin: nvme -> vfio-pci" no-err note
for each in $twin $other_twin; do
    run postern check "$each"
    expect 'and its hot reset takes both along' 0 out "ok    hot reset    $twin and $other_twin in "
    expect "then $each passes" 0 out "$each passes through with iommufd; type1, version 2; type1, version 1"
done
for backend in iommufd type1; do
    run postern reset $other_twin --bus --backend $backend
    expect "reset --bus with $backend resets both" 0 out 'OWNER' out "$twin  " out "$twin and $other_twin: reset by hot reset" no-out 'in the way'
done
run postern reset $twin --bus --json
json /ok true 'in JSON it says that it did'
json /members/1/address $other_twin 'and what it reset'
json /error null 'without an error'
for each in $twin $other_twin; do
    run postern unbind "$each"
    expect "and $each goes back" 0 out "$each: vfio-pci -> nvme"
done

echo '# other devices'
run postern bind $edu
expect 'bind of a device without a driver says so' 0 out "$edu: no driver -> vfio-pci"
run postern check $edu
expect 'edu passes, with its DMA engine and both kinds of interrupts' 0 out 'every byte compared' out 'MSI received' out 'INTx received' out "$edu passes through with iommufd; type1, version 2; type1, version 1"
run postern reset $edu
expect 'a device without any reset says so' 1 err EOPNOTSUPP err 'the kernel cannot reset this function; its slot or bus cannot be reset either'
run postern unbind $edu
expect 'unbind of edu leaves it without a driver again' 0 out "$edu: vfio-pci -> no driver"
run postern bind $sata
run postern check $sata
expect 'a device without a proof gets the other steps' 0 out 'skip  dma' out 'no DMA test for this kind of device' out 'ok    map' out 'ok    detach'
run postern unbind $sata
run postern bind $behind_port
run postern check $behind_port --write-test
expect 'an NVMe behind a root port passes' 0 out 'serial second' out "$behind_port passes through"
run postern reset $behind_port
expect 'it resets by flr, though its bus could be reset' 0 out "$behind_port: reset by flr"
run postern reset $behind_port --bus
expect 'and with --bus by its bus, alone' 0 out "$behind_port: reset by hot reset"
echo bus >/sys/bus/pci/devices/$behind_port/reset_method
run postern reset $behind_port
expect 'reset uses the method that root writes to reset_method' 0 out "$behind_port: reset by bus"
echo >/sys/bus/pci/devices/$behind_port/reset_method
run postern reset $behind_port
expect 'a device without a reset of its own is pointed to --bus' 1 err EOPNOTSUPP err "\"postern reset $behind_port --bus\"" err 'where it is the only function'
run postern reset $behind_port --bus
expect 'and that works' 0 out "$behind_port: reset by hot reset"
echo default >/sys/bus/pci/devices/$behind_port/reset_method

echo '# a user who is not root'
chmod 0600 /dev/vfio/vfio
as_user "postern doctor $behind_port --memory 64M"
expect 'doctor names each node that the user may not open, and the command' 1 out 'user may not open it' out "\"chown user /dev/vfio/$(group_of $behind_port)\"" out "\"chown user $(cdev_of $behind_port)\""
as_user "postern check $behind_port"
expect 'check has no backend to use then, and says why of each' 1 err /dev/iommu err /dev/vfio/vfio err EACCES
chmod 0666 /dev/vfio/vfio
chown user "/dev/vfio/$(group_of $behind_port)"
as_user "postern doctor $behind_port --memory 8M"
expect 'doctor forgives what only the other backend needs' 0 out '--  /dev/iommu' out 'type1 will do' out 'no unmet conditions'
as_user "postern check $behind_port --memory 1M"
expect 'check passes as a user who may open the group' 0 out 'passes through with type1' out 'skip  attach'
as_user "ulimit -l 64; postern doctor $behind_port --memory 1M"
expect 'doctor judges the limit of locked memory, and gives the command' 1 out 'limited to 64 KiB' out 'type1 counts 1 MiB to be mapped: too much' out '"ulimit -l 1024"'
as_user "ulimit -l 64; postern check $behind_port --memory 1M"
expect 'check beyond the limit of locked memory fails with the command' 1 out 'FAIL  map' out ENOMEM out 'ulimit -l 1024'
as_user "ulimit -l 1024; postern check $behind_port --memory 1M | grep -A2 ' map '"
expect 'and that command helps' 0 out 'ok    map'
chown user /dev/iommu "$(cdev_of $behind_port)"
as_user "postern check $behind_port --memory 1M"
expect 'check passes on both as a user who may open the nodes of both' 0 out 'passes through with iommufd; type1, version 2; type1, version 1'
as_user "postern unbind $behind_port"
expect 'unbind needs root and says so' 1 err root
run postern unbind $behind_port
expect 'root gives it back' 0 out 'vfio-pci -> nvme'

echo '# on a terminal'
if command -v script >/dev/null; then
    postern bind $disk >/dev/null
    run env TERM=xterm script -qec "postern check $disk --backend type1" /dev/null
    expect 'on a terminal there is colour, and a progress bar' 0 out "$(printf '\033[32mok')" out "reading $disk"
    run env TERM=xterm NO_COLOR=1 script -qec "postern doctor $disk" /dev/null
    expect 'NO_COLOR takes the colour away' 0 no-out "$(printf '\033')"
    postern unbind $disk >/dev/null
else
    skip 'on a terminal there is colour, and a progress bar' 'no script(1) here: give --add /usr/bin/script to guests/boot'
fi
finish
