"""Options and arguments are declared with click; this reads the words, left to right, as the shell's loop does.

What a command tells of itself is declared with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from inspect import cleandoc
from itertools import zip_longest
from typing import Any

import click
from claude_bottle.lib.errors import UsageError
from click.shell_completion import CompletionItem

HELP_OPTION = ("--help", "show this")
STATUSES = {  # of every command; it may have other words for one
    "0": "done, or the answer was no",
    "1": "an error, which is named",
    "2": "the command line is wrong",
    "70": "a defect of claude-bottle",
    "128 + n": "signal n, as 130 after Ctrl-C",
}


class HelpAsked(Exception):
    """``--help`` was among the words, and nothing wrong before it.

    Args:
        command: whose.
    """

    def __init__(self, command: ShellCommand) -> None:
        super().__init__(command.usage)
        self.command = command


class ShellCommand(click.Command):
    """A click command with the shell's order, texts and handling of ``--`` (contract sections 2 and 15).

    A parameter called ``rest`` takes what stands behind the first ``--`` after the last operand, one called ``command``
    whatever follows that operand, with or without a ``--``.

    Args:
        usage: the words after the program's name in the usage line.
        example: a command line, likewise; with ``#`` and a remark where that helps.
        examples: further ones.
        statuses: what an exit status means here, where that is not what ``STATUSES`` says.
    """

    def __init__(
        self,
        *args: Any,
        usage: str,
        example: str,
        examples: tuple[str, ...] = (),
        statuses: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        kwargs["add_help_option"] = False  # --help is read in its turn
        super().__init__(*args, **kwargs)
        self.usage = usage
        self.examples = (example, *examples)
        self.statuses = STATUSES | dict(statuses or {})

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if ctx.resilient_parsing:  # to complete a command line, which need not be whole
            return super().parse_args(ctx, args)
        ctx.params = _Reading(self).read(list(args))
        return []

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem[str]]:
        word, purpose = HELP_OPTION
        found = [CompletionItem(word, help=purpose)] if incomplete and word.startswith(incomplete) else []
        return super().shell_complete(ctx, incomplete) + found

    def help_lines(self, program: str) -> Iterator[str]:
        """Yield what ``--help`` says: the shell's usage line, then what the shell does not say.

        Args:
            program: the name that it was invoked by.
        """
        yield f"usage: {program} {self.usage}"
        yield from ("", *cleandoc(self.help or "").splitlines(), "", "Options:")
        yield from _columns([*map(_described, self._options()), HELP_OPTION])
        yield from ("", "Examples:", *(f"  {program} {example}" for example in self.examples), "", "Exit status:")
        yield from _columns(sorted(self.statuses.items(), key=lambda row: (len(row[0]), row)))

    def _options(self) -> list[click.Option]:
        return [each for each in self.params if isinstance(each, click.Option)]


def _described(option: click.Option) -> tuple[str, str]:
    words = ", ".join(sorted(option.opts, key=len))
    return (words if option.is_flag else f"{words} <{option.metavar or option.name}>", option.help or "")


def _columns(rows: list[tuple[str, str]]) -> Iterator[str]:
    width = max(len(left) for left, _ in rows)
    return (f"  {left:<{width}}  {right}" for left, right in rows)


class _Reading:
    """A command's words on their way to the values of its parameters."""

    def __init__(self, command: ShellCommand) -> None:
        self.command, self.usage = command, command.usage
        options = [p for p in command.params if isinstance(p, click.Option)]
        self.flags = {word: str(p.name) for p in options if p.is_flag for word in p.opts}
        self.with_value = {word: str(p.name) for p in options if not p.is_flag for word in p.opts}
        arguments = [p for p in command.params if isinstance(p, click.Argument)]
        self.operands = [p for p in arguments if p.name not in ("rest", "command")]
        self.values: dict[str, Any] = dict.fromkeys(self.flags.values(), False)
        self.values |= dict.fromkeys(self.with_value.values(), "")
        self.values |= {str(p.name): () for p in arguments if p not in self.operands}
        self.given: list[str] = []
        self.options_end = False

    def read(self, words: list[str]) -> dict[str, Any]:
        while words:
            if "command" in self.values and len(self.given) == len(self.operands) and words[0] != "--help":
                self.values["command"] = tuple(words[words[0] == "--" :])
                break
            word = words.pop(0)
            if word == "--" and "rest" in self.values and len(self.given) == len(self.operands):
                self.values["rest"] = tuple(words)
                break
            if self.options_end or not (word.startswith("-") and len(word) > 1):
                self._take_operand(word)
            else:
                self._take_option(word, words)
        named = self._named()
        if self.values.get("command") == ():
            raise UsageError("missing command", self.usage)
        return self.values | named

    def _take_operand(self, word: str) -> None:
        if len(self.given) == len(self.operands):
            raise UsageError(f"unexpected argument: {word}", self.usage)
        self.given.append(word)

    def _take_option(self, word: str, others: list[str]) -> None:
        name, equals, value = word.partition("=")
        if word == "--":
            self.options_end = True
        elif word == "--help":
            raise HelpAsked(self.command)
        elif word in self.flags:
            self.values[self.flags[word]] = True
        elif name in self.with_value:
            self.values[self.with_value[name]] = self._value(name, value if equals else _next_value(others))
        else:
            raise UsageError(f"unknown option: {word}", self.usage)

    def _value(self, option: str, value: str) -> str:
        if not value:
            raise UsageError(f"missing value for {option}", self.usage)
        return value

    def _named(self) -> dict[str, str | None]:
        named = {str(p.name): word for p, word in zip_longest(self.operands, self.given)}
        for operand in self.operands:
            if operand.required and not named[str(operand.name)]:
                raise UsageError(f"missing {operand.name} name", self.usage)
        return named


def _next_value(words: list[str]) -> str:
    """Take the next word, unless it is an option: a value that begins like one is written behind a ``=``."""
    return "" if not words or words[0].startswith("-") else words.pop(0)
