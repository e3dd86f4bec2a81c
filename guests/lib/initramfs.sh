# SPDX-License-Identifier: Apache-2.0
# Sourced by boot: the guest's file system: a tree of links to what it holds, then an archive of what they lead to.
# shellcheck shell=bash disable=SC2034,SC2154 # boot sets and uses the variables here

# slim FILE: prints the path of a copy without debug information, made again whenever FILE has changed.
slim() {
    local copy=$cache/programs/${1//\//%}
    if [[ $1 -nt $copy || $1 -ot $copy ]]; then
        mkdir -p "${copy%/*}"
        # What strip cannot read (a script, another architecture's program) goes in as it is.
        strip --strip-debug -o "$copy.$$" "$1" 2>/dev/null || cp "$1" "$copy.$$"
        chmod --reference="$1" "$copy.$$"
        libraries "$1" >"$copy.libraries"
        touch --reference="$1" "$copy.$$"
        mv "$copy.$$" "$copy"
    fi
    echo "$copy"
}

# libraries FILE: prints the paths of the shared libraries that it loads, and of the loader.
libraries() {
    local found
    found=$(ldd "$1" 2>/dev/null) || return 0
    if [[ $found == *"not found"* ]]; then
        die "$1 needs a library that is not on this machine:$(grep 'not found' <<<"$found" | head -n 1)"
    fi
    sed -nE 's,^[^/]*(/.*) \(0x[0-9a-f]+\)$,\1,p' <<<"$found"
}

# put FILE GUESTPATH: FILE or folder as it is.
put() {
    mkdir -p "$tree${2%/*}"
    ln -sfn "$(realpath "$1")" "$tree$2"
}

# put_program FILE GUESTPATH: FILE and the libraries it needs. All libraries go to one folder, which every loader searches;
# only the loader has a path that programs know.
put_program() {
    local file library
    file=$(slim "$(realpath "$1")")
    put "$file" "$2"
    while read -r library; do
        case $library in
            */ld-*) put "$library" "$library" ;;
            *) put "$(slim "$(realpath "$library")")" "/usr/lib/${library##*/}" ;;
        esac
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
    printf '%s=%s\n' stdout "$stdout" stderr "$stderr" lines "$lines" columns "$columns" >"$tree/postern/streams"
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
