"""``python -m bids_app`` is ``neurolesion``."""

import sys

from .cli.run import main

if __name__ == '__main__':
    sys.exit(main())
