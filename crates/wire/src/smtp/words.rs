//! What Gatepost says of its own account about mail: one reply for each case, with its enhanced status (RFC 3463).

use super::Reply;

/// Declares the replies.
macro_rules! replies {
    ($($(#[$doc:meta])* $name:ident = $code:literal $text:literal;)+) => {
        /// A reply of Gatepost's own.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum OwnReply { $($(#[$doc])* $name,)+ }

        impl OwnReply {
            /// Every one.
            #[cfg(test)]
            const ALL: &[Self] = &[$(Self::$name),+];

            /// As it is said.
            pub fn reply(self) -> Reply {
                match self { $(Self::$name => Reply::ours($code, $text),)+ }
            }
        }
    };
}

replies! {
    /// A sender is taken.
    SenderOk = 250 "2.1.0 Ok.";
    /// A recipient's back end has taken the message already, when others had not.
    TakenEarlier = 250 "2.0.0 Taken earlier.";
    /// The content may come.
    SendContent = 354 "End with a dot on a line by itself.";
    /// The map places nobody of this name.
    UnknownUser = 550 "5.1.1 There is no such user here.";
    /// The domain is not ours.
    ForeignDomain = 550 "5.7.1 Mail for this domain is not taken here.";
    /// The account is disabled.
    UserDisabled = 550 "5.2.1 This user takes no mail.";
    /// The user's mail is being moved.
    UserHeld = 451 "4.2.1 This user is being moved, try again later.";
    /// A directory names a place that can't be used.
    Misplaced = 451 "4.3.5 The server is not set up for this user, try again later.";
    /// A directory can't answer.
    NoLookUp = 451 "4.3.0 Addresses can't be looked up now, try again later.";
    /// Somebody who has logged in names a sender who is not they.
    NotYourAddress = 553 "5.7.1 This is not your address.";
    /// Clients must show a certificate, for which there must be TLS.
    TlsFirst = 530 "5.7.0 Must issue a STARTTLS command first.";
    /// The token that somebody logged in with has ended.
    Expired = 421 "4.7.0 What you logged in with has expired.";
    /// An administrator has taken the back end out of service.
    OutOfService = 451 "4.3.2 The mail server of this user is out of service, try again later.";
    /// The connection to a back end is lost before its answer to a recipient.
    ServerLost = 451 "4.4.2 The mail server of this user is lost, try again later.";
    /// No connection can be spared for one more back end.
    TooManyConnections = 451 "4.3.2 Too many connections, try again later.";
    /// No host of a back end serves.
    ServerUnreachable = 451 "4.4.1 The mail server of this user can't be reached, try again later.";
    /// A back end does not take this mail, for reasons that are not the client's.
    ServerUnfit = 451 "4.3.5 The mail server does not take this now, try again later.";
    /// A back end did not come to an end with a message.
    LostWithin = 451 "4.4.2 A mail server failed within the message, try again later.";
    /// The only back end there is has gone: so must the client.
    OnlyServerLost = 421 "4.4.2 The mail server is lost.";
    /// Recipients fared differently.
    TakenForSome = 451 "4.3.0 Taken for some recipients; try again later for the others.";
    /// A recipient fared otherwise than those who were accepted, the last time.
    NotTogether = 452 "4.5.3 Not together with the others: some have this sender's mail, some have not.";
    /// A client speaks before it is greeted.
    TooEarly = 554 "5.5.1 You talk before it is your turn.";
    /// A message does not come in its time.
    TooSlow = 421 "4.4.2 The message comes too slowly.";
    /// A message that nobody will have goes on and on.
    WithoutEnd = 421 "4.4.2 The message is refused, and does not end.";
    /// A CR or LF by itself.
    BareLineEnd = 550 "5.5.2 Lines must end in CRLF, and there only.";
    /// See `messages_per_ip`.
    TooManyMessages = 450 "4.7.1 Too many messages from your address, try again later.";
    /// See `messages_per_sender`.
    TooManyOfSender = 450 "4.7.1 Too many messages of this sender, try again later.";
    /// See `recipients_per_ip`.
    TooManyRecipients = 450 "4.7.1 Too many recipients from your address, try again later.";
    /// The client's address has no name of its own.
    NoName = 550 "5.7.25 Your address has no name that leads back to it.";
    /// Whether it has one can't be found out.
    NameUnknown = 450 "4.7.25 Your address' name can't be looked up now.";
}

/// What is said of a chunk of so many bytes that back ends have taken.
pub fn chunk_taken(bytes: u64) -> Reply {
    Reply::ours(250, format!("2.0.0 {bytes} bytes taken."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_and_status_say_the_same() {
        for own in OwnReply::ALL {
            let reply = own.reply();
            let class = (b'0' + (reply.code / 100) as u8) as char;
            assert!(reply.code == 354 || reply.text().starts_with(class), "{reply:?}");
        }
    }
}
