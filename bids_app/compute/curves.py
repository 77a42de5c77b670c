"""Curves of a training, rewritten after each epoch: a table, a picture and TensorBoard."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .images import atomic_path, write_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

TABLE_FILE: Final = 'progress.tsv'
PICTURE_FILE: Final = 'curves.png'
TENSORBOARD_FOLDER: Final = 'tensorboard'
LOSSES: Final = ('loss', 'validation_loss')
_NO_SCALAR: Final = ('epoch',)


def write_table(path: Path, history: Sequence[Mapping[str, float]]) -> None:
    """
    Write one row for each epoch.

    Parameters
    ----------
    path : Path
        A ``.tsv`` file; replaced in one step.
    history : sequence of mapping of str to float
        Rows with the same columns.
    """
    columns = list(history[0]) if history else []
    rows = ['\t'.join(f'{row[name]:.6g}' for name in columns) for row in history]
    write_text(path, '\n'.join(['\t'.join(columns), *rows]) + '\n')


def draw_curves(path: Path, history: Sequence[Mapping[str, float]]) -> None:
    """
    Draw losses on the left, Dice on the validation cases on the right.

    Parameters
    ----------
    path : Path
        A ``.png`` file; replaced in one step.
    history : sequence of mapping of str to float
        As in `write_table`; those of `LOSSES` that are columns are drawn on the left, columns
        ``dice_<region>`` on the right.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout='constrained')
    left, right = figure.subplots(1, 2)
    epochs = [row['epoch'] for row in history]
    for name in history[0] if history else ():
        values = [row[name] for row in history]
        if name in LOSSES:
            left.plot(epochs, values, label=name.replace('_', ' '))
        elif name.startswith('dice_'):
            right.plot(epochs, values, label=name.removeprefix('dice_'))
    left.set(xlabel='epoch', ylabel='loss')
    right.set(xlabel='epoch', ylabel='Dice of validation', ylim=(0, 1))
    for axes in (left, right):
        if axes.lines:
            axes.legend(frameon=False)
        axes.grid(alpha=0.3)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110)


class Curves:
    """
    Everything that shows how a training goes, in one folder.

    Parameters
    ----------
    folder : Path
        Gets `TABLE_FILE`, `PICTURE_FILE` and `TENSORBOARD_FOLDER`.
    history : sequence of mapping of str to float
        Epochs of an earlier part of the same training.
    """

    def __init__(self, folder: Path, history: Sequence[Mapping[str, float]] = ()) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.folder = folder
        self.history = [dict(row) for row in history]
        self._board = SummaryWriter(
            str(folder / TENSORBOARD_FOLDER), purge_step=len(self.history) or None
        )

    def add(self, row: Mapping[str, float]) -> None:
        """Take one more epoch and rewrite all."""
        self.history.append(dict(row))
        write_table(self.folder / TABLE_FILE, self.history)
        draw_curves(self.folder / PICTURE_FILE, self.history)
        for name, value in row.items():
            if name not in _NO_SCALAR:
                group, _, rest = name.partition('_')
                label = f'dice/{rest}' if group == 'dice' else name
                self._board.add_scalar(label, value, len(self.history) - 1)
        self._board.flush()

    def close(self) -> None:
        """Close the event file."""
        self._board.close()
