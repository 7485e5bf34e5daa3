"""Prepare: a data set as published becomes prompts worth training on, and a funnel that says what was dropped, why."""
