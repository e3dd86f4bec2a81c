# SPDX-License-Identifier: Apache-2.0
# Sourced by boot: the guest's kernel, built or fetched where it is not yet in the cache.
# shellcheck shell=bash disable=SC2034,SC2154 # boot sets and uses the variables here

# Changes with all that the kernel is made from, but for comments and the source's version.
kernel_key() {
    {
        if [[ $kernel_package ]]; then
            grep -v '^ *#' "$guests/stock-kernel"
            echo "$kernel_package $kernel_suites $debian_arch ${kernel_modules[*]}"
        else
            grep CONFIG_ "$guests/$guest/kernel.config" | sort
            grep -v '^ *#' "$guests/build-kernel"
            echo "$kernel_arch $kernel_compiler $kernel_image"
        fi
    } | sha256sum | cut -c 1-16
}

# Where the guest's kernel is, or will be. Guests with the same kernel package share it.
kernel_folder() { echo "$cache/${kernel_package:-$guest}/$(kernel_key)"; }

# Sets kernel to the path of the guest's kernel, and modules to that of its modules' folder, if it has one.
find_kernel() {
    local maker=build-kernel folder lock code=0
    if [[ $kernel_package ]]; then maker=stock-kernel; fi
    folder=$(kernel_folder)
    if [[ ! -e $folder ]]; then
        mkdir -p "${folder%/*}"
        exec {lock}>"${folder%/*}/lock"
        flock --nonblock "$lock" || { say "waiting for another boot that makes this kernel"; flock "$lock"; }
        rm -rf "${folder%/*}"/*.building.*
        if [[ ! -e $folder ]]; then
            # As a job, so that a signal ends it at once.
            "$guests/$maker" "$guest" "$folder" >&2 &
            wait $! || code=$?
        fi
        exec {lock}>&-
    fi
    if ((code == 3)); then
        folder=$(newest_kernel "${folder%/*}")
        [[ $folder ]] || die "the guest $guest has no kernel: none could be fetched (see above), and none is in the cache"
        say "no kernel could be fetched: using Linux $(<"$folder/version"), made before for another configuration"
    elif ((code)); then
        exit $code
    fi
    kernel=$folder/kernel modules=''
    if [[ -e $folder/lib/modules ]]; then modules=$folder/lib/modules; fi
}

# The kernel in a folder that was made last; nothing if there is none. A folder is there only when it is complete.
newest_kernel() {
    local versions
    versions=$(ls -t "$1"/*/version 2>/dev/null | head -n 1)
    echo "${versions%/version}"
}
