"""Logs in over STLS and implicit TLS by USER and PASS, reads what is there, stores nothing, leaves."""
import poplib, ssl, sys

pop3, pop3s, authority, user, password = int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:6]
context = ssl.create_default_context(cafile=authority)
for implicit in (False, True):
    if implicit:
        session = poplib.POP3_SSL("localhost", pop3s, context=context)
    else:
        session = poplib.POP3("localhost", pop3)
        session.stls(context)
    before = session.capa()
    assert "USER" in before and "PLAIN" in before["SASL"], before
    session.user(user)
    session.pass_(password)
    # What was promised before the log-in holds after it.
    after = session.capa()
    missing = [name for name in before if name not in after and name not in ("STLS", "USER", "SASL")]
    assert not missing, (before, after)
    count, _ = session.stat()
    assert count >= 1, count
    lines = b"\n".join(session.retr(1)[1])
    assert b"Text of hello." in lines, lines
    assert len(session.uidl()[1]) == count
    session.quit()
print("read", count)
