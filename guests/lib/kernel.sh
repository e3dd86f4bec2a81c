# SPDX-License-Identifier: Apache-2.0
# Sourced by boot: finds the guest's kernel in the cache, or builds or downloads it.
# shellcheck shell=bash disable=SC2034,SC2154 # boot sets and uses the variables here

# Prints a key that depends on all inputs of the kernel, except comments and the version of the source.
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

# Prints the folder of the guest's kernel, which may not exist yet. Guests with the same kernel package share it.
kernel_folder() { echo "$cache/${kernel_package:-$guest}/$(kernel_key)"; }

# Sets kernel to the path of the guest's kernel, and modules to the folder of its modules, if it has one.
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
            # In the background, so that a signal interrupts the wait.
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

# Prints the newest kernel folder in a folder; nothing if there is none. A kernel folder exists only if it is complete.
newest_kernel() {
    local versions
    versions=$(ls -t "$1"/*/version 2>/dev/null | head -n 1)
    echo "${versions%/version}"
}
