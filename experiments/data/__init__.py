"""Data sets and pictures, read from files."""
