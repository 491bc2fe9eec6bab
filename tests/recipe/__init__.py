"""Tests of the recipe language: reading, the schema, rules and messages."""
