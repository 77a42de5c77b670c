"""How well the lvo room does on patients of known truth: ``neurolesion-tools evaluate lvo``."""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import nibabel as nib
import numpy as np
from rich.table import Table

from ...compute.device import resolve_device
from ...compute.images import save_image, write_text
from ...compute.nnunet.predict import PredictSettings
from ...compute.training import counted, whole
from ...config import ComputeConfig
from ...errors import ExitCode
from ...evaluation.program import make_folder, open_console, run_cases
from ...evaluation.tables import write_table
from .chain import STAGES, Networks, examine
from .command import load_networks
from .dataset import LABELS_FOLDER, write_dataset
from .evaluation_tables import COLUMNS, CaseResult, case_table, confusion, summarise, vessel_dice
from .model.vessels import vessel_box
from .scans import Placed, Scan, find_scans, place_scan, read_vessels
from .workflow import describe_models

if TYPE_CHECKING:
    from collections.abc import Sequence

WORK: Final = 'work'
SUMMARY: Final = 'summary.json'


@dataclass(frozen=True)
class Plan:
    """
    How to evaluate.

    Attributes
    ----------
    work : Path
        Keeps masks, transforms and mirrored files.
    weights_dir : Path or None
        Replaces the embedded weights.
    territory : Path or None
        The user's own territory.
    threshold : float
        Probability from which on an occlusion is called; 0 takes the card's.
    device : str
        As ``--device``.
    seed : int
        Of the registration.
    """

    work: Path
    weights_dir: Path | None = None
    territory: Path | None = None
    threshold: float = 0.0
    device: str = 'auto'
    seed: int = 0


@cache
def _networks(plan: Plan) -> Networks:
    """Read what was learnt once for each process."""
    described = describe_models(ComputeConfig(weights_dir=plan.weights_dir))
    cards = {stage: json.loads(Path(described[stage]['card']).read_text()) for stage in STAGES}
    return load_networks(cards, described, plan.territory, resolve_device(plan.device))


def evaluate_scan(task: tuple[Scan, bool], plan: Plan) -> CaseResult:
    """
    Look for an occlusion on one CT, and compare with the truth.

    Parameters
    ----------
    task : tuple of Scan and bool
        The scan, and whether it is also read stored in the other order.
    plan : Plan
        How.

    Returns
    -------
    CaseResult
    """
    scan, is_mirrored = task
    networks = _networks(plan)
    placed = place_scan(scan, plan.work, plan.seed)
    begun = time.perf_counter()
    settings = PredictSettings(device=plan.device)
    found = examine(placed.hu, placed.brain, placed.affine, placed.from_mni, networks, settings)
    seconds = time.perf_counter() - begun
    dice = {}
    if scan.vessels is not None:
        # Arteries go on beyond the box in which they are looked for.
        box = vessel_box(placed.hu.shape, placed.affine, placed.from_mni)
        truth = read_vessels(scan, placed.image)
        dice = vessel_dice(found.arteries.labels[box], truth[box])
    decision = found.localisation.decision
    known = scan.truth
    return CaseResult(
        name=scan.name,
        occluded=known.occluded,
        side=known.side if known.occluded else None,
        segment=known.segment if known.occluded else None,
        probability=found.probability,
        threshold=plan.threshold or networks.calibration.threshold,
        found_side=decision.side,
        found_segment=decision.segment,
        dice=dice,
        mirrored_side=_side_when_mirrored(scan, plan, networks) if is_mirrored else None,
        seconds=seconds,
    )


def store_otherwise(placed: Placed, path: Path) -> Path:
    """
    Write a CT with its first axis stored in the other order: LAS instead of RAS, or back.

    Parameters
    ----------
    placed : Placed
        The CT.
    path : Path
        New file.

    Returns
    -------
    Path
        ``path``; every structure keeps its place in the world.
    """
    flip = np.diag([-1.0, 1.0, 1.0, 1.0])
    flip[0, 3] = placed.hu.shape[0] - 1
    data = np.rint(placed.hu[::-1]).astype(np.int16)
    image = nib.Nifti1Image(data, placed.affine @ flip)
    return save_image(data, image, path)


