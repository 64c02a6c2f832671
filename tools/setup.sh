#!/bin/sh
# Gets a checkout ready to run. `make` calls it; there is no need to call it by hand.
#
#   tools/setup.sh python             .venv with the exact versions of requirements.lock, and this project in it
#   tools/setup.sh system NAME ...    the programs NAME (ostree, postgresql, gnupg ...) by apt, where they are missing;
#                                     with them Python's venv module, while there is no .venv
#
# PYTHON=/path/to/python3 chooses the interpreter. Every failure ends with one sentence that says what to do.

set -eu
cd "$(dirname "$0")/.."

say() { printf 'setup: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

# Is the program that a Debian package stands for there? (PostgreSQL's server is not on PATH on Debian.)
present() {
    case $1 in
        postgresql)
            command -v initdb >/dev/null 2>&1 && return 0
            for initdb in /usr/lib/postgresql/*/bin/initdb; do [ -x "$initdb" ] && return 0; done
            return 1 ;;
        systemd) command -v systemd-analyze >/dev/null 2>&1 ;;
        nginx-light) command -v nginx >/dev/null 2>&1 || [ -x /usr/sbin/nginx ] ;;
        mender-client) command -v mender >/dev/null 2>&1 ;;
        squashfs-tools) command -v mksquashfs >/dev/null 2>&1 && command -v unsquashfs >/dev/null 2>&1 ;;
        gnupg) command -v gpg >/dev/null 2>&1 && command -v gpg-agent >/dev/null 2>&1 ;;
        *) command -v "$1" >/dev/null 2>&1 ;;
    esac
}

# Installs Debian packages, or says the one command to type. A package list is fetched only when an install needs it.
apt_install() {
    command -v apt-get >/dev/null 2>&1 ||
        die "please install $* with this system's package manager, then run the same command again."
    if [ "$(id -u)" -eq 0 ]; then
        as_root="env"
    elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
        as_root="sudo -n env"
    else
        die "root must install something first: type  sudo apt-get update && sudo apt-get install -y $*" \
            " and then run the same command again."
    fi
    say "installing $* with apt"
    as_root="$as_root DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300"
    log=$(mktemp)
    # shellcheck disable=SC2086  # $as_root is a command with its arguments
    if ! $as_root install -y --no-install-recommends "$@" >"$log" 2>&1 </dev/null &&
        ! { $as_root update >"$log" 2>&1 </dev/null &&
            $as_root install -y --no-install-recommends "$@" >"$log" 2>&1 </dev/null; }; then
        tail -n 15 "$log" >&2
        rm -f "$log"
        die "apt could not install $*; look at its words above (is the network reachable?), then run the same command again."
    fi
    rm -f "$log"
}

new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

find_python() {
    if [ -n "${PYTHON:-}" ]; then
        new_enough "$PYTHON" || die "PYTHON=$PYTHON is not Python 3.11 or newer."
        return 0
    fi
    for PYTHON in python3 python3.13 python3.12 python3.11; do
        new_enough "$PYTHON" && return 0
    done
    found=$(python3 --version 2>&1) || found="no python3"
    die "Python 3.11 or newer is needed and this machine has $found: install one, or name it with  make PYTHON=/path/to/python3"
}

# Names Debian's package with the venv module, which it ships apart, where that is missing.
missing_venv() {
    "$PYTHON" -c 'import ensurepip, venv' >/dev/null 2>&1 ||
        "$PYTHON" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])'
}

python_environment() {
    find_python
    missing=$(missing_venv)
    [ -z "$missing" ] || apt_install "$missing"
    # An environment that was left half made, or made by an older Python, is made anew.
    if ! new_enough .venv/bin/python || ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
        say "making .venv with $("$PYTHON" --version)"
        "$PYTHON" -m venv --clear .venv || die "$PYTHON could not make .venv; its words are above."
    fi
    say "installing the packages of requirements.lock"
    pip="env PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore .venv/bin/python -m pip"
    $pip install --quiet --retries 2 --require-hashes -r requirements.lock ||
        die "pip could not install the packages; its words are above (is the package index reachable?). Run the same command again."
    $pip install --quiet --no-deps --no-build-isolation --no-index --editable . ||
        die "pip could not install this project into .venv; its words are above."
    # Compiled now, or the first start of every program would pay for it.
    .venv/bin/python -m compileall -q orchestrator >/dev/null || true
    touch .venv/.ready
    say "ready: .venv/bin/wave --help"
}

case ${1:-} in
    python) python_environment ;;
    system)
        shift
        missing=
        if [ ! -e .venv/.ready ]; then
            find_python
            missing=$(missing_venv)
        fi
        for name in "$@"; do present "$name" || missing="$missing $name"; done
        # shellcheck disable=SC2086  # a list of names
        [ -z "$missing" ] || apt_install $missing ;;
    *) die "usage: tools/setup.sh python | system NAME ..." ;;
esac
