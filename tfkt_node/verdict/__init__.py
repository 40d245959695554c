"""Sum slices up to a series and apply the criteria in force.

Pure: scores and thresholds in, a verdict with its confidence out; no pixels, no clock.
"""
