"""What people and monitors see in a browser: pages, feeds, status.json, metrics.

It reads the spool, and writes into the site's directory alone. Nothing of a job is ever HTML of its own.
"""
