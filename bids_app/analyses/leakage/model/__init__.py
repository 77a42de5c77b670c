"""Science of the leakage room: arrays in, arrays out."""
