"""What people and monitors see in a browser: pages, feeds, status.json, metrics.

publisher is the part that writes them, tree the directory it writes into, shelf what it remembers of results, changes
how it hears of new ones, stock the base images and layers, live the logs of jobs that run, conditions how the appliance
is, signers the public keys. pages fills templates/ with what view and plots make of a result or of the appliance, words
has the words and escapes. metrics is for monitors, server serves the directory, connections bounds who asks.

It reads the spool, and writes into the site's directory alone. Nothing of a job is ever HTML of its own.
"""
