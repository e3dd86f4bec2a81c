#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# In the x86_64 guest, for tests/vm/nested. Usage: nested_guest.sh SHA256-OF-THE-DISK
set -u
disk=0000:00:01.0 passed=0 failed=0
accel=tcg
if [ -e /dev/kvm ]; then accel=kvm; fi
postern bind $disk || exit 1
for backend in iommufd type1; do
    postern serve $disk --backend $backend --socket /run/disk.sock >/run/events 2>&1 &
    server=$!
    until grep -q listening /run/events || ! kill -0 $server; do sleep 0.2; done
    /root/vmm/qemu -accel $accel -cpu max -smp 1 -M q35,memory-backend=memory -m 256M \
        -object memory-backend-memfd,id=memory,size=256M,share=on \
        -nodefaults -no-user-config -no-reboot -display none -serial stdio -kernel /root/kernel -initrd /root/initramfs \
        -append 'console=ttyS0 quiet panic=-1 no_timer_check' \
        -device '{"driver":"vfio-user-pci","x-msg-timeout":60000,"socket":{"path":"/run/disk.sock","type":"unix"}}' |
        tr -d '\r' | tee /run/console
    kill $server
    wait $server
    cat /run/events
    if grep -q "^disk $1 of " /run/console; then
        echo "ok - a VM in this guest reads the disk's bytes by $backend"
        passed=$((passed + 1))
    else
        echo "not ok - a VM in this guest reads the disk's bytes by $backend"
        failed=$((failed + 1))
    fi
done
echo "$passed passed, $failed failed, 0 skipped"
[ $failed = 0 ]
