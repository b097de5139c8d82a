"""The contributor's side, over FTP.

address says where and who, connection is the session and its patience, handshake why TLS does not come about,
control_connection bounds what a server may say in a session. submit sends, watch follows, fetch brings into a
destination, layers brings a layer, jobs lists, board lists again and again, diff compares, history remembers what was
sent, known_keys the keys of servers. evidence is what proves a result, status and remote_files read what the server
shows.

It works wherever Python does, and believes nothing that a server says.
"""
