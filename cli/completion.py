"""Completion for bash, zsh and fish: click's own, with scripts that call the launcher as it was typed."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable

import click
from claude_bottle.lib import log
from click.shell_completion import BashComplete, FishComplete, ShellComplete, ZshComplete

VARIABLE = "_CLAUDE_BOTTLE_COMPLETE"  # cli/main.py knows it too, which does not load this
# A shell may put a word on the command line as it is: one that it would do something with is none to offer.
_SAFE = re.compile(r"[\w@%+:,./][\w@%+:,./-]*", re.ASCII)

_BASH = """\
%(complete_func)s() {
    local type value program=$1 IFS=$'\\n'
    [[ $program != '~/'* ]] || program=$HOME/${program#'~/'}
    COMPREPLY=()
    while IFS=, read -r type value; do
        if [[ $type == file ]]; then
            compopt -o default 2>/dev/null || : # bash 3 has none
        else
            COMPREPLY+=("$value")
        fi
    done < <(env COMP_WORDS="${COMP_WORDS[*]}" COMP_CWORD=$COMP_CWORD \\
        %(complete_var)s=bash_complete "$program" 2>/dev/null)
}
complete -o nosort -F %(complete_func)s %(prog_name)s 2>/dev/null || complete -F %(complete_func)s %(prog_name)s
"""
_ZSH = """\
#compdef %(prog_name)s
%(complete_func)s() {
    local type key descr
    local -a plain described
    for type key descr in "${(@f)$(env COMP_WORDS="${words[*]}" COMP_CWORD=$((CURRENT-1)) \\
        %(complete_var)s=zsh_complete ${~words[1]} 2>/dev/null)}"; do
        if [[ $type == file ]]; then
            _path_files -f
        elif [[ $type == plain && $descr == _ ]]; then
            plain+=("$key")
        elif [[ $type == plain ]]; then
            described+=("$key:$descr")
        fi
    done
    (( ! $#described )) || _describe -V unsorted described -U
    (( ! $#plain )) || compadd -U -V unsorted -a plain
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    %(complete_func)s "$@"
else
    compdef %(complete_func)s %(prog_name)s
fi
"""
_FISH = """\
function %(complete_func)s
    set -l program (commandline -opc)[1]
    set -l program (string replace -r '^~/' "$HOME/" -- $program)
    for each in (env COMP_WORDS=(commandline -cp) COMP_CWORD=(commandline -t) \\
            %(complete_var)s=fish_complete $program 2>/dev/null)
        set -l parts (string split -m 1 , -- $each)
        if test "$parts[1]" = file
            __fish_complete_path (commandline -t)
        else
            echo $parts[2]
        end
    end
end
complete --no-files --command %(prog_name)s --arguments "(%(complete_func)s)"
"""


class _Bash(BashComplete):
    source_template = _BASH

    def source(self) -> str:
        return ShellComplete.source(self)  # its own asks the first bash on PATH for its version


class _Zsh(ZshComplete):
    source_template = _ZSH


class _Fish(FishComplete):
    source_template = _FISH


SHELLS: dict[str, type[ShellComplete]] = {"bash": _Bash, "fish": _Fish, "zsh": _Zsh}


def source(group: click.Command, program: str, shell: str) -> None:
    """Print the script that has a shell complete the launcher's command lines.

    Args:
        group: of all commands.
        program: the name that the launcher was invoked by.
        shell: a name in ``SHELLS``.

    Raises:
        BottleError: it cannot be written.
    """
    log.data(*((line,) for line in SHELLS[shell](group, {}, shlex.quote(program), VARIABLE).source().splitlines()))


def complete(group: click.Command, program: str, instruction: str) -> None:
    """Print what can stand where the cursor is, as the script wants it.

    Args:
        group: of all commands.
        program: the name that the launcher was invoked by.
        instruction: the variable's value: the shell's name and ``_complete``.

    Raises:
        BottleError: it cannot be written.
    """
    kind = SHELLS.get(instruction.removesuffix("_complete"))
    if kind and os.environ.get("COMP_WORDS") and "COMP_CWORD" in os.environ:
        log.data(*(line.split("\t") for line in kind(group, {}, program, VARIABLE).complete().splitlines()))


def offered(words: Iterable[str], incomplete: str) -> list[str]:
    """Return the words that begin with another, but for those that a shell would do something with.

    Args:
        words: such as names of a manifest, which anybody may have written.
        incomplete: what is typed already.
    """
    return [word for word in words if word.startswith(incomplete) and _SAFE.fullmatch(word)]
