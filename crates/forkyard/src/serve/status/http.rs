//! As much of HTTP/1.1 as one page needs: a request's first lines in, one response out, and goodbye.
//!
//! Pure functions over bytes; whatever a client sends, the result is a response or "not yet".

use std::net::SocketAddr;

/// Longest request head; a browser's is about 1 KiB.
pub(super) const LONGEST: usize = 8 * 1024;

/// What a client asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// The head is not complete yet.
    More,
    Page {
        body: bool,
    },
    Json {
        body: bool,
    },
    Refused(Refusal),
}

/// Why a client gets nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It does not speak HTTP.
    Garbage,
    NotFound,
    /// Only reading is possible.
    Method,
    /// It asked for another host by this address: a page of somebody else's, in a browser that was told a
    /// wrong address.
    Host,
    TooLong,
}

impl Refusal {
    fn status(self) -> &'static str {
        match self {
            Refusal::Garbage => "400 Bad Request",
            Refusal::Host => "403 Forbidden",
            Refusal::NotFound => "404 Not Found",
            Refusal::Method => "405 Method Not Allowed",
            Refusal::TooLong => "431 Request Header Fields Too Large",
        }
    }
}

/// Reads the head of a request, as far as it has come.
pub(super) fn read(bytes: &[u8], here: SocketAddr) -> Wanted {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        return if bytes.len() >= LONGEST { Wanted::Refused(Refusal::TooLong) } else { Wanted::More };
    };
    let Ok(head) = std::str::from_utf8(&bytes[..end]) else { return Wanted::Refused(Refusal::Garbage) };
    let mut lines = head.split("\r\n");
    let words: Vec<&str> = lines.next().unwrap_or_default().split(' ').collect();
    let [method, target, version] = words[..] else { return Wanted::Refused(Refusal::Garbage) };
    if !version.starts_with("HTTP/1.") {
        return Wanted::Refused(Refusal::Garbage);
    }
    let hosts = lines.filter_map(|line| line.split_once(':'));
    let mut hosts = hosts.filter(|(name, _)| name.eq_ignore_ascii_case("host")).map(|(_, host)| host.trim());
    if !hosts.all(|host| is_here(host, here)) {
        return Wanted::Refused(Refusal::Host);
    }
    let body = match method {
        "GET" => true,
        "HEAD" => false,
        _ => return Wanted::Refused(Refusal::Method),
    };
    match target.split('?').next() {
        Some("/" | "/index.html") => Wanted::Page { body },
        Some("/status.json") => Wanted::Json { body },
        _ => Wanted::Refused(Refusal::NotFound),
    }
}

/// True for a name of this machine's loopback.
fn is_here(host: &str, here: SocketAddr) -> bool {
    let name = host.strip_suffix(&format!(":{}", here.port())).unwrap_or(host);
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    name.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

/// A whole response.
pub(super) fn response(kind: &str, content: &[u8], body: bool) -> Vec<u8> {
    let mut bytes = head("200 OK", kind, content.len());
    if body {
        bytes.extend_from_slice(content);
    }
    bytes
}

/// The response to a request that is refused.
pub(super) fn refusal(refusal: Refusal) -> Vec<u8> {
    let text = format!("{}\n", refusal.status());
    let mut bytes = head(refusal.status(), "text/plain; charset=utf-8", text.len());
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

fn head(status: &str, kind: &str, len: usize) -> Vec<u8> {
    let allow = if status.starts_with("405") { "Allow: GET, HEAD\r\n" } else { "" };
    format!(
        "HTTP/1.1 {status}\r\n\
         Content-Type: {kind}\r\n\
         Content-Length: {len}\r\n\
         Connection: close\r\n\
         Cache-Control: no-store\r\n\
         X-Content-Type-Options: nosniff\r\n\
         X-Frame-Options: DENY\r\n\
         Referrer-Policy: no-referrer\r\n\
         Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
         connect-src 'self'; img-src data:\r\n\
         {allow}\r\n"
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::{LONGEST, Refusal, Wanted, read, refusal};

    fn wanted(text: &str) -> Wanted {
        read(text.as_bytes(), "127.0.0.1:80".parse().unwrap())
    }

    #[test]
    fn the_page_and_its_json_are_found() {
        assert_eq!(wanted("GET / HTTP/1.1\r\nHost: 127.0.0.1:80\r\n\r\n"), Wanted::Page { body: true });
        assert_eq!(wanted("HEAD /status.json?x HTTP/1.0\r\n\r\n"), Wanted::Json { body: false });
        assert_eq!(wanted("GET /x HTTP/1.1\r\n\r\n"), Wanted::Refused(Refusal::NotFound));
        assert_eq!(wanted("POST / HTTP/1.1\r\n\r\n"), Wanted::Refused(Refusal::Method));
    }

    #[test]
    fn half_a_request_is_waited_for_and_an_endless_one_is_not() {
        assert_eq!(wanted("GET / HTTP/1.1\r\nHost: localhost\r\n"), Wanted::More);
        assert_eq!(wanted(&"x".repeat(LONGEST)), Wanted::Refused(Refusal::TooLong));
    }

    #[test]
    fn other_hosts_are_refused() {
        for host in ["localhost", "localhost:80", "127.0.0.1", "[::1]:80", "127.1.2.3:80"] {
            assert_eq!(
                wanted(&format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n")),
                Wanted::Page { body: true }
            );
        }
        for host in ["example.org", "localhost.example.org:80", "10.0.0.1", ""] {
            let refused = wanted(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
            assert_eq!(refused, Wanted::Refused(Refusal::Host), "{host}");
        }
    }

    #[test]
    fn garbage_is_refused() {
        for text in ["\r\n\r\n", "GET\r\n\r\n", "GET / FTP\r\n\r\n", "a b c d\r\n\r\n", "\0\u{1}\r\n\r\n"] {
            assert_eq!(wanted(text), Wanted::Refused(Refusal::Garbage), "{text:?}");
        }
        assert_eq!(
            read(b"\xff\xfe\r\n\r\n", "127.0.0.1:80".parse().unwrap()),
            Wanted::Refused(Refusal::Garbage)
        );
        assert!(refusal(Refusal::Method).starts_with(b"HTTP/1.1 405"));
    }
}
