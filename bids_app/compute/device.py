"""Choice of the processor that runs tensors."""

from __future__ import annotations

from contextlib import nullcontext
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import MissingInputError, UsageError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    import torch


# Kernel side of CUDA on Linux and on WSL: without one of them torch need not be asked.
DRIVER_FILES = (Path('/dev/nvidiactl'), Path('/dev/dxg'))

CPU_FILE = Path('/proc/cpuinfo')
BF16_FLAGS = ('avx512_bf16', 'amx_bf16')
MIN_BF16_SIDE = 3


def device_name(name: str) -> str:
    """
    Name of the device that ``--device`` stands for; imports torch only where there may be a GPU.

    Raises
    ------
    UsageError, MissingInputError
        As `resolve_device`.

    Examples
    --------
    >>> device_name('cpu')
    'cpu'
    """
    if name == 'cpu' or (name == 'auto' and not any(path.exists() for path in DRIVER_FILES)):
        return 'cpu'
    return str(resolve_device(name))


def resolve_device(name: str) -> torch.device:
    """
    Turn ``--device`` into a torch device.

    Parameters
    ----------
    name : str
        ``auto`` (CUDA where there is one), ``cpu``, ``cuda`` or ``cuda:N``.

    Returns
    -------
    torch.device

    Raises
    ------
    UsageError
        If the name is none of these.
    MissingInputError
        If the GPU asked for by name is not there.
    """
    import torch

    if name == 'auto':
        return torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f'--device {name} is unknown: use auto, cpu, cuda or cuda:N.') from error
    if device.type == 'cuda':
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise MissingInputError(
                f'--device {name} was asked for, but this machine shows {count} CUDA devices: '
                'use --device cpu, or start the container with --nv (Singularity) or --gpus all '
                '(Docker).'
            )
    elif device.type != 'cpu':
        raise UsageError(f'--device {name} is unknown: use auto, cpu, cuda or cuda:N.')
    return device


def cpu_has_bf16() -> bool:
    """
    Tell whether this processor multiplies bfloat16; where it does not, float32 is faster.

    Examples
    --------
    >>> cpu_has_bf16() in (True, False)
    True
    """
    known = _read_once(CPU_FILE)
    return any(flag in known for flag in BF16_FLAGS)


@cache
def _read_once(path: Path) -> str:
    # Every batch asks, and the file has a paragraph for each processor.
    return path.read_text() if path.is_file() else ''


def cpu_trains_in_bf16(coarsest: int) -> bool:
    """
    Tell whether this processor may learn, and not only predict, in bfloat16.

    On maps of two voxels, oneDNN's bfloat16 gradient of a kernel of three reads memory that nobody
    wrote (torch 2.13): now and then it is NaN, and so is the network from then on. Two slices on
    the last axis do no harm.

    Parameters
    ----------
    coarsest : int
        Shortest side of a patch at the network's lowest resolution, in voxels.

    Examples
    --------
    >>> cpu_trains_in_bf16(2)
    False
    """
    return coarsest >= MIN_BF16_SIDE and cpu_has_bf16()


def autocast_bf16(
    device: torch.device, coarsest: int | None = None
) -> AbstractContextManager[object]:
    """
    Compute in bfloat16 where the processor has it.

    Parameters
    ----------
    device : torch.device
        Where the network runs.
    coarsest : int, optional
        In training: shortest side of a map at the lowest resolution, slices of 3D left aside.

    Returns
    -------
    context manager
        Does nothing on other processors.
    """
    import torch

    if device.type == 'cuda':
        # Old GPUs emulate it, which is slower than float32.
        known = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        known = cpu_has_bf16() if coarsest is None else cpu_trains_in_bf16(coarsest)
    return torch.autocast(device.type, dtype=torch.bfloat16) if known else nullcontext()


def reduced_precision(device: torch.device) -> AbstractContextManager[object]:
    """Choose the number type in which prediction is fastest: half where it is built in."""
    import torch

    return (
        torch.autocast('cuda', torch.float16) if device.type == 'cuda' else autocast_bf16(device)
    )
