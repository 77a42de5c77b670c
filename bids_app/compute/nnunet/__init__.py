"""nnU-Net as a library: trained models, prediction, planning and training."""
