"""Options and arguments are declared with click; this reads the words, left to right, as the shell's loop does."""

from __future__ import annotations

from typing import Any

import click
from claude_bottle.lib.errors import UsageError


class HelpAsked(Exception):
    """``--help`` was among the words, and nothing wrong before it."""

    def __init__(self, usage: str) -> None:
        super().__init__(usage)
        self.usage = usage


class ShellCommand(click.Command):
    """A click command with the shell's order, texts and handling of ``--`` (contract sections 2 and 15).

    ``usage`` is the words after the program's name. A parameter called ``rest`` takes what stands behind the first
    ``--`` after the last operand.
    """

    def __init__(self, *args: Any, usage: str, **kwargs: Any) -> None:
        kwargs["add_help_option"] = False  # --help is read in its turn
        super().__init__(*args, **kwargs)
        self.usage = usage

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        flags = {word: p.name for p in self.params if isinstance(p, click.Option) for word in p.opts}
        operands = [p for p in self.params if isinstance(p, click.Argument) and p.name != "rest"]
        values: dict[str | None, Any] = {p.name: () if p.name == "rest" else None for p in self.params}
        for name in flags.values():
            values[name] = False
        given: list[str] = []
        options_end = False
        words = list(args)
        while words:
            word = words.pop(0)
            if word == "--" and "rest" in values and len(given) == len(operands):
                values["rest"] = tuple(words)
                break
            if options_end or not (word.startswith("-") and len(word) > 1):
                if len(given) == len(operands):
                    raise UsageError(f"unexpected argument: {word}", self.usage)
                given.append(word)
            elif word == "--":
                options_end = True
            elif word == "--help":
                raise HelpAsked(self.usage)
            elif word in flags:
                values[flags[word]] = True
            else:
                raise UsageError(f"unknown option: {word}", self.usage)
        values.update((p.name, word) for p, word in zip(operands, given, strict=False))
        for operand in operands:
            if operand.required and not values.get(operand.name):
                raise UsageError(f"missing {operand.name} name", self.usage)
        ctx.params = {str(name): value for name, value in values.items()}
        return []
