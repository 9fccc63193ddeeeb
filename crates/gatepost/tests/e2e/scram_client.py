"""Logs in by SCRAM-SHA-256, bound to the TLS beneath it or not, as RFC 5802 and RFC 5929 say; checks the server's
signature; says what came of it."""
import base64, hashlib, hmac, imaplib, secrets, ssl, sys

port, authority, user, password, flag = int(sys.argv[1]), *sys.argv[2:6]
# A channel that is not the one in use, as somebody in between would have it.
elsewhere = sys.argv[6:] == ["elsewhere"]


def digest(key, text):
    return hmac.new(key, text, hashlib.sha256).digest()


context = ssl.create_default_context(cafile=authority)
session = imaplib.IMAP4_SSL("localhost", port, ssl_context=context)
if flag == "tls-server-end-point":
    mechanism, header = "SCRAM-SHA-256-PLUS", b"p=tls-server-end-point,,"
    binding = hashlib.sha256(session.sock.getpeercert(True)).digest()
else:
    mechanism, header, binding = "SCRAM-SHA-256", flag.encode() + b",,", b""
if elsewhere:
    binding = bytes(32)
assert f"AUTH={mechanism}" in session.capabilities, session.capabilities
nonce = secrets.token_urlsafe(18)
bare = f"n={user},r={nonce}".encode()
steps = []


def answer(challenge):
    steps.append(challenge)
    if len(steps) == 1:
        return header + bare
    if len(steps) == 2:
        fields = dict(field.split("=", 1) for field in challenge.decode().split(","))
        assert fields["r"].startswith(nonce) and len(fields["r"]) > len(nonce), fields
        salt = base64.b64decode(fields["s"])
        salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, int(fields["i"]))
        client_key = digest(salted, b"Client Key")
        last = b"c=" + base64.b64encode(header + binding) + b",r=" + fields["r"].encode()
        signed = bare + b"," + challenge + b"," + last
        signature = digest(hashlib.sha256(client_key).digest(), signed)
        proof = bytes(a ^ b for a, b in zip(client_key, signature))
        steps.append(b"v=" + base64.b64encode(digest(digest(salted, b"Server Key"), signed)))
        return last + b",p=" + base64.b64encode(proof)
    assert challenge == steps[2], "the server does not know the password either"
    return b""


try:
    session.authenticate(mechanism, answer)
except imaplib.IMAP4.error as error:
    # What an unknown user is told before the proof must look like anybody's.
    print("refused", error, steps[1].decode().split(",")[1:] if len(steps) > 1 else "at once")
    sys.exit(0)
assert len(steps) == 4, steps
print("in", session.select("INBOX")[0])
session.logout()
