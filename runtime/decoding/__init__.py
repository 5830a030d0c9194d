"""Decoding: KV caches, the decoder, sampling, speculation and batches."""
