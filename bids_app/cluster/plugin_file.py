"""The file of ``--nipype-plugin-file``: one of Nipype's own schedulers and its arguments."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nipype import Node
from nipype.pipeline import plugins

from ..errors import UsageError
from .profile import read_mapping

# These hand in the whole graph and leave before anything has run: nobody would write the reports.
_NEVER_WAIT = ('CondorDAGMan', 'PBSGraph', 'SGEGraph', 'SLURMGraph')


def read_plugin_file(path: Path) -> tuple[str, dict[str, Any]]:
    """
    Read which of Nipype's plugins runs the graph.

    Parameters
    ----------
    path : Path
        YAML with ``plugin`` and, where it needs any, ``plugin_args``.

    Returns
    -------
    plugin : str
        Its name in Nipype, such as ``MultiProc``.
    arguments : dict
        What it is made with.

    Raises
    ------
    UsageError
        If the file cannot be read, holds anything else or names a plugin that cannot be used.
    """
    content = read_mapping(path)
    name, arguments = content.pop('plugin', None), content.pop('plugin_args', None) or {}
    if not isinstance(name, str) or not isinstance(arguments, dict) or content:
        raise UsageError(
            f'{path} is no Nipype plugin file: it must hold a name as "plugin", where that needs '
            'any, names and values as "plugin_args", and nothing else.'
        )
    known = {item.removesuffix('Plugin') for item in dir(plugins) if item.endswith('Plugin')}
    if name not in known.difference(_NEVER_WAIT):
        raise UsageError(
            f'{path} names the plugin {name}, which Nipype does not have or which does not wait '
            f'for its jobs: choose from {", ".join(sorted(known.difference(_NEVER_WAIT)))}.'
        )
    return name, dict(arguments)


def make_plugin(path: Path, on_status: Callable[[Node, str], None]) -> Any:  # noqa: ANN401
    """
    Make the plugin that a file describes.

    Raises
    ------
    UsageError
        As `read_plugin_file`, or if the plugin refuses its arguments or this machine.
    """
    name, arguments = read_plugin_file(path)
    # Nipype names its jobs after whoever is logged in, and nobody is in a job or a container.
    os.environ.setdefault('LOGNAME', 'neurolesion')
    try:
        return getattr(plugins, f'{name}Plugin')(
            plugin_args=arguments | {'status_callback': on_status}
        )
    except (AttributeError, KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
        raise UsageError(f'{path}: {name} cannot be used like this here ({error}).') from error
