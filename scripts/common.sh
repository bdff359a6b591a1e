# shellcheck shell=bash
# Shared by the scripts in this folder: messages, root rights and apt. Sourced, never run.
#
# What is installed with apt is installed without its recommendations, and no service is started by it:
# a development machine should not gain an SSH or registry server from running our tests.

set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly root
readonly state_dir="$root/build/state" # where what a script starts in the background keeps its log and pid

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }

die() {
    say "$@"
    exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

# Run a command with root rights; asks for a password only if sudo does.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif have sudo; then
        sudo "$@"
    else
        die "root rights are needed for: $*. Run this as root, or install sudo."
    fi
}

# apt_update_once: fetch the package lists, at most once per script.
apt_updated=
apt_update_once() {
    [ -z "$apt_updated" ] || return 0
    as_root apt-get update -qq || die "apt-get update failed; check the machine's package sources and network."
    apt_updated=yes
}

# apt_install PACKAGE...: the lists are fetched only when installing from those at hand fails.
apt_install() {
    have apt-get || die "needs the package(s) $*, and there is no apt-get here; install them by hand."
    say "installing with apt: $*"
    apt_try "$@" && return
    apt_update_once
    apt_try "$@" || die "apt-get could not install: $*"
}

apt_try() {
    local log policy status=0
    log=$(mktemp)
    policy=$(block_service_start)
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" \
        </dev/null >"$log" 2>&1 || status=$?
    [ -z "$policy" ] || as_root rm -f "$policy"
    if [ "$status" -ne 0 ] && [ -n "$apt_updated" ]; then tail -n 20 "$log" >&2; fi
    rm -f "$log"
    return "$status"
}

# Debian's way to say "install, but start nothing". Prints the file made, or nothing where one exists already:
# a machine's own policy is not touched.
block_service_start() {
    local policy=/usr/sbin/policy-rc.d
    [ ! -e "$policy" ] || return 0
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
    as_root chmod 0755 "$policy"
    echo "$policy"
}
