#!/usr/bin/env bash
# claude-bottle: boots Claude Code agents in isolated containers. Runs the Python program beside it with packages of its
# own, installed on first use from the hashed lock file.
set -eu

fail() {
    printf 'claude-bottle: error: %s\n' "$1" >&2
    exit 1
}

# The real path of this script; macOS has no readlink -f.
script=${BASH_SOURCE[0]}
while [ -L "$script" ]; do
    link=$(readlink "$script")
    case $link in
        /*) script=$link ;;
        *) script=${script%/*}/$link ;;
    esac
done
case $script in
    */*) root=$(CDPATH='' cd -P -- "${script%/*}" && pwd -P) ;;
    *) root=$(pwd -P) ;;
esac
lock=$root/requirements.lock

# The venv's name follows the lock's content, so that a running session keeps the packages it began with.
digest=$(cksum <"$lock")
digest=${digest%% *}
base=$root/.venv-run
if [ ! -x "$base/$digest/bin/python" ] && ! { mkdir -p "$base" && [ -w "$base" ]; } 2>/dev/null; then
    base=${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/claude-bottle
fi
venv=$base/$digest

find_python() {
    local name
    for name in python3 python3.14 python3.13 python3.12 python3.11; do
        if "$name" -I -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$name"
            return 0
        fi
    done
    return 1
}

# Built beside its place and renamed into it: two first runs may race, and an interrupted one leaves nothing in the way.
install_packages() {
    local python new
    python=$(find_python) || fail "Python 3.11 or newer not found on PATH"
    mkdir -p "$base" 2>/dev/null || fail "cannot create $base"
    new=$(mktemp -d "$base/new.XXXXXX") || fail "cannot create a folder in $base"
    trap 'rm -rf "$new"' EXIT
    printf 'claude-bottle: setting up Python packages (once)\n' >&2
    "$python" -I -m venv "$new/venv" >"$new/log" 2>&1 ||
        fail "cannot make a Python environment (on Debian: apt-get install python3-venv): $(tail -n 1 "$new/log")"
    env -u PIP_USER -u PIP_TARGET -u PIP_PREFIX "$new/venv/bin/python" -I -m pip install \
        --quiet --disable-pip-version-check --require-hashes -r "$lock" >"$new/log" 2>&1 ||
        fail "cannot install Python packages: $(tail -n 3 "$new/log")"
    mv "$new/venv" "$venv" 2>/dev/null || [ -x "$venv/bin/python" ] || fail "cannot create $venv"
    rm -rf "$venv/venv" "$new" # where another run was first, mv went into its folder
    trap - EXIT
}

[ -x "$venv/bin/python" ] || install_packages
exec "$venv/bin/python" -I -X utf8 "$root/cli/__main__.py" "$0" "$@"
