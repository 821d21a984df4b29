"""Recorded numbers of the authors' code, and the comparison of ours with them."""
