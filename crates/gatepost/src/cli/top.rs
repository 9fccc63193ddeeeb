//! `gatepost top`: a screen of what is going on, once a second.

use std::collections::HashMap;
use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use ratatui::Frame;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize as _};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Cell, Paragraph, Row, Sparkline, Table};
use serde::de::DeserializeOwned;

use super::Failure;
use super::server::Server;
use super::table::printable;
use crate::admin::answers::{Backend, Live, Sample, Session, Status};
use crate::admin::human::{bytes, figure, time};
use crate::admin::{Command, Whose};
use crate::config::Problem;

/// How often it is asked.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long a key may wait.
const KEY_TIME: Duration = Duration::from_millis(100);
/// Sessions beyond this are not looked at one by one: asking for them would cost more than it tells.
const SESSIONS_LOOKED_AT_MAX: usize = 20_000;

/// How high a chart is for a sample.
type Height = fn(&Sample) -> f64;

/// What was answered last.
#[derive(Default)]
struct Screen {
    status: Status,
    live: Live,
    backends: Vec<Backend>,
    sessions: Vec<Busy>,
    /// Bytes of each session when it was asked last.
    before: HashMap<String, u64>,
    asked: Option<Instant>,
    /// When that was: an answer may have failed since.
    looked: Option<Instant>,
    problem: Option<String>,
}

/// A session and what it moves.
struct Busy {
    user: String,
    service: String,
    backend: String,
    client: String,
    state: String,
    total: u64,
    per_second: u64,
}

/// Shows the screen until `q`.
pub(super) fn run(server: &Server<'_>) -> Result<(), Failure> {
    if !std::io::stdout().is_terminal() {
        let what = "needs a terminal: `gatepost status`, `sessions` and `metrics` answer anywhere";
        return Err(Problem::of("top", what).into());
    }
    let mut screen = Screen::default();
    // Without an answer there is nothing to show: said in words, on the terminal as it is.
    screen.refresh(server)?;
    let mut terminal = ratatui::init();
    let result = loop {
        if let Err(error) = terminal.draw(|frame| screen.draw(frame)) {
            break Err(error);
        }
        match wants_to_end() {
            Ok(true) => break Ok(()),
            Ok(false) => {}
            Err(error) => break Err(error),
        }
        if screen.asked.is_none_or(|at| at.elapsed() >= INTERVAL) {
            // It may be restarting: what was known stays on the screen.
            screen.problem = screen.refresh(server).err().map(|failure| match failure {
                Failure::Problems(problems) => printable(&problems.to_string()),
                Failure::Silent => String::new(),
            });
        }
    };
    ratatui::restore();
    Ok(result.map_err(|error| Problem::of("top", error.to_string()))?)
}

/// Waits for a key, shortly; whether it was one to end by.
fn wants_to_end() -> std::io::Result<bool> {
    if !event::poll(KEY_TIME)? {
        return Ok(false);
    }
    Ok(match event::read()? {
        Event::Key(key) if key.kind == KeyEventKind::Press => {
            let is_interrupt = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
            is_interrupt || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc)
        }
        _ => false,
    })
}

/// The item of an answer that has one.
fn one<T: Default + DeserializeOwned>(server: &Server<'_>, command: &Command) -> Result<T, Failure> {
    Ok(server.items(command)?.pop().unwrap_or_default())
}

/// A rate of bytes, whole.
fn rounded(value: f64) -> u64 {
    format!("{:.0}", value.max(0.0)).parse().unwrap_or(0)
}

