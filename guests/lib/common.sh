# SPDX-License-Identifier: Apache-2.0
# Sourced by the scripts of guests/: paths, and functions for messages.
# shellcheck shell=bash disable=SC2034

guests=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
root=${guests%/*}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/postern/guests
readonly me=${0##*/} guests root cache

say() { printf '%s: %s\n' "$me" "$*" >&2; }
die() { say "$@"; exit 1; }
misused() { say "$1; see $me --help"; exit 2; }

# need PROGRAM PACKAGE: exits if the program is not installed.
need() { command -v "$1" >/dev/null || die "$1 is missing: install the Debian package $2"; }
