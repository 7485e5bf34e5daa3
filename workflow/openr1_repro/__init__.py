"""The stages of the pipeline: one package a stage, each also a plain command (``python -m openr1_repro.<stage> --help``)."""
