"""A whole appliance under thirty contributors and a chaos that a seed decides, and what became of each upload.

python -m tests.campaign --minutes 2 --seed 1. See docs/reliability.md.
"""
