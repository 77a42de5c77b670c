"""
Group level over many subjects: seconds and peak memory of the command, and of its parts.

A derivatives dataset of 1000 synthetic subjects is made: tables of scans with numbers of every
metric of every room, two sessions each, and participants.tsv with a group that shifts some of
them. Then ``neurolesion BIDS OUT group`` runs as a process of its own, first without and then
with a formula, then both again with small maps in template space. Memory is the peak of the
largest process. Other programs on the machine lengthen the wall time, so the time for which the
command was ready and waited for a processor, which the kernel counts, is left out of what is held
against the target; processor seconds of all its processes stand beside it. ``--parts`` prints what
the functions of the package took, from a run under cProfile. Run: ``python benchmarks/group.py``.
"""

import argparse
import json
import os
import pstats
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import psutil

from bids_app import __version__
from bids_app.outputs.spec import Output, Spec, all_specs, load_spec, output_path

# Seconds and memory that the tables are allowed for 1000 subjects.
TABLES_S, TABLES_GB = 60.0, 2.0

TABLES = 'tables and page'
MAPS = 'tables, maps and page'

N_SUBJECTS = 1000
SESSIONS = ('1', '2')
SHIFTED = 4
"""Every so many-th metric is higher in patients."""

# Not the name of a template that is there, as its voxels would have to be those of the maps.
SPACE = {'space': 'Synthetic'}
SHAPE = (12, 14, 12)
VOXEL_MM = 12.0
POLL_S = 0.05
SOURCES = {'leakage': 'dce', 'lgg': 'FLAIR', 'tumor': 'T1w', 'anomaly': 'T1w', 'prep': 'T1w'}


@dataclass(frozen=True)
class Taken:
    """What one run took."""

    wall_s: float
    waited_s: float
    """Of the wall time, ready to run but without a processor."""
    cpu_s: float
    peak_gb: float

    @property
    def own_s(self) -> float:
        """Wall time without what other programs took of it."""
        return self.wall_s - self.waited_s


def waited_s(pid: int) -> float:
    """Time that a process's main thread was ready without a processor, in s."""
    return int(Path(f'/proc/{pid}/schedstat').read_text().split()[1]) / 1e9


def write_map(path: Path, output: Output, rng: np.random.Generator, shift: float) -> None:
    kind = output.resample
    values = rng.normal(10 + shift, 2, SHAPE).astype(np.float32)
    if kind == 'nearest':
        values = (values > 12).astype(np.uint8)
    affine = np.diag([VOXEL_MM, VOXEL_MM, VOXEL_MM, 1.0])
    affine[:3, 3] = -0.5 * VOXEL_MM * np.array(SHAPE)
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.Nifti1Image(values, affine).to_filename(path)


def mapped(spec: Spec) -> list[Output]:
    """List the outputs of which the group level makes maps."""
    return [output for output in spec.outputs.values() if output.group]


def write_maps(output_dir: Path, n_subjects: int) -> int:
    """Write the maps of the first session of every subject, and give their number."""
    rng, count = np.random.default_rng(8), 0
    for number in range(1, n_subjects + 1):
        for room, suffix in SOURCES.items():
            source = f'sub-{number:04}_ses-{SESSIONS[0]}_{suffix}.nii.gz'
            for output in mapped(load_spec(room)):
                path = output_dir / output_path(output, source, SPACE)
                write_map(path, output, rng, float(number % 2))
                count += 1
    return count


def write_subject(output_dir: Path, number: int, rng: np.random.Generator) -> dict[str, str]:
    subject, patient = f'sub-{number:04}', number % 2
    for session in SESSIONS:
        folder = output_dir / subject / f'ses-{session}'
        lines = []
        for spec in (load_spec(room) for room in SOURCES):
            source = f'{subject}_ses-{session}_{SOURCES[spec.room]}.nii.gz'
            main = output_path(spec.main_output(source), source)
            (output_dir / main).parent.mkdir(parents=True, exist_ok=True)
            (output_dir / main).touch()
            values = {
                name: rng.lognormal(2, 0.3) + (place % SHIFTED == 0) * patient
                for place, name in enumerate(spec.metrics)
            }
            lines.append({'filename': main.relative_to(folder.relative_to(output_dir)), **values})
        names = list(dict.fromkeys(name for line in lines for name in line))
        rows = ['\t'.join(str(line.get(name, 'n/a')) for name in names) for line in lines]
        table = folder / f'{subject}_ses-{session}_scans.tsv'
        table.write_text('\n'.join(['\t'.join(names), *rows]) + '\n')
    (output_dir / f'{subject}.html').write_text('<title>Synthetic</title>')
    return {'participant_id': subject, 'group': ('control', 'patient')[patient],
            'age': f'{rng.uniform(20, 80):.1f}'}  # fmt: skip


