"""Does it work: recovery of known truth, calibration of need, and gaming."""
