#!/usr/bin/env bash
# claude-bottle: boots Claude Code agents in isolated containers. Runs the Python program beside it with packages of its
# own, installed on first use from the hashed lock file.
set -eu
# Up to the exec no command is waited for by $() or in the foreground: where it ends well though a Ctrl-C came, bash
# forgets that. A read hears it, and so does a wait.
trap 'exit 130' INT

fail() {
    printf 'claude-bottle: error: %s\n' "$1" >&2
    exit 1
}

# The real path of this script; macOS has no readlink -f. It begins with / or ./, so that it is never an option.
script=${BASH_SOURCE[0]}
case $script in
    /*) ;;
    *) script=./$script ;;
esac
while [ -L "$script" ]; do
    IFS= read -r -d '' link < <(readlink "$script") || link=${link%$'\n'}
    case $link in
        /*) script=$link ;;
        *) script=${script%/*}/$link ;;
    esac
done
IFS= read -r -d '' root < <(cd -P "${script%/*}/" && printf '%s\0' "$PWD")
lock=$root/requirements.lock
case ${1:-} in top) lock=$root/requirements-top.lock ;; esac # all packages, and what that alone needs
[ -r "$lock" ] || fail "no ${lock##*/} in $root: cli.sh runs in its checkout, from elsewhere through a link"

# The venv's name follows the lock's content, so that a running session keeps the packages it began with.
read -r digest _ < <(cksum <"$lock")

# A venv whose Python has gone is not replaced, for another first run may just have done so: the next name is taken.
choose_venv() {
    base=$1
    venv=$base/$digest
    while [ -e "$venv" ] && [ ! -x "$venv/bin/python" ]; do venv=$venv+; done
    [ -x "$venv/bin/python" ]
}

if ! choose_venv "$root/.venv-run" && ! { mkdir -p "$base" && [ -w "$base" ]; } 2>/dev/null; then
    case ${XDG_CACHE_HOME:-} in
        /*) cache=$XDG_CACHE_HOME ;;
        *) [ -n "${HOME:-}" ] || fail "HOME is not set"; cache=$HOME/.cache ;;
    esac
    choose_venv "$cache/claude-bottle" || :
fi

# Prints the path of the program itself, not of a link or a shim that may lead to another version tomorrow.
find_python() {
    local name
    for name in python3 python3.14 python3.13 python3.12 python3.11; do
        "$name" -I -X utf8 -c 'import os, sys
sys.exit(1) if sys.version_info < (3, 11) else print(os.path.realpath(sys.executable))' 2>/dev/null && return
    done
    return 1
}

# Runs a program in a process group of its own, which undo can end as a whole.
run() {
    local status=0
    running=yes
    set -m
    "$@" </dev/null >"$new/log" 2>&1 &
    set +m
    wait "$!" || status=$?
    running=''
    return "$status"
}

undo() {
    if [ -n "$running" ] && [ -n "${!:-}" ]; then
        kill -KILL "-$!"
        wait "$!"
    fi 2>/dev/null || :
    rm -rf "$new" 2>/dev/null || rm -rf "$new" # a child that is just dying may add a file
}

# Built beside its place and renamed into it: two first runs may race, and an interrupted one leaves nothing in the way.
install_packages() {
    local python
    export -n CLAUDE_BOTTLE_OAUTH_TOKEN # nobody who helps here needs it
    python=$(find_python) || fail "Python 3.11 or newer not found on PATH"
    mkdir -p "$base" 2>/dev/null || fail "cannot create $base"
    new='' running=''
    trap undo EXIT
    trap 'exit 129' HUP
    trap 'exit 143' TERM
    new=$(mktemp -d "$base/new.XXXXXX") || fail "cannot create a folder in $base"
    printf 'claude-bottle: setting up Python packages (once)\n' >&2
    run "$python" -I -m venv "$new/venv" ||
        fail "cannot make a Python environment (on Debian: apt-get install python3-venv): $(tail -n 1 "$new/log")"
    # What the user has set for pip counts, except for where to: options beat its variables and files.
    run "$new/venv/bin/python" -I -m pip install --quiet --disable-pip-version-check --no-input --require-hashes \
        --no-user --target= --root=/ --prefix="$new/venv" -r "$lock" &&
        run "$new/venv/bin/python" -I -c 'import click, jsonschema, plumbum' ||
        fail "cannot install Python packages; pip says:
$(tail -n 8 "$new/log")"
    # Not mv, which moves into a folder that is there.
    "$python" -I -c 'import os, sys; os.rename(*sys.argv[1:])' "$new/venv" "$venv" 2>/dev/null ||
        [ -x "$venv/bin/python" ] || fail "cannot create $venv"
    rm -rf "$new"
    trap - EXIT HUP TERM
    [ -z "${CLAUDE_BOTTLE_OAUTH_TOKEN+set}" ] || export CLAUDE_BOTTLE_OAUTH_TOKEN
}

[ -x "$venv/bin/python" ] || install_packages
# A Ctrl-C while Python starts waits until the program can take it, where env can do that; else, in a millisecond or two,
# it shows a traceback.
hold='env --block-signal=INT'
$hold true 2>/dev/null &
wait "$!" || hold=''
trap - INT # else bash takes a note of one that comes now, and ends as a shell before it looks at it
exec $hold "$venv/bin/python" -I -S -X utf8 "$root/cli/__main__.py" "$0" "$@"
