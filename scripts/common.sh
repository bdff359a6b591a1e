# shellcheck shell=bash
# Shared by the scripts of this repository: messages, root rights and apt. Sourced, never run.
#
# Packages are installed without their recommendations and never start a service: a development machine should not
# gain an SSH or registry server from running our tests.

set -euo pipefail

PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin # where servers are; not in every user's PATH
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# Logs and pids of what a script starts in the background. Not in the checkout: it outlives a `git clean`.
# shellcheck disable=SC2034 # for the scripts that source this
readonly root state_dir="${XDG_STATE_HOME:-${HOME:-/tmp}/.local/state}/prichal-dev"

# Where the environment forbids it, each Python that a test starts would compile all of its modules.
unset PYTHONDONTWRITEBYTECODE

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }

die() {
    say "$@"
    exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

# as_root COMMAND...: with root rights; asks for a password only where sudo does.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif have sudo; then
        sudo "$@"
    else
        die "root rights are needed for: $*. Run this as root, or install sudo."
    fi
}

# Fetch the package lists, at most once per script.
apt_updated=
apt_update_once() {
    [ -z "$apt_updated" ] || return 0
    say "fetching apt's package lists"
    as_root apt-get update -qq >&2 || die "apt-get update failed; check this machine's package sources and network."
    apt_updated=yes
}

# apt_install PACKAGE...: the lists are fetched only when those at hand do not do.
apt_install() {
    have apt-get || die "needs $*, and there is no apt-get here: install them by hand."
    say "installing with apt: $*"
    apt_try "$@" && return
    apt_update_once
    apt_try "$@" || die "apt-get could not install $*; the log is $state_dir/apt.log:"$'\n'"$(tail -n 15 "$state_dir/apt.log")"
}

# policy-rc.d is Debian's way to say "install, but start nothing". A machine's own one is left alone.
# shellcheck disable=SC2016 # $0, $@: the inner shell's
apt_try() {
    mkdir -p "$state_dir"
    as_root env DEBIAN_FRONTEND=noninteractive sh -c '
        policy=/usr/sbin/policy-rc.d
        if [ ! -e $policy ]; then
            trap "rm -f $policy" EXIT
            trap "exit 130" INT TERM
            printf "#!/bin/sh\nexit 101\n" >$policy && chmod 0755 $policy
        fi
        apt-get install -y --no-install-recommends -o DPkg::Lock::Timeout=120 "$@"
    ' apt_try "$@" </dev/null >"$state_dir/apt.log" 2>&1
}

apt_knows() { apt-cache show "$1" >/dev/null 2>&1; }

new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

# Prints the first Python that is new enough; the one that the variable PYTHON names is asked first.
find_python() {
    local name
    for name in ${PYTHON:-} python3 python3.13 python3.12 python3.11; do
        if have "$name" && new_enough "$name"; then
            command -v "$name"
            return
        fi
    done
    return 1
}

# A distribution whose own python3 is older (Ubuntu 22.04, say) may have a newer one beside it.
install_python() {
    local version
    have apt-get || die "no Python >= 3.11 is here. Install one and name it: PYTHON=/path/to/python3"
    apt_update_once
    for version in 3.13 3.12 3.11; do
        if apt_knows "python$version-venv"; then
            apt_install "python$version" "python$version-venv"
            return
        fi
    done
    die "no Python >= 3.11 is here, and apt has none. Install one and name it: PYTHON=/path/to/python3"
}

# Debian's python3 comes without the part that puts pip into a new environment.
ensure_venv_module() {
    "$1" -c 'import ensurepip, venv' 2>/dev/null && return
    apt_install "$("$1" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')"
    "$1" -c 'import ensurepip, venv' || die "$1 has no venv module. Install it, or name another Python: PYTHON=/path/to/python3"
}

# uv does not read pip's settings: give it the index that pip is configured for, and the system's certificates.
use_pip_index() {
    UV_DEFAULT_INDEX=${UV_DEFAULT_INDEX:-${PIP_INDEX_URL:-$("$root/.venv/bin/python" -m pip config get global.index-url 2>/dev/null || true)}}
    if [ -n "$UV_DEFAULT_INDEX" ]; then export UV_DEFAULT_INDEX; else unset UV_DEFAULT_INDEX; fi
    export UV_SYSTEM_CERTS=1
}
