"""Download: models and data sets from whichever hub answers, every byte checked. ``python -m openr1_repro.download
--help``."""
