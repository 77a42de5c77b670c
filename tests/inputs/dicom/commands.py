"""Running the command, and what is in a dataset then."""

from __future__ import annotations

from bids_app.cli.tools import main

SMALL = (12, 14, 10)


def run(*arguments):
    return main(['dicom', *map(str, arguments)])


def files(folder):
    return sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob('*') if path.is_file()
    )


def images(folder):
    return [name for name in files(folder) if name.endswith('.nii.gz')]


def table(path):
    lines = [line.split('\t') for line in path.read_text().splitlines()]
    return [dict(zip(lines[0], line, strict=True)) for line in lines[1:]]
