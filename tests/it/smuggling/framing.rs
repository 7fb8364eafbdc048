//! Where a request ends: lengths, transfer codings, chunks, line ends.

use super::Expect::{BrokenOff, Normalised, Refused};
use super::{Case, case, run};

const OPEN: &str = "/open/{m}";
/// What is to be taken for a request of its own.
const HIDDEN: &str = "GET /open/hidden-{m} HTTP/1.1\r\nHost: localhost\r\n\r\n";

fn post(name: &'static str, framing: &str, body: &str, expect: super::Expect) -> Case {
    let bytes = format!("POST {OPEN} HTTP/1.1\r\nHost: localhost\r\n{framing}\r\n{body}");
    case(name, bytes, expect)
}

fn hiding(name: &'static str, framing: &str, expect: super::Expect) -> Case {
    post(name, framing, &format!("0\r\n\r\n{HIDDEN}"), expect)
}

fn te(name: &'static str, line: &str) -> Case {
    hiding(name, &format!("{line}\r\n"), Refused(400))
}

fn length(name: &'static str, lines: &str) -> Case {
    post(name, &format!("{lines}\r\n"), "abcd", Refused(400))
}

#[tokio::test]
async fn lengths_and_codings() {
    run(vec![
        hiding("CL.TE", "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n", Refused(400)),
        hiding("TE.CL", "Transfer-Encoding: chunked\r\nContent-Length: 6\r\n", Refused(400)),
        hiding("TE with CL 0", "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n", Refused(400)),
        hiding("TE with cOnTeNt-LeNgTh", "Transfer-Encoding: chunked\r\ncOnTeNt-LeNgTh: 5\r\n", Refused(400)),
        length("differing CLs", "Content-Length: 4\r\nContent-Length: 0"),
        length("identical CLs", "Content-Length: 4\r\nContent-Length: 4"),
        length("a list of CLs", "Content-Length: 4, 4"),
        length("a list that differs", "Content-Length: 4, 0"),
        length("CL +4", "Content-Length: +4"),
        length("CL 0x4", "Content-Length: 0x4"),
        length("CL -1", "Content-Length: -1"),
        length("CL 4.0", "Content-Length: 4.0"),
        length("CL 4e0", "Content-Length: 4e0"),
        length("CL 4_0", "Content-Length: 4_0"),
        length("CL with a word", "Content-Length: 4 bytes"),
        length("CL of nothing", "Content-Length: "),
        length("CL quoted", "Content-Length: \"4\""),
        length("CL overflow", "Content-Length: 18446744073709551620"),
        length("CL with a blank before the colon", "Content-Length : 4"),
        length("CL with a vertical tab", "Content-Length:\x0b4"),
        length("CL with NUL", "Content-Length: 4\0"),
        length("CL in full-width digits", "Content-Length: \u{ff14}"),
        te("gzip, chunked", "Transfer-Encoding: gzip, chunked"),
        te("chunked, gzip", "Transfer-Encoding: chunked, gzip"),
        te("chunked twice in a line", "Transfer-Encoding: chunked, chunked"),
        te("chunked on two lines", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"),
        te("identity", "Transfer-Encoding: identity"),
        te("identity before chunked", "Transfer-Encoding: identity, chunked"),
        te("xchunked", "Transfer-Encoding: xchunked"),
        te("chunkedx", "Transfer-Encoding: chunkedx"),
        te("chunked with a parameter", "Transfer-Encoding: chunked;q=1"),
        te("chunked quoted", "Transfer-Encoding: \"chunked\""),
        te("an empty coding first", "Transfer-Encoding: ,chunked"),
        te("nothing", "Transfer-Encoding: "),
        te("a blank before the colon", "Transfer-Encoding : chunked"),
        te("a vertical tab", "Transfer-Encoding:\x0bchunked"),
        te("a form feed", "Transfer-Encoding: \x0cchunked"),
        te("NUL", "Transfer-Encoding: chunked\0"),
        te("folded", "Transfer-Encoding:\r\n chunked"),
        te("folded into the line before", "X-A: b\r\n Transfer-Encoding: chunked"),
        te("a second one after a bare CR", "X-A: b\rTransfer-Encoding: chunked"),
        te("a second one after a bare LF", "X-A: b\nTransfer-Encoding: chunked"),
        case(
            "TE on HTTP/1.0",
            format!("POST {OPEN} HTTP/1.0\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{HIDDEN}"),
            Refused(400),
        ),
        // Not ambiguous.
        post("Chunked in capitals", "Transfer-Encoding: CHUNKED\r\n", "4\r\nabcd\r\n0\r\n\r\n", Normalised(OPEN, "abcd")),
        post("blanks around a length", "Content-Length: \t 4 \t\r\n", "abcd", Normalised(OPEN, "abcd")),
        post("no body", "", "", Normalised(OPEN, "")),
    ])
    .await;
}

fn chunks(name: &'static str, body: &str, expect: super::Expect) -> Case {
    post(name, "Transfer-Encoding: chunked\r\n", body, expect)
}

#[tokio::test]
async fn chunks_on_a_proxied_route() {
    let bad = BrokenOff(400);
    run(vec![
        chunks("a size of letters", "zz\r\nabcd\r\n0\r\n\r\n", bad),
        chunks("a size with 0x", "0x4\r\nabcd\r\n0\r\n\r\n", bad),
        chunks("a size with a plus", "+4\r\nabcd\r\n0\r\n\r\n", bad),
        chunks("a size with a minus", "-4\r\nabcd\r\n0\r\n\r\n", bad),
        // Pingora reads both of these, and writes what it understood in chunks of its own.
        chunks(
            "a size of nothing is the end",
            "\r\nabcd\r\n0\r\n\r\n",
            Normalised(OPEN, ""),
        ),
        chunks(
            "a size that overflows",
            "10000000000000004\r\nabcd\r\n0\r\n\r\n",
            bad,
        ),
        chunks(
            "a size that is negative when signed",
            "fffffffffffffffc\r\nabcd\r\n0\r\n\r\n",
            bad,
        ),
        chunks("a size line that ends in LF", "4\nabcd\r\n0\r\n\r\n", bad),
        chunks("a size line that ends in CR", "4\rabcd\r\n0\r\n\r\n", bad),
        chunks(
            "an extension with LF in it is dropped",
            "4;a\nb\r\nabcd\r\n0\r\n\r\n",
            Normalised(OPEN, "abcd"),
        ),
        chunks("no CRLF after the data", "4\r\nabcd0\r\n\r\n", bad),
        chunks("other bytes after the data", "4\r\nabcdXX0\r\n\r\n", bad),
        chunks("more data than the size", "2\r\nabcd\r\n0\r\n\r\n", bad),
        chunks(
            "extensions are dropped",
            "4;a=b\r\nabcd\r\n0;c\r\n\r\n",
            Normalised(OPEN, "abcd"),
        ),
        chunks(
            "leading zeros",
            "0004\r\nabcd\r\n000\r\n\r\n",
            Normalised(OPEN, "abcd"),
        ),
        chunks(
            "trailers are dropped",
            "4\r\nabcd\r\n0\r\nX-Maitred-Identity: {m}\r\nContent-Length: 9\r\n\r\n",
            Normalised(OPEN, "abcd"),
        ),
        chunks(
            "what comes after the end is nothing",
            &format!("4\r\nabcd\r\n0\r\n\r\n{HIDDEN}"),
            Normalised(OPEN, "abcd"),
        ),
        chunks("the end never comes", "4\r\nabcd\r\n", BrokenOff(408)),
    ])
    .await;
}

/// Here the edge reads the body itself, so that not even a header goes on.
#[tokio::test]
async fn chunks_of_a_webhook() {
    let hook = |name: &'static str, body: &str| {
        let head = "POST /webhooks/billing HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nX-Marker: {m}\r\n\r\n";
        case(name, format!("{head}{body}"), Refused(400))
    };
    run(vec![
        hook("a size of letters", "zz\r\n{m}\r\n0\r\n\r\n"),
        hook("a size with 0x", "0x4\r\n{m}\r\n0\r\n\r\n"),
        hook("a size line that ends in LF", "4\n{m}\r\n0\r\n\r\n"),
        hook("no CRLF after the data", "4\r\nabcd{m}\r\n\r\n"),
        hook(
            "a size that overflows",
            "10000000000000004\r\n{m}\r\n0\r\n\r\n",
        ),
    ])
    .await;
}

