"""What the machine has: memory, devices, processes."""
