"""
The Boutiques descriptor, made from the parser: ``python -m bids_app.cli.descriptor FILE``.

Platforms read flags, types, choices and limits from it, so nothing that the parser knows is
written here a second time.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .. import __version__
from ..errors import ExitCode
from .parser import DESCRIPTION, LEVELS, build_parser
from .values import (
    amount,
    fraction,
    memory_gb,
    number,
    positive,
    seed,
    session_label,
    subject_label,
)

SCHEMA_VERSION = '0.5'

# Nobody publishes an image: the name is that of one built on the machine itself.
IMAGE = f'localhost/neurolesion:{__version__}'

# What these defaults are depends on the machine that runs, not on the one that writes the file.
_MACHINE_DEFAULTS = frozenset({'nprocs', 'mem_gb'})

# The run makes these; all other paths must exist, and platforms mount them into the container.
_MADE_BY_THE_RUN = frozenset({'output_dir', 'work_dir', 'bids_database_dir'})

_TEXT = frozenset({None, str, subject_label, session_label})
_ABOVE_ZERO = {'minimum': 0, 'exclusive-minimum': True}
_NUMBERS: dict[Any, dict[str, Any]] = {
    positive: {'integer': True, 'minimum': 1},
    seed: {'integer': True, 'minimum': 0},
    number: _ABOVE_ZERO,
    amount: {'minimum': 0},
    fraction: {**_ABOVE_ZERO, 'maximum': 1, 'exclusive-maximum': True},
    memory_gb: _ABOVE_ZERO,
}

# Rules that the parser checks after the syntax; a test holds each of them against it.
# Exclusive groups of argparse become groups. A pair with a flag stands here instead: bosh 0.5.33
# ends with a traceback where both members of such a group are given.
DISABLES = {'analyses': ('prep_only',)}
REQUIRES = {'tumor_folds': ('tumor_model',), 'group_positive': ('group_roc',)}
TOGETHER = {
    'healthy_subjects': (
        'Who is healthy',
        ('anomaly_label_column', 'anomaly_healthy_value'),
        'The column of participants.tsv and the value that healthy subjects have in it.',
    ),
}

ERRORS = {
    ExitCode.ROOM_FAILED: 'An analysis failed for some subject; the others are complete. The '
    'report of the subject and the last lines name the step and the cause.',
    ExitCode.INVALID_INPUT: 'The input folder is not a BIDS dataset.',
    ExitCode.UNKNOWN_LEVEL: f'The analysis level is unknown: use {" or ".join(LEVELS)}.',
    ExitCode.NOTHING_SELECTED: 'The labels and filters given select no image.',
    ExitCode.USAGE: 'An option, its value or a combination of options makes no sense.',
    ExitCode.BAD_DATA: 'A file is there, but its content cannot be used.',
    ExitCode.MISSING_INPUT: 'A template, weights, an image or the device asked for is not there.',
    ExitCode.CANNOT_CREATE: 'A folder or file of the output or the work folder cannot be made.',
    ExitCode.IO_ERROR: 'Reading or writing failed: disk full, or network drive gone.',
}

OUTPUT_ID = 'results'
OUTPUT = (
    'Derivatives dataset: dataset_description.json, one report sub-<label>.html and one folder '
    'sub-<label> a subject (anat, perf, ct; below ses-<label> where there are sessions), '
    'CITATION.md with the text for a methods section, logs. The group level adds group.html and '
    'the table phenotype/neurolesion.tsv.'
)

OUTPUT_NAME = 'Folder of the results; the group level reads it too. It is made where absent.'
OUTPUT_STAGED = (
    'For the group level on platforms that copy or mount folders: the folder named in '
    'output_dir, with the results of the participant level in it. The command line uses '
    'output_dir alone.'
)

# For one subject with images at 1 mm; the largest step, registration at 1 mm, books 6 GB.
RESOURCES = {'cpu-cores': 2, 'ram': 8, 'disk-space': 10, 'walltime-estimate': 3600}

TAGS = {
    'domain': ['neuroinformatics', 'medical imaging'],
    'standard': ['BIDS', 'BIDS App'],
    'modality': ['MRI', 'DCE-MRI', 'CT'],
    'status': 'research use only',
}

DEMO = 'demo_data'


def describe() -> dict[str, Any]:
    """
    Describe the BIDS App for Boutiques.

    Returns
    -------
    dict
        A descriptor of schema 0.5, the same on every machine.
    """
    parser = build_parser()
    inputs = list(_inputs(parser))
    keys = dict.fromkeys(item['value-key'] for item in inputs)
    return {
        'name': 'neurolesion',
        'description': DESCRIPTION,
        'author': 'The neurolesion developers',
        'tool-version': __version__,
        'schema-version': SCHEMA_VERSION,
        # With the default, /bin/sh -l, the profile of the system would drop the PATH of the image.
        'shell': '/bin/bash',
        # The form that "bosh validate --bids" asks for.
        'command-line': f'mkdir -p [OUTPUT_DIR]; neurolesion {" ".join(keys)}',
        'container-image': {'type': 'docker', 'image': IMAGE, 'entrypoint': True},
        'inputs': inputs,
        'groups': [*_groups(parser)],
        'output-files': [
            {
                'id': OUTPUT_ID,
                'name': 'Derivatives dataset',
                'description': OUTPUT,
                'path-template': '[OUTPUT_DIR]',
                'optional': False,
            }
        ],
        'error-codes': [{'code': int(code), 'description': text} for code, text in ERRORS.items()],
        'suggested-resources': RESOURCES,
        'tags': TAGS,
        # Platforms that offer the app: none so far.
        'online-platform-urls': [],
        'tests': _tests(),
    }


def _inputs(parser: argparse.ArgumentParser) -> Iterator[dict[str, Any]]:
    for action in parser._actions:
        # argparse has no public way to tell an action of this kind.
        if isinstance(action, argparse._HelpAction | argparse._VersionAction):
            continue
        item = _input(action, parser.prog)
        if action.dest == 'analysis_level':
            item['value-choices'] = list(LEVELS)
        if action.dest == 'output_dir':
            item['description'] = OUTPUT_NAME
            yield item
            yield item | {
                'id': 'participant_level_analysis_dir',
                'name': 'Participant level analysis dir',
                'description': OUTPUT_STAGED,
                'type': 'File',
                'optional': True,
            }
        else:
            yield item


def _input(action: argparse.Action, prog: str) -> dict[str, Any]:
    flag, name = _flag(action), _name(action)
    item: dict[str, Any] = {
        'id': name,
        'name': name.replace('_', ' ').capitalize(),
        'description': _text(action, prog),
        'value-key': f'[{name.upper()}]',
        'optional': bool(flag) and not action.required,
    }
    if isinstance(action, argparse._CountAction):
        short = action.option_strings[0]
        # Boutiques cannot repeat a flag: the value is the flag itself.
        return item | {'type': 'String', 'value-choices': [short, short + short[1:]]}
    item |= _value_type(action)
    if flag:
        item['command-line-flag'] = flag
        if item['type'] != 'Flag' and not item.get('list'):
            # With a space, argparse would take a value that starts with a dash for a flag.
            item['command-line-flag-separator'] = '='
    for rule, rules in (('requires-inputs', REQUIRES), ('disables-inputs', DISABLES)):
        if name in rules:
            item[rule] = list(rules[name])
    return item


def _value_type(action: argparse.Action) -> dict[str, Any]:
    """Type, limits, choices and default of the value of an action."""
    if action.nargs == 0:
        return {'type': 'Flag'}
    value: dict[str, Any]
    if action.type is Path:
        value = {'type': 'String' if action.dest in _MADE_BY_THE_RUN else 'File'}
    elif action.type in _TEXT:
        value = {'type': 'String'}
    else:
        value = {'type': 'Number', **_NUMBERS[action.type]}
    if action.nargs == '+':
        value |= {'list': True, 'min-list-entries': 1}
    if action.choices:
        value['value-choices'] = list(action.choices)
    unset = action.default in (None, argparse.SUPPRESS, [], '')
    if not unset and action.dest not in _MACHINE_DEFAULTS:
        default = action.default
        value['default-value'] = str(default) if isinstance(default, Path) else default
    return value


def _text(action: argparse.Action, prog: str) -> str:
    text = (action.help or '') % (vars(action) | {'prog': prog})
    # "bosh pprint" gives the text to argparse, which takes % for the start of a format.
    text = text.replace('%', ' percent')
    return f'{text}; here a number, in GB' if action.type is memory_gb else text


def _flag(action: argparse.Action) -> str:
    """First long flag of an action; empty for a positional one."""
    return next((text for text in action.option_strings if text.startswith('--')), '')


def _name(action: argparse.Action) -> str:
    """Name after the flag: that of the parser's value would say the opposite of a --no- flag."""
    return _flag(action).removeprefix('--').replace('-', '_') or action.dest