fn lines(name: &'static str, bytes: &str, status: u16) -> Case {
    case(
        name,
        bytes.replace("{h}", "GET /open/{m} HTTP/1.1\r\nHost: localhost\r\n"),
        Refused(status),
    )
}

#[tokio::test]
async fn lines_and_fields() {
    run(vec![
        lines("a folded line", "{h}X-A: b\r\n c\r\n\r\n", 400),
        lines("a folded line with a tab", "{h}X-A: b\r\n\tc\r\n\r\n", 400),
        lines(
            "a folded first line",
            "GET /open/{m} HTTP/1.1\r\n Host: localhost\r\n\r\n",
            400,
        ),
        lines("a bare CR in a value", "{h}X-A: b\rc\r\n\r\n", 400),
        lines("a bare CR in a name", "{h}X-A\rB: c\r\n\r\n", 400),
        lines("NUL in a value", "{h}X-A: b\0c\r\n\r\n", 400),
        lines("NUL in a name", "{h}X-A\0: c\r\n\r\n", 400),
        lines("DEL in a value", "{h}X-A: b\x7fc\r\n\r\n", 400),
        lines("an escape in a value", "{h}X-A: b\x1b[2Jc\r\n\r\n", 400),
        lines("a bare LF between lines", "{h}X-A: b\nX-B: c\r\n\r\n", 400),
        lines(
            "bare LFs everywhere",
            "GET /open/{m} HTTP/1.1\nHost: localhost\n\n",
            400,
        ),
        lines("a bare LF at the end", "{h}X-A: b\r\n\n", 400),
        lines("no name", "{h}: b\r\n\r\n", 400),
        lines("no colon", "{h}X-A b\r\n\r\n", 400),
        lines("a blank before the colon", "{h}X-A : b\r\n\r\n", 400),
        lines(
            "a blank before the name",
            "{h}X-B: c\r\n X-A: b\r\n\r\n",
            400,
        ),
        lines("brackets in a name", "{h}X(A): b\r\n\r\n", 400),
        lines("a name that is not ASCII", "{h}X-\u{e9}: b\r\n\r\n", 400),
        lines(
            "more bytes than allowed",
            &format!("{{h}}X-A: {}\r\n\r\n", "a".repeat(9_000)),
            431,
        ),
        lines(
            "more names than allowed",
            &format!("{{h}}{}\r\n", "X-A: b\r\n".repeat(60)),
            431,
        ),
        lines(
            "more names than the parser takes",
            &format!("{{h}}{}\r\n", "X-A: b\r\n".repeat(300)),
            400,
        ),
        lines(
            "a header without end",
            &format!("{{h}}X-A: {}", "a".repeat(200_000)),
            0,
        ),
        lines("a header that stops", "{h}X-A: b", 0),
        lines(
            "a colon in a value is nothing",
            "{h}Host: localhost\r\n\r\n",
            400,
        ),
    ])
    .await;
}

