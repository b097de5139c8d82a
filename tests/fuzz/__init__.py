"""Fuzzing with coverage guidance (atheris): `python -m tests.fuzz [TARGET ...] --inputs N`.

Each target is a place where bytes come in from outside. corpus/TARGET/ holds what each run begins with: examples, and
whatever has found a fault.
"""
