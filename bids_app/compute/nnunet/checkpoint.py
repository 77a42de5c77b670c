"""Weights in checkpoints of nnU-Net, read without running what strangers put into them."""

from __future__ import annotations

import zipfile
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any, Final

from ...errors import BadDataError, MissingInputError
from ..weights import SAFETENSORS, load_weights, sha256_of

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

# What torch.compile and distributed training put before the names of weights.
_WRAPPERS: Final = ('module.', '_orig_mod.')


def _safe_globals() -> list[Any]:
    """Numbers that nnU-Net's logger leaves in checkpoints: values, no code."""
    import numpy as np

    scalar: Any = np.float64(0.0).__reduce__()[0]
    kinds = (np.float16, np.float32, np.float64, np.int32, np.int64, np.bool_)
    return [
        np.dtype,
        *(type(np.dtype(kind)) for kind in kinds),
        # NumPy before 2 knew it by another name.
        (scalar, 'numpy.core.multiarray.scalar'),
        (scalar, 'numpy._core.multiarray.scalar'),
    ]


def read_checkpoint(path: Path) -> dict[str, Any]:
    """
    Read a checkpoint of nnU-Net v2; whatever would run code while being read is refused.

    Parameters
    ----------
    path : Path
        A ``.pth`` file.

    Returns
    -------
    dict
        Its content, with ``network_weights``; tensors are mapped, not loaded.

    Raises
    ------
    BadDataError
        If it is damaged, holds other objects than weights and numbers, or is no such checkpoint.
    """
    import torch

    try:
        with torch.serialization.safe_globals(_safe_globals()):
            # Mapped, so that the state of the optimizer is never read.
            saved = torch.load(
                path, map_location='cpu', weights_only=True, mmap=zipfile.is_zipfile(path)
            )
    except UnpicklingError as error:
        if 'nsupported' in str(error):
            raise BadDataError(
                f'{path} holds Python objects beside weights, and such a file can run code: ask '
                'for a checkpoint as nnU-Net v2 saves it, or for safetensors.'
            ) from error
        raise _unreadable(path) from error
    except (RuntimeError, EOFError, ValueError, LookupError, OSError) as error:
        raise _unreadable(path) from error
    weights = saved.get('network_weights') if isinstance(saved, dict) else None
    if not isinstance(weights, dict) or not all(torch.is_tensor(v) for v in weights.values()):
        raise BadDataError(
            f'{path} has no network_weights: give a checkpoint that nnU-Net v2 saved.'
        )
    return dict(saved)


def _unreadable(path: Path) -> BadDataError:
    return BadDataError(
        f'{path} is a truncated or damaged checkpoint: copy it again from its source.'
    )


def load_state(path: Path, sha256: str) -> dict[str, Tensor]:
    """
    Read weights after their checksum, as float32 and under the names that the network has.

    Parameters
    ----------
    path : Path
        A checkpoint, or safetensors.
    sha256 : str
        Checksum that it must have.

    Returns
    -------
    dict of str to Tensor

    Raises
    ------
    MissingInputError
        If there is no such file.
    BadDataError
        If the checksum differs, or as `read_checkpoint`.
    """
    if path.suffix == SAFETENSORS:
        state = load_weights(path, sha256)
    else:
        if not path.is_file():
            raise MissingInputError(f'The weights {path} are missing: copy them there again.')
        if sha256_of(path) != sha256:
            raise BadDataError(
                f'The weights {path} changed since this run was planned: start it again.'
            )
        state = read_checkpoint(path)['network_weights']
    plain: dict[str, Tensor] = {}
    for name, value in state.items():
        short = name
        for wrapper in _WRAPPERS:
            short = short.removeprefix(wrapper)
        plain[short] = value.float() if value.is_floating_point() else value
    return plain
