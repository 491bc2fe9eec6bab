"""This computer: devices, memory, versions, signals, and what its faults mean."""
