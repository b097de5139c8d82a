"""What a result can be trusted for: keys, signatures, provenance, and their verification.

keys are public, each of them a line of allowed_signers; key_place has the private one, where an appliance keeps it, and
seal signs results with it. node_key has those of nodes, certificate is what a front says of one. sshsig and dsse are
the formats of signatures, statement is what is signed, ed25519 proves a signature. verify holds a result against all of
that. recipe is what a provenance says of how to have the same again, equivalence what is stated of several runs that
made the same.

It starts no machine and moves no job. It never reads a private key that it was not handed.
"""
