"""Tests of reading rows and of what they train."""
