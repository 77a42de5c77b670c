"""The phantom is what it says it is: every promise of the truth is checked on the images."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.processing import resample_from_to
from scipy import ndimage

from bids_app.analyses.leakage.model.aif import parker_aif
from bids_app.analyses.leakage.model.relaxation import fit_t1_vfa_linear
from bids_app.demo.cohort import SUBJECTS
from bids_app.demo.dataset import Demo, make_demo
from bids_app.demo.phantom import NAMES, Anatomy, Lesion, Phantom
from bids_app.demo.warp import lookup, random_warp
from bids_app.errors import CannotCreateError

SERIES = ('sub-01', 'sub-02_ses-01', 'sub-02_ses-02', 'sub-03')
CODES = {
    'sub-01': ('RAS', 'RAS'),
    'sub-02_ses-01': ('LAS', 'LAS'),
    'sub-02_ses-02': ('LAS', 'LAS'),
    'sub-03': ('LPS', 'PSR'),
}
SIDES = {'sub-01': 'right', 'sub-02_ses-01': 'left', 'sub-02_ses-02': 'left', 'sub-03': 'right'}


@pytest.fixture(scope='module')
def demo(tmp_path_factory):
    return make_demo(tmp_path_factory.mktemp('demo'))


class Series:
    """One DCE series with its truth, read from the files."""

    def __init__(self, demo: Demo, name: str) -> None:
        folder = Path(*name.split('_'))
        self.anat = demo.bids / folder / 'anat' / name
        self.raw = demo.bids / folder / 'perf' / name
        self.truth = demo.truth / folder / 'perf' / name
        self.sidecar = json.loads(Path(f'{self.raw}_dce.json').read_text())
        self.facts = json.loads(Path(f'{self.truth}_desc-simulation_dce.json').read_text())
        self.image = nib.load(f'{self.raw}_dce.nii.gz')
        self.affine = self.image.affine
        self.data = np.asarray(self.image.dataobj, dtype=np.float32)

    def map(self, name):
        return np.asarray(nib.load(f'{self.truth}_{name}.nii.gz').dataobj)

    def tissue(self, name):
        return self.map('seg-tissue_dseg') == 1 + NAMES.index(name)

    def table(self, name):
        return np.genfromtxt(f'{self.truth}_{name}_timeseries.tsv', names=True, delimiter='\t')

    def still_frames(self):
        motion = self.table('desc-motion')
        return np.all([motion[column] == 0 for column in motion.dtype.names], axis=0)

    def world_mm(self, mask):
        return nib.affines.apply_affine(self.affine, np.argwhere(mask)).astype(np.float32)


@pytest.fixture(scope='module')
def series(demo):
    return {name: Series(demo, name) for name in SERIES}


def expected_signal(one, where, times_s):
    """Signal from the truth files, by formulas and a convolution written out here."""
    step_s = 0.1
    fine_s = np.arange(0.0, times_s[-1] + step_s / 2, step_s)
    ktrans, vp, ve = (one.map(f'param-{p}_dcemap')[where] for p in ('Ktrans', 'vp', 've'))
    delay, t10, m0 = (one.map(f'param-{p}_dcemap')[where] for p in ('delay', 'T10', 'M0'))
    tr_s = one.sidecar['RepetitionTimeExcitation']
    angle = np.deg2rad(one.sidecar['FlipAngle'])
    out = np.empty((len(vp), times_s.size))
    for row in range(len(vp)):
        plasma = parker_aif(fine_s, one.facts['BolusArrivalTime'] + delay[row], 0.42)
        tissue = vp[row] * plasma
        if ktrans[row] > 0:
            kernel = ktrans[row] / 60 * np.exp(-ktrans[row] / ve[row] / 60 * fine_s)
            tissue = tissue + np.convolve(plasma, kernel)[: fine_s.size] * step_s
        conc = np.interp(times_s, fine_s, tissue)
        e1 = np.exp(-tr_s * (1 / t10[row] + one.facts['Relaxivity'] * conc))
        out[row] = m0[row] * np.sin(angle) * (1 - e1) / (1 - np.cos(angle) * e1)
    return out


@pytest.mark.parametrize('name', SERIES)
def test_series_equals_signal_of_truth_maps_within_noise(series, name):
    one = series[name]
    times_s = one.table('desc-AIF')['time']
    still = one.still_frames()
    rng = np.random.default_rng(1)
    groups = {part: one.tissue(part) for part in ('gm', 'wm', 'ring', 'core', 'artery', 'vein')}
    for part, mask in groups.items():
        where = np.argwhere(mask)
        where = tuple(where[rng.permutation(len(where))[:40]].T)
        expected = expected_signal(one, where, times_s)
        z = ((one.data[where] - expected) / one.facts['NoiseStandardDeviation'])[:, still]
        # Sharp bolus in blood: the two time grids differ by a fraction of the noise.
        limit = 0.3 if part in {'artery', 'vein'} else 0.15
        assert abs(z.mean()) < limit, part
        assert 0.85 < z.std() < (1.3 if part in {'artery', 'vein'} else 1.1), part


@pytest.mark.parametrize('name', SERIES)
def test_noise_gives_the_stated_snr(series, name):
    one = series[name]
    baseline = one.data[..., : one.facts['FirstEnhancedFrame']][one.tissue('wm')]
    noise = np.sqrt(baseline.var(axis=1, ddof=1).mean())
    assert 27 < np.median(baseline.mean(axis=1)) / noise < 33


@pytest.mark.parametrize('name', SERIES)
def test_ring_leaks_vessels_peak_and_white_matter_stays_low(series, name):
    one = series[name]
    first = one.facts['FirstEnhancedFrame']
    still = np.flatnonzero(one.still_frames())
    late = still[-6:]

    def enhancement(part, frames):
        curve = one.data[one.tissue(part)].mean(axis=0)
        return curve[frames].mean() / curve[:first].mean() - 1

    assert enhancement('ring', late) > 5 * enhancement('wm', late) > 0
    assert enhancement('artery', [first + 1]) > 1.5 * enhancement('artery', late)
    ring = one.data[one.tissue('ring')].mean(axis=0)
    before, after = ring[first - 1], ring[first + 1]
    assert after > 1.1 * before
    assert abs(ring[:first].std() / ring[:first].mean()) < 0.02


@pytest.mark.parametrize('name', SERIES)
def test_orientation_codes(series, name):
    one = series[name]
    t1w = nib.load(f'{one.anat}_T1w.nii.gz')
    codes = tuple(''.join(nib.aff2axcodes(image.affine)) for image in (one.image, t1w))
    assert codes == CODES[name]
    assert np.allclose(one.image.get_qform(), one.image.get_sform(), atol=1e-4)
    oblique = np.abs(np.sort(np.abs(one.affine[:3, :3]), axis=0)[:2]).max() > 0.1
    assert oblique == (name == 'sub-03')


@pytest.mark.parametrize('name', SERIES)
def test_late_enhancement_is_on_the_stated_side_of_the_world(series, name):
    one = series[name]
    first, late = one.facts['FirstEnhancedFrame'], np.flatnonzero(one.still_frames())[-6:]
    brain = one.map('desc-brain_mask') > 0
    inside = brain & ~(one.map('label-vessel_mask') > 0) & (one.map('param-vp_dcemap') < 0.1)
    base = one.data[..., :first].mean(axis=-1)
    rise = one.data[..., late].mean(axis=-1) / np.maximum(base, 1.0) - 1
    bright = inside & (rise > np.quantile(rise[inside], 0.997))
    offset = np.median(one.world_mm(bright), axis=0) - one.world_mm(brain).mean(axis=0)
    assert one.facts['TumorSide'] == SIDES[name]
    assert (offset[0] > 8) == (SIDES[name] == 'right')
    assert (offset[0] < -8) == (SIDES[name] == 'left')
    assert np.linalg.norm(
        one.world_mm(one.map('label-tumor_mask') > 0).mean(axis=0)
        - one.facts['TumorCentreScanner']
    ) < 0.1  # fmt: skip


@pytest.mark.parametrize('name', SERIES)
def test_tumour_core_is_dark_in_the_t1w_after_the_stated_shift(series, name):
    one = series[name]
    t1w = nib.load(f'{one.anat}_T1w.nii.gz')
    back = np.linalg.inv(t1w.affine) @ np.linalg.inv(np.array(one.facts['T1wToDceMatrix']))

    def median(mask):
        index = np.rint(nib.affines.apply_affine(back, one.world_mm(mask))).astype(int)
        return np.median(np.asarray(t1w.dataobj)[tuple(index.T)])

    white, core = one.map('param-T10_dcemap') < 0.87, one.tissue('core')
    assert median(core) < 0.6 * median(white & one.tissue('wm'))
    assert median(one.tissue('csf')) < 0.6 * median(one.tissue('gm')) < median(one.tissue('wm'))


def test_t1_map_agrees_with_truth_only_after_the_stated_shift(series):
    one = series['sub-01']
    image = nib.load(f'{one.anat}_T1map.nii.gz')
    brain = one.map('desc-brain_mask') > 0
    truth = one.map('param-T10_dcemap')[brain]
    world = one.world_mm(brain)
    move = np.linalg.inv(np.array(one.facts['T1wToDceMatrix']))
    values = np.asarray(image.dataobj)
    right = lookup(values, image.affine, nib.affines.apply_affine(move, world))
    wrong = lookup(values, image.affine, world)
    assert np.corrcoef(truth, right)[0, 1] > 0.95
    assert np.corrcoef(truth, right)[0, 1] > np.corrcoef(truth, wrong)[0, 1] + 0.005
    assert abs(np.median(right / truth) - 1) < 0.02


def test_vfa_images_give_the_true_t1(series):
    one = series['sub-02_ses-01']
    where = (one.map('desc-brain_mask') > 0) & ~one.tissue('csf')
    signals, angles = [], []
    for number in range(1, 5):
        path = Path(f'{one.anat}_flip-{number}_VFA.nii.gz')
        sidecar = json.loads(path.with_name(path.name.replace('.nii.gz', '.json')).read_text())
        signals.append(np.asarray(nib.load(path).dataobj, dtype=float)[where])
        angles.append(sidecar['FlipAngle'])
    tr_s = sidecar['RepetitionTimeExcitation']
    t1_s, _ = fit_t1_vfa_linear(np.stack(signals, axis=1), np.array(angles), tr_s)
    ratio = t1_s / one.map('param-T10_dcemap')[where]
    assert abs(np.median(ratio) - 1) < 0.03
    assert np.quantile(np.abs(ratio - 1), 0.9) < 0.25


@pytest.mark.parametrize('name', SERIES)
def test_moved_frames_move_as_the_table_says(series, name):
    from scipy import ndimage

    one = series[name]
    motion = one.table('desc-motion')
    about = json.loads(Path(f'{one.truth}_desc-motion_timeseries.json').read_text())
    centre = np.array(about['RotationCentre'])
    still = one.still_frames()
    moved = np.flatnonzero(~still)
    assert 2 <= moved.size <= 6
    brain = ndimage.binary_erosion(one.map('desc-brain_mask') > 0, iterations=2)
    for frame in moved[[0, -1]]:
        rx, ry, rz = (motion[f'rot_{axis}'][frame] for axis in 'xyz')
        turn = nib.eulerangles.euler2mat(rz, ry, rx)
        shift = np.array([motion[f'trans_{axis}'][frame] for axis in 'xyz'])
        head = np.eye(4)
        head[:3, :3], head[:3, 3] = turn, centre + shift - turn @ centre
        pull = np.linalg.inv(one.affine) @ head @ one.affine
        calm = np.flatnonzero(still & (np.arange(still.size) < frame))[-1]
        reference, image = one.data[..., calm], one.data[..., frame]
        realigned = ndimage.affine_transform(image, pull[:3, :3], pull[:3, 3], order=1)
        before = np.abs(image - reference)[brain].mean()
        after = np.abs(realigned - reference)[brain].mean()
        assert after < 0.9 * before


def test_each_subject_tells_its_timing_in_another_way(series):
    fields = ('FrameTimesStart', 'TemporalResolution', 'RepetitionTime')
    for name, field in zip(('sub-01', 'sub-02_ses-01', 'sub-03'), fields, strict=True):
        one = series[name]
        assert [other for other in fields if other in one.sidecar] == [field]
        step = np.mean(np.diff(one.table('desc-AIF')['time']))
        told = one.sidecar[field]
        assert np.isclose(np.mean(np.diff(told)) if field == 'FrameTimesStart' else told, step)
        assert np.isclose(one.image.header.get_zooms()[3], step)


def test_tumour_shrinks_between_sessions_and_the_brain_does_not(series):
    first, second = series['sub-02_ses-01'], series['sub-02_ses-02']
    volumes = [one.facts['TumorVolumeMm3'] for one in (first, second)]
    assert 0.2 < volumes[1] / volumes[0] < 0.5
    brains = [int(one.map('desc-brain_mask').sum()) for one in (first, second)]
    assert abs(brains[1] / brains[0] - 1) < 0.06


def test_blood_in_the_arteries_carries_the_stated_plasma_curve(series):
    one = series['sub-01']
    pure = one.map('param-vp_dcemap') > 0.55
    assert pure.sum() >= 3
    base = one.data[..., : one.facts['FirstEnhancedFrame']].mean(axis=-1)
    assert one.data[pure].max() > 4 * np.median(base[pure])


def medians(demo, name, suffix):
    """Median of an anatomical image in each part of the tumour and far from it."""
    folder = Path(*name.split('_'))
    labels = nib.load(demo.truth / folder / f'anat/{name}_space-orig_seg-tumor_dseg.nii.gz')
    image = nib.load(demo.bids / folder / f'anat/{name}_{suffix}.nii.gz')
    moved = resample_from_to(image, labels, order=1).get_fdata()
    truth = np.asarray(labels.dataobj)
    # The head moves up to 3 mm between sequences: away from edges that does not matter.
    parts = {label: ndimage.binary_erosion(truth == label, iterations=1) for label in (1, 2, 3)}
    return [float(np.median(moved[part])) for part in parts.values() if part.sum() >= 10]


@pytest.mark.parametrize('name', ['sub-01', 'sub-02_ses-01'])
def test_each_sequence_shows_the_tumor_in_its_own_way(demo, name):
    core, edema, ring = medians(demo, name, 'ce-gadolinium_T1w')
    assert ring > 1.4 * max(core, edema)
    core, edema, ring = medians(demo, name, 'T1w')
    assert core < min(edema, ring)
    folder = Path(*name.split('_'))
    flair = nib.load(demo.bids / folder / f'anat/{name}_FLAIR.nii.gz')
    values = np.asarray(flair.dataobj)
    _, edema, _ = medians(demo, name, 'FLAIR')
    assert edema > np.percentile(values, 98)


def test_labels_of_the_tumor_shrink_with_it(demo):
    volumes = []
    for session in ('01', '02'):
        name = f'sub-02_ses-{session}'
        path = demo.truth / f'sub-02/ses-{session}/anat/{name}_space-orig_seg-tumor_dseg.nii.gz'
        volumes.append(np.bincount(np.asarray(nib.load(path).dataobj).ravel(), minlength=4)[1:])
    assert (volumes[0] > volumes[1]).all()
    assert (volumes[1] > 0).all()


def test_validator_finds_no_error(demo, validate):
    for folder in demo:
        assert validate(folder) == []


def test_same_seed_same_bytes_and_other_seed_other_head(demo, tmp_path):
    chosen = [subject for subject in SUBJECTS if subject.label == '03']
    again = make_demo(tmp_path / 'again', subjects=chosen)
    files = sorted(path.relative_to(again.bids) for path in again.bids.rglob('sub-03/**/*.*'))
    files += [Path('..', 'truth', p.relative_to(again.truth))
              for p in sorted(again.truth.rglob('sub-03/**/*.*'))]  # fmt: skip
    assert len(files) > 20
    for path in files:
        assert (again.bids / path).read_bytes() == (demo.bids / path).read_bytes(), path
    anatomy_of = [random_warp(np.random.default_rng([seed, 3, 1])).to_template for seed in (0, 1)]
    assert not np.allclose(*anatomy_of)


def test_a_folder_of_the_user_is_left_alone(tmp_path):
    (tmp_path / 'bids').mkdir()
    (tmp_path / 'bids' / 'mine.txt').write_text('mine')
    with pytest.raises(CannotCreateError, match='not a demo'):
        make_demo(tmp_path, subjects=())
    assert (tmp_path / 'bids' / 'mine.txt').read_text() == 'mine'


def test_an_earlier_demo_is_replaced(tmp_path):
    demo = make_demo(tmp_path, subjects=())
    (demo.bids / 'stale.txt').write_text('stale')
    make_demo(tmp_path, subjects=())
    assert not (demo.bids / 'stale.txt').exists()


@pytest.mark.parametrize('seed', range(4))
def test_warp_has_no_folds_and_can_be_inverted(seed):
    warp = random_warp(np.random.default_rng(seed))
    mesh = np.meshgrid(*[np.arange(-90.0, 91.0, 9.0)] * 3, indexing='ij')
    points = np.stack(mesh, axis=-1).reshape(-1, 3)
    step = 2.0
    columns = [(warp(points + step * axis) - warp(points - step * axis)) / (2 * step)
               for axis in np.eye(3)]  # fmt: skip
    jacobian = np.linalg.det(np.stack(columns, axis=-1))
    assert jacobian.min() > 0.2
    assert jacobian.max() < 2.5
    assert np.abs(warp(warp.inverse(points)) - points).max() < 0.05
    assert np.abs(warp(points) - points).max() > 5


def test_lesion_changes_only_its_surroundings_and_lies_where_it_is_put():
    anatomy = Anatomy()
    warp = random_warp(np.random.default_rng(5))
    lesion = Lesion((-30.0, -44.0, 34.0), 14.0)
    with_lesion, without = (Phantom(anatomy, warp, what, 9) for what in (lesion, None))
    rng = np.random.default_rng(0)
    template = rng.uniform([-75, -105, -60], [75, 75, 85], (20_000, 3))
    points = warp.inverse(template).astype(np.float32)
    (a, brain), (b, _) = with_lesion.sample(points), without.sample(points)
    distance = np.linalg.norm(template - lesion.centre_mm, axis=1)
    changed = np.abs(a - b).max(axis=1) > 1e-3
    assert changed[distance < 12].all()
    assert not changed[distance > 60].any()
    assert lesion.side == 'left'
    core, ring = a[:, NAMES.index('core')], a[:, NAMES.index('ring')]
    assert core[distance < 3].min() > 0.9
    assert ring[(distance > 10) & (distance < 11) & (brain > 0.9)].mean() > 0.7
    assert a.min() >= -1e-5
    assert a.sum(axis=1).max() <= 1 + 1e-4
    assert np.allclose(a[brain > 0.99].sum(axis=1), 1, atol=1e-3)
