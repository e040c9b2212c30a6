"""Packing: assigns sequences to rows and rows to forwards, and runs a prompt that sequences share only once.

    units (sequences with one prefix) -> plan (rows, forwards, ranks) -> batches (arrays) -> the mask of
    learner/model/attention

Pure numpy; the same sequences give the same loss and gradients in every mode (Prefix Grouper, arXiv 2506.05433).
"""
