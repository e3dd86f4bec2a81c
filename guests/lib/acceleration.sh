# SPDX-License-Identifier: Apache-2.0
# Sourced by boot: decides whether the guest runs on KVM or is emulated.
# shellcheck shell=bash disable=SC2034,SC2154 # boot sets and uses the variables here

# Prints kvm or tcg. Opening /dev/kvm is no proof, since a virtual machine may have one that cannot run a guest. So a guest is
# booted on KVM once after each start of this machine, and the result is kept.
accelerator() {
    local answer boot_id
    if [[ $(uname -m) != "$processor" || ! -w /dev/kvm ]]; then
        echo tcg
        return
    fi
    boot_id=$(</proc/sys/kernel/random/boot_id)
    answer=$cache/$guest/accelerator-$boot_id
    if [[ ! -e $answer ]]; then
        say "trying whether KVM works here, for at most 20 s"
        rm -f "${answer%"$boot_id"}"*
        if POSTERN_BUILD=/nonexistent "$guests/boot" "$guest" --accel kvm --timeout 20 -- true >/dev/null 2>&1; then
            echo kvm >"$answer"
        else
            echo tcg >"$answer"
        fi
        say "the guest runs on $(<"$answer")"
    fi
    cat "$answer"
}
