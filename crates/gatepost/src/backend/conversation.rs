//! One conversation with one host of a back end: what becomes of a request, as the protocol's machine understands the answers.

use std::net::SocketAddr;
use std::time::Duration;

use gatepost_wire::{BackEvent, BackFault, BackStep, Welcome};
use tokio::time::{Instant, timeout_at};
use zeroize::{Zeroize as _, Zeroizing};

use super::request::Request;
use super::{Backend, ServiceLink};
use crate::net::stream::Stream;
use crate::net::tls::Spoken;

/// A request that was answered.
pub(super) struct Done {
    pub(super) stream: Stream,
    pub(super) address: SocketAddr,
    pub(super) welcome: Welcome,
    /// What the host sent behind its answer.
    pub(super) rest: Vec<u8>,
    /// Until the greeting, and from there to the answer.
    pub(super) connect_took: Duration,
    pub(super) answer_took: Duration,
}

/// How a conversation went wrong.
pub(super) enum Trouble {
    /// The host doesn't take these credentials.
    BadCredentials,
    /// It refuses in words of its own.
    Passed(String),
    /// It is out of order: it did not come as far as the request.
    Down(String),
    /// It took the request and did not answer, which may be the request's own doing.
    Unanswered(String),
    /// It serves, but not this request.
    Unfit(String),
    /// We are short of something, which says nothing of the host.
    Shortage(String),
    /// It asks for patience.
    Busy(String),
    /// It is ourselves.
    Loop(String),
}

impl Backend {
    /// Makes a request of a host.
    pub(super) async fn converse(
        &self,
        host: &str,
        link: &ServiceLink,
        request: Request<'_>,
        deadline: Instant,
    ) -> Result<Done, Trouble> {
        let Request { mut back, approach, tell } = request;
        let started = Instant::now();
        let connect_deadline = deadline.min(started + link.settings.written.connect_timeout);
        let connecting = self.connect(host, link, approach, connect_deadline);
        let (mut stream, address) =
            timeout_at(connect_deadline, connecting).await.map_err(|_| too_slow_to_greet(started))??;
        // What a log-in says is wiped, also where nobody waits for its end.
        let (mut input, mut out) = (Vec::new(), Zeroizing::new(Vec::new()));
        let mut greeted = None;
        let mut event = None;
        loop {
            let step = if let Some(event) = event.take() {
                back.step(event, &mut out)
            } else {
                input.clear();
                let until = if greeted.is_some() { deadline } else { connect_deadline };
                let read = timeout_at(until, stream.read(&mut input)).await.map_err(|_| match greeted {
                    Some(at) => Trouble::Unanswered(format!("no answer within {}", seconds(Instant::now() - at))),
                    None => too_slow_to_greet(started),
                })?;
                let read = read.map_err(|error| at_fault(greeted, format!("the connection broke: {error}")))?;
                back.step(if read == 0 { BackEvent::Closed } else { BackEvent::Input(&input) }, &mut out)
            };
            if let Some(tell) = tell {
                back.take_trace().into_iter().for_each(tell);
            }
            let write = timeout_at(deadline, stream.write_all(&out)).await;
            out.zeroize();
            match write {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Err(at_fault(greeted, format!("the connection broke: {error}"))),
                Err(_) => return Err(at_fault(greeted, "it does not read what is sent to it".into())),
            }
            match step {
                BackStep::Read => {
                    // A STARTTLS that is asked for is still part of connecting.
                    if stream.tls_facts().is_some() || matches!(link.tls, Spoken::Never) {
                        greeted.get_or_insert_with(Instant::now);
                    }
                }
                BackStep::StartTls => {
                    let secured = timeout_at(connect_deadline, link.begin_tls(&mut stream, host)).await;
                    secured.map_err(|_| too_slow_to_greet(started))??;
                    event = Some(BackEvent::TlsUp);
                }
                BackStep::Done(welcome) => {
                    let greeted = greeted.unwrap_or(started);
                    return Ok(Done {
                        address,
                        welcome,
                        rest: back.take_rest(),
                        connect_took: greeted - started,
                        answer_took: greeted.elapsed(),
                        stream,
                    });
                }
                BackStep::BadCredentials => return Err(Trouble::BadCredentials),
                BackStep::Passed(text) => return Err(Trouble::Passed(text)),
                BackStep::Fault(fault @ BackFault::Unavailable(_)) => return Err(Trouble::Busy(fault.to_string())),
                BackStep::Fault(fault @ BackFault::Loop) => return Err(Trouble::Loop(fault.to_string())),
                BackStep::Fault(fault @ (BackFault::NoMechanism | BackFault::NotUnderstood | BackFault::WantsTls)) => {
                    return Err(Trouble::Unfit(fault.to_string()));
                }
                BackStep::Fault(fault) => return Err(at_fault(greeted, fault.to_string())),
            }
        }
    }
}

/// What went wrong before the request was taken is the host's fault; behind that, it may be the request's.
fn at_fault(greeted: Option<Instant>, reason: String) -> Trouble {
    if greeted.is_some() { Trouble::Unanswered(reason) } else { Trouble::Down(reason) }
}

fn too_slow_to_greet(started: Instant) -> Trouble {
    Trouble::Down(format!("no greeting within {}", seconds(started.elapsed())))
}

pub(super) fn seconds(duration: Duration) -> String {
    format!("{:.1}s", duration.as_secs_f64())
}
