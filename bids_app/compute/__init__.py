"""What rooms share: devices, weights, child programs, images, training."""
