"""Logs in by XOAUTH2 as Thunderbird does: IMAP-PORT POP3-PORT SMTP-PORT AUTHORITY USER TOKEN FROM TO."""

import base64
import imaplib
import poplib
import smtplib
import ssl
import sys

imap_port, pop3_port, smtp_port, authority, user, token, sender, recipient = sys.argv[1:]
context = ssl.create_default_context(cafile=authority)


def message(token):
    return f"user={user}\x01auth=Bearer {token}\x01\x01"


def imap(token):
    client = imaplib.IMAP4("localhost", int(imap_port), timeout=20)
    client.starttls(context)
    assert "AUTH=XOAUTH2" in client.capability()[1][0].decode(), "XOAUTH2 is not offered"
    client.authenticate("XOAUTH2", lambda challenge: b"" if challenge else message(token).encode())
    client.select("INBOX")
    client.logout()


def pop3(token):
    client = poplib.POP3("localhost", int(pop3_port), timeout=20)
    client.stls(context)
    assert "XOAUTH2" in client.capa()["SASL"], "XOAUTH2 is not offered"
    answer = client._shortcmd("AUTH XOAUTH2")
    answer = client._shortcmd(base64.b64encode(message(token).encode()).decode())
    if answer.startswith(b"+ "):
        client._shortcmd("")
        raise SystemExit("a refused token was taken")
    client.stat()
    client.quit()


def smtp(token):
    client = smtplib.SMTP("localhost", int(smtp_port), timeout=20)
    client.starttls(context=context)
    client.ehlo()
    client.auth("XOAUTH2", lambda challenge=None: "" if challenge else message(token))
    client.sendmail(sender, [recipient], "Subject: by a token\r\n\r\nText.\r\n")
    client.quit()


for log_in, refused in [
    (imap, imaplib.IMAP4.error),
    (pop3, poplib.error_proto),
    (smtp, smtplib.SMTPAuthenticationError),
]:
    log_in(token)
    try:
        log_in(token[:-8] + "AAAAAAAA")
        raise SystemExit("a forged token was taken")
    except refused:
        pass
print("logged in 3")
