//! Claims about `forkyard signals`.

mod common;

use common::run;
use forkyard_cli::exit;

#[test]
fn the_table_has_a_line_for_every_signal() {
    let table = run(["signals"]).code(exit::OK).stdout;
    assert_eq!(table.lines().count(), 1 + 31 + 31);
    for line in [" 1  SIGHUP ", " 9  SIGKILL ", "15  SIGTERM ", "17  SIGCHLD ", "34  SIGRTMIN ", "64  SIGRTM"]
    {
        assert!(table.lines().any(|row| row.starts_with(line)), "{line}");
    }
}

#[test]
fn names_and_numbers_select_rows_in_their_order() {
    let table = run(["signals", "term", "SIGKILL", "2", "RTMIN+1"]).code(exit::OK).stdout;
    let names: Vec<_> = table.lines().skip(1).filter_map(|row| row.split_whitespace().nth(1)).collect();
    assert_eq!(names, ["SIGTERM", "SIGKILL", "SIGINT", "SIGRTMIN+1"]);
}

#[test]
fn json_has_the_same_rows() {
    let text = run(["signals", "--json"]).code(exit::OK).stdout;
    let rows: serde_json::Value = serde_json::from_str(&text).unwrap();
    let rows = rows.as_array().unwrap();
    assert_eq!(rows.len(), 62);
    let segv = rows.iter().find(|row| row["name"] == "SIGSEGV").unwrap();
    assert_eq!((segv["number"].as_i64(), segv["default"].as_str()), (Some(11), Some("core")));
    assert!(rows.iter().all(|row| row["meaning"].as_str().is_some_and(|meaning| !meaning.is_empty())));
}
