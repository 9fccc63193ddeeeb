//! Forms that were posted. One that changes something reaches no handler before it is known to come from a page of ours.

use std::sync::Arc;

use axum::Form;
use axum::extract::{FromRequest, FromRequestParts as _, Request};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use super::{App, Page, Problem, Trouble, Visitor, explain_problem};
use crate::admin::http::gate::Asker;

/// A form of somebody who is logged in, from a page that was made for them.
pub(super) struct Posted {
    pub(super) asker: Asker,
    pub(super) said: Said,
}

/// What a form said, by name.
pub(super) struct Said(pub(super) Vec<(String, String)>);

impl Said {
    pub(super) fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value.as_str())
    }

    /// As [`Said::get`], of what can neither begin nor end in a blank: a name, a network.
    pub(super) fn name(&self, name: &str) -> String {
        self.get(name).trim().to_owned()
    }

    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

impl FromRequest<Arc<App>> for Said {
    type Rejection = Response;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Response> {
        let form = Form::from_request(request, app).await;
        form.map(|Form(fields)| Self(fields)).map_err(IntoResponse::into_response)
    }
}

impl FromRequest<Arc<App>> for Posted {
    type Rejection = Response;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Response> {
        let (mut parts, body) = request.into_parts();
        let Visitor(asker) = Visitor::from_request_parts(&mut parts, app).await?;
        let said = Said::from_request(Request::from_parts(parts, body), app).await?;
        asker.proves(said.get("proof")).map_err(|problem| Trouble(problem).into_response())?;
        Ok(Self { asker, said })
    }
}

impl Posted {
    /// Says that the form asks for nothing that its page can do.
    pub(super) async fn refuse(&self, app: &App, page: &str) -> Page {
        let problem = Problem::new(StatusCode::BAD_REQUEST, "this form asks for nothing that can be done");
        explain_problem(app, &self.asker, &problem, page).await
    }
}
