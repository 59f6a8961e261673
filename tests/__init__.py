"""Tests: in by the front door, then a look at the disk."""
