"""DICOM to BIDS: ``neurolesion-tools dicom``."""
