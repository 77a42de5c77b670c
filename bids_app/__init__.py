"""neurolesion: a BIDS App that turns raw brain MRI and CT into lesion derivatives."""

__version__ = '0.1.0'
