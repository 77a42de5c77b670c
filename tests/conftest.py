"""Data that several tests share: the real files, where they are, and small phantoms."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

REPO = Path(__file__).parents[1]
SHARED = REPO.parent / 'shared' / 'data'


@pytest.fixture(scope='session')
def shared_data() -> Path:
    """The real data beside the repository."""
    if not SHARED.is_dir():
        pytest.skip('the real data (../shared/data) are not on this machine')
    return SHARED


@dataclass
class Slab:
    """A BIDS dataset of one thin DCE slab, so small that a whole run takes seconds."""

    root: Path

    @property
    def dce(self) -> Path:
        return self.root / 'sub-01' / 'perf' / 'sub-01_dce.nii.gz'

    @property
    def sidecar(self) -> Path:
        return self.dce.with_name('sub-01_dce.json')

    def write_series(self, data: np.ndarray, affine: np.ndarray | None = None) -> None:
        image = nib.Nifti1Image(data, np.diag([3.0, 3, 5, 1]) if affine is None else affine)
        image.header.set_xyzt_units('mm', 'sec')
        image.to_filename(self.dce)

    def write_sidecar(self, **fields: object) -> None:
        self.sidecar.write_text(json.dumps(fields))


GOOD_SIDECAR = {
    'TemporalResolution': 5.0,
    'RepetitionTimeExcitation': 0.005,
    'FlipAngle': 15.0,
}
N_FRAMES = 40
ARRIVAL = 6


def slab_series(seed: int = 0) -> np.ndarray:
    """A disk of tissue with an artery and a leak, int16, shape (32, 32, 4, 40)."""
    from bids_app.analyses.leakage.model.aif import parker_aif
    from bids_app.analyses.leakage.model.kinetics import extended_tofts
    from bids_app.analyses.leakage.model.relaxation import concentration_to_signal

    rng = np.random.default_rng(seed)
    shape = (32, 32, 4)
    x, y, _ = np.indices(shape) - np.array([16, 16, 0])[:, None, None, None]
    tissue = x**2 + y**2 < 13**2
    leak = (x - 6) ** 2 + y**2 < 3.2**2
    artery = (x + 8) ** 2 + (y - 2) ** 2 < 2.5**2
    times = np.arange(N_FRAMES) * 5.0
    plasma = parker_aif(times, ARRIVAL * 5.0 - 4.0)
    n_voxels = tissue.sum()
    ktrans = np.where(leak[tissue], 0.12, 1e-4)
    vp = np.where(artery[tissue], 0.55, np.where(leak[tissue], 0.02, 0.03))
    curves = extended_tofts(plasma, times, ktrans, ve=np.full(n_voxels, 0.35), vp=vp)
    t10 = np.where(artery[tissue], 1.65, 1.3)
    signal = concentration_to_signal(curves, t10, np.full(n_voxels, 8000.0), 0.005, 15.0, 4.5)
    series = np.zeros((*shape, N_FRAMES))
    series[tissue] = signal + rng.normal(0, signal[:, :ARRIVAL].mean() / 30, signal.shape)
    return series.round().clip(0).astype(np.int16)


@pytest.fixture
def slab(tmp_path: Path) -> Slab:
    """A valid dataset of one subject with one thin DCE series and no T1w image."""
    dataset = Slab(tmp_path / 'bids')
    dataset.dce.parent.mkdir(parents=True)
    (dataset.root / 'dataset_description.json').write_text(
        json.dumps({'Name': 'Slab', 'BIDSVersion': '1.11.1', 'DatasetType': 'raw'})
    )
    (dataset.root / 'README').write_text('A slab.\n')
    (dataset.root / '.bidsignore').write_text('*_dce.*\n')
    dataset.write_series(slab_series())
    dataset.write_sidecar(**GOOD_SIDECAR)
    return dataset
