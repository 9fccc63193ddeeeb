//! Traces of log-ins, as the configuration describes them.

use hyper::Uri;

use super::problem::NamedFile;
use super::reader::Table;
use super::trust::{Trust, is_exposed};

section! {
    pub(crate) struct Traces: "traces", "[traces]", "Sends traces of log-ins to a collector that takes OpenTelemetry's protocol (OTLP over HTTP, as JSON). They name neither users nor clients. Left out: none are made.";
    url: Uri, "The collector, such as \"http://127.0.0.1:4318\"; traces go to /v1/traces there.";
    one_in: u32 = 1, "Trace one log-in in this many.";
    token_file: Option<NamedFile>, "The file whose first line the collector wants as a bearer token.";
    ca: Option<NamedFile>, "Authorities for the collector's certificate, PEM. Default: the system's.";
    => check;
}

impl Traces {
    /// Which collector is believed to be the one.
    #[cfg_attr(not(feature = "traces"), expect(dead_code, reason = "nobody makes any then"))]
    pub(crate) fn trust(&self) -> Trust {
        Trust::By(self.ca.clone())
    }
}

fn check(read: &Traces, table: &Table<'_>) {
    if !cfg!(feature = "traces") {
        table.problem("this Gatepost was built without traces (the feature `traces`)");
    }
    if read.token_file.is_some() && is_exposed(&read.url) {
        table.problem_with(&Traces::url, "http: whoever is on the path could read the token; use https");
    }
    if read.one_in == 0 {
        table.problem_with(&Traces::one_in, "is at least 1: leave the section out where no traces are wanted");
    }
}
