//! Tables for people: columns as wide as what stands in them, and colours on a terminal.

use std::io::IsTerminal as _;

/// Wider than this, a cell is cut: names can be of any length.
const CELL_CHARS_MAX: usize = 60;

/// A table being filled.
pub(super) struct Table {
    head: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new(head: &[&'static str]) -> Self {
        Self { head: head.to_vec(), rows: Vec::new() }
    }

    /// Adds a row. What stands in it may have come from anywhere: a terminal must not obey it.
    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(|cell| shorten(&printable(&cell))).collect());
    }

    /// Prints it. Without rows, says so instead of showing an empty head.
    pub(super) fn print(&self, nothing: &str) {
        if self.rows.is_empty() {
            say_line!("{nothing}");
            return;
        }
        let is_coloured = is_coloured();
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
            cells.chain([self.head[column].len()]).max().unwrap_or(0)
        };
        let widths: Vec<_> = (0..self.head.len()).map(width).collect();
        let line = |cells: &[String], paint: &dyn Fn(&str) -> Option<&'static str>| {
            let mut line = String::new();
            for (n, (cell, width)) in cells.iter().zip(&widths).enumerate() {
                let is_last = n + 1 == cells.len();
                let padding = if is_last { 0 } else { width + 2 - cell.chars().count() };
                match paint(cell).filter(|_| is_coloured) {
                    Some(colour) => line.extend(["\x1b[", colour, "m", cell, "\x1b[0m"]),
                    None => line.push_str(cell),
                }
                line.push_str(&" ".repeat(padding));
            }
            line
        };
        let head: Vec<_> = self.head.iter().map(|word| (*word).to_owned()).collect();
        say_line!("{}", line(&head, &|_| Some("1")));
        for row in &self.rows {
            say_line!("{}", line(row, &colour_of));
        }
    }
}

/// The colour of a word that says how something is.
fn colour_of(word: &str) -> Option<&'static str> {
    match word {
        "up" | "good" => Some("32"),
        "draining" | "expiring" | "maint" => Some("33"),
        "down" | "expired" => Some("31"),
        _ => None,
    }
}

/// Whether standard output is a terminal whose owner wants colours (<https://no-color.org>).
fn is_coloured() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// What a peer said may hold anything; a terminal must not.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

fn shorten(cell: &str) -> String {
    if cell.chars().count() <= CELL_CHARS_MAX {
        return cell.to_owned();
    }
    cell.chars().take(CELL_CHARS_MAX - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_short_and_printable() {
        assert_eq!(shorten(&"é".repeat(100)).chars().count(), CELL_CHARS_MAX);
        assert_eq!(printable("a\x1b[2J\r\n"), "a?[2J??");
    }
}
