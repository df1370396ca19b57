"""What a device computes with: matrix products."""
