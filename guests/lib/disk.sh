# SPDX-License-Identifier: Apache-2.0
# Sourced by boot: the guests' disks.
# shellcheck shell=bash disable=SC2034,SC2154 # boot sets and uses the variables here

# disk_image SEED SIZE: prints the path of this image, which is created on first use.
disk_image() {
    local image=$cache/disks/$1-$2
    if [[ ! -e $image ]]; then
        need openssl openssl
        mkdir -p "${image%/*}"
        "$guests/disk-image" --seed "$1" --size "$2" "$image.$$"
        mv "$image.$$" "$image"
    fi
    echo "$image"
}

# nvme ID IMAGE PLACE: adds an NVMe to the machine. The guest's writes are discarded when it ends.
nvme() {
    arguments+=(
        -drive "file=${2//,/,,},format=raw,if=none,snapshot=on,id=disk-$1"
        -device "nvme,id=$1,serial=$1,drive=disk-$1,$3"
    )
}
