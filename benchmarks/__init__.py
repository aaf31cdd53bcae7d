"""Time trio_supervisor against physical floors and against peers, in one run."""
