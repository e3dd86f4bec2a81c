# SPDX-License-Identifier: Apache-2.0
# Sourced by boot: the guest's kernel, built where it is not yet in the cache.
# shellcheck shell=bash disable=SC2034,SC2154 # boot sets and uses the variables here

# Changes with all that the kernel is made from, but for comments and the source's version.
kernel_key() {
    {
        grep CONFIG_ "$guests/$guest/kernel.config" | sort
        grep -v '^ *#' "$guests/build-kernel"
        echo "$kernel_arch $kernel_compiler $kernel_image"
    } | sha256sum | cut -c 1-16
}

# Sets kernel to the path of the guest's kernel.
find_kernel() {
    local folder lock
    folder=$cache/$guest/$(kernel_key)
    if [[ ! -e $folder ]]; then
        mkdir -p "${folder%/*}"
        exec {lock}>"${folder%/*}/lock"
        flock --nonblock "$lock" || { say "waiting for another boot that builds this kernel"; flock "$lock"; }
        rm -rf "$cache/$guest"/*.building.*
        if [[ ! -e $folder ]]; then
            # As a job, so that a signal ends it at once.
            "$guests/build-kernel" "$guest" "$folder" >&2 &
            wait $!
        fi
        exec {lock}>&-
    fi
    kernel=$folder/kernel
}
