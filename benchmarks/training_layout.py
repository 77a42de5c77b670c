"""
Learning on a CPU with channels last in memory, beside torch's own order.

One batch of the embedded networks of nnU-Net, forwards and backwards, in each order by turns; the
least processor time of several is compared, which other programs lengthen least. `layout_for`
chooses by the features of the finest resolution: the ratio should be above 1 where it takes
channels last, and below elsewhere. Run: ``python benchmarks/training_layout.py``.
"""

import argparse
import time
from pathlib import Path

import torch

from bids_app import analyses
from bids_app.compute.device import cpu_has_bf16
from bids_app.compute.nnunet.model import build_network, from_card
from bids_app.compute.nnunet.settings import LAYOUTS, layout_for
from bids_app.compute.weights import find_model

ROOMS = Path(analyses.__file__).parent
MODELS = (('lvo', 'lvo_vessels'), ('lvo', 'lvo_localisation'), ('tumor', 'model'))
ROUNDS = 6


def network_and_batch(room, name):
    """Give an embedded network with random weights, and a batch of the size it learnt from."""
    files = find_model(room, ROOMS / room, None, name)
    model = from_card(files.card, files.weights)
    _, configuration = model.managers()
    shape = configuration.batch_size, len(model.channel_names), *configuration.patch_size
    return build_network(model), torch.randn(shape)


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
    for room, name in MODELS:
        network, batch = network_and_batch(room, name)
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
            f'{name} of {room}: own order {plain:.2f} s, channels last {last:.2f} s, ratio '
            f'{plain / last:.2f}; chosen: {chosen}'
        )


if __name__ == '__main__':
    main()
