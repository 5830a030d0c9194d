"""Answers many rows with many workers, on one machine or on a cluster."""

from issun.cluster.generator import BatchGenerator

__all__ = ["BatchGenerator"]
