"""Submits a message with Python's smtplib: PORT TLS-PORT AUTHORITY USER PASSWORD FROM TO."""

import smtplib
import ssl
import sys

port, tls_port, authority, user, password, sender, recipient = sys.argv[1:]
context = ssl.create_default_context(cafile=authority)
message = f"From: {sender}\r\nTo: {recipient}\r\nSubject: smtplib\r\n\r\nText of smtplib.\r\n.\r\n..dots\r\n"

client = smtplib.SMTP("localhost", int(port), timeout=20)
assert not client.ehlo()[0] >= 300 and not client.has_extn("auth"), "AUTH is offered in clear"
client.starttls(context=context)
client.login(user, password)
assert not client.sendmail(sender, [recipient], message)
client.quit()

client = smtplib.SMTP_SSL("localhost", int(tls_port), timeout=20, context=context)
try:
    client.login(user, "wrong")
    raise SystemExit("a wrong password was taken")
except smtplib.SMTPAuthenticationError as error:
    assert error.smtp_code == 535, error
client.login(user, password)
assert not client.sendmail(sender, [recipient], message)
client.quit()
print("sent 2")
