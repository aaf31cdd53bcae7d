"""The command line: one module for each family of verbs, loaded when one is used.

Arguments are parsed by the standard library, and the short verbs speak the protocol
over a blocking socket: loading click, rich and trio would take several times as long
as all the rest of a ``ping``.
"""
