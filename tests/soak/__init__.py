"""Load and the usual events for a long time: nothing of ours may grow.

``python -m tests.soak --minutes 60 --seed 7``, or ``nox -s soak``.
"""
