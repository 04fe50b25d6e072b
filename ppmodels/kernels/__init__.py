"""Kernels: functions of two points, and what can be done with their Gram matrices alone."""
