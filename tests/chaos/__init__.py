"""Real chaos: 50 workers under load, and everything that may go wrong with them.

``python -m tests.chaos --minutes 5 --seed 7``, or ``nox -s chaos``.
"""
