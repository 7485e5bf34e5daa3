"""Many samples of every benchmark problem, scored by stock lighteval, and the statistics that say what the scores are worth."""
