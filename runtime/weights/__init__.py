"""Weights: opening, packing and mapping them, and what the CPU and its memory allow."""
