"""The contributor's side: send a job to a server, follow it, bring its result. By FTP and the standard library alone.

Nothing here prints, asks a terminal, or needs more than Python and msgspec. Whatever a server says is believed to be
hostile: ids and names are checked before they become part of a path, and texts come as they are, to be made printable
by whoever shows them.
"""
