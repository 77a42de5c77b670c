"""Networks of all folds, and what healthy people measure by them: one model."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import torch

from ...compute.training import assign_folds, split_patients, write_card
from ...compute.weights import find_model, save_weights
from ...errors import BadDataError, UsageError
from .card import describe_model, model_name, summarise
from .cohort import choose_reshape, read_sample
from .healthy import leave_unexplained, measure_healthy, measure_held_out
from .model.predict import Ensemble, load_network
from .run import Run

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from ...compute.training import Report
    from .cohort import Sample, Volume
    from .healthy import Healthy
    from .model.autoencoder import AutoencoderSpec
    from .options import TrainingOptions

OWN_DATA: Final = "the user's own healthy people"
FOLDS: Final = 3
VALIDATION_FRACTION: Final = 0.25
RETOLD: Final = ('epochs', 'minutes', 'device', 'options', 'command', 'after')
"""What a card repeats of the training that it went on from; the people are the same."""

FEWEST: Final = 3
"""People to learn from and to measure."""


@dataclass(frozen=True)
class Plan:
    """
    Who is learnt from and who is measured.

    Attributes
    ----------
    folds : int
        Networks, each of which does not learn from one part of the people; by those parts healthy
        people are measured. 1 trains one network.
    validation_fraction : float
        Part of the people that one network alone does not learn from.
    held_out : tuple of str
        People that no network learns from and that take no part in the statistics.
    only : int
        The one network to train, from 1, without making the model yet; 0 trains all and makes it.
    start : Path or None
        Folder of a model of the same division of the same people, whose networks learn on.
    """

    folds: int = FOLDS
    validation_fraction: float = VALIDATION_FRACTION
    held_out: tuple[str, ...] = ()
    only: int = 0
    start: Path | None = None


class Earlier(NamedTuple):
    """
    A model that is learnt on from.

    Attributes
    ----------
    network : Ensemble
        On the CPU.
    sha256 : str
        Of its weights.
    trained : dict
        What its card says on how that was.
    """

    network: Ensemble
    sha256: str
    trained: dict[str, Any]


def divide(patients: Sequence[str], plan: Plan, seed: int) -> dict[str, int]:
    """
    Say which network does not learn from whom.

    Parameters
    ----------
    patients : sequence of str
        Those who are not held out.
    plan : Plan
        How many networks.
    seed : int
        Of the division.

    Returns
    -------
    dict of str to int
        Number of that network, by person; with one network those who are absent are learnt from.

    Raises
    ------
    UsageError
        If there are fewer people than folds.
    BadDataError
        If too few people are left.
    """
    names = sorted(set(patients))
    if len(names) < FEWEST:
        raise BadDataError(
            f'{len(names)} healthy people are too few to learn from and to measure: add people, '
            'or hold fewer out.'
        )
    if plan.folds > 1:
        return assign_folds(names, plan.folds, seed)
    _, validation = split_patients(names, plan.validation_fraction, np.random.default_rng(seed))
    if len(validation) < 2 or len(validation) == len(names):
        raise BadDataError(
            f'--validation-fraction {plan.validation_fraction:g} of {len(names)} people leaves '
            'fewer than two to measure, or nobody to learn from: give another one.'
        )
    return {names[index]: 0 for index in validation}


def open_earlier(
    folder: Path, name: str, spec: AutoencoderSpec, folds: int, divided: Mapping[str, int]
) -> Earlier:
    """
    Open the model that a training goes on from.

    Parameters
    ----------
    folder : Path
        Holds its card and weights.
    name : str
        Of the model.
    spec : AutoencoderSpec
        Of the networks that are to be trained.
    folds : int
        How many.
    divided : mapping of str to int
        Of `divide`.

    Returns
    -------
    Earlier

    Raises
    ------
    MissingInputError, BadDataError
        If there is no such model, or it is damaged.
    UsageError
        If its networks are others, or learnt from people that the new ones shall measure.
    """
    model = find_model('anomaly', folder, folder, name)
    network, known, _ = load_network(model.card, model.weights, torch.device('cpu'))
    trained = dict(model.card['trained'])
    if (known, len(network)) != (spec, folds):
        raise UsageError(
            f'{model.card_path} describes networks of another kind or number: give --start-from '
            'a model of the same --width, --code and --folds.'
        )
    if trained.get('not_learnt_by') != divided:
        raise UsageError(
            f'The networks of {model.card_path} learnt from other people than these would, so '
            'some would be measured by a network that knows them: use the same people, '
            '--hold-out, --folds and --seed.'
        )
    told = {key: trained[key] for key in RETOLD if key in trained}
    return Earlier(network, model.sha256, told)


def train_volumes(
    volumes: Sequence[Volume],
    modality: str,
    strategy: str,
    out: Path,
    options: TrainingOptions,
    plan: Plan = Plan(),
    report: Report = lambda _done, _text: None,
) -> dict[str, Any]:
    """
    Train the networks, measure healthy people by them, and write weights and card.

    Parameters
    ----------
    volumes : sequence of Volume
        Healthy people.
    modality : str
        One of `ANOMALY_MODALITIES`.
    strategy : str
        One of `ANOMALY_RESHAPES`.
    out : Path
        Folder of the model; an interrupted training in it is taken up.
    options : TrainingOptions
        Settings; ``minutes`` are for all networks together.
    plan : Plan
        Who is learnt from and who is measured.
    report : callable
        Is told the share of the training that is done and a short text.

    Returns
    -------
    dict
        The card; empty where but one of the networks was asked for.
    """
    labels = _held_out(volumes, plan)
    known = [volume for volume in volumes if volume.patient not in labels]
    divided = divide([volume.patient for volume in known], plan, options.seed)
    name = model_name(modality, strategy)
    earlier = None
    if plan.start is not None:
        earlier = open_earlier(plan.start, name, options.spec, plan.folds, divided)
        options = replace(options, start=earlier.sha256)
    reshape = choose_reshape(strategy, known)
    report(0.0, f'reshaping {len(volumes)} heads')
    samples = [read_sample(volume, reshape) for volume in known]
    runs = _fit(
        samples, divided, out / f'{modality}_{strategy}', options, plan, report, earlier
    )  # fmt: skip
    if plan.only:
        return {}
    report(1.0, 'measuring healthy people')
    people = [
        leave_unexplained(run.average, sample, run.device)
        for run in runs
        for sample in run.validation
    ]
    healthy = measure_healthy(
        people, strategy == 'template', options.false_positive_ml, options.least_spread
    )
    network = Ensemble([run.average for run in runs])
    tested = [read_sample(volume, reshape) for volume in volumes if volume.patient in labels]
    measured = _measured(network, healthy, tested, runs[0].device)
    card = describe_model(
        modality,
        options.spec.as_card() | {'networks': plan.folds},
        reshape.as_card(),
        _save(network, healthy, out / f'{name}.safetensors'),
        _trained(runs, samples, divided, sorted(labels))
        | ({'after': earlier.trained} if earlier else {}),
        measured,
        {
            'threshold': healthy.threshold,
            'false_positive_ml': options.false_positive_ml,
            'healthy_scores': measured['score'],
        },
    )
    write_card(out / f'{name}.json', card)
    return card


def _held_out(volumes: Sequence[Volume], plan: Plan) -> set[str]:
    labels = {name.removeprefix('sub-') for name in plan.held_out}
    unknown = sorted(labels - {volume.patient for volume in volumes})
    if unknown:
        raise UsageError(
            f'--hold-out names {unknown[0]!r}, of whom there is no image: correct it.'
        )
    return labels


def _fit(
    samples: Sequence[Sample],
    divided: dict[str, int],
    out: Path,
    options: TrainingOptions,
    plan: Plan,
    report: Report,
    earlier: Earlier | None,
) -> list[Run]:
    """Train one network after the other, each without its own part of the people."""
    share = options.minutes / plan.folds if options.minutes else None
    runs = []
    for fold in [plan.only - 1] if plan.only else range(plan.folds):

        def tell(done: float, text: str, fold: int = fold) -> None:
            report((fold + done) / plan.folds, f'network {fold + 1} of {plan.folds}, {text}')

        run = Run(
            [sample for sample in samples if divided.get(sample.patient) != fold],
            [sample for sample in samples if divided.get(sample.patient) == fold],
            out / f'network_{fold + 1}',
            replace(options, minutes=share, seed=options.seed + fold),
            tell,
            earlier.network.member(fold) if earlier else None,
        )
        run.fit()
        runs.append(run)
    return runs


def _measured(
    network: Ensemble, healthy: Healthy, tested: Sequence[Sample], device: torch.device
) -> dict[str, Any]:
    measured = summarise(
        'healthy people, each by a network that did not learn from them and by the statistics of '
        'the others',
        healthy.scores,
        healthy.volumes_ml,
    )
    if tested:
        told = measure_held_out(network, healthy.statistics, tested, healthy.threshold, device)
        measured['held_out'] = summarise('healthy people who were held out', *told)
    return measured


def _save(network: Ensemble, healthy: Healthy, path: Path) -> str:
    # Half precision is no worse than what networks compute in, and half as large.
    state = {name: value.half() for name, value in network.state_dict().items()}
    return save_weights(state | healthy.statistics.tensors(), path)


def _trained(
    runs: Sequence[Run], samples: Sequence[Sample], divided: dict[str, int], held_out: list[str]
) -> dict[str, Any]:
    options = asdict(runs[0].options)
    # The card has it under a name of its own.
    options.pop('spec')
    return {
        'data': OWN_DATA,
        'patients': len({sample.patient for sample in samples}),
        'sessions': len(samples),
        'held_out': held_out,
        'not_learnt_by': dict(sorted(divided.items())),
        'epochs': [len(run.history) for run in runs],
        'minutes': round(sum(run.seconds for run in runs) / 60.0, 1),
        'device': runs[0].device.type,
        'options': options,
    }
