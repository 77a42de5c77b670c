"""
Learning on a CPU with channels last in memory, beside torch's own order.

One batch of the networks that the rooms train, forwards and backwards, in each order by turns; the
least processor time of several is compared, which other programs lengthen least. `layout_for`
chooses by the features of the finest resolution: the ratio should be above 1 where it takes
channels last, and below elsewhere. Run: ``python benchmarks/training_layout.py``.
"""

import argparse
import time

import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet

from bids_app.compute.device import cpu_has_bf16
from bids_app.compute.nnunet.settings import LAYOUTS, layout_for

CASES = {
    'arteries of lvo': ((8, 24, 48, 96), (2, 5, 48, 64, 64)),
    'place of lvo': ((16, 32, 64, 128, 160), (8, 6, 96, 96)),
    'small network of tumor': ((16, 32, 64, 128), (1, 4, 64, 64, 64)),
}
ROUNDS = 6


def make_network(features, shape):
    flat = len(shape) == 4
    levels = len(features)
    return PlainConvUNet(
        shape[1], levels, features, torch.nn.Conv2d if flat else torch.nn.Conv3d, 3,
        [1] + [2] * (levels - 1), 2, 5, [2] * (levels - 1), True,
        torch.nn.InstanceNorm2d if flat else torch.nn.InstanceNorm3d,
        {'eps': 1e-5, 'affine': True}, nonlin=torch.nn.LeakyReLU, nonlin_kwargs={'inplace': True},
        deep_supervision=False,
    )  # fmt: skip


def seconds(network, batch):
    start = time.process_time()
    with torch.autocast('cpu', torch.bfloat16, enabled=cpu_has_bf16()):
        found = network(batch).float()
    found.square().mean().backward()
    return time.process_time() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--threads', type=int, default=1)
    torch.set_num_threads(parser.parse_args().threads)
    for name, (features, shape) in CASES.items():
        network, batch = make_network(features, shape), torch.randn(shape)
        chosen = layout_for(torch.device('cpu'), network)
        layouts = torch.contiguous_format, LAYOUTS[batch.ndim]
        least = dict.fromkeys(layouts, float('inf'))
        for _ in range(ROUNDS):
            for layout in layouts:
                network.to(memory_format=layout)
                found = seconds(network, batch.contiguous(memory_format=layout))
                least[layout] = min(least[layout], found)
        plain, last = least.values()
        print(
            f'{name}: own order {plain:.2f} s, channels last {last:.2f} s, ratio '
            f'{plain / last:.2f}; chosen: {chosen}'
        )


if __name__ == '__main__':
    main()
