"""Twisted's FTP client, by Debian's Python."""

import os
import sys

import twisted
from twisted.internet import reactor
from twisted.internet.defer import inlineCallbacks
from twisted.internet.protocol import ClientCreator, Protocol
from twisted.protocols.ftp import FTPClient


class Kept(Protocol):
    """What is fetched, in a file."""

    def __init__(self, path):
        self.file = open(path, "wb")

    def dataReceived(self, data):
        self.file.write(data)

    def connectionLost(self, reason=None):
        self.file.close()


@inlineCallbacks
def run(action, source, target):
    """Do one thing."""
    env = os.environ
    creator = ClientCreator(reactor, FTPClient, env["FTP_USER"], env["FTP_PASSWORD"], passive=1)
    client = yield creator.connectTCP(env["FTP_HOST"], int(env["FTP_PORT"]))
    if action == "fetch":
        yield client.retrieveFile(f"done/{source}", Kept(target))
        return
    kept = 0
    yield client.queueStringCommand("TYPE I")
    if action == "continue":
        lines = yield client.queueStringCommand(f"SIZE queue/{target}")
        kept = int(lines[0].split()[1])
    consumer, sent = client.storeFile(f"queue/{target}", offset=kept)
    sender = yield consumer
    with open(source, "rb") as file:
        file.seek(kept)
        sender.transport.write(file.read())
    sender.finish()
    print((yield sent))


def failed(failure):
    """Say why."""
    print(failure.value)
    os.environ["FAILED"] = "1"


if sys.argv[1] == "version":
    print("Twisted", twisted.__version__)
else:
    reactor.callWhenRunning(lambda: run(*sys.argv[1:]).addErrback(failed).addBoth(lambda _: reactor.stop()))
    reactor.run()
    sys.exit(int(os.environ.get("FAILED", "0")))