#[tokio::test]
async fn requests_one_after_the_other() {
    let get = "GET /open/{m} HTTP/1.1\r\nHost: localhost\r\n";
    run(vec![
        // Pingora reads no second request before the first is answered, and then closes.
        case("a pipelined request", format!("{get}\r\n{HIDDEN}"), Normalised(OPEN, "")),
        case("one behind a body", format!("{get}Content-Length: 4\r\n\r\nabcd{HIDDEN}"), Normalised(OPEN, "abcd")),
        case("one behind HTTP/1.0", format!("GET {OPEN} HTTP/1.0\r\nHost: localhost\r\n\r\n{HIDDEN}"), Normalised(OPEN, "")),
        case("one behind a refusal", format!("GET /closed/{{m}} HTTP/1.1\r\nHost: localhost\r\n\r\n{HIDDEN}"), Refused(401)),
        case(
            "one in the body of a refusal",
            format!("POST /closed/{{m}} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 70\r\n\r\n{HIDDEN}"),
            Refused(401),
        ),
        case(
            "one in the body of an answer of our own",
            format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nabcde{HIDDEN}"),
            Refused(413),
        ),
        case(
            "one in the body of a 404",
            format!("POST /nothing-{{m}} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{HIDDEN}"),
            Refused(404),
        ),
    ])
    .await;
}
