"""Packing: which sequences share a row, which rows a forward, and how a prompt that several share is run once.

    units (sequences with one prefix) -> plan (rows, forwards, ranks) -> batches (arrays) -> learner/model/attention's
    mask

Pure numpy; the same sequences give the same loss and gradients in every mode (Prefix Grouper, arXiv 2506.05433).
"""
