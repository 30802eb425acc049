"""The number that tells when a change below every stage changed results."""

RESULTS = 1
"""In every digest of code. Of `matpac.core`, where a reworded message retrains nothing, the stages
depend on this file alone: raising the number tells that a bug mended there did change results."""
