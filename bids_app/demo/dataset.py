"""Write the demo: a BIDS dataset, and the truth it was simulated from beside it."""

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bids_app.analyses.leakage.model.relaxation import spgr_signal
from bids_app.demo.anatomy import (
    SCANNER,
    aim,
    named,
    sample,
    write_labels,
    write_sequence,
    write_t1w,
)
from bids_app.demo.cohort import SUBJECTS, Subject, Visit
from bids_app.demo.dce import (
    DceProtocol,
    TruthMaps,
    add_motion,
    add_noise,
    motion_matrices,
    noise_level,
    signals,
    truth_maps,
)
from bids_app.demo.grids import Grid, save_image, save_json, save_table
from bids_app.demo.phantom import Anatomy, Phantom
from bids_app.demo.truth import write_truth, write_truth_root
from bids_app.demo.warp import random_warp, rigid
from bids_app.errors import CannotCreateError

BIDS_VERSION = '1.11.1'
VFA_FLIP_ANGLES_DEG = (3.0, 8.0, 15.0, 25.0)
VFA_TR_S = 0.006
VFA_SNR = 60.0
# The template is larger than most brains: 50 healthy adults had 0.57 to 0.90 of its volume.
TO_USUAL_SIZE = np.diag([0.92, 0.92, 0.92, 1.0])
# A head is never twice in the same place: pose between visits, shift between two series.
VISIT_ROTATION_DEG, VISIT_SHIFT_MM = 5.0, 6.0
SERIES_ROTATION_DEG, SERIES_SHIFT_MM = 1.2, 1.5

README = """\
# neurolesion demo

A phantom: no person was scanned. Three heads built from the tissue maps of the ICBM 152 average,
each with its own shape, pose, scan protocol and a leaking ring tumour with edema, scanned by
simulated anatomical and dynamic contrast-enhanced (DCE) sequences with noise and moved frames.

* sub-01: right frontal tumour, T1w before and after contrast agent, FLAIR, T2w, T1 map.
* sub-02: left parietal tumour that shrinks from ses-01 to ses-02, T1w before and after contrast
  agent, FLAIR, variable flip angles, LAS.
* sub-03: right temporal tumour, T1w alone, no T1 measurement, T1w stored as PSR, oblique DCE
  stored as LPS.

Every sequence has its own grid and a head that moved a little since the one before.

Each subject's DCE sidecar tells the frames' times in another way that the app accepts. The maps
that the series were simulated from, and the labels of the tumour on the T1w, are in the folder
`truth` beside this dataset.
"""
BIDSIGNORE = '*_dce.*\nsub-*/ct\nsub-*/ses-*/ct\n'


class Demo(NamedTuple):
    """Folders of a written demo."""

    bids: Path
    truth: Path


