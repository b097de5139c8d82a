"""What operators and contributors are told of: mail, webhooks, commands.

It reads the spool, and remembers what it has told. Nothing else waits for it.
"""
