"""pyftpdlib's own FTPS server, as its documentation has it, to show what became of uploads with it.

Run by Debian's Python, for its PyOpenSSL: DIRECTORY CERTIFICATE KEY SITE-PACKAGES, the last with pyftpdlib in it.
Prints its port, then logs to standard error until it is killed. The user is alice, the password "secret".
"""

import logging
import sys

if __name__ == "__main__":
    directory, certificate, key, packages = sys.argv[1:]
    # Last, so that what Debian has is Debian's.
    sys.path.append(packages)

    from pyftpdlib.authorizers import DummyAuthorizer
    from pyftpdlib.handlers import TLS_FTPHandler
    from pyftpdlib.servers import FTPServer

    logging.basicConfig(level=logging.DEBUG)
    authorizer = DummyAuthorizer()
    authorizer.add_user("alice", "secret", directory, perm="elradfmwMT")
    TLS_FTPHandler.certfile, TLS_FTPHandler.keyfile = certificate, key
    TLS_FTPHandler.authorizer = authorizer
    server = FTPServer(("127.0.0.1", 0), TLS_FTPHandler)
    print(server.address[1], flush=True)
    server.serve_forever()
