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

# stock_kernel OUT: unpacks the machine's kernel_package into the folder OUT, which appears only when it is complete: kernel,
# version, and below lib/modules those of kernel_modules, with what they need.
stock_kernel() {
    local out=$1 work=$1.building.$$ module release copy
    need depmod kmod
    need xz xz-utils
    say "fetching and unpacking the newest $kernel_package of $kernel_suite"
    mkdir -p "$work/result"
    "$root/scripts/debian-package" --suite "$kernel_suite" --arch "$debian_arch" --meta "$kernel_package" "$work/package" |
        tail -n 1 >"$work/result/version"
    cd "$work/package"
    ln -s usr/lib lib
    release=$(ls lib/modules)
    depmod --basedir . "$release"
    modprobe --dirname . --set-version "$release" --show-depends --all "${kernel_modules[@]}" |
        sed -n "s,^insmod .*\\(lib/modules/[^ ]*\\).*,\\1,p" | sort -u >"$work/modules"
    mkdir -p "$work/result/lib/modules/$release"
    cp "lib/modules/$release"/modules.{order,builtin,builtin.modinfo} "$work/result/lib/modules/$release"
    while read -r module; do
        copy=$work/result/${module%.xz}
        mkdir -p "${copy%/*}"
        xz -dc "$module" >"$copy"
    done <"$work/modules"
    depmod --basedir "$work/result" "$release"
    cp "boot/vmlinux-$release" "$work/result/kernel"
    mv -T "$work/result" "$out"
    rm -r "$work"
}

# Sets kernel to the path of the guest's kernel, and modules to that of its /lib/modules, if it has one.
find_kernel() {
    local folder lock make
    if [[ ${kernel_package-} ]]; then
        make=(stock_kernel)
        folder=$cache/$kernel_package/$({ declare -f stock_kernel; echo "$kernel_suite ${kernel_modules[*]}"; } | sha256sum | cut -c 1-16)
    else
        make=("$guests/build-kernel" "$guest")
        folder=$cache/$guest/$(kernel_key)
    fi
    if [[ ! -e $folder ]]; then
        mkdir -p "${folder%/*}"
        exec {lock}>"${folder%/*}/lock"
        flock --nonblock "$lock" || { say "waiting for another boot that makes this kernel"; flock "$lock"; }
        rm -rf "${folder%/*}"/*.building.*
        if [[ ! -e $folder ]]; then
            # As a job, so that a signal ends it at once.
            "${make[@]}" "$folder" >&2 &
            wait $!
        fi
        exec {lock}>&-
    fi
    kernel=$folder/kernel modules=''
    if [[ -e $folder/lib ]]; then modules=$folder/lib/modules; fi
}
