# SPDX-License-Identifier: Apache-2.0
# Sourced by boot: the guest's file system: a tree of links to what it holds, then an archive of what they lead to.
# shellcheck shell=bash disable=SC2034,SC2154 # boot sets and uses the variables here

# Sets library_path, the folders with the guest's libraries, and busybox. They are this machine's own, or those of the triplet.
find_libraries() {
    local sysroot
    if [[ ${triplet-} ]]; then
        need "$triplet-strip" "binutils-$triplet"
        [[ -e /usr/$triplet/lib/libc.so.6 ]] || die "/usr/$triplet/lib is missing: install the Debian package g++-$triplet"
        sysroot=$("$root/scripts/sysroot" "$debian_arch")
        library_path=$sysroot/usr/lib/$triplet:$sysroot/lib/$triplet:/usr/$triplet/lib
        busybox=$sysroot/bin/busybox
    else
        need busybox busybox-static
        busybox=$(command -v busybox)
        library_path=$(cat /etc/ld.so.conf.d/*.conf | grep ^/ | paste -sd:):/lib:/usr/lib:/lib64:/usr/lib64
    fi
}

# slim FILE: prints the path of a copy without debug information, made again whenever FILE has changed.
slim() {
    local copy=$cache/programs/${1//\//%}
    if [[ $1 -nt $copy || $1 -ot $copy ]]; then
        mkdir -p "${copy%/*}"
        # What strip cannot read (a script) goes in as it is.
        "${triplet:+$triplet-}strip" --strip-debug -o "$copy.$$" "$1" 2>/dev/null || cp "$1" "$copy.$$"
        chmod --reference="$1" "$copy.$$"
        libraries "$1" >"$copy.libraries"
        touch --reference="$1" "$copy.$$"
        mv "$copy.$$" "$copy"
    fi
    echo "$copy"
}

# libraries FILE: prints the paths of the shared libraries that it names.
libraries() {
    local tags folders name
    tags=$(readelf -dW "$1" 2>/dev/null | sed -nE 's/.*\((NEEDED|RPATH|RUNPATH)\).*\[(.*)\]$/\1 \2/p')
    folders=$(sed -n 's/^R[^ ]* //p' <<<"$tags")
    # shellcheck disable=SC2016 # the loader's $ORIGIN
    IFS=: read -ra folders <<<"${folders//'$ORIGIN'/"${1%/*}"}:$library_path"
    for name in $(sed -n 's/^NEEDED //p' <<<"$tags"); do
        library "$1" "$name" "${folders[@]}"
    done
}

# library FILE NAME FOLDER...: prints the path of the library NAME for the same processor as FILE is.
library() {
    local file=$1 name=$2 folder
    shift 2
    for folder; do
        if [[ -e $folder/$name ]] && cmp --quiet --ignore-initial=18 --bytes=2 "$file" "$folder/$name"; then
            echo "$folder/$name"
            return
        fi
    done
    die "$file needs the library $name, which is in none of these folders: $*"
}

# put FILE GUESTPATH: FILE or folder as it is.
put() {
    mkdir -p "$tree${2%/*}"
    ln -sfn "$(realpath "$1")" "$tree$2"
}

# put_program FILE GUESTPATH: FILE and the libraries it needs. All libraries go to one folder, which every loader searches;
# only the loader has a path that programs know, in /lib64 or in /lib, which is /usr/lib.
put_program() {
    local file library name
    file=$(slim "$(realpath "$1")")
    put "$file" "$2"
    while read -r library; do
        name=${library##*/}
        if [[ ! -e $tree/usr/lib/$name ]]; then put_program "$library" "/usr/lib/$name"; fi
        if [[ $name == ld* ]]; then put "$tree/usr/lib/$name" "/lib64/$name"; fi
    done <"$file.libraries"
}

# put_added FILE[:GUESTPATH]: what --add was given.
put_added() {
    local file=$1 path=''
    if [[ ! -e $file && $file == *:/* ]]; then
        path=/${file##*:/} file=${file%:/*}
    fi
    [[ -e $file ]] || die "--add $1: there is no such file"
    if [[ -f $file && -x $file ]]; then
        put_program "$file" "${path:-/usr/bin/${file##*/}}"
    else
        put "$file" "${path:-/root/${file##*/}}"
    fi
}

# quote WORD...: the words as a shell reads them back unchanged, whatever bytes they have.
quote() {
    local word
    for word; do
        printf "'%s' " "${word//\'/\'\\\'\'}"
    done
}

# put_command WORD...: what the guest runs, and which channels its output takes.
put_command() {
    mkdir -p "$tree/postern"
    printf '%s=%s\n' stdout "$stdout" stderr "$stderr" lines "$lines" columns "$columns" terminal "/dev/$terminal" \
        modules "'${load[*]}'" >"$tree/postern/settings"
    {
        if [[ $stdout$stderr == *terminal* ]]; then
            printf 'export TERM=%s COLUMNS=%d LINES=%d\n' "$(quote "${TERM:-dumb}")" "$columns" "$lines"
        fi
        echo "exec $(quote "$@")"
    } >"$tree/postern/command"
}

# initramfs ARCHIVE: writes what was put.
initramfs() {
    (cd "$tree" && find -L . -print0 | cpio --null --create --format=newc --dereference --owner=0:0 --quiet) >"$1"
}