def make_demo(output_dir: Path, seed: int = 0, subjects: Sequence[Subject] = SUBJECTS) -> Demo:
    """
    Write the phantom dataset and its truth.

    Parameters
    ----------
    output_dir : Path
        Gets the folders ``bids`` and ``truth``; made if absent. A demo of an earlier call is
        replaced, anything else of these names is left alone.
    seed : int
        Same seed, same bytes.
    subjects : sequence of Subject
        Which subjects to make; each depends on its own label and the seed only.

    Returns
    -------
    Demo
        The two folders.

    Raises
    ------
    CannotCreateError
        If the folder cannot be written or holds something else.
    """
    demo = Demo(output_dir / 'bids', output_dir / 'truth')
    try:
        for folder in demo:
            _clear(folder)
        anatomy = Anatomy()
        _write_root(demo.bids, subjects)
        write_truth_root(demo.truth)
        for subject in subjects:
            _write_subject(subject, anatomy, demo, seed)
    except OSError as error:
        message = f'The demo cannot be written in {output_dir} ({error.strerror}): name another.'
        raise CannotCreateError(message) from error
    return demo


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run ``neurolesion-tools demo``.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments after the command's name.

    Returns
    -------
    int
        Exit code.
    """
    parser = argparse.ArgumentParser(
        prog='neurolesion-tools demo',
        description='Write a phantom BIDS dataset (OUT_DIR/bids) and its truth (OUT_DIR/truth).',
    )
    parser.add_argument('output_dir', metavar='OUT_DIR', type=Path, help='made if absent')
    parser.add_argument('--seed', type=int, default=0, help='same seed, same bytes (default 0)')
    options = parser.parse_args(argv)
    demo = make_demo(options.output_dir, options.seed)
    print(f'BIDS dataset: {demo.bids}\nTruth: {demo.truth}')
    return 0


def _clear(folder: Path) -> None:
    marker = folder / '.neurolesion-demo'
    if folder.exists() and any(folder.iterdir()):
        if not marker.exists():
            message = f'{folder} holds files that are not a demo: name another folder.'
            raise CannotCreateError(message)
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    marker.touch()


def _write_root(bids: Path, subjects: Sequence[Subject]) -> None:
    save_json(
        bids / 'dataset_description.json',
        {
            'Name': 'neurolesion demo phantom',
            'BIDSVersion': BIDS_VERSION,
            'DatasetType': 'raw',
            'License': 'CC0',
            'Authors': ['The neurolesion developers'],
            'HowToAcknowledge': 'Cite Fonov et al. 2011: the heads are made of that average.',
            'ReferencesAndLinks': ['https://doi.org/10.1016/j.neuroimage.2010.07.033'],
            'GeneratedBy': [{'Name': 'neurolesion-tools demo'}],
        },
    )
    (bids / 'README.md').write_text(README, encoding='utf-8')
    (bids / '.bidsignore').write_text(BIDSIGNORE, encoding='utf-8')
    save_table(
        bids / 'participants.tsv',
        {
            'participant_id': [f'sub-{subject.label}' for subject in subjects],
            'age': [str(subject.age) for subject in subjects],
            'sex': [subject.sex for subject in subjects],
            'group': ['patient'] * len(subjects),
        },
    )
    save_json(
        bids / 'participants.json',
        {
            'age': {'Description': 'Age of the simulated patient', 'Units': 'year'},
            'sex': {
                'Description': 'Sex of the simulated patient',
                'Levels': {'F': 'female', 'M': 'male'},
            },
            'group': {
                'Description': 'Group of the simulated patient',
                'Levels': {'patient': 'has a simulated brain tumour'},
            },
        },
    )


def _generator(seed: int, subject: Subject, *purpose: int) -> np.random.Generator:
    return np.random.default_rng([seed, int(subject.label), *purpose])


def _jitter(rng: np.random.Generator, rotation_deg: float, shift_mm: float) -> np.ndarray:
    return rigid(rng.uniform(-rotation_deg, rotation_deg, 3), rng.uniform(-shift_mm, shift_mm, 3))


def _write_subject(subject: Subject, anatomy: Anatomy, demo: Demo, seed: int) -> None:
    warp = random_warp(_generator(seed, subject, 1)).moved(TO_USUAL_SIZE)
    for number, visit in enumerate(subject.visits):
        rng = _generator(seed, subject, 2, number)
        pose = _jitter(rng, VISIT_ROTATION_DEG, VISIT_SHIFT_MM) if number else np.eye(4)
        texture_seed = int(_generator(seed, subject, 3).integers(2**31))
        still = Phantom(anatomy, warp.moved(pose), visit.lesion, texture_seed)
        shift = _jitter(rng, SERIES_ROTATION_DEG, SERIES_SHIFT_MM)
        scanned = Phantom(anatomy, still.warp.moved(shift), visit.lesion, texture_seed)
        folder, prefix = _place(subject, visit)
        anat = demo.bids / folder / 'anat' / prefix
        t1w_grid = aim(subject.t1w, still)
        fractions = sample(still, t1w_grid)
        write_t1w(fractions, t1w_grid, anat, rng, with_map=subject.t1_source == 'map')
        write_labels(demo.truth, folder / 'anat' / prefix, fractions, t1w_grid)
        other = _generator(seed, subject, 4, number)
        for name, framing in subject.sequences:
            moved = _jitter(other, SERIES_ROTATION_DEG, SERIES_SHIFT_MM)
            shown = Phantom(anatomy, still.warp.moved(moved), visit.lesion, texture_seed)
            write_sequence(name, shown, aim(framing, shown), anat, other)
        grid = aim(subject.dce, scanned)
        truth = truth_maps(scanned, grid, rng)
        _write_dce(subject.protocol, truth, grid, demo.bids / folder / 'perf' / prefix, rng)
        if subject.t1_source == 'vfa':
            _write_vfa(truth, grid, anat, rng)
        write_truth(
            demo.truth / folder / 'perf' / prefix, truth, grid, subject.protocol, visit.lesion,
            shift,
        )  # fmt: skip


def _place(subject: Subject, visit: Visit) -> tuple[Path, str]:
    folder, prefix = Path(f'sub-{subject.label}'), f'sub-{subject.label}'
    if visit.session is not None:
        folder, prefix = folder / f'ses-{visit.session}', f'{prefix}_ses-{visit.session}'
    return folder, prefix


def _write_vfa(truth: TruthMaps, grid: Grid, stem: Path, rng: np.random.Generator) -> None:
    sigma = noise_level(truth, VFA_TR_S, VFA_FLIP_ANGLES_DEG[1], VFA_SNR)
    for number, flip_angle_deg in enumerate(VFA_FLIP_ANGLES_DEG, start=1):
        signal = spgr_signal(truth.t10_s, truth.m0, VFA_TR_S, flip_angle_deg)
        image = add_noise(signal.reshape(grid.shape).astype(np.float32), sigma, rng)
        save_image(named(stem, f'flip-{number}_VFA.nii.gz'), image, grid.affine)
        save_json(
            named(stem, f'flip-{number}_VFA.json'),
            {
                **SCANNER, 'MRAcquisitionType': '3D', 'PulseSequenceType': 'SPGR',
                'RepetitionTimeExcitation': VFA_TR_S, 'FlipAngle': flip_angle_deg,
                'EchoTime': 0.002, 'SpoilingState': True, 'SpoilingType': 'RF',
            },
        )  # fmt: skip


def _write_dce(
    protocol: DceProtocol, truth: TruthMaps, grid: Grid, stem: Path, rng: np.random.Generator
) -> None:
    series = signals(truth, protocol).reshape(*grid.shape, protocol.n_frames)
    add_motion(series, grid, motion_matrices(protocol, grid))
    sigma = noise_level(truth, protocol.tr_s, protocol.flip_angle_deg, protocol.snr)
    noisy = add_noise(series, sigma, rng)
    save_image(named(stem, 'dce.nii.gz'), noisy, grid.affine, protocol.interval_s)
    save_json(
        named(stem, 'dce.json'),
        {
            **SCANNER, 'MRAcquisitionType': '3D', 'PulseSequenceType': 'Spoiled gradient echo',
            **_timing(protocol), 'RepetitionTimeExcitation': protocol.tr_s,
            'FlipAngle': protocol.flip_angle_deg, 'EchoTime': 0.0018,
            'ContrastBolusIngredient': 'GADOLINIUM',
        },
    )  # fmt: skip


def _timing(protocol: DceProtocol) -> dict[str, object]:
    if protocol.timing in {'FrameTimesStart', 'VolumeTiming'}:
        return {protocol.timing: [round(float(time), 3) for time in protocol.times_s]}
    return {protocol.timing: protocol.interval_s}
