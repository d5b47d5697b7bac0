//! The chapter "How it is tested" names tests, and they exist.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as the tests do")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The pieces of a line that stand between backticks.
fn spans(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

#[test]
fn every_test_that_the_table_names_exists() {
    let chapter = read("src/tested.md");
    let (_, table) = chapter.split_once("## Which test proves what").unwrap();
    let mut found = 0;
    for row in table.lines().filter(|line| line.starts_with('|')).skip(2) {
        let proof = row.split('|').nth(2).unwrap();
        let mut names = Vec::new();
        for span in spans(proof) {
            if !span.contains(".rs") {
                names.push(span);
                continue;
            }
            let source = read(span);
            for name in names.drain(..) {
                assert!(source.contains(&format!("fn {name}(")), "{span} has no {name}");
                found += 1;
            }
        }
        assert!(names.is_empty(), "{names:?} are in no file");
    }
    assert!(found > 40, "only {found} tests are named");
}

#[test]
fn every_harness_that_it_names_and_runs_exists() {
    let chapter = read("src/tested.md");
    let words: Vec<&str> = chapter.split_whitespace().collect();
    for pair in words.windows(2).filter(|pair| pair[0] == "--test") {
        let (file, dir) = (format!("tests/{}.rs", pair[1]), format!("tests/{}/main.rs", pair[1]));
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        assert!(root.join(&file).exists() || root.join(&dir).exists(), "there is no test {}", pair[1]);
    }
    for path in spans(&chapter).filter(|span| span.starts_with("tests/") && !span.contains(' ')) {
        assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join(path).exists(), "there is no {path}");
    }
}

#[test]
fn the_table_of_mistakes_has_those_that_can_be_made() {
    let mut made = BTreeSet::new();
    mistakes_below(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut made);
    let chapter = read("src/tested.md");
    let (_, rest) = chapter.split_once("## Mistakes made on purpose").unwrap();
    let (table, _) = rest.split_once("\n## ").unwrap();
    let rows = table.lines().filter(|line| line.starts_with("| `"));
    let listed: BTreeSet<String> = rows.filter_map(|row| spans(row).next()).map(str::to_owned).collect();
    assert_eq!(listed, made);
}

/// What `broken("…")` is asked for in the sources.
fn mistakes_below(dir: &Path, made: &mut BTreeSet<String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            mistakes_below(&path, made);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let source = fs::read_to_string(&path).unwrap();
            let asked = source.split("broken(\"").skip(1).filter_map(|rest| rest.split('"').next());
            made.extend(asked.map(str::to_owned));
        }
    }
}
