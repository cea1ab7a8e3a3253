"""Measurements of speed and memory, and the implementations they are compared with."""
