"""Prepare: a data set as published becomes prompts worth training on, with a funnel that says what was dropped and why."""
