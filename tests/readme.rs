//! What the README shows is what is built and run.

use std::fs;
use std::path::Path;

#[test]
fn the_first_program_is_the_quickstart_example() {
    let readme = read("README.md");
    let (_, program) = readme.split_once("```rust\n").expect("a program in the README");
    let (program, _) = program.split_once("```").expect("the program's end");
    let example = read("examples/quickstart.rs");
    let (_, example) = example.split_once("\n\n").expect("the example's own comment, then the program");
    assert_eq!(program, example);
}

#[test]
fn links_to_files_lead_somewhere() {
    for part in read("README.md").split("](").skip(1) {
        let (target, _) = part.split_once(')').expect("a link's end");
        assert!(target.contains("://") || root().join(target).exists(), "{target} does not exist");
    }
}

#[test]
fn the_table_of_the_comparison_stands_between_its_marks() {
    let readme = read("README.md");
    let (_, rest) = readme.split_once("<!-- benches/peers begins -->\n").expect("where the table begins");
    let (table, _) = rest.split_once("<!-- benches/peers ends -->\n").expect("where the table ends");
    assert!(table.contains("| **placemark** |"));
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).expect("a file of the package")
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
