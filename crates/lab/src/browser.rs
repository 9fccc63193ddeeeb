//! A real browser, driven as a person would: Debian's Chromium by its driver (`WebDriver`, W3C).

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::apt::python_environment;
use crate::ports::free_port;
use crate::process::{Process, wait_for_port};
use crate::{Result, context};

/// A browser with one window. Dropped, it ends.
#[derive(Debug)]
pub struct Browser {
    _driver: Process,
    port: u16,
    session: String,
}

/// How a page is looked at.
#[derive(Debug, Clone, Copy)]
pub struct View {
    /// The window's width and height.
    pub size: (u32, u32),
    /// The reader prefers dark pages.
    pub is_dark: bool,
}

impl Browser {
    /// Starts one, whose files are in `folder`.
    pub fn start(folder: &Path) -> Result<Self> {
        let port = free_port()?;
        let log = folder.join("chromedriver.log");
        let driver = Process::start(Path::new("chromedriver"), &[&format!("--port={port}")], &log, false)?;
        wait_for_port(port, Duration::from_secs(20))?;
        let profile = folder.join("chromium");
        let arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",
            &format!("--user-data-dir={}", profile.display()),
        ];
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome",
            "unhandledPromptBehavior": "accept",
            "goog:chromeOptions": { "binary": "/usr/bin/chromium", "args": arguments },
            "goog:loggingPrefs": { "browser": "ALL" },
        } } });
        let mut browser = Self { _driver: driver, port, session: String::new() };
        let answer = browser.ask("POST", "/session", &wanted)?;
        let session = answer["sessionId"].as_str().ok_or_else(|| format!("no session: {answer}"))?;
        session.clone_into(&mut browser.session);
        Ok(browser)
    }

    /// Has the driver do something.
    fn ask(&self, method: &str, path: &str, body: &Value) -> Result<Value> {
        let body = if method == "GET" { String::new() } else { body.to_string() };
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
             Connection: close\r\n\r\n{body}",
            body.len()
        );
        let exchange = || {
            let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
            stream.set_read_timeout(Some(Duration::from_mins(1)))?;
            stream.write_all(request.as_bytes())?;
            let mut head = Vec::new();
            // The driver may leave the connection open: its answer says how long it is.
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte)? > 0 {
                head.push(byte[0]);
            }
            let head = String::from_utf8_lossy(&head).to_lowercase();
            let length =
                head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
            let mut body = vec![0; length.unwrap_or(0)];
            stream.read_exact(&mut body)?;
            Ok::<_, std::io::Error>(body)
        };
        let answer = context(exchange(), "chromedriver")?;
        let answer: Value = context(serde_json::from_slice(&answer), "chromedriver")?;
        match answer["value"]["error"].as_str() {
            Some(error) => Err(format!("{path}: {error}: {}", answer["value"]["message"])),
            None => Ok(answer["value"].clone()),
        }
    }

    fn command(&self, method: &str, path: &str, body: &Value) -> Result<Value> {
        self.ask(method, &format!("/session/{}{path}", self.session), body)
    }

    /// Goes to a page and waits until it is loaded.
    pub fn go(&self, url: &str) -> Result<()> {
        self.command("POST", "/url", &json!({ "url": url })).map(drop)
    }

    /// Where it is.
    pub fn url(&self) -> Result<String> {
        Ok(self.command("GET", "/url", &Value::Null)?.as_str().unwrap_or_default().to_owned())
    }

    /// What a script of one expression gives.
    pub fn evaluate(&self, expression: &str) -> Result<Value> {
        self.run(&format!("return ({expression})"))
    }

    /// Runs a script in the page; what it returns, once that is there.
    pub fn run(&self, script: &str) -> Result<Value> {
        self.command("POST", "/execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// The text of the page, as a person sees it.
    pub fn text(&self) -> Result<String> {
        Ok(self.evaluate("document.body.innerText")?.as_str().unwrap_or_default().to_owned())
    }

    fn find(&self, selector: &str) -> Result<String> {
        let found = self.command("POST", "/element", &json!({ "using": "css selector", "value": selector }))?;
        let id = found.as_object().and_then(|found| found.values().next()).and_then(Value::as_str);
        id.map(str::to_owned).ok_or_else(|| format!("{selector}: nothing there"))
    }

    /// Clicks the first thing that a CSS selector finds; opens what it is folded into.
    pub fn click(&self, selector: &str) -> Result<()> {
        self.unfold(selector)?;
        let id = self.find(selector)?;
        self.command("POST", &format!("/element/{id}/click"), &json!({})).map(drop)
    }

    /// Types a text into a field, in the place of what is there; of a list, chooses it.
    pub fn fill(&self, selector: &str, text: &str) -> Result<()> {
        self.unfold(selector)?;
        let is_choice = self.evaluate(&format!("document.querySelector({selector:?})?.tagName === 'SELECT'"))?;
        if is_choice == true {
            let script =
                format!("const it = document.querySelector({selector:?}); it.value = {text:?}; return it.value");
            let chosen = self.run(&script)?;
            return if chosen == text { Ok(()) } else { Err(format!("{selector}: there is no choice {text:?}")) };
        }
        let id = self.find(selector)?;
        self.command("POST", &format!("/element/{id}/clear"), &json!({}))?;
        self.command("POST", &format!("/element/{id}/value"), &json!({ "text": text })).map(drop)
    }

    fn unfold(&self, selector: &str) -> Result<()> {
        let script = format!(
            "for (let it = document.querySelector({selector:?}); it; it = it.parentElement) if (it.tagName === 'DETAILS') it.open = true"
        );
        self.run(&script).map(drop)
    }

    /// Shows pages as somebody with this window and this taste would see them.
    pub fn view(&self, view: View) -> Result<()> {
        let View { size: (width, height), is_dark } = view;
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.developer("Emulation.setDeviceMetricsOverride", &metrics)?;
        let scheme = if is_dark { "dark" } else { "light" };
        self.developer(
            "Emulation.setEmulatedMedia",
            &json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] }),
        )
    }

    /// A picture of the whole page, as PNG in base64.
    pub fn picture(&self) -> Result<String> {
        let whole = json!({ "cmd": "Page.captureScreenshot", "params": { "captureBeyondViewport": true } });
        let taken = self.command("POST", "/goog/cdp/execute", &whole)?;
        taken["data"].as_str().map(str::to_owned).ok_or_else(|| format!("no picture: {taken}"))
    }

    fn developer(&self, command: &str, params: &Value) -> Result<()> {
        self.command("POST", "/goog/cdp/execute", &json!({ "cmd": command, "params": params })).map(drop)
    }

    /// What the browser complained of since it was last asked.
    pub fn complaints(&self) -> Result<Vec<String>> {
        let log = self.command("POST", "/se/log", &json!({ "type": "browser" }))?;
        let grave = log.as_array().into_iter().flatten().filter(|entry| entry["level"] == "SEVERE");
        Ok(grave.map(|entry| entry["message"].to_string()).collect())
    }

    /// What axe, which knows the rules of WCAG, finds wrong with the page.
    pub fn accessibility(&self) -> Result<Vec<String>> {
        let axe = context(std::fs::read_to_string(axe(true)?), "axe")?;
        // The page's own policy lets no foreign script in; the driver's are not bound by it.
        self.run(&axe)?;
        let script = "const done = arguments[arguments.length - 1]; axe.run().then(found => done(found.violations.map(\
                      found => found.id + ': ' + found.help + ': ' + found.nodes.map(node => node.html).join(' | '))))";
        let found = self.command("POST", "/execute/async", &json!({ "script": script, "args": [] }))?;
        Ok(found.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect())
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Its processes go with the driver, which this ends in good order.
        let _ = self.command("DELETE", "", &Value::Null);
    }
}

/// The script of axe-core, from a package of Python's.
fn axe(may_install: bool) -> Result<PathBuf> {
    let folder = python_environment("axe-core-python", "0.1.0", may_install)?;
    let mut command = Command::new(folder.join("bin/python"));
    command.args(["-c", "import axe_core_python, os; print(os.path.dirname(axe_core_python.__file__))"]);
    let output = context(command.output(), "python")?;
    Ok(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()).join("axe.min.js"))
}

/// Sees to it that what a browser test needs beside Debian's packages is there.
pub fn ensure_browser_tools(may_install: bool) -> Result<()> {
    axe(may_install).map(drop)
}
