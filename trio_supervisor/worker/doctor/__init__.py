"""Examine a worker from inside: collect the facts that `policy.doctor` diagnoses."""