impl Screen {
    fn refresh(&mut self, server: &Server<'_>) -> Result<(), Failure> {
        self.asked = Some(Instant::now());
        self.status = one(server, &Command::Status)?;
        self.live = one(server, &Command::Live)?;
        self.backends = server.items(&Command::Backends)?;
        if self.status.sessions > SESSIONS_LOOKED_AT_MAX {
            self.sessions.clear();
            self.before.clear();
            return Ok(());
        }
        let sessions: Vec<Session> = server.items(&Command::Sessions(Whose::default()))?;
        let passed = self.looked.map_or(INTERVAL, |at| at.elapsed());
        let millis = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX).max(1);
        let mut now = HashMap::new();
        let busy = |session: Session| {
            let total = session.bytes_up + session.bytes_down;
            let fresh = total.saturating_sub(self.before.get(&session.id).copied().unwrap_or(total));
            now.insert(session.id, total);
            Busy {
                user: printable(&session.user.unwrap_or_default()),
                service: printable(&session.service),
                backend: printable(&session.backend.unwrap_or_default()),
                client: printable(&session.client),
                state: printable(&session.state),
                total,
                per_second: fresh.saturating_mul(1000) / millis,
            }
        };
        let mut sessions: Vec<_> = sessions.into_iter().map(busy).collect();
        sessions.sort_by_key(|session| std::cmp::Reverse((session.per_second, session.total)));
        self.sessions = sessions;
        self.before = now;
        self.looked = Some(Instant::now());
        Ok(())
    }

    fn draw(&self, frame: &mut Frame<'_>) {
        let rows = u16::try_from(self.backends.len()).unwrap_or(u16::MAX).clamp(1, 8) + 3;
        let areas = Layout::vertical([
            Constraint::Length(2),
            Constraint::Length(6),
            Constraint::Length(rows),
            Constraint::Min(3),
            Constraint::Length(1),
        ])
        .split(frame.area());
        frame.render_widget(self.head(), areas[0]);
        self.draw_charts(frame, areas[1]);
        frame.render_widget(self.backends(), areas[2]);
        frame.render_widget(self.busiest(), areas[3]);
        let foot = self.problem.as_ref().map_or_else(|| "q ends".dim(), |problem| problem.clone().red());
        frame.render_widget(Paragraph::new(foot), areas[4]);
    }

    fn head(&self) -> Paragraph<'static> {
        let (status, live) = (&self.status, &self.live);
        let name = Line::from(vec![
            Span::from("Gatepost ").bold(),
            Span::from(printable(&status.name)).bold(),
            Span::from(format!("  {}  up {}", printable(&status.version), time(status.up_seconds))).dim(),
        ]);
        let numbers = format!(
            "{} sessions   {:.1} log-ins/s   {:.1} failed/s   {}/s up   {}/s down   {} threads {:.0} % at work",
            live.sessions,
            live.logins_per_second,
            live.failures_per_second,
            bytes(live.bytes_up_per_second),
            bytes(live.bytes_down_per_second),
            live.workers,
            live.busy * 100.0,
        );
        Paragraph::new(vec![name, Line::from(numbers)])
    }

    fn draw_charts(&self, frame: &mut Frame<'_>, area: Rect) {
        // A chart has whole numbers: what is less than one a second would be nothing.
        let charts: [(&str, Height); 3] = [
            ("Sessions", |sample| sample.sessions),
            ("Log-ins/s", |sample| sample.logins * 10.0),
            ("Bytes down/s", |sample| sample.bytes_down),
        ];
        let areas = Layout::horizontal([Constraint::Ratio(1, 3); 3]).split(area);
        let history = &self.live.history;
        for ((title, height), area) in charts.into_iter().zip(areas.iter()) {
            // The latest that have room.
            let room = usize::from(area.width.saturating_sub(2));
            let values = history.iter().skip(history.len().saturating_sub(room));
            let values: Vec<u64> = values.map(|sample| rounded(height(sample))).collect();
            let chart = Sparkline::default().data(&values).style(Style::new().fg(Color::Cyan));
            frame.render_widget(chart.block(Block::bordered().title(title)), *area);
        }
    }

    fn backends(&self) -> Table<'static> {
        let row = |backend: &Backend| {
            let state = printable(&backend.state);
            let colour = match state.as_str() {
                "up" => Color::Green,
                "down" => Color::Red,
                _ => Color::Yellow,
            };
            let faults: Vec<_> = backend.hosts.iter().filter_map(|host| host.fault.as_deref().map(printable)).collect();
            Row::new([
                Cell::from(printable(&backend.name)),
                Cell::from(state).style(Style::new().fg(colour)),
                Cell::from(backend.connections.to_string()),
                Cell::from(faults.join("; ")),
            ])
        };
        let rows: Vec<_> = self.backends.iter().map(row).collect();
        let widths = [Constraint::Length(20), Constraint::Length(9), Constraint::Length(11), Constraint::Min(10)];
        table(rows, &widths, &["Back end", "State", "Connections", "What is wrong"], "Back ends")
    }

    fn busiest(&self) -> Table<'static> {
        let row = |busy: &Busy| {
            Row::new([
                busy.user.clone(),
                busy.service.clone(),
                busy.backend.clone(),
                busy.client.clone(),
                busy.state.clone(),
                format!("{}/s", bytes(figure(busy.per_second))),
                bytes(figure(busy.total)),
            ])
        };
        let rows: Vec<_> = self.sessions.iter().take(200).map(row).collect();
        let widths = [
            Constraint::Min(16),
            Constraint::Length(10),
            Constraint::Length(16),
            Constraint::Length(24),
            Constraint::Length(7),
            Constraint::Length(12),
            Constraint::Length(10),
        ];
        let is_too_many = self.status.sessions > SESSIONS_LOOKED_AT_MAX;
        let title = if is_too_many { "Sessions: too many to look at each" } else { "Busiest sessions" };
        table(rows, &widths, &["User", "Service", "Back end", "Client", "State", "Now", "In all"], title)
    }
}

fn table(rows: Vec<Row<'static>>, widths: &[Constraint], head: &[&'static str], title: &'static str) -> Table<'static> {
    let head = Row::new(head.to_vec()).style(Style::new().add_modifier(Modifier::BOLD));
    Table::new(rows, widths.to_vec()).header(head).block(Block::bordered().title(title))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::answers::Host;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    #[test]
    fn the_screen_shows_what_is_known_in_any_size() {
        let busy = Busy {
            user: "kim".into(),
            service: "imap".into(),
            backend: "store-a".into(),
            client: "192.0.2.7:5".into(),
            state: "open".into(),
            total: 4096,
            per_second: 1024,
        };
        let moment = |n: u32| Sample { sessions: n.into(), logins: 0.5, bytes_down: 1e9, ..Sample::default() };
        let host =
            Host { service: "imap".into(), host: "a".into(), state: "down".into(), fault: Some("refused".into()) };
        let backend = Backend { name: "store-a".into(), state: "down".into(), connections: 3, hosts: vec![host] };
        let screen = Screen {
            status: Status { name: "mail.example.org".into(), up_seconds: 90, sessions: 7, ..Status::default() },
            live: Live {
                sessions: 7,
                workers: 2,
                busy: 0.5,
                logins_per_second: 1.5,
                history: (0..300).map(moment).collect(),
                ..Live::default()
            },
            backends: vec![backend],
            sessions: vec![busy],
            ..Screen::default()
        };
        for (width, height) in [(120, 40), (40, 10), (10, 3), (1, 1)] {
            let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
            terminal.draw(|frame| screen.draw(frame)).expect("drawn");
            let shown = terminal.backend().to_string();
            if width == 120 {
                for words in
                    ["mail.example.org", "7 sessions", "1.5 log-ins/s", "store-a", "refused", "kim", "1.0 KiB/s"]
                {
                    assert!(shown.contains(words), "{words}: {shown}");
                }
            }
        }
    }
}
