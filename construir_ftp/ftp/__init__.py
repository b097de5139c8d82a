"""The FTP server: sessions, TLS, logins, listings.

server has the sessions, ports what is listened on, ioloop the event loop and what runs beside it, session one
connection, built on control, ftps and login; lines and turns are whose command is next, data is its data connection,
tls and client_hello both over TLS. commands/ is what a client can say, vfs/ what it sees. users, passwords and backoff
are who may log in, keyring whose signature counts; certificate is the server's own; flow_control and lingering_close
who has to wait, and how to part; quiet_log what strangers can have logged.

Nothing here blocks for more than a few milliseconds, looks into an upload, or knows the runner.
"""
