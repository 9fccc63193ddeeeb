//! Asking servers over HTTP and HTTPS, on connections that are kept.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::{Request, Response, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::ClientConfig;
use tokio::time::timeout;

use crate::config::{NamedFile, Problem};
use crate::secret_file;

/// What of an answer's body is read.
const BODY_BYTES_MAX: usize = 256 * 1024;
/// What of an answer's headers is read.
const HEADER_BYTES_MAX: usize = 64 * 1024;
/// A connection that is not used for so long is closed.
const IDLE_TIME: Duration = Duration::from_secs(30);

/// See the module's documentation.
pub(crate) struct HttpClient {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    timeout: Duration,
}

impl HttpClient {
    /// `connections` are kept while nothing is asked; an answer may take `timeout`, with connecting.
    pub(crate) fn new(tls: &ClientConfig, connections: u32, timeout: Duration) -> Self {
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(tls.clone()).https_or_http().enable_http1().build();
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIME)
            .pool_max_idle_per_host(connections as usize)
            .http1_title_case_headers(true)
            .http1_max_buf_size(HEADER_BYTES_MAX)
            .build(connector);
        Self { client, timeout }
    }

    /// Sends a request, and gives the answer with its body; an error says why there is none. Redirections
    /// are not followed.
    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response<Bytes>, String> {
        let exchange = async {
            let response = self.client.request(request).await.map_err(|error| with_causes(&error))?;
            let (head, body) = response.into_parts();
            // Read to its end, so that the connection can be used again.
            let body = Limited::new(body, BODY_BYTES_MAX).collect().await.map_err(|error| error.to_string())?;
            Ok::<_, String>(Response::from_parts(head, body.to_bytes()))
        };
        let late = || format!("no answer within {}", humantime::format_duration(self.timeout));
        timeout(self.timeout, exchange).await.unwrap_or_else(|_| Err(late()))
    }
}

/// A file's token, as requests show it.
pub(crate) fn read_bearer(file: &NamedFile) -> Result<HeaderValue, Problem> {
    // Whoever else can read it is said with all such files.
    let token = secret_file::read(file, &mut Vec::new())?;
    let mut pass = HeaderValue::from_bytes(&[b"Bearer ", token.expose()].concat())
        .map_err(|_| file.problem("holds a token with characters that no header can have"))?;
    pass.set_sensitive(true);
    Ok(pass)
}

/// A request that brings JSON to this path of a server, which goes in front of it.
pub(crate) fn post_json(
    server: &Uri,
    path: &str,
    pass: Option<&HeaderValue>,
    body: &Bytes,
) -> Result<Request<Full<Bytes>>, String> {
    let url = format!("{}{path}", server.to_string().trim_end_matches('/'));
    let mut request = Request::post(url).header(CONTENT_TYPE, "application/json");
    if let Some(pass) = pass {
        request = request.header(AUTHORIZATION, pass.clone());
    }
    request.body(Full::new(body.clone())).map_err(|error| error.to_string())
}

/// An error with what caused it, which is where the reason stands.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
