# SPDX-License-Identifier: Apache-2.0
# Sourced by boot: builds the guest's file system as a tree of symbolic links, and then as an archive of their targets.
# shellcheck shell=bash disable=SC2034,SC2154 # boot sets and uses the variables here

# Sets busybox and library_path to those for the guest's processor: this machine's, or those of the triplet.
find_programs() {
    local sysroot
    if [[ $triplet ]]; then
        need "$triplet-g++" "g++-$triplet" # includes the C and C++ libraries
        sysroot=$("$root/scripts/sysroot" "$debian_arch")
        busybox=$sysroot/bin/busybox
        library_path=$sysroot/usr/lib/$triplet:$sysroot/lib/$triplet:/usr/$triplet/lib
    else
        need readelf binutils
        need busybox busybox-static
        busybox=$(command -v busybox)
        library_path=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$({ grep -hs ^/ /etc/ld.so.conf{,.d/*.conf} || true; } | paste -sd:)
        library_path+=:/lib:/usr/lib:/lib64:/usr/lib64
    fi
}

# slim FILE: prints the path of a copy without debug information, which is renewed when FILE has changed. COPY.needs lists the
# libraries and search paths in its dynamic section. (ldd does not work for other architectures.)
slim() {
    local copy=$cache/programs/${1//\//%}
    if [[ ! -e $copy.needs || $1 -nt $copy || $1 -ot $copy ]]; then
        mkdir -p "${copy%/*}"
        # A file that strip cannot read (a script) is copied unchanged.
        "${tools}strip" --strip-debug -o "$copy.$$" "$1" 2>/dev/null || cp "$1" "$copy.$$"
        chmod --reference="$1" "$copy.$$"
        { "${tools}readelf" --dynamic --wide "$1" 2>/dev/null || true; } |
            sed -nE 's/.*\((NEEDED|RPATH|RUNPATH)\).*\[(.*)\]$/\1 \2/p' >"$copy.needs.$$"
        mv "$copy.needs.$$" "$copy.needs"
        touch --reference="$1" "$copy.$$"
        mv "$copy.$$" "$copy"
    fi
    echo "$copy"
}

# library NAME FILE FOLDERS: prints the path of the library NAME for the same processor as FILE.
library() {
    local folder folders
    IFS=: read -ra folders <<<"$3"
    for folder in "${folders[@]}"; do
        # Bytes 18 and 19 of an ELF file are the processor (e_machine).
        if [[ -e $folder/$1 ]] && cmp --quiet --ignore-initial=18 --bytes=2 "$folder/$1" "$2"; then
            echo "$folder/$1"
            return
        fi
    done
    die "$2 needs the library $1 for its processor, which is in none of ${folders[*]}: install its package" \
        "${triplet:+or add it to scripts/sysroot}"
}

# put FILE GUESTPATH: adds a file or folder unchanged.
put() {
    mkdir -p "$tree${2%/*}"
    ln -sfn "$(realpath "$1")" "$tree$2"
}

# put_program FILE GUESTPATH: adds FILE and the libraries that it needs. All libraries go to one folder, which every loader
# searches. Programs contain the path of the loader, in /lib64 or in /lib, which links to /usr/lib.
put_program() {
    local file copy folders name library
    file=$(realpath "$1")
    copy=$(slim "$file")
    put "$copy" "$2"
    folders=$(sed -n 's/^R[A-Z]* //p' "$copy.needs")
    for name in $(sed -n 's/^NEEDED //p' "$copy.needs"); do
        [[ ! -e $tree/usr/lib/$name ]] || continue
        library=$(library "$name" "$file" "${folders//\$ORIGIN/${file%/*}}${folders:+:}$library_path")
        put_program "$library" "/usr/lib/$name"
        if [[ $name == ld* ]]; then put "$tree/usr/lib/$name" "/lib64/$name"; fi
    done
}

# put_added FILE[:GUESTPATH]: adds an argument of --add.
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

# quote WORD...: quotes the words for a shell, whatever bytes they contain.
quote() {
    local word
    for word; do
        printf "'%s' " "${word//\'/\'\\\'\'}"
    done
}

# put_command WORD...: adds the command to run, the channels for its output, and the modules to load before it.
put_command() {
    mkdir -p "$tree/postern"
    printf "%s='%s'\n" stdout "$stdout" stderr "$stderr" terminal "$terminal" lines "$lines" columns "$columns" \
        modules "$load" >"$tree/postern/settings"
    {
        if [[ $stdout$stderr == *terminal* ]]; then
            printf 'export TERM=%s COLUMNS=%d LINES=%d\n' "$(quote "${TERM:-dumb}")" "$columns" "$lines"
        fi
        echo "exec $(quote "$@")"
    } >"$tree/postern/command"
}

# initramfs ARCHIVE: writes the archive of all that was added.
initramfs() {
    (cd "$tree" && find -L . -print0 | cpio --null --create --format=newc --dereference --owner=0:0 --quiet) >"$1"
}
