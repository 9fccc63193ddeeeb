//! The page of reports: what services did, drawn and in numbers.

use std::collections::BTreeMap;
use std::sync::Arc;

use askama::Template;
use axum::extract::{Query, State};
use axum::http::header;
use axum::response::IntoResponse as _;

use super::charts::{Chart, bars};
use super::frame::Frame;
use super::parts::Filter;
use super::{App, Page, Visitor, ask, render};
use crate::admin::answers::{Rejected, Report};
use crate::admin::human::{bytes, count, figure, rate};
use crate::admin::{Command, csv, defaults};

#[derive(Template)]
#[template(path = "reports.html")]
struct Reports {
    frame: Frame,
    by_hour: bool,
    days: u64,
    spans: [(u64, &'static str); 4],
    charts: Vec<Chart>,
    rows: Vec<ReportRow>,
}

struct ReportRow {
    from: String,
    service: String,
    connections: u64,
    logins: u64,
    failures: u64,
    peak: u64,
    up: String,
    down: String,
    rejected: String,
}

impl Filter {
    fn report(&self) -> (u64, bool) {
        (
            self.days.unwrap_or(defaults::REPORT_DAYS).clamp(1, defaults::REPORT_DAYS_MAX),
            self.by.as_deref() == Some("hour"),
        )
    }
}

pub(super) async fn reports(
    State(app): State<Arc<App>>,
    Visitor(asker): Visitor,
    Query(filter): Query<Filter>,
) -> Page {
    let frame = Frame::new(&app, &asker, "Reports", "/reports").await?;
    let (days, by_hour) = filter.report();
    let reports: Vec<Report> = ask(&app, &asker, Command::Report { days, by_day: !by_hour }).await?;
    // All services of a moment together, moments in their order.
    let mut moments: BTreeMap<&str, [f64; 5]> = BTreeMap::new();
    for Report { from, logins, failures, peak_sessions, bytes_down, bytes_up, .. } in &reports {
        let sums = moments.entry(from).or_default();
        let counts = [logins, failures, peak_sessions, bytes_down, bytes_up];
        sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += figure(*count));
    }
    let values = |first: usize, second: Option<usize>| {
        let value = |sums: &[f64; 5]| (sums[first], second.map_or(0.0, |second| sums[second]));
        moments.values().map(value).collect::<Vec<_>>()
    };
    let charts = vec![
        bars("logins", "Log-ins, and failed ones", &values(0, Some(1)), rate),
        bars("peaks", "Most sessions at once", &values(2, None), count),
        bars("traffic", "Bytes down, and up", &values(3, Some(4)), bytes),
    ];
    let row = |report: &Report| ReportRow {
        from: report.from.replace('T', " ").replace(":00Z", ""),
        service: report.service.clone(),
        connections: report.connections,
        logins: report.logins,
        failures: report.failures,
        peak: report.peak_sessions,
        up: bytes(figure(report.bytes_up)),
        down: bytes(figure(report.bytes_down)),
        rejected: report.rejected.iter().map(Rejected::to_string).collect::<Vec<_>>().join(", "),
    };
    let rows = reports.iter().rev().map(row).collect();
    let spans = [(1, "day"), (7, "7 days"), (30, "30 days"), (defaults::REPORT_DAYS_MAX, "90 days")];
    render(&Reports { frame, by_hour, days, spans, charts, rows })
}

/// The same for spreadsheets.
pub(super) async fn reports_csv(
    State(app): State<Arc<App>>,
    Visitor(asker): Visitor,
    Query(filter): Query<Filter>,
) -> Page {
    let (days, by_hour) = filter.report();
    let reports: Vec<Report> = ask(&app, &asker, Command::Report { days, by_day: !by_hour }).await?;
    let kind = [
        (header::CONTENT_TYPE, "text/csv; charset=utf-8"),
        (header::CONTENT_DISPOSITION, "attachment; filename=\"gatepost-report.csv\""),
    ];
    Ok((kind, csv(&reports)).into_response())
}