def make_cohort(root: Path, n_subjects: int) -> tuple[Path, Path]:
    bids_dir, output_dir = root / 'bids', root / 'out'
    bids_dir.mkdir()
    output_dir.mkdir()
    (bids_dir / 'dataset_description.json').write_text('{"Name": "many", "BIDSVersion": "1.11.1"}')
    tool = {'Name': 'neurolesion', 'Version': __version__}
    (output_dir / 'dataset_description.json').write_text(json.dumps({'GeneratedBy': [tool]}))
    rng = np.random.default_rng(7)
    rows = [write_subject(output_dir, number + 1, rng) for number in range(n_subjects)]
    for row in rows:
        folder = bids_dir / row['participant_id']
        folder.mkdir()
        times = ''.join(f'ses-{name}\t202{name}-03-01\n' for name in SESSIONS)
        table = folder / f'{folder.name}_sessions.tsv'
        table.write_text(f'session_id\tacq_time\n{times}')
    lines = ['\t'.join(rows[0]), *('\t'.join(row.values()) for row in rows)]
    (bids_dir / 'participants.tsv').write_text('\n'.join(lines) + '\n')
    return bids_dir, output_dir


def run(command: list[str]) -> Taken:
    """Run a command to its end and watch the memory of its largest process."""
    start, before, peak, waited = time.monotonic(), os.times(), 0, 0.0
    process = psutil.Popen(command, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        try:
            tree = [process, *process.children(recursive=True)]
            peak = max(peak, *(item.memory_info().rss for item in tree))
            waited = waited_s(process.pid)
        except (psutil.NoSuchProcess, FileNotFoundError):
            pass
        time.sleep(POLL_S)
    if process.returncode:
        sys.exit(f'{" ".join(command)} ended with code {process.returncode}.')
    after = os.times()
    cpu = after.children_user + after.children_system
    cpu -= before.children_user + before.children_system
    return Taken(time.monotonic() - start, waited, cpu, peak / 1e9)


def print_parts(profile: Path, least_s: float) -> None:
    """Cumulative seconds of the package's own functions."""
    # The stubs of pstats do not know the table that all its reports print.
    stats = pstats.Stats(str(profile)).stats  # type: ignore[attr-defined]
    own = [
        (entry[3], f'{Path(path).stem}.{name}')
        for (path, _, name), entry in stats.items()
        if '/bids_app/' in path and entry[3] >= least_s
    ]
    for seconds, name in sorted(own, reverse=True):
        print(f'    {seconds:7.2f} s  {name}')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n')[0])
    parser.add_argument('--subjects', type=int, default=N_SUBJECTS)
    parser.add_argument('--no-maps', action='store_true', help='tables alone')
    parser.add_argument('--model', action='store_true', help='with --group-roc group')
    parser.add_argument('--permutations', type=int, default=100)
    parser.add_argument('--parts', type=float, metavar='S', help='print functions of S s or more')
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        bids_dir, output_dir = make_cohort(root, options.subjects)
        n_metrics = sum(len(spec.metrics) for spec in all_specs())
        print(f'{options.subjects} subjects, {len(SESSIONS)} sessions, {n_metrics} metrics')
        formula = ['--group-formula', 'group + age']
        tests = [*formula, '--group-permutations', str(options.permutations)]
        cases = {TABLES: [], 'tables and a formula': formula}
        if options.model:
            cases['tables, a formula and classifiers'] = [*formula, '--group-roc', 'group']
        if not options.no_maps:
            cases |= {MAPS: [], 'tables, maps and a formula at voxels': tests}
        for title, flags in cases.items():
            if title == MAPS:
                print(f'{write_maps(output_dir, options.subjects)} maps')
            profile = root / 'profile'
            app = ['-m', 'bids_app', str(bids_dir), str(output_dir), 'group']
            watch = ['-m', 'cProfile', '-o', str(profile)] if options.parts else []
            taken = run([sys.executable, *watch, *app, *flags])
            size_mb = (output_dir / 'group.html').stat().st_size / 1e6
            verdict = ''
            if title == TABLES:
                met = taken.own_s <= TABLES_S and taken.peak_gb <= TABLES_GB
                verdict = (
                    f'; allowed {TABLES_S:g} s, {TABLES_GB:g} GB: {"met" if met else "not met"}'
                )
            seconds = (
                f'{taken.own_s:.1f} s ({taken.wall_s:.1f} s wall, of which {taken.waited_s:.1f} s '
                f'without a processor), {taken.cpu_s:.1f} s processor'
            )
            page = f'page {size_mb:.1f} MB'
            print(f'{title}: {seconds}, {taken.peak_gb:.2f} GB, {page}{verdict}', flush=True)
            if options.parts:
                print_parts(profile, options.parts)


if __name__ == '__main__':
    main()
