"""Training of the three networks: ``neurolesion-tools train lvo --stage STAGE``."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import nibabel as nib
import numpy as np

from ...compute.images import save_image
from ...compute.nnunet.model import from_card
from ...compute.nnunet.predict import PredictSettings
from ...compute.training import counted, split_patients, training_progress, whole, write_card
from ...compute.weights import find_model
from ...config import TEMPLATES_DIR
from ...errors import BadDataError, ExitCode, UsageError
from ...evaluation.program import make_folder, run_cases
from . import train_localisation, train_vessels
from .card import SYNTHETIC_LICENCE, SYNTHETIC_NOTICE, SYNTHETIC_SOURCE, describe_detection
from .chain import STAGES, align
from .dataset import LABELS_FOLDER, write_dataset
from .detection_cases import Sample, prepare_case
from .model.vessels import segment_vessels
from .nnunet_train import Network, NetworkOptions, Origin, prepare_cases, train
from .scans import Scan, find_scans, load_labelled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...compute.nnunet.model import NnunetModel
    from ...compute.training import Report
    from ...compute.weights import ModelFiles
    from .nnunet_train import LabelledCt

ROOM: Final = Path(__file__).parent
WORK: Final = 'work'
EMBEDDED: Final = 'embedded'
"""Word for the folder of the weights that come with the program."""

LASTING: Final = ('epoch', 'going on')
"""Words of a message that stays on the screen."""

NETWORKS: Final[dict[str, tuple[Network, NetworkOptions]]] = {
    'vessels': (train_vessels.NETWORK, train_vessels.OPTIONS),
    'localisation': (train_localisation.NETWORK, train_localisation.OPTIONS),
}


@dataclass(frozen=True)
class Plan:
    """
    What is trained, and how long.

    Attributes
    ----------
    stage : str
        One of `chain.STAGES`.
    epochs : int
        Most epochs; 0 takes what suits the network.
    minutes : float or None
        Time within which the training ends.
    validation_fraction : float
        Part of the patients that validates.
    nprocs : int
        Cases that are prepared at a time.
    device : str
        As ``--device``.
    seed : int
        Of everything.
    arteries : Path or None
        Folder with trained ``vessels``: the other stages then see arteries as a run labels them.
    territory : Path or None
        The user's own territory of MCA and ICA.
    start : Path or None
        Folder of trained models; the training begins with the weights of that of its stage.
    learning_rate : float or None
        Highest; None takes what suits a network that begins anew.
    origin : Origin
        Where the cases come from, for the card.
    """

    stage: str
    epochs: int = 0
    minutes: float | None = None
    validation_fraction: float = 0.2
    nprocs: int = 1
    device: str = 'auto'
    seed: int = 0
    arteries: Path | None = None
    territory: Path | None = None
    start: Path | None = None
    learning_rate: float | None = None
    origin: Origin = field(default_factory=Origin)


def usable_scans(scans: Sequence[Scan], stage: str) -> list[Scan]:
    """
    Keep the scans that a network can learn from.

    Parameters
    ----------
    scans : sequence of Scan
        All there are.
    stage : str
        One of `chain.STAGES`. All need labelled arteries; the localisation learns from patients
        whose clot is outlined, and from those without one.

    Returns
    -------
    list of Scan

    Raises
    ------
    BadDataError
        If fewer than two patients are left.
    """
    found = [scan for scan in scans if scan.vessels is not None]
    if stage == 'localisation':
        found = [
            scan
            for scan in found
            if not scan.truth.occluded or (scan.clot is not None and scan.truth.segment)
        ]
    if len({scan.patient for scan in found}) < 2:
        raise BadDataError(
            f'The stage {stage} needs at least two patients with labelled arteries'
            + (', and outlined clots where there are' if stage == 'localisation' else '')
            + ': add files to --labels.'
        )
    return found


def train_stage(
    scans: Sequence[Scan],
    out: Path,
    plan: Plan,
    report: Report = lambda _done, _text: None,
) -> dict[str, Any]:
    """
    Prepare the cases, train one network or go on where that stopped, write weights and card.

    Parameters
    ----------
    scans : sequence of Scan
        All there are.
    out : Path
        Folder of the models.
    plan : Plan
        What is trained.
    report : callable
        Is told the share of the training that is done and a short text.

    Returns
    -------
    dict
        The card.
    """
    used = usable_scans(scans, plan.stage)
    start = None if plan.start is None else _find_start(plan.start, plan.stage)
    work = out / WORK
    run_cases(partial(prepare_one, work=work, plan=plan), used, plan.nprocs, 'preparing')
    if plan.stage == 'detection':
        return _train_detection(used, out, plan, report, start)
    network, options = NETWORKS[plan.stage]
    rng = np.random.default_rng(plan.seed)
    split = split_patients([scan.patient for scan in used], plan.validation_fraction, rng)
    training, validation = ([used[index].name for index in part] for part in split)
    chosen = replace(options, device=plan.device, seed=plan.seed)
    if plan.epochs or plan.minutes:
        chosen = replace(chosen, epochs=plan.epochs, minutes=plan.minutes)
    if plan.learning_rate:
        chosen = replace(chosen, learning_rate=plan.learning_rate)
    return train(network, work, (training, validation), out, chosen, plan.origin, report, start)


def prepare_one(scan: Scan, work: Path, plan: Plan) -> None:
    """
    Write what a network learns of one scan, unless it is there.

    Parameters
    ----------
    scan : Scan
        With labels.
    work : Path
        Keeps everything that is prepared.
    plan : Plan
        Says which network.
    """
    (work / 'placed').mkdir(parents=True, exist_ok=True)
    load = partial(_load, scan, work / 'placed', plan)
    if plan.stage in NETWORKS:
        prepare_cases(NETWORKS[plan.stage][0], {scan.name: load}, work)
    elif not (path := _sample_file(scan, work)).is_file():
        case = load()
        prepare_case(*align(case.hu, case.brain, case.seen, case.affine, case.from_mni), path)


def _load(scan: Scan, placed: Path, plan: Plan) -> LabelledCt:
    case = load_labelled(scan, placed, plan.seed)
    if plan.arteries is None:
        return case
    network = _arteries(plan.arteries)
    path = placed / f'{scan.name}_{network.sha256[0][:8]}_dseg.nii.gz'
    if path.is_file():
        return replace(case, found=np.asarray(nib.load(path).dataobj))
    settings = PredictSettings(device=plan.device)
    found = segment_vessels(network, case.hu, case.affine, case.from_mni, settings).labels
    save_image(found, nib.Nifti1Image(found, case.affine), path)
    return replace(case, found=found)


@cache
def _arteries(folder: Path) -> NnunetModel:
    """Read the card of the network of arteries once for each process."""
    model = find_model('lvo', ROOM, folder, 'lvo_vessels')
    return from_card(model.card, model.weights)


def _sample_file(scan: Scan, work: Path) -> Path:
    return work / 'detection' / f'{scan.name}.npy'


def _train_detection(
    scans: Sequence[Scan], out: Path, plan: Plan, report: Report, start: ModelFiles | None
) -> dict[str, Any]:
    from .model.territories import EMBEDDED_TERRITORIES, read_territory
    from .train_detection import CARD_FILE, DetectionOptions, train_detection

    samples = [
        Sample(scan.patient, scan.truth.occluded, _sample_file(scan, out / WORK), scan.truth.side)
        for scan in scans
    ]
    options = DetectionOptions(
        minutes=plan.minutes, validation_fraction=plan.validation_fraction,
        device=plan.device, seed=plan.seed,
    )  # fmt: skip
    if plan.epochs:
        options = replace(options, epochs=plan.epochs)
    if plan.learning_rate:
        options = replace(options, learning_rate=plan.learning_rate)
    territory = read_territory(plan.territory or TEMPLATES_DIR / EMBEDDED_TERRITORIES).aligned()
    part = train_detection(samples, territory, out, options, report, start)
    card = describe_detection(part, plan.origin)
    write_card(out / CARD_FILE, card)
    return card


def main(argv: Sequence[str]) -> int:
    """
    Run ``neurolesion-tools train lvo``.

    Parameters
    ----------
    argv : sequence of str
        Arguments after the room's name.

    Returns
    -------
    int
        Exit code.
    """
    chosen = _parser().parse_args(argv)
    plan = _plan(chosen)
    make_folder(chosen.out)
    bids_dir, labels = chosen.bids_dir.resolve(), chosen.labels
    if chosen.synthetic:
        write_dataset(bids_dir, chosen.synthetic, plan.seed, plan.nprocs)
        labels = bids_dir / LABELS_FOLDER
    if labels is None:
        raise UsageError('--labels is missing: name the derivatives dataset with the labels.')
    scans = find_scans(bids_dir, labels.resolve())
    with training_progress(LASTING) as report:
        card = train_stage(scans, chosen.out, plan, report)
    print(f'{chosen.out / card["weights"]["file"]} is trained. Use it with --weights-dir '
          f'{chosen.out}')  # fmt: skip
    return ExitCode.OK


def _plan(chosen: argparse.Namespace) -> Plan:
    if not 0 < chosen.validation_fraction < 1:
        raise UsageError('--validation-fraction must lie between 0 and 1.')
    if chosen.minutes is not None and chosen.minutes <= 0:
        raise UsageError('--minutes must be above 0.')
    if chosen.learning_rate is not None and chosen.learning_rate <= 0:
        raise UsageError('--learning-rate must be above 0.')
    if chosen.predicted_vessels and chosen.stage == 'vessels':
        raise UsageError('--predicted-vessels is for the stages detection and localisation.')
    origin = (
        Origin(SYNTHETIC_SOURCE, SYNTHETIC_LICENCE, SYNTHETIC_NOTICE)
        if chosen.synthetic
        else Origin()
    )
    return Plan(
        chosen.stage, chosen.epochs, chosen.minutes, chosen.validation_fraction, chosen.nprocs,
        chosen.device, chosen.seed, chosen.out if chosen.predicted_vessels else None,
        chosen.lvo_territory_atlas, _start(chosen.start_from), chosen.learning_rate, origin,
    )  # fmt: skip


def _start(said: str | None) -> Path | None:
    if said is None:
        return None
    if said == EMBEDDED:
        return ROOM
    if not Path(said).is_dir():
        raise UsageError(f'--start-from {said} is not a folder: give one, or {EMBEDDED}.')
    return Path(said)


def _find_start(folder: Path, stage: str) -> ModelFiles:
    # No other folder than the one that was named: a training from something else is a surprise.
    return find_model('lvo', folder, None if folder == ROOM else folder, f'lvo_{stage}')


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='neurolesion-tools train lvo',
        description='Train one of the three networks that look for an occluded artery on head '
        'CT. The same command again goes on where it stopped.',
    )
    add = parser.add_argument
    add('bids_dir', type=Path,
        help='BIDS dataset with head CT; participants.tsv has the columns occlusion (yes or no), '
        'side and segment')  # fmt: skip
    add('out', type=Path, help='folder of the models; --weights-dir of a run takes it')
    add('--stage', choices=STAGES, required=True, help='which network')
    add('--labels', type=Path,
        help='derivatives dataset with seg-vessel_dseg and label-clot_mask')  # fmt: skip
    add('--synthetic', type=whole, default=0, metavar='N',
        help='first make N synthetic patients in bids_dir, with their labels')  # fmt: skip
    add('--predicted-vessels', action='store_true',
        help='let detection or localisation learn from arteries as the network in out finds '
        'them')  # fmt: skip
    add('--lvo-territory-atlas', type=Path, help="territory of the user's own")
    add('--start-from', metavar='DIR',
        help=f'begin with the weights of trained models in that folder; {EMBEDDED}: with those '
        'of this program')  # fmt: skip
    add('--learning-rate', type=float, metavar='RATE',
        help='highest; default: what suits a network that begins anew')  # fmt: skip
    add('--epochs', type=whole, default=0, help='most epochs; 0: what suits the network')
    add('--minutes', type=float, help='end within this time, with the learning rate at 0')
    add('--validation-fraction', type=float, default=0.2, metavar='P')
    add('--nprocs', type=counted, default=1, help='cases that are prepared at a time')
    add('--device', default='auto', help='auto, cpu, cuda or cuda:N')
    add('--seed', type=whole, default=0)
    return parser


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
