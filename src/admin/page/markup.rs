//! HTML in which text is always escaped: there is no way to add a string as markup but a literal.

use crate::kernel::clock::UnixMs;
use crate::webhook::scheme::print_rfc3339;

/// A page in the making.
#[derive(Default)]
pub(super) struct Html(String);

impl Html {
    /// Markup of our own, known when this was compiled.
    pub(super) fn raw(&mut self, markup: &'static str) -> &mut Self {
        self.0.push_str(markup);
        self
    }

    /// Anybody's text, good between tags and between double quotes.
    pub(super) fn text(&mut self, text: &str) -> &mut Self {
        for c in text.chars() {
            match c {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                '\n' | '\t' => self.0.push(c),
                // Invisible, and some turn the line around.
                c if c.is_control() || is_directional(c) => self.0.push('\u{fffd}'),
                c => self.0.push(c),
            }
        }
        self
    }

    /// ` name="value"`.
    pub(super) fn attribute(&mut self, name: &'static str, value: &str) -> &mut Self {
        self.raw(" ").raw(name).raw("=\"").text(value).raw("\"")
    }

    /// A cell with a text; a stranger's, so its direction stays in it.
    pub(super) fn cell(&mut self, text: &str) -> &mut Self {
        self.raw("<td><bdi>").text(text).raw("</bdi></td>")
    }

    /// A cell with a number.
    pub(super) fn number(&mut self, number: u64) -> &mut Self {
        self.raw("<td class=\"number\">")
            .text(&number.to_string())
            .raw("</td>")
    }

    /// A cell with a moment, or nothing.
    pub(super) fn moment(&mut self, at: Option<UnixMs>) -> &mut Self {
        let Some(at) = at else {
            return self.raw("<td></td>");
        };
        let text = print_rfc3339(at);
        self.raw("<td><time")
            .attribute("datetime", &text)
            .raw(">")
            .text(&text)
            .raw("</time></td>")
    }

    /// A row of headings.
    pub(super) fn head(&mut self, names: &[&'static str]) -> &mut Self {
        self.raw("<thead><tr>");
        for name in names {
            self.raw("<th scope=\"col\">").raw(name).raw("</th>");
        }
        self.raw("</tr></thead>")
    }

    /// A button that the script gives its work: a verb and the request that it plans.
    pub(super) fn button(&mut self, verb: &'static str, button: &Button<'_>) -> &mut Self {
        let (place, of) = (button.place, button.of.replace(char::is_whitespace, "_"));
        self.raw("<button type=\"button\" class=\"live-only\"")
            .attribute("id", &format!("{verb}-{place}-{of}"))
            .attribute("data-verb", verb)
            .attribute("data-request", button.request)
            .attribute("aria-label", &format!("{verb} {}", button.label))
            .raw(">")
            .raw(verb)
            .raw("</button> ")
    }

    pub(super) fn done(self) -> String {
        self.0
    }
}

/// What a button is for.
pub(super) struct Button<'a> {
    /// Where it is on the page: one entry may be in two lists.
    pub(super) place: &'static str,
    /// Whose it is; with the place and the verb its name, under which it gets the focus back.
    pub(super) of: &'a str,
    /// As people call it.
    pub(super) label: &'a str,
    pub(super) request: &'a str,
}

fn is_directional(c: char) -> bool {
    matches!(c, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Bytes for people.
pub(super) fn bytes(count: u64) -> String {
    match count {
        0..=9_999 => format!("{count} B"),
        10_000..=9_999_999 => format!("{} kB", count / 1_000),
        _ => format!("{} MB", count / 1_000_000),
    }
}

/// How long ago, for people.
pub(super) fn age(at: UnixMs, now: UnixMs) -> String {
    let s = now.0.saturating_sub(at.0).max(0) / 1_000;
    match s {
        0..=119 => format!("{s} s"),
        120..=7_199 => format!("{} min", s / 60),
        7_200..=172_799 => format!("{} h", s / 3_600),
        _ => format!("{} d", s / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::{Html, age, bytes};
    use crate::kernel::clock::UnixMs;

    #[test]
    fn text_never_becomes_markup() {
        let mut html = Html::default();
        html.attribute("title", "\" onload='x' <b>&\u{202e}\u{1b}[2J\0");
        assert_eq!(
            html.done(),
            " title=\"&quot; onload=&#39;x&#39; &lt;b&gt;&amp;\u{fffd}\u{fffd}[2J\u{fffd}\""
        );
    }

    #[test]
    fn figures_are_short() {
        assert_eq!(
            [bytes(0), bytes(12_345), bytes(98_765_432)],
            ["0 B", "12 kB", "98 MB"]
        );
        let ago = |s: i64| age(UnixMs(0), UnixMs(s * 1_000));
        assert_eq!(
            [ago(-5), ago(119), ago(600), ago(90_000), ago(864_000)],
            ["0 s", "119 s", "10 min", "25 h", "10 d"]
        );
    }
}
