"""Fetching templates through TemplateFlow's library, ahead of a run."""

from __future__ import annotations

import io
import os
import sys
import zipfile
from contextlib import nullcontext, redirect_stderr, redirect_stdout
from pathlib import Path, PurePosixPath
from typing import Any

from ..compute.images import read_image
from ..compute.staging import staging_folder
from ..errors import BadDataError, MissingInputError
from .spaces import (
    Space,
    find_template,
    installed_files,
    read_name,
    templateflow_archive,
    templateflow_home,
    templateflow_paths,
)

# Files beside the images that say what the template is and what one may do with it.
DOCUMENTS = ('template_description.json', 'LICENSE')

# What to do where TemplateFlow's folder cannot be written.
OTHER_HOME = 'set TEMPLATEFLOW_HOME to a folder that can.'


def fetch_template(
    space: Space, home: Path | None = None, mirror: str | None = None
) -> dict[str, Path]:
    """
    Download what a template lacks: T1w, brain mask and, where they exist, tissue maps.

    All files come into a hidden folder first and are moved only when each is whole and
    readable, so that a broken connection leaves neither stubs nor parts behind.

    Parameters
    ----------
    space : Space
        Template and resolution.
    home : Path, optional
        TemplateFlow's folder; by default `templateflow_home`.
    mirror : str, optional
        Address of a copy of TemplateFlow's bucket, in place of Amazon's.

    Returns
    -------
    dict
        Path of each kind that was downloaded; empty if all were here.

    Raises
    ------
    MissingInputError
        If TemplateFlow has no such template, or it cannot be reached.
    CannotCreateError
        If TemplateFlow's folder cannot be written.
    """
    home = home or templateflow_home()
    offered = _offered_files(space)
    have = installed_files(home, space.template).get(space, {})
    if not {'t1w', 'mask'} <= {*offered, *have}:
        find_template(space, home)  # says why
    lacking = {kind: path for kind, path in offered.items() if kind not in have}
    if not lacking:
        return {}
    if (home / '.datalad').is_dir():
        raise MissingInputError(
            f'{home} is a DataLad dataset: fetch {space.label} with "datalad get '
            f'tpl-{space.template}" there.'
        )
    with staging_folder(home, OTHER_HOME) as folder:
        _download(space, folder, list(lacking.values()), mirror)
        _add_documents(space, folder, home)
        move_into(folder, home)
    return {kind: home / path for kind, path in lacking.items()}


def _offered_files(space: Space) -> dict[str, PurePosixPath]:
    """Files of a template in TemplateFlow by kind; the T1w with the skull where there are two."""
    offered = {}
    for path in sorted(templateflow_paths(), reverse=True):
        named = read_name(path)
        if named and named[0] == space:
            offered[named[1]] = path
    return offered


def move_into(folder: Path, home: Path) -> None:
    """Move what is in one folder to the same places in another, each file in one step."""
    for path in sorted(folder.iterdir()):
        target = home / path.name
        if path.is_dir() and target.is_dir():
            move_into(path, target)
        else:
            path.replace(target)


def _download(space: Space, folder: Path, paths: list[PurePosixPath], mirror: str | None) -> None:
    # The library downloads the 0-byte stubs that it finds, and these only.
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).touch()
    quiet = nullcontext() if sys.stderr.isatty() else redirect_stderr(io.StringIO())
    try:
        with quiet, redirect_stdout(io.StringIO()):
            client = _client(folder, mirror)
            client.get(space.template, extension='.nii.gz')
        for path in paths:
            read_image(folder / path)
    except BadDataError as error:
        raise MissingInputError(
            f'What came for {space.label} is no image ({path.name}): check whether a proxy '
            'answers in place of TemplateFlow, and try again.'
        ) from error
    except (OSError, ValueError, RuntimeError) as error:
        raise MissingInputError(
            f'{space.label} could not be fetched ({type(error).__name__}): check the internet '
            'connection, or copy the template from another machine and use "neurolesion-tools '
            'templates import".'
        ) from error


def _client(folder: Path, mirror: str | None) -> Any:  # noqa: ANN401
    # Importing the library fills an empty TEMPLATEFLOW_HOME with stubs of all templates.
    before = os.environ.get('TEMPLATEFLOW_HOME')
    os.environ['TEMPLATEFLOW_HOME'] = str(folder)
    try:
        from templateflow import TemplateFlowClient
    finally:
        if before is None:
            del os.environ['TEMPLATEFLOW_HOME']
        else:
            os.environ['TEMPLATEFLOW_HOME'] = before
    source = {'s3_root': mirror.rstrip('/')} if mirror else {}
    return TemplateFlowClient(root=folder, use_datalad=False, **source)


def _add_documents(space: Space, folder: Path, home: Path) -> None:
    archive = templateflow_archive()
    if archive is None:
        return
    with zipfile.ZipFile(archive) as content:
        known = set(content.namelist())
        for document in DOCUMENTS:
            name = f'tpl-{space.template}/{document}'
            target = home / name
            if name in known and not (target.is_file() and target.stat().st_size):
                content.extract(name, folder)
