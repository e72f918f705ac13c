"""Distributed maps: map runs and their child executions, durable and in bounded memory.

`rows` is what the ledger knows of them, `readers` give the items of S3 objects one after the other, `batches` makes the inputs
of children, `results` what becomes of their outputs, `runs` drives a map run from its first item to the end of its state.
Source: https://docs.aws.amazon.com/step-functions/latest/dg/state-map-distributed.html
"""
