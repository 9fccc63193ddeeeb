"""Logs in over STARTTLS and implicit TLS, compresses, stores and reads back a message of 260 kB."""
import imaplib, os, ssl, sys, zlib

imaplib.Commands["COMPRESS"] = ("AUTH", "SELECTED")
imap, imaps, authority, user, password = int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:6]


def compress(session):
    status, _ = session._simple_command("COMPRESS", "DEFLATE")
    assert status == "OK", status
    inflate, deflate, sock = zlib.decompressobj(-15), zlib.compressobj(6, zlib.DEFLATED, -15), session.sock
    kept = bytearray()

    def fill():
        data = sock.recv(65536)
        kept.extend(inflate.decompress(data))
        return bool(data)

    def take(count):
        taken = bytes(kept[:count])
        del kept[:count]
        return taken

    def readline():
        while b"\n" not in kept and fill():
            pass
        return take(kept.find(b"\n") + 1 or len(kept))

    def read(count):
        while len(kept) < count and fill():
            pass
        return take(count)

    session.readline, session.read = readline, read
    session.send = lambda data: sock.sendall(deflate.compress(data) + deflate.flush(zlib.Z_SYNC_FLUSH))


context = ssl.create_default_context(cafile=authority)
for implicit in (False, True):
    if implicit:
        session = imaplib.IMAP4_SSL("localhost", imaps, ssl_context=context)
    else:
        session = imaplib.IMAP4("localhost", imap)
        session.starttls(context)
    if implicit:
        session.login(user, password)
    else:
        session.authenticate("PLAIN", lambda _: f"\0{user}\0{password}".encode())
    assert "COMPRESS=DEFLATE" in session.capability()[1][0].decode()
    compress(session)
    body = b"Subject: large\r\n\r\n" + os.urandom(130_000).hex().encode() + b"\r\n"
    status, answer = session.append("INBOX", None, None, body)
    assert status == "OK", answer
    _, [count] = session.select("INBOX")
    _, parts = session.fetch(count, "(BODY[])")
    assert parts[0][1] == body, "the message came back changed"
    session.logout()
    print("compressed ok")
