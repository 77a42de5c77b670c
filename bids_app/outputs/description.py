"""Files at the root of the derivatives dataset, each written atomically and idempotently."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .. import __version__
from ..compute.images import create_text, keep_text
from ..config import BIDS_VERSION
from ..errors import CannotCreateError
from .provenance import RAW_LINK, TEMPLATE_LINK
from .spec import bidsignore_lines

NAME = 'neurolesion'
CODE_URL = 'https://github.com/neurolesion/neurolesion'


def check_output_dir(output_dir: Path, bids_dir: Path) -> None:
    """
    Refuse an output folder that would spoil something.

    Parameters
    ----------
    output_dir : Path
        Where derivatives go; made if absent.
    bids_dir : Path
        The raw dataset.

    Raises
    ------
    CannotCreateError
        If it is the raw dataset, lies inside it (other than under ``derivatives/``), holds
        another kind of dataset, or cannot be written.
    """
    output, raw = output_dir.resolve(), bids_dir.resolve()
    if output == raw or (
        output.is_relative_to(raw) and output.relative_to(raw).parts[0] != 'derivatives'
    ):
        raise CannotCreateError(
            f'{output_dir} lies inside the raw dataset: choose a folder outside {bids_dir}, '
            f'or {bids_dir / "derivatives" / NAME}.'
        )
    description = output / 'dataset_description.json'
    if description.exists() and not _is_ours(description):
        raise CannotCreateError(
            f'{output_dir} holds another dataset: choose an empty folder for the output.'
        )
    try:
        output.mkdir(parents=True, exist_ok=True)
        keep_text(output / '.bidsignore', ''.join(f'{line}\n' for line in bidsignore_lines()))
    except OSError as error:
        raise CannotCreateError(
            f'{output_dir} cannot be written ({error.strerror}): choose another output folder.'
        ) from error


def _is_ours(description: Path) -> bool:
    try:
        content = json.loads(description.read_text())
        return NAME in [tool.get('Name') for tool in content.get('GeneratedBy', [])]
    except (OSError, ValueError, AttributeError):
        return False


def write_description(
    output_dir: Path, bids_dir: Path, raw: dict[str, Any], container: dict[str, str] | None
) -> None:
    """
    Write ``dataset_description.json``.

    Parameters
    ----------
    output_dir, bids_dir : Path
        Roots of the two datasets.
    raw : dict
        The raw dataset's own description.
    container : dict, optional
        ``Type`` and ``Tag`` of the container image we run in.
    """
    tool: dict[str, Any] = {
        'Name': NAME,
        'Version': __version__,
        'Description': 'Lesion derivatives from raw brain MRI and CT; research use only.',
        'CodeURL': CODE_URL,
    }
    if container:
        tool['Container'] = container
    source: dict[str, Any] = {'URL': bids_dir.resolve().as_uri()}
    if raw.get('DatasetDOI'):
        source['DOI'] = raw['DatasetDOI']
    content = {
        'Name': f'{NAME}: lesion derivatives of {raw.get("Name", "a BIDS dataset")}',
        'BIDSVersion': BIDS_VERSION,
        'DatasetType': 'derivative',
        'License': raw.get('License') or 'n/a',
        'Authors': raw.get('Authors') or [],
        'GeneratedBy': [tool],
        'SourceDatasets': [source],
        'DatasetLinks': {
            RAW_LINK: bids_dir.resolve().as_uri(),
            TEMPLATE_LINK: 'https://github.com/templateflow/templateflow',
        },
        'HowToAcknowledge': 'Please cite the references listed in CITATION.md.',
    }
    keep_text(output_dir / 'dataset_description.json', json.dumps(content, indent=2) + '\n')
    create_text(output_dir / 'README.md', _README)


def read_version(output_dir: Path) -> str:
    """
    Find which version of this app wrote a derivatives dataset.

    Parameters
    ----------
    output_dir : Path
        Root of the derivatives dataset.

    Returns
    -------
    str
        As ``dataset_description.json`` has it; empty where it does not say.
    """
    try:
        content = json.loads((output_dir / 'dataset_description.json').read_text())
        tools = [tool for tool in content['GeneratedBy'] if tool['Name'] == NAME]
        return str(tools[0]['Version'])
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return ''


def write_root_table(output_dir: Path, name: str, text: str) -> None:
    """
    Write a table that explains files of every subject.

    Parameters
    ----------
    output_dir : Path
        Root of the derivatives dataset.
    name, text : str
        The file and its content.

    Raises
    ------
    CannotCreateError
        If an earlier run wrote another one, which its files still need.
    """
    path = output_dir / name
    if not create_text(path, text) and path.read_text() != text:
        raise CannotCreateError(
            f'{path} describes the label values of an earlier run, which differ from those of '
            'this one: choose another output folder, or the same --tumor-labels as then.'
        )


_README = f"""# {NAME} derivatives

Written by {NAME}, a BIDS App. Open `sub-*.html` for one subject's report, `group.html` for the
group's; `CITATION.md` holds the methods text. Research use only, not a medical device.
"""
