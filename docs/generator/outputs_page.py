"""What each room writes, from the specification of the derivatives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from tables import cell, code, table

from bids_app.outputs.spec import all_specs, output_path

if TYPE_CHECKING:
    from bids_app.outputs.spec import Metric, Output, Spec

EXAMPLE: Final = 'sub-01_image'
"""Stands for the raw file: what it is called beyond subject and session is not the point here."""

_PLACEHOLDERS: Final = ('{space}', '{image}', '{reference}')


def outputs_section() -> str:
    """
    Write one section a room: files, then columns of the scans table.

    Returns
    -------
    str
        Markdown.
    """
    return '\n\n'.join(_room(spec) for spec in all_specs())


def file_name(output: Output) -> str:
    """
    Name of an output of subject 01, with what only a run knows in angle brackets.

    Parameters
    ----------
    output : Output
        Entry of the specification.

    Returns
    -------
    str
        Path below the root of the derivatives.
    """
    if not any(value in _PLACEHOLDERS for value in output.entities.values()):
        return str(output_path(output, EXAMPLE))
    labels = {'image': '<image>', 'reference': '<reference>'}
    return str(output_path(output, EXAMPLE, {'space': '<template>'}, labels))


def _room(spec: Spec) -> str:
    files = table(
        ['file', 'unit', 'in output spaces', 'official name'],
        [_output(output) for output in spec.outputs.values()],
    )
    parts = [f'## {spec.title} {{: #{spec.room} }}', files]
    columns = [text for output in spec.outputs.values() if (text := _columns(output))]
    parts += [f'Columns of its tables:\n\n{"".join(columns)}'] if columns else []
    if spec.metrics:
        metrics = table(
            ['column', 'what', 'unit'], [_metric(metric) for metric in spec.metrics.values()]
        )
        parts.append(f'Numbers in `scans.tsv` and in the group table:\n\n{metrics}')
    return '\n\n'.join(parts)


def _output(output: Output) -> tuple[str, ...]:
    unit = output.sidecar.get('Units', '')
    return (
        f'**{cell(output.title)}**<br>{code(file_name(output))}<br>{cell(output.description)}',
        cell('' if unit == 'arbitrary' else str(unit)),
        output.resample or '–',
        'yes' if output.standard else 'no',
    )


def _columns(output: Output) -> str:
    if output.entities['extension'] != '.tsv':
        return ''
    columns = {name: about for name, about in output.sidecar.items() if isinstance(about, Mapping)}
    lines = [f'    - `{name}`: {_column(about)}\n' for name, about in columns.items()]
    return f'- {output.title}\n' + ''.join(lines)


def _column(about: Mapping[str, Any]) -> str:
    text = str(about.get('Description', about.get('LongName', '')))
    unit = about.get('Units')
    return text + (f' ({unit})' if unit else '')


def _metric(metric: Metric) -> tuple[str, ...]:
    what = f'**{cell(metric.title)}**. {cell(metric.description)}'
    return code(metric.name), what, cell('' if metric.units == 'arbitrary' else metric.units)