def _side_when_mirrored(scan: Scan, plan: Plan, networks: Networks) -> str:
    """Side found when everything, mask and registration too, is made of the other file."""
    placed = place_scan(scan, plan.work, plan.seed)
    folder = plan.work / 'mirrored'
    path = store_otherwise(placed, folder / f'{scan.name}_ct.nii.gz')
    other = place_scan(
        Scan(scan.name, scan.patient, path, scan.truth, None, None, None), folder, plan.seed
    )
    settings = PredictSettings(device=plan.device)
    found = examine(other.hu, other.brain, other.affine, other.from_mni, networks, settings)
    return found.localisation.decision.side


def main(argv: Sequence[str]) -> int:
    """
    Run ``neurolesion-tools evaluate lvo``.

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
    make_folder(chosen.out)
    bids_dir, labels = chosen.bids_dir.resolve(), chosen.labels
    if chosen.synthetic:
        write_dataset(bids_dir, chosen.synthetic, chosen.seed, chosen.nprocs)
        labels = bids_dir / LABELS_FOLDER
    work = chosen.out / WORK
    work.mkdir(exist_ok=True)
    plan = Plan(
        work, chosen.weights_dir, chosen.lvo_territory_atlas, chosen.threshold, chosen.device,
        chosen.seed,
    )  # fmt: skip
    scans = find_scans(bids_dir, labels.resolve() if labels else None)
    tasks = [(scan, index < chosen.mirrored) for index, scan in enumerate(scans)]
    results = run_cases(partial(evaluate_scan, plan=plan), tasks, chosen.nprocs)
    summary = summarise(results)
    write_table(chosen.out, 'cases', case_table(results), COLUMNS)
    table = confusion(results)
    dictionary = {name: {'Description': 'Found segment'} for name in table.columns}
    dictionary['truth'] = {'Description': 'True segment'}
    dictionary['missed'] = {'Description': 'Occlusions that were not called'}
    write_table(chosen.out, 'segments', table, dictionary)
    write_text(chosen.out / SUMMARY, json.dumps(summary, indent=1) + '\n')
    _show(summary)
    return ExitCode.OK


def _show(summary: dict[str, Any]) -> None:
    shown = Table('measure', 'value', '95 % interval', 'n')
    for name, value in summary.items():
        if name == 'vessels':
            for vessel, dice in value.items():
                shown.add_row(f'Dice {vessel}', f'{dice["mean"]:.3f}', '', str(dice['n']))
        elif isinstance(value, dict):
            interval = f'{value["low"]:.3f} to {value["high"]:.3f}'
            count = str(value.get('n', ''))
            shown.add_row(name.replace('_', ', '), f'{value["value"]:.3f}', interval, count)
        else:
            shown.add_row(name, f'{value:g}', '', '')
    open_console().print(shown)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='neurolesion-tools evaluate lvo',
        description='Measure how well occlusions are found on head CT of known truth.',
    )
    add = parser.add_argument
    add('bids_dir', type=Path,
        help='BIDS dataset with head CT; participants.tsv has the columns occlusion (yes or no), '
        'side and segment')  # fmt: skip
    add('out', type=Path, help='folder of the results')
    add('--labels', type=Path, help='derivatives dataset with seg-vessel_dseg of each CT')
    add('--weights-dir', type=Path, help='folder of trained models')
    add('--lvo-territory-atlas', type=Path, help="territory of the user's own")
    add('--threshold', type=float, default=0.0, help="from 0 to 1; default: the card's")
    add('--synthetic', type=whole, default=0, metavar='N',
        help='first make N synthetic patients in bids_dir')  # fmt: skip
    add('--mirrored', type=whole, default=0, metavar='M',
        help='read the first M also stored in the other order, and compare the sides')  # fmt: skip
    add('--nprocs', type=counted, default=1, help='cases at a time')
    add('--device', default='auto', help='auto, cpu, cuda or cuda:N')
    add('--seed', type=whole, default=0)
    return parser


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
