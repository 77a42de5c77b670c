"""
The public network of Buda et al. 2019, written out from its description under its public names.

No modules: every layer is a call with weights looked up by name, so that a wrong name, a wrong
place or a wrong width shows.
"""

import torch
from torch.nn import functional

EPSILON = 1e-5


def random_state(width, in_channels=3, seed=0):
    """Make weights and batch-norm statistics far from those of a new network."""
    draw = torch.Generator().manual_seed(seed)
    state = {}

    def add_block(place, name, before, after):
        for number, channels in ((1, before), (2, after)):
            scale = (2 / (9 * channels)) ** 0.5
            weight = torch.randn(after, channels, 3, 3, generator=draw) * scale
            state[f'{place}.{name}conv{number}.weight'] = weight
            norm = f'{place}.{name}norm{number}'
            state[f'{norm}.weight'] = 0.5 + torch.rand(after, generator=draw)
            state[f'{norm}.bias'] = 0.3 * torch.randn(after, generator=draw)
            state[f'{norm}.running_mean'] = 0.3 * torch.randn(after, generator=draw)
            state[f'{norm}.running_var'] = 0.5 + torch.rand(after, generator=draw)
            state[f'{norm}.num_batches_tracked'] = torch.tensor(7)

    before = in_channels
    for level in (1, 2, 3, 4):
        after = width * 2 ** (level - 1)
        add_block(f'encoder{level}', f'enc{level}', before, after)
        before = after
    add_block('bottleneck', 'bottleneck', before, 2 * before)
    for level in (4, 3, 2, 1):
        after = width * 2 ** (level - 1)
        shape = (2 * after, after, 2, 2)
        scale = (1 / (2 * after)) ** 0.5
        state[f'upconv{level}.weight'] = torch.randn(shape, generator=draw) * scale
        state[f'upconv{level}.bias'] = 0.1 * torch.randn(after, generator=draw)
        add_block(f'decoder{level}', f'dec{level}', 2 * after, after)
    state['conv.weight'] = torch.randn(1, width, 1, 1, generator=draw) / width**0.5
    state['conv.bias'] = torch.randn(1, generator=draw)
    return state


def run(state, slices):
    """Probabilities of the public network."""

    def block(values, place, name):
        for number in (1, 2):
            norm = f'{place}.{name}norm{number}'
            values = functional.conv2d(
                values, state[f'{place}.{name}conv{number}.weight'], padding=1
            )
            values = functional.batch_norm(
                values,
                state[f'{norm}.running_mean'],
                state[f'{norm}.running_var'],
                state[f'{norm}.weight'],
                state[f'{norm}.bias'],
                eps=EPSILON,
            )
            values = values.clamp(min=0)
        return values

    kept = {}
    values = slices
    for level in (1, 2, 3, 4):
        kept[level] = block(values, f'encoder{level}', f'enc{level}')
        values = functional.max_pool2d(kept[level], 2)
    values = block(values, 'bottleneck', 'bottleneck')
    for level in (4, 3, 2, 1):
        values = functional.conv_transpose2d(
            values, state[f'upconv{level}.weight'], state[f'upconv{level}.bias'], stride=2
        )
        values = block(torch.cat([values, kept[level]], 1), f'decoder{level}', f'dec{level}')
    return torch.sigmoid(functional.conv2d(values, state['conv.weight'], state['conv.bias']))
