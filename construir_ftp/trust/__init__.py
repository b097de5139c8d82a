"""What a result can be trusted for: keys, signatures, provenance, and their verification.

It starts no machine and moves no job. It never reads a private key that it was not handed.
"""
