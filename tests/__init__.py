"""Tests: most send HTTP requests, then check the disk or Redis."""
