//! Every bound on what a peer can make these machines keep or do, before it has logged in and where mail is taken. Each name
//! ends in what is counted, and MAX.

/// Longest line of a command, without its literals. OAuth tokens of the large providers reach 4 KiB.
pub const LINE_BYTES_MAX: usize = 16 * 1024;
/// Longest command with its literals. With [`ANSWER_BYTES_MAX`], the most that one unauthenticated client can make a machine
/// hold.
pub const COMMAND_BYTES_MAX: usize = 64 * 1024;
/// What may be answered before a client has taken any of it, but for the answer that goes beyond it and the last words: who
/// asks for more at once ends the session.
pub const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Largest literal taken in IMAP. LITERAL- promises 4,096 for the non-synchronising form (RFC 7888, section 5).
pub const IMAP_LITERAL_BYTES_MAX: u64 = 4096;
/// Longest quoted string in `ManageSieve`; what is longer is a literal (RFC 5804, section 4).
pub const SIEVE_QUOTED_BYTES_MAX: usize = 1024;
/// A refused non-synchronising literal is read and thrown away up to this size; beyond it the session ends.
pub const DRAIN_BYTES_MAX: u64 = 64 * 1024;
/// Longest IMAP tag that is echoed.
pub const TAG_BYTES_MAX: usize = 64;
/// Longest user name.
pub const USER_BYTES_MAX: usize = 512;
/// Longest password.
pub const PASSWORD_BYTES_MAX: usize = 4096;
/// Longest token. In base64 it fits on a line.
pub const TOKEN_BYTES_MAX: usize = 11 * 1024;
/// Most pairs in one ID command, and in all of a session's merged (RFC 2971, section 3.3).
pub const ID_PAIRS_MAX: usize = 30;
/// Longest field name in ID (RFC 2971, section 3.3).
pub const ID_KEY_BYTES_MAX: usize = 30;
/// Longest value in ID (RFC 2971, section 3.3).
pub const ID_VALUE_BYTES_MAX: usize = 1024;
/// What of a client's ID is passed on.
pub const CLIENT_ID_BYTES_MAX: usize = 4096;
/// Longest line with an initial response in POP3, its end included (RFC 5034, section 4).
pub const POP3_AUTH_LINE_BYTES_MAX: usize = 255;
/// Longest line of a command in SMTP, its end included, that every server must take (RFC 5321, section 4.5.3.1.4).
pub const SMTP_LINE_BYTES_MAX: usize = 512;
/// Longest name by which a client of SMTP calls itself (RFC 5321, section 4.5.3.1.2).
pub const HELO_BYTES_MAX: usize = 255;
/// Longest address of an envelope; SMTP has 256 (RFC 5321, section 4.5.3.1.3), and names of servers go beyond.
pub const PATH_BYTES_MAX: usize = 512;
/// Most parameters behind an address.
pub const ESMTP_PARAMETERS_MAX: usize = 16;
/// Most recipients of one message; every server takes a hundred (RFC 5321, section 4.5.3.1.8).
pub const RECIPIENTS_MAX: usize = 1000;
/// Most commands since mail was taken last, or a recipient named.
pub const IDLE_COMMANDS_MAX: u32 = 100;
/// Largest chunk of mail. There are servers that read a larger size as another one, and the rest of the chunk as commands.
pub const CHUNK_BYTES_MAX: u64 = i32::MAX as u64;
/// Chunks of mail that nobody wants are read and thrown away, up to so much of them until a message is taken; beyond it the
/// session ends.
pub const SKIPPED_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Most lines of one reply in SMTP.
pub const REPLY_LINES_MAX: usize = 100;
/// Longest line that a back end may send while it is logged in to.
pub const BACK_LINE_BYTES_MAX: usize = 64 * 1024;
/// All that a back end may send until it has answered the log-in.
pub const BACK_TALK_BYTES_MAX: usize = 256 * 1024;
/// Longest text of a back end's refusal that is passed on to a client.
pub const PASSED_TEXT_BYTES_MAX: usize = 512;
/// How much of a line the log may show.
pub const TRACE_BYTES_MAX: usize = 512;
/// Longest PROXY header of version 1 with its line end (the protocol's own figure).
pub const PROXY_V1_BYTES_MAX: usize = 107;
/// Longest PROXY header of version 2 that is taken; the length field could announce 65,551.
pub const PROXY_V2_BYTES_MAX: usize = 16 + 2048;
/// Longest message of a SCRAM exchange: two names and a nonce, with room to spare.
pub const SCRAM_MESSAGE_BYTES_MAX: usize = 4096;
