"""What operators and contributors are told of: mail, webhooks, commands.

events is what there is to tell and in which words, arrivals the results that have come, memory what has been told and
what waits, boxes how much of it goes to one recipient at a time. mail, webhook and command carry it, delivery bounds
the time that takes; herald is the part that does all this.

It reads the spool, and remembers what it has told. Nothing else waits for it.
"""
