"""Cohorts with a known truth, written as the participant level leaves them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import nibabel as nib
import numpy as np

from bids_app.config import ComputeConfig, Config, RunConfig
from bids_app.outputs.spec import load_spec, output_path
from bids_app.room_config import AnomalyConfig

SEED = 11


@dataclass
class Cohort:
    """Sessions by participant, and what is true of them."""

    labels: dict[str, str]
    sessions: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Labels of sessions; one without a name by default."""

    features: dict[str, dict[tuple[str, str], np.ndarray]] = field(default_factory=dict)
    """By modality, then participant and session."""

    scores: dict[str, dict[tuple[str, str], float]] = field(default_factory=dict)
    sidecars: dict[str, dict] = field(default_factory=dict)
    """Fields of the raw sidecars by participant."""

    columns: dict[str, dict[str, str]] = field(default_factory=dict)
    """Further columns of participants.tsv by participant."""

    def all_sessions(self) -> list[tuple[str, str]]:
        return [(name, ses) for name in self.labels for ses in self.sessions.get(name, ('',))]

    def is_ill(self, participant: str) -> bool:
        return self.labels[participant] != 'control'


def simulate(
    n_ill: int,
    n_healthy: int,
    effects: dict[str, float],
    seed: int = SEED,
    n_features: int = 24,
    sessions: int = 1,
) -> Cohort:
    """Shift four features of each modality by its effect, in standard deviations, in the ill."""
    rng = np.random.default_rng(seed)
    labels = {
        f'{i + 1:03d}': 'patient' if i < n_ill else 'control' for i in range(n_ill + n_healthy)
    }
    cohort = Cohort(labels)
    if sessions > 1:
        cohort.sessions = dict.fromkeys(labels, tuple(f'{n + 1}' for n in range(sessions)))
    for modality, effect in effects.items():
        own = {name: rng.normal(size=n_features) for name in labels}
        cohort.features[modality], cohort.scores[modality] = {}, {}
        for key in cohort.all_sessions():
            ill = cohort.is_ill(key[0])
            # Sessions of one patient look more alike than two patients do.
            values = own[key[0]] + (0.1 * rng.normal(size=n_features) if sessions > 1 else 0)
            values = values + effect * ill * (np.arange(n_features) < 4)
            cohort.features[modality][key] = values
            cohort.scores[modality][key] = 3 + effect * ill + rng.normal()
    return cohort


def source_name(key: tuple[str, str], modality: str) -> str:
    participant, session = key
    middle = f'_ses-{session}' if session else ''
    folder = f'ses-{session}/' if session else ''
    return f'sub-{participant}/{folder}anat/sub-{participant}{middle}_{modality}.nii.gz'


def write(cohort: Cohort, root: Path) -> tuple[Path, Path]:
    """Write the raw dataset, with headers only as large as they must be, and the derivatives."""
    bids_dir, output_dir = root / 'bids', root / 'out'
    bids_dir.mkdir(parents=True)
    (bids_dir / 'dataset_description.json').write_text('{"Name": "x", "BIDSVersion": "1.11.1"}')
    write_participants(cohort, bids_dir)
    outputs = load_spec('anomaly').outputs
    for modality, by_session in cohort.features.items():
        for key, values in by_session.items():
            raw = source_name(key, modality)
            (bids_dir / raw).parent.mkdir(parents=True, exist_ok=True)
            nib.Nifti1Image(np.zeros((4, 4, 4), np.uint8), np.eye(4)).to_filename(bids_dir / raw)
            sidecar = cohort.sidecars.get(key[0])
            if sidecar:
                name = raw.removesuffix('.nii.gz') + '.json'
                (bids_dir / name).write_text(json.dumps(sidecar))
            path = output_dir / output_path(outputs[f'{modality.lower()}_features'], raw)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_features(path, values, raw)
    for key in cohort.all_sessions():
        _write_scans(cohort, key, output_dir)
    return bids_dir, output_dir


def write_features(path: Path, values: np.ndarray, raw: str, weights: str = 'a' * 64) -> None:
    header = '\t'.join(f'f{number:03d}' for number in range(len(values)))
    path.write_text(f'{header}\n' + '\t'.join(f'{value:.8g}' for value in values) + '\n')
    sidecar = {'Sources': [f'bids:raw:{raw}'], 'ModelName': 'anomaly', 'WeightsSHA256': weights}
    path.with_suffix('.json').write_text(json.dumps(sidecar))


def write_participants(cohort: Cohort, bids_dir: Path, column: str = 'group') -> None:
    extra = list(next(iter(cohort.columns.values()), {}))
    lines = ['\t'.join(['participant_id', column, *extra])]
    for name, label in cohort.labels.items():
        lines.append('\t'.join([f'sub-{name}', label, *cohort.columns.get(name, {}).values()]))
    (bids_dir / 'participants.tsv').write_text('\n'.join(lines) + '\n')


def _write_scans(cohort: Cohort, key: tuple[str, str], output_dir: Path) -> None:
    found = {
        f'anomaly_score_{modality.lower()}': scores[key]
        for modality, scores in cohort.scores.items()
        if key in scores and key in cohort.features[modality]
    }
    if not found:
        return
    modality = next(name for name in cohort.features if key in cohort.features[name])
    raw = source_name(key, modality)
    image = output_path(load_spec('anomaly').outputs[f'{modality.lower()}_map'], raw)
    (output_dir / image).parent.mkdir(parents=True, exist_ok=True)
    (output_dir / image).touch()
    folder = output_dir / image.parent.parent
    table = folder / (image.parent.parent.as_posix().replace('/', '_') + '_scans.tsv')
    table.write_text(
        '\t'.join(['filename', *found]) + '\n'
        + '\t'.join([f'anat/{image.name}', *(f'{value:.6g}' for value in found.values())]) + '\n'
    )  # fmt: skip


def configure(
    root: tuple[Path, Path], column: str = 'group', healthy: str = 'control', **compute
) -> Config:
    bids_dir, output_dir = root
    return Config(
        RunConfig(bids_dir, output_dir, level='group'),
        ComputeConfig(random_seed=SEED, **compute),
        anomaly=AnomalyConfig(label_column=column, healthy_value=healthy),
    )
