"""What a kind of device computes with: layout of images, kernels, algorithms and products."""
