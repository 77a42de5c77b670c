"""Cohorts of numbers with a known truth, written as the participant level leaves them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from bids_app import __version__
from bids_app.config import Config, GroupConfig, RunConfig
from bids_app.group.design import FLAG, Design, build_design
from bids_app.group.participants import read_participants
from bids_app.group.tables import GroupResult, run_group
from bids_app.outputs.spec import load_spec, output_path

RLS, KTRANS = 'leakage_rls_median', 'leakage_patlak_ktrans_median'


@dataclass
class NumberCohort:
    """Columns of participants.tsv, and numbers by session of each subject."""

    participants: pd.DataFrame
    """Indexed by subject with ``sub-``."""

    sessions: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    """Metrics by subject with ``sub-`` and session with ``ses-``, which may be empty."""

    room: str = 'leakage'


def read_design(root: Path, formula: str, subjects: Sequence[str]) -> Design:
    """Design of a folder's participants.tsv, as a run makes it."""
    return build_design(read_participants(root, root, FLAG), formula, subjects)


def label(number: int) -> str:
    return f'sub-{number + 1:03d}'


def simulate(
    n_subjects: int,
    effects: dict[str, float],
    seed: int,
    spread: float = 1.0,
    mean: float = 10.0,
) -> NumberCohort:
    """Every second subject is a patient; each metric is shifted by its effect in them."""
    rng = np.random.default_rng(seed)
    index = [label(number) for number in range(n_subjects)]
    is_patient = np.arange(n_subjects) % 2 == 1
    columns = {
        'group': np.where(is_patient, 'patient', 'control'),
        'age': rng.uniform(30, 70, n_subjects).round(1),
        'sex': rng.choice(['F', 'M'], n_subjects),
    }
    values = {
        name: mean + spread * (rng.normal(size=n_subjects) + effect * is_patient)
        for name, effect in effects.items()
    }
    sessions = {
        name: {'': {metric: float(numbers[row]) for metric, numbers in values.items()}}
        for row, name in enumerate(index)
    }
    return NumberCohort(pd.DataFrame(columns, index), sessions)


def write(cohort: NumberCohort, root: Path, version: str = __version__) -> tuple[Path, Path]:
    """Write the raw dataset, which has no images, and the derivatives."""
    bids_dir, output_dir = root / 'bids', root / 'out'
    bids_dir.mkdir(parents=True)
    output_dir.mkdir()
    (bids_dir / 'dataset_description.json').write_text('{"Name": "x", "BIDSVersion": "1.11.1"}')
    tool = {'Name': 'neurolesion', 'Version': version}
    (output_dir / 'dataset_description.json').write_text(json.dumps({'GeneratedBy': [tool]}))
    write_participants(cohort.participants, bids_dir)
    for subject, by_session in cohort.sessions.items():
        (bids_dir / subject).mkdir()
        for session, numbers in by_session.items():
            write_scans(output_dir, subject, session, numbers, cohort.room)
    return bids_dir, output_dir


def write_participants(participants: pd.DataFrame, bids_dir: Path) -> Path:
    path = bids_dir / 'participants.tsv'
    text = participants.to_csv(sep='\t', index_label='participant_id', na_rep='n/a')
    path.write_text(text)
    return path


def write_scans(
    output_dir: Path,
    subject: str,
    session: str,
    numbers: dict[str, float],
    room: str = 'leakage',
    run: str = '',
) -> Path:
    source = '_'.join([part for part in (subject, session, run) if part] + ['dce.nii.gz'])
    image = output_path(next(iter(load_spec(room).outputs.values())), source)
    (output_dir / image).parent.mkdir(parents=True, exist_ok=True)
    (output_dir / image).write_bytes(b'')
    folder = image.parent.parent
    table = output_dir / folder / ('_'.join(folder.parts) + '_scans.tsv')
    header = '\t'.join(['filename', *numbers])
    cells = '\t'.join(
        [f'{image.parent.name}/{image.name}', *(f'{value:.6g}' for value in numbers.values())]
    )
    before = table.read_text() if table.exists() else header + '\n'
    table.write_text(before + cells + '\n')
    return table


def run(roots: tuple[Path, Path], **settings) -> GroupResult:
    bids_dir, output_dir = roots
    return run_group(
        Config(RunConfig(bids_dir, output_dir, level='group'), group=GroupConfig(**settings))
    )


def read_table(result: GroupResult, name: str) -> pd.DataFrame:
    return pd.read_csv(result.table.with_name(f'{name}.tsv'), sep='\t', na_values='n/a')