def _groups(parser: argparse.ArgumentParser) -> Iterator[dict[str, Any]]:
    for exclusive in parser._mutually_exclusive_groups:
        members = [_name(action) for action in exclusive._group_actions]
        yield {
            'id': '_or_'.join(members),
            'name': ' or '.join(members),
            'description': 'At most one of them.',
            'members': members,
            'mutually-exclusive': True,
        }
    for group, (name, together, text) in TOGETHER.items():
        yield {
            'id': group,
            'name': name,
            'description': text,
            'members': list(together),
            'all-or-none': True,
        }


def _tests() -> list[dict[str, Any]]:
    """Invocations on the demo dataset, in an order in which each finds what it needs."""
    folders = {'bids_dir': f'{DEMO}/bids', 'output_dir': f'{DEMO}/derivatives'}
    one = {'participant_label': ['01'], 'work_dir': f'{DEMO}/work'}
    leakage = {**one, 'analyses': ['leakage']}
    cases: tuple[tuple[str, str, dict[str, Any], ExitCode], ...] = (
        ('one subject', 'participant', leakage, ExitCode.OK),
        ('group', 'group', {}, ExitCode.OK),
        ('dry run', 'participant', {**leakage, 'dry_run': True}, ExitCode.OK),
        ('unknown subject', 'participant', {'participant_label': ['none']},
         ExitCode.NOTHING_SELECTED),
        ('no BIDS dataset', 'participant', {'bids_dir': DEMO}, ExitCode.INVALID_INPUT),
        ('unknown template', 'participant', {**one, 'output_spaces': ['NoSuchTemplate']},
         ExitCode.MISSING_INPUT),
    )  # fmt: skip
    return [
        {
            'name': name,
            'invocation': {**folders, 'analysis_level': level, **options},
            'assertions': {'exit-code': int(code), 'output-files': [{'id': OUTPUT_ID}]},
        }
        for name, level, options, code in cases
    ]


def render() -> str:
    """
    Write the descriptor as JSON.

    Returns
    -------
    str
        ASCII text, since ``bosh`` reads files in the encoding of the locale.
    """
    return json.dumps(describe(), indent=2) + '\n'


def main(argv: Sequence[str] | None = None) -> int:
    """
    Write the descriptor to a file.

    Parameters
    ----------
    argv : sequence of str, optional
        Path of the file; from the process by default.

    Returns
    -------
    int
        Exit code.
    """
    parser = argparse.ArgumentParser(
        prog='python -m bids_app.cli.descriptor',
        description='Write the Boutiques descriptor of neurolesion.',
    )
    parser.add_argument('file', type=Path, help='where to write, such as boutiques.json')
    path = parser.parse_args(argv).file
    try:
        path.write_text(render())
    except OSError as error:
        print(f'{path} cannot be written ({error.strerror}): give another one.', file=sys.stderr)
        return ExitCode.CANNOT_CREATE
    return ExitCode.OK


if __name__ == '__main__':
    sys.exit(main())
