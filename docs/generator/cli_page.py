"""Reference of the two commands, from their parsers."""

from __future__ import annotations

import argparse
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NoReturn
from unittest import mock

from tables import cell, code, table

from bids_app.analyses import ANALYSES
from bids_app.cli.parser import build_parser
from bids_app.cli.tools import PROGRAMS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

OF_ROOMS: Final = ('train', 'evaluate')
"""Programs whose first argument is a room, each of which has a parser of its own."""


class _Caught(Exception):  # noqa: N818 - it carries a result and is no error
    """A program came to read its command line with this parser."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        super().__init__()
        self.parser = parser


def commands_section() -> str:
    """
    Write one section a command, with a table for each group of flags.

    Returns
    -------
    str
        Markdown.
    """
    parsers = [build_parser(), *_tools()]
    return '\n\n'.join(_command(parser) for parser in parsers)


def _tools() -> Iterator[argparse.ArgumentParser]:
    for name, (program, _) in PROGRAMS.items():
        for room in ANALYSES if name in OF_ROOMS else ('',):
            with _catching():
                try:
                    program([room] if room else [])
                except _Caught as caught:
                    yield from _with_actions(caught.parser)


@contextmanager
def _catching() -> Iterator[None]:
    # Programs make their parsers as they start: each is run up to there, and no further.
    def catch(self: argparse.ArgumentParser, *_: object, **__: object) -> NoReturn:
        raise _Caught(self)

    with mock.patch.object(argparse.ArgumentParser, 'parse_args', catch):
        yield


def _with_actions(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    below = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    if not below:
        yield parser
    for action in below:
        yield from action.choices.values()


def _command(parser: argparse.ArgumentParser) -> str:
    anchor = parser.prog.replace(' ', '-')
    parts = [f'## {parser.prog} {{: #{anchor} }}', cell(parser.description or '')]
    parts.append(f'```text\n{_usage(parser)}\n```')
    for group in parser._action_groups:
        actions = [a for a in group._group_actions if not isinstance(a, argparse._HelpAction)]
        if actions:
            title = group.title or ''
            parts.append(f'**{title[:1].upper()}{title[1:]}**')
            parts.append(table(['argument', 'meaning'], [_argument(parser, a) for a in actions]))
    return '\n\n'.join(part for part in parts if part)


def _usage(parser: argparse.ArgumentParser) -> str:
    positional = [a for a in parser._actions if not a.option_strings]
    required = [a for a in parser._actions if a.option_strings and a.required]
    words = [parser.prog, *(_value(parser, action) for action in positional)]
    words += [f'{a.option_strings[-1]} {_value(parser, a)}'.strip() for a in required]
    return ' '.join([*words, '[options]'])


def _argument(parser: argparse.ArgumentParser, action: argparse.Action) -> Sequence[str]:
    value = _value(parser, action)
    names = [f'{name} {value}'.strip() for name in action.option_strings] or [value]
    # The formatter fills in defaults as --help does.
    about = parser._get_formatter()._expand_help(action) if action.help else ''
    return '<br>'.join(code(name) for name in names), cell(about)


def _value(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    if action.nargs == 0:
        return ''
    formatter = parser._get_formatter()
    standard = action.dest if not action.option_strings else action.dest.upper()
    return formatter._format_args(action, standard)
