"""Child program of the tumor room: ``python -m bids_app.analyses.tumor.command REQUEST``."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.affines import voxel_sizes

from ...compute.child import run_child
from ...compute.device import resolve_device
from ...compute.images import save_image, write_text
from ...compute.nnunet.folder import BEST_CHECKPOINT
from ...compute.nnunet.model import NnunetModel, from_card, read_folder
from ...compute.nnunet.predict import PredictSettings, predict
from ...compute.weights import read_planned_card
from ...errors import BadDataError
from .model.channels import CHANNEL_NAMES, CHANNELS, match_channels
from .model.labels import (
    BACKGROUND,
    REGIONS,
    classes_of,
    labels_from_regions,
    regions_of,
    to_convention,
)
from .model.lesions import measure_lesions, region_metrics, remove_small
from .model.unet3d import predict_unet3d
from .stack import load_channels

Request = dict[str, Any]
Report = Callable[[str], None]

# Probabilities are cut after so many parts of 1: files of a third of the size.
PROBABILITY_STEPS = 1000

LESION_MASK = 'lesion_mask.nii.gz'
SUBJECT = re.compile(r'sub-[0-9A-Za-z]+(?:_ses-[0-9A-Za-z]+)?')


@dataclass(frozen=True)
class _Segmenter:
    """A model of either recipe, or a foreign one, behind one call."""

    name: str
    version: str
    source: Path
    sha256: list[str]
    channels: tuple[str, ...]
    """Sequences that it takes, in its order."""
    does_without: bool
    """Whether it was trained with sequences missing."""
    mirrors: bool
    regions: Callable[[np.ndarray, np.ndarray, PredictSettings, Report], np.ndarray]
    """From its channels and their affine to probabilities of WT, TC and ET."""
    subsets: Sequence[Mapping[str, Any]] = ()
    """What the card measured for each choice of sequences."""
    common: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def _find_segmenter(described: Mapping[str, Any]) -> _Segmenter:
    if described['kind'] == 'folder':
        return _from_folder(described)
    card, weights = read_planned_card(described), Path(described['weights'])
    named: dict[str, Any] = {
        'name': str(card.get('name', weights.stem)),
        'version': str(card.get('version', '')),
        'source': Path(described['card']),
        'sha256': [str(described['sha256'])],
        'does_without': bool(card.get('inputs', {}).get('missing_channels', False)),
        'subsets': card.get('measured', {}).get('subsets', ()),
    }
    if card.get('recipe') == 'unet3d':

        def regions(
            channels: np.ndarray, affine: np.ndarray, settings: PredictSettings, report: Report
        ) -> np.ndarray:
            return predict_unet3d(card, weights, channels, affine, settings, report)

        return _Segmenter(channels=CHANNELS, mirrors=True, regions=regions, **named)
    return _of_nnunet(from_card(card, weights), **named)


def _from_folder(described: Mapping[str, Any]) -> _Segmenter:
    model = read_folder(Path(described['folder']), tuple(described['folds']))
    if list(model.sha256) != list(described['sha256']):
        raise BadDataError(
            f'The weights in {model.source} changed since this run was planned: start it again.'
        )
    unfinished = [path.parent.name for path in model.weights if path.name == BEST_CHECKPOINT]
    warnings = []
    if unfinished:
        warnings.append(
            f'{", ".join(unfinished)} of the model did not come to the end of training, so the '
            f'best checkpoint until then ({BEST_CHECKPOINT}) was used.'
        )
    plans_name = str(model.plans.get('plans_name', 'nnUNetPlans'))
    return _of_nnunet(
        model,
        name=str(model.plans.get('dataset_name', model.source.name)),
        version=f'{model.trainer}__{plans_name}__{model.configuration}',
        source=model.source,
        sha256=list(model.sha256),
        # Nothing in the files of nnU-Net would tell.
        does_without=False,
        common={'Folds': [path.parent.name.removeprefix('fold_') for path in model.weights]},
        warnings=warnings,
    )


def _of_nnunet(model: NnunetModel, **named: Any) -> _Segmenter:  # noqa: ANN401
    source = f'dataset.json of {model.source}'
    channels = match_channels(model.channel_names, source)
    to_regions = _region_heads(model, source)

    def regions(
        images: np.ndarray, affine: np.ndarray, settings: PredictSettings, report: Report
    ) -> np.ndarray:
        found = predict(model, images, affine, settings, report)
        if to_regions == [[0], [1], [2]]:
            return found
        return np.stack([found[heads].sum(axis=0) for heads in to_regions])

    return _Segmenter(channels=channels, mirrors=bool(model.mirror_axes), regions=regions, **named)


def _region_heads(model: NnunetModel, source: str) -> list[list[int]]:
    """Heads of a model that make up WT, TC and ET: one each of regions, several of classes."""
    declared = model.labels()
    if model.has_regions:
        # nnU-Net also takes a region of one value without brackets.
        declared = {
            name: value if isinstance(value, list) or name in {'background', 'ignore'} else [value]
            for name, value in declared.items()
        }
    classes = classes_of(declared, source)
    covered = [{classes[value] for value in head if value in classes} for head in model.heads]
    if model.has_regions:
        return [[covered.index(set(values))] for values in REGIONS.values()]
    return [
        [head for head, found in enumerate(covered) if found and found <= set(values)]
        for values in REGIONS.values()
    ]


def _spelled(names: Sequence[str]) -> str:
    words = [CHANNEL_NAMES[name] for name in names]
    return ' and '.join([', '.join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _check_sequences(segmenter: _Segmenter, images: Mapping[str, Path], reference: str) -> None:
    """Stop where the model would be given an empty channel that it never saw empty."""
    missing = [name for name in segmenter.channels if name not in images]
    if not missing or (segmenter.does_without and len(missing) < len(segmenter.channels)):
        return
    found = SUBJECT.search(str(images[reference]))
    raise BadDataError(
        f'The model {segmenter.name} ({segmenter.source}) needs {_spelled(missing)}, which '
        f'{found.group() if found else "this session"} lacks: add the images, or take a model '
        'that was trained to do without, such as the embedded one.'
    )


def _cost_of_missing(segmenter: _Segmenter, used: Sequence[str], missing: Sequence[str]) -> str:
    """Say what the card measured with these sequences and with all."""
    measured = {
        frozenset(match_channels(row['sequences'], str(segmenter.source))): row
        for row in segmenter.subsets
    }
    few, all_of_them = measured.get(frozenset(used)), measured.get(frozenset(segmenter.channels))
    verb = 'is' if len(missing) == 1 else 'are'
    told = [
        name for name in REGIONS if few and all_of_them and few.get(name) and all_of_them.get(name)
    ]
    if not few or not all_of_them or not told:
        return (
            f'{_spelled(missing)} {verb} missing: the model was trained to do without, but its '
            'card does not say at what cost.'
        )
    scores = [
        f'{few[name]:.2f} for {name} ({all_of_them[name]:.2f} with all sequences)' for name in told
    ]
    return (
        f'{_spelled(missing)} {verb} missing: on the evaluation set Dice was {", ".join(scores)}.'
    )


def segment(request: Request) -> dict[str, Any]:
    """Label the tumour of one session and write every map, the table and what they say."""
    settings, reference = request['settings'], request['reference']
    images: dict[str, Path] = {name: Path(request[name]) for name in CHANNELS if name in request}
    segmenter = _find_segmenter(request['model'])
    _check_sequences(segmenter, images, reference)
    how = PredictSettings(
        mirroring=bool(settings['mirroring']),
        step_size=float(settings['step_size']),
        device=request['device'],
        memory_gb=request.get('memory_gb'),
    )
    transforms: dict[str, Path] = {
        name: Path(request[f'{name}_to_reference'])
        for name in images
        if f'{name}_to_reference' in request
    }
    channels, image = load_channels(images, transforms, reference, Path(request['brain_mask']))
    if segmenter.channels != CHANNELS:
        channels = channels[[CHANNELS.index(name) for name in segmenter.channels]]
    probabilities = segmenter.regions(channels, image.affine, how, _tell)
    del channels
    labels = _finish(probabilities, voxel_sizes(image.affine), float(settings['min_lesion_mm3']))
    maps = _save_maps(labels, probabilities, image, settings['labels'])
    metrics = _measure(labels, image.affine)
    common = _describe(segmenter, images, how) | {
        'LabelConvention': settings['labels'],
        'MinLesionVolume': float(settings['min_lesion_mm3']),
    }
    result = {'maps': maps, 'tables': ['lesions.tsv'], 'metadata': 'metadata.json'}
    if labels.any():
        # Registration has nothing to leave out where there is no tumour.
        shutil.copyfile('wt.nii.gz', LESION_MASK)
        result['lesion_mask'] = LESION_MASK
    else:
        common.setdefault('Warnings', []).append('No tumor was found on these images.')
    metadata = {'common': common, 'per_output': {}, 'metrics': metrics}
    write_text(Path('metadata.json'), json.dumps(metadata, indent=1))
    return result


def _tell(line: str) -> None:
    print(line, flush=True)


def _finish(
    probabilities: np.ndarray, spacing_mm: Sequence[float], min_lesion_mm3: float
) -> np.ndarray:
    """
    Make labels, drop small lesions, and let the probabilities say the same at 0.5.

    Parameters
    ----------
    probabilities : ndarray of float32, shape (3, x, y, z)
        Of WT, TC and ET; changed in place.
    spacing_mm : sequence of float, length 3
        Voxel size.
    min_lesion_mm3 : float
        Smallest volume that stays.

    Returns
    -------
    ndarray of uint8, shape (x, y, z)
        Labels in our values.
    """
    for outer, inner in ((0, 1), (1, 2)):
        np.minimum(probabilities[outer], probabilities[inner], out=probabilities[inner])
    found = labels_from_regions(probabilities)
    labels = remove_small(found, spacing_mm, min_lesion_mm3)
    dropped = found != labels
    for part in probabilities:
        part[dropped] = 0.0
        # Rounding up could carry a voxel over the threshold.
        np.multiply(part, PROBABILITY_STEPS, out=part)
        np.floor(part, out=part)
        np.divide(part, PROBABILITY_STEPS, out=part)
    return labels


def _save_maps(
    labels: np.ndarray, probabilities: np.ndarray, image: nib.Nifti1Image, convention: str
) -> list[str]:
    masks = {name.lower(): mask for name, mask in regions_of(labels).items()}
    contents = {'dseg': to_convention(labels, convention), **masks}
    for key, content in contents.items():
        save_image(content, image, Path(f'{key}.nii.gz'))
    save_image(np.moveaxis(probabilities, 0, -1), image, Path('probseg.nii.gz'))
    return [f'{key}.nii.gz' for key in (*contents, 'probseg')]


def _measure(labels: np.ndarray, affine: np.ndarray) -> dict[str, float]:
    """Write the table of lesions and give the metrics, both from the box around the lesions."""
    places = np.argwhere(labels != BACKGROUND)
    low = places.min(axis=0) if places.size else np.zeros(3, int)
    high = places.max(axis=0) if places.size else np.zeros(3, int)
    box = labels[tuple(slice(a, b + 1) for a, b in zip(low, high, strict=True))]
    shifted = affine.copy()
    shifted[:3, 3] = affine[:3, :3] @ low + affine[:3, 3]
    table = measure_lesions(box, shifted)
    write_text(Path('lesions.tsv'), table.round(3).to_csv(sep='\t', index=False, na_rep='n/a'))
    return region_metrics(box, shifted)


def _describe(
    segmenter: _Segmenter, images: Mapping[str, Path], how: PredictSettings
) -> dict[str, Any]:
    used = [name for name in segmenter.channels if name in images]
    missing = [name for name in segmenter.channels if name not in images]
    idle = [name for name in images if name not in segmenter.channels]
    common: dict[str, Any] = {
        'ModelName': segmenter.name,
        'ModelVersion': segmenter.version,
        'WeightsSHA256': segmenter.sha256[0] if len(segmenter.sha256) == 1 else segmenter.sha256,
        'Device': str(resolve_device(how.device)),
        'SkullStripped': True,
        'Sequences': [CHANNEL_NAMES[name] for name in used],
        'MissingSequences': [CHANNEL_NAMES[name] for name in missing],
        'Mirroring': how.mirroring and segmenter.mirrors,
        'StepSize': how.step_size,
        **segmenter.common,
    }
    warnings = list(segmenter.warnings)
    if missing:
        warnings.append(_cost_of_missing(segmenter, used, missing))
    if idle:
        verb, which = ('was', 'it') if len(idle) == 1 else ('were', 'them')
        warnings.append(f'{_spelled(idle)} {verb} not used: the model does not take {which}.')
    if warnings:
        common['Warnings'] = warnings
    return common


if __name__ == '__main__':
    sys.exit(run_child({'segment': segment}))
