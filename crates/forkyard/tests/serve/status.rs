//! The status page: right, robust, and readable in a real browser.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::support::{
    PATIENCE, Running, Spec, ask, children_of, connect, eventually, exchange, exists, kill,
};

fn start() -> (Running, SocketAddr) {
    let server = Running::start(&Spec { status: true, ..Spec::default() });
    let page = server.status.unwrap();
    (server, page)
}

fn try_get(page: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(page)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {page}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn get(page: SocketAddr, path: &str) -> (String, String) {
    let answer = try_get(page, path).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

fn json(page: SocketAddr) -> serde_json::Value {
    serde_json::from_str(&get(page, "/status.json").1).unwrap()
}

fn page_process(server: &Running) -> Option<u32> {
    let name = |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    children_of(server.pid()).into_iter().find(|pid| name(*pid).trim() == "forkyard-status")
}

#[test]
fn the_json_tells_what_the_server_does() {
    let (mut server, page) = start();
    let mut stream = connect(server.address());
    assert_eq!(ask(&mut stream, "a").unwrap(), "A");
    let from = stream.local_addr().unwrap().to_string();
    let busy = |stats: &serde_json::Value| stats["active"] == 1;
    server.wait_for("the connection", busy);
    let stats = json(page);
    assert_eq!(
        (&stats["accepted"], &stats["active"], &stats["mode"]),
        (&1.into(), &1.into(), &"process".into())
    );
    assert_eq!(stats["pid"], server.pid());
    assert_eq!(stats["listeners"][0], server.addresses[0].as_str());
    assert_eq!(stats["connections"][0]["peer"], from.as_str());
    let serving = stats["connections"][0]["pid"].as_u64().unwrap();
    kill(serving as u32, "-9");
    server.wait_for("its loss", |stats| stats["lost"] == 1);
    assert_eq!(json(page)["died"], serde_json::json!([[9, 1]]));
    server.stop();
    assert!(TcpStream::connect(page).is_err());
}

#[test]
fn what_is_not_there_or_not_allowed_is_refused() {
    let (server, page) = start();
    assert!(get(page, "/x").0.starts_with("HTTP/1.1 404"));
    let (head, body) = get(page, "/");
    assert!(head.contains("Content-Security-Policy: default-src 'none'") && body.contains("<!doctype html>"));
    let mut stream = connect(page);
    stream.write_all(b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    server.stop();
}

#[test]
fn clients_that_say_nothing_or_garbage_keep_nobody_waiting() {
    let (server, page) = start();
    let silent: Vec<_> = (0..100).map(|_| connect(page)).collect();
    for _ in 0..5 {
        let mut garbage = connect(page);
        garbage.write_all(&[0xFF; 20_000]).ok();
        let mut answer = Vec::new();
        let _ = garbage.read_to_end(&mut answer);
    }
    assert_eq!(json(page)["pid"], server.pid());
    assert_eq!(exchange(server.address(), "a\n"), "A\n");
    let dropped = |stream: &TcpStream| {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // The end, or a reset: one way or the other it is over.
        !matches!((&*stream).read(&mut [0]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
    };
    assert!(silent.iter().all(dropped), "dropped by deadline");
    server.stop();
}

#[test]
fn a_killed_page_comes_back_and_the_server_notices_nothing() {
    let (server, page) = start();
    let mut stream = connect(server.address());
    assert_eq!(ask(&mut stream, "a").unwrap(), "A");
    for _ in 0..3 {
        eventually("the page's process", || page_process(&server).is_some());
        let pid = page_process(&server).unwrap();
        kill(pid, "-9");
        eventually("its end", || !exists(pid));
        eventually("its return", || {
            try_get(page, "/status.json").is_ok_and(|answer| answer.contains("200 OK"))
        });
        assert_eq!(ask(&mut stream, "b").unwrap(), "B");
    }
    drop(stream);
    server.stop();
}

#[test]
fn a_page_outside_the_loopback_is_refused() {
    let mut config = forkyard::serve::Config::default();
    config.status = Some("0.0.0.0:0".parse().unwrap());
    let server = forkyard::serve::Server::builder().bind("127.0.0.1:0").unwrap().config(config).build();
    assert!(server.unwrap_err().is_invalid());
}

#[test]
fn a_browser_shows_the_counts_and_the_processes() {
    let Some(browser) = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"]
        .into_iter()
        .find(|path| std::path::Path::new(path).exists())
    else {
        eprintln!("skipped: there is no chromium on this machine");
        return;
    };
    let (mut server, page) = start();
    for _ in 0..7 {
        exchange(server.address(), "a\n");
    }
    let mut stream = connect(server.address());
    assert_eq!(ask(&mut stream, "a").unwrap(), "A");
    server.wait_for("all of it", |stats| stats["served"] == 7 && stats["active"] == 1);
    let profile = std::env::temp_dir().join(format!("forkyard-browser-{}", std::process::id()));
    let output = std::process::Command::new("timeout")
        .args([
            "60",
            browser,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
        ])
        .args([
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",
        ])
        .arg(format!("--user-data-dir={}", profile.display()))
        .args(["--virtual-time-budget=2500", "--dump-dom"])
        .arg(format!("http://{page}/"))
        .output()
        .unwrap();
    let _ = std::fs::remove_dir_all(&profile);
    let dom = String::from_utf8_lossy(&output.stdout);
    let expect = |what: &str| {
        assert!(dom.contains(what), "no {what} in {dom}\n{}", String::from_utf8_lossy(&output.stderr))
    };
    expect("<b id=\"served\">7</b>");
    expect("<b id=\"active\">1</b>");
    expect(&format!("<b id=\"master\">{}</b>", server.pid()));
    expect(&format!("<td>{}</td>", stream.local_addr().unwrap()));
    expect("class=\"busy\"");
    expect("<polyline");
    assert!(!dom.contains("class=\"gone\""), "it reached the server");
    drop(stream);
    server.stop();
}
