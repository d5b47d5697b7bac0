//! Keeps the house in order: which room may know which, where the outside world may be touched, and how long things get.
//!
//! It reads the sources as text, with comments and literals blanked out, and knows no more of Rust than it needs. Each
//! check is itself tested on a piece of code that it must complain about.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as the tests do")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// The floors of the house, from the ground up. A module knows those of its own floor and below.
///
/// A floor lists rooms (directories or files of src), or single files of a room that belong on another floor than the
/// rest of it; the longest name counts.
const FLOORS: &[&[&str]] = &[
    &["error", "types", "options", "record", "sync", "broken"],
    &["format"],
    &["storage"],
    &["segment"],
    &["partition"],
    &["placemarks"],
    // Deciding takes partitions and placemarks only; opening a store replays what was decided.
    &["journal"],
    // Who is a member of what, and how far: state that each log keeps for its groups. Delivery is the consumers' part.
    &["group"],
    &["store", "log"],
    &["producer", "transaction", "consumer", "queue"],
];

/// Where `unsafe` may stand: the mapping, and an allocator that counts, which is an unsafe trait.
const UNSAFE: &[&str] =
    &["src/storage/map.rs", "tests/allocation.rs", "tests/simulation/allocated.rs", "benches/common/limits.rs"];

const LONGEST_FILE: usize = 600;
const LONGEST_FUNCTION: usize = 70;

/// What reaches outside the process, and so belongs into `storage`: files, threads, clocks, the operating system.
const OUTSIDE: &[&str] = &[
    "fs",
    "File::open",
    "File::create",
    "File::options",
    "OpenOptions",
    "thread::spawn",
    "thread::sleep",
    "thread::scope",
    "thread::Builder",
    "Instant",
    "SystemTime::now",
    "rustix",
    "libc",
    "memmap2",
];

const NO_NAMES: &[&str] = &["util", "utils", "helper", "helpers", "manager", "misc"];

#[test]
fn a_room_knows_only_those_below_it() {
    let house = House::read();
    assert_clean(house.library().flat_map(|file| rooms(file, &house.root_names)));
}

#[test]
fn files_threads_and_clocks_are_touched_in_storage_only() {
    assert_clean(House::read().library().flat_map(outside));
}

#[test]
fn unsafe_code_stands_in_the_mapping_file_only() {
    assert_clean(House::read().files.iter().flat_map(unsafe_code));
}

#[test]
fn files_and_functions_stay_short() {
    assert_clean(House::read().files.iter().flat_map(lengths));
}

#[test]
fn lints_are_expected_with_a_reason_and_never_allowed() {
    assert_clean(House::read().files.iter().flat_map(bare_allow));
}

#[test]
fn the_library_does_not_panic_by_unwrapping() {
    assert_clean(House::read().library().flat_map(unwraps));
}

#[test]
fn modules_are_named_for_what_they_are() {
    assert_clean(House::read().library().flat_map(names));
}

#[track_caller]
fn assert_clean(complaints: impl Iterator<Item = String>) {
    let complaints: Vec<String> = complaints.collect();
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

/// All sources of the package.
struct House {
    files: Vec<Source>,
    root_names: RootNames,
}

/// Names that lib.rs gives away, and the module that each comes from.
type RootNames = BTreeMap<String, Vec<String>>;

impl House {
    fn read() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut files = Vec::new();
        for dir in ["src", "tests", "examples", "benches"] {
            collect(root, &root.join(dir), &mut files);
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        let of_tests: Vec<String> = files.iter().flat_map(test_modules).collect();
        for file in files.iter_mut().filter(|file| of_tests.iter().any(|test| belongs_to(&file.path, test))) {
            file.untested = blank(&file.code);
        }
        let lib = files.iter().find(|file| file.path == "src/lib.rs").expect("there is a src/lib.rs");
        let root_names = root_names(&lib.code);
        Self { files, root_names }
    }

    fn library(&self) -> impl Iterator<Item = &Source> {
        self.files.iter().filter(|file| file.path.starts_with("src/"))
    }
}

/// Sources below `dir`, but not of packages of their own.
fn collect(root: &Path, dir: &Path, files: &mut Vec<Source>) {
    if !dir.is_dir() || dir.join("Cargo.toml").exists() {
        return;
    }
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(root, &path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().replace('\\', "/");
            files.push(Source::new(&name, &fs::read_to_string(&path).unwrap()));
        }
    }
}

/// One file.
struct Source {
    path: String,
    lines: usize,
    /// The text without comments and literals; every line is where it was.
    code: String,
    /// The same without what is compiled for tests only.
    untested: String,
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        let code = strip(text);
        let untested = without_tests(&code);
        Self { path: path.to_owned(), lines: text.lines().count(), code, untested }
    }

    /// The path of the module, `None` for lib.rs: `partition/read` for src/partition/read.rs.
    fn module(&self) -> Option<&str> {
        let name = self.path.strip_prefix("src/")?.strip_suffix(".rs")?;
        if name == "lib" { None } else { Some(name.strip_suffix("/mod").unwrap_or(name)) }
    }

    fn complain(&self, at: usize, what: impl std::fmt::Display) -> String {
        format!("{}:{}: {what}", self.path, line_of(&self.code, at))
    }
}

fn line_of(code: &str, at: usize) -> usize {
    1 + code.bytes().take(at).filter(|byte| *byte == b'\n').count()
}

// The checks. Each gives its complaints about one file.

fn rooms(file: &Source, root_names: &RootNames) -> Vec<String> {
    let Some(module) = file.module() else { return Vec::new() };
    let own: Vec<String> = module.split('/').map(str::to_owned).collect();
    let Some((floor, _)) = floor_of(&own) else {
        return vec![file.complain(0, "is in no room: give it a floor in FLOORS")];
    };
    let mut complaints = Vec::new();
    for (at, path) in named_paths(&file.untested, &own) {
        let path = match path.first().and_then(|first| root_names.get(first)) {
            Some(home) => [home.as_slice(), path.as_slice()].concat(),
            None => path,
        };
        if let Some((above, room)) = floor_of(&path).filter(|(above, _)| *above > floor) {
            let path = path.join("::");
            complaints
                .push(file.complain(at, format!("{module} (floor {floor}) names {path} of {room} (floor {above})")));
        }
    }
    complaints
}

fn outside(file: &Source) -> Vec<String> {
    if file.path.starts_with("src/storage/") {
        return Vec::new();
    }
    let found = OUTSIDE.iter().flat_map(|name| words(&file.untested, name).map(move |at| (at, name)));
    found.map(|(at, name)| file.complain(at, format!("{name} outside of storage"))).collect()
}

fn unsafe_code(file: &Source) -> Vec<String> {
    if UNSAFE.contains(&file.path.as_str()) {
        return Vec::new();
    }
    words(&file.code, "unsafe").map(|at| file.complain(at, "unsafe outside of the mapping file")).collect()
}

fn lengths(file: &Source) -> Vec<String> {
    let mut complaints = Vec::new();
    if file.lines > LONGEST_FILE {
        complaints.push(file.complain(0, format!("{} lines are more than {LONGEST_FILE}", file.lines)));
    }
    for (at, end) in functions(&file.code) {
        let lines = line_of(&file.code, end) - line_of(&file.code, at) + 1;
        if lines > LONGEST_FUNCTION {
            complaints.push(file.complain(at, format!("a function of {lines} lines, more than {LONGEST_FUNCTION}")));
        }
    }
    complaints
}

fn bare_allow(file: &Source) -> Vec<String> {
    let found = ["#[allow", "#![allow"].into_iter().flat_map(|attribute| file.code.match_indices(attribute));
    found.map(|(at, _)| file.complain(at, "allow: use #[expect(.., reason = ..)]")).collect()
}

fn unwraps(file: &Source) -> Vec<String> {
    let found = [".unwrap()", ".expect(", ".unwrap_err()", ".expect_err("];
    let found = found.into_iter().flat_map(|call| file.untested.match_indices(call));
    found.map(|(at, call)| file.complain(at, format!("{call} in the library"))).collect()
}

fn names(file: &Source) -> Vec<String> {
    let module = file.module().unwrap_or_default().split('/').filter(|name| NO_NAMES.contains(name));
    module.map(|name| file.complain(0, format!("a module named {name}: say what is in it"))).collect()
}

// What they know of the language.

/// The floor of a path, and the name it is listed by.
fn floor_of(path: &[String]) -> Option<(usize, &'static str)> {
    (1..=path.len()).rev().find_map(|len| {
        let name = path.iter().take(len).map(String::as_str).collect::<Vec<_>>().join("/");
        FLOORS
            .iter()
            .enumerate()
            .find_map(|(floor, rooms)| rooms.iter().find(|room| **room == name).map(|room| (floor, *room)))
    })
}

/// All paths that begin with `crate::` or `super::`, from the crate's root, and where they stand.
fn named_paths(code: &str, own: &[String]) -> Vec<(usize, Vec<String>)> {
    let mut all = Vec::new();
    for at in words(code, "crate::") {
        tree(&mut code[at + "crate::".len()..].trim_start(), &[], &mut |path| all.push((at, path)));
    }
    for at in words(code, "super::").filter(|at| !code[..*at].ends_with("super::")) {
        let mut rest = &code[at..];
        let mut base = own;
        while let Some(further) = rest.strip_prefix("super::") {
            rest = further;
            base = base.split_last().map_or(base, |(_, parent)| parent);
        }
        tree(&mut rest.trim_start(), base, &mut |path| all.push((at, path)));
    }
    all
}

/// What lib.rs re-exports: the name, and its module.
fn root_names(lib: &str) -> RootNames {
    let mut names = RootNames::new();
    for at in words(lib, "use ") {
        tree(&mut lib[at + "use ".len()..].trim_start(), &[], &mut |path| {
            if let Some((name, home)) = path.split_last().filter(|(_, home)| !home.is_empty()) {
                names.insert(name.clone(), home.iter().filter(|part| *part != "crate").cloned().collect());
            }
        });
    }
    names
}

/// Reads one use tree, `a::{b, c::d}`, or a path; `found` gets each leaf.
fn tree(rest: &mut &str, before: &[String], found: &mut dyn FnMut(Vec<String>)) {
    let mut path = before.to_vec();
    loop {
        if let Some(inner) = rest.strip_prefix('{') {
            *rest = inner.trim_start();
            while !rest.is_empty() && !rest.starts_with('}') {
                let len = rest.len();
                tree(rest, &path, found);
                let behind = rest.find([',', '}']).unwrap_or(rest.len());
                *rest = rest[behind..].trim_start_matches(',').trim_start();
                if rest.len() == len {
                    return;
                }
            }
            *rest = rest.strip_prefix('}').unwrap_or(rest);
            return;
        }
        let end = rest.find(|c: char| !is_word(c)).unwrap_or(rest.len());
        if end > 0 && &rest[..end] != "self" {
            path.push(rest[..end].to_owned());
        }
        *rest = &rest[end..];
        match rest.strip_prefix("::") {
            Some(further) if end > 0 => *rest = further.trim_start(),
            _ => break,
        }
    }
    found(path);
}

/// Where functions with a body begin and end.
fn functions(code: &str) -> Vec<(usize, usize)> {
    words(code, "fn ").filter_map(|at| block(code, at).map(|end| (at, end))).collect()
}

/// The end of the first block behind `at`; `None` when a semicolon ends the item before.
fn block(code: &str, at: usize) -> Option<usize> {
    let (mut braces, mut others) = (0_usize, 0_usize);
    for (index, byte) in code.bytes().enumerate().skip(at) {
        match byte {
            b'(' | b'[' => others += 1,
            b')' | b']' => others = others.saturating_sub(1),
            b'{' => braces += 1,
            b';' if braces == 0 && others == 0 => return None,
            b'}' if braces <= 1 => return Some(index),
            b'}' => braces -= 1,
            _ => {}
        }
    }
    None
}

/// Where `word` stands, not as a part of a longer one.
fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    code.match_indices(word).map(|(at, _)| at).filter(move |at| {
        let before = code[..*at].chars().next_back().is_none_or(|c| !is_word(c));
        let open = word.ends_with(|c| !is_word(c));
        before && (open || code[at + word.len()..].chars().next().is_none_or(|c| !is_word(c)))
    })
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

const TEST: &str = "#[cfg(test)]";

/// The code with items under `#[cfg(test)]` blanked out.
fn without_tests(code: &str) -> String {
    let mut rest = code;
    let mut kept = String::new();
    while let Some(at) = rest.find(TEST) {
        let end = block(rest, at + TEST.len()).or_else(|| rest[at..].find(';').map(|len| at + len));
        let end = end.map_or(rest.len(), |end| end + 1);
        kept.push_str(&rest[..at]);
        kept.push_str(&blank(&rest[at..end]));
        rest = &rest[end..];
    }
    kept + rest
}

/// Files that are modules under `#[cfg(test)]`.
fn test_modules(file: &Source) -> Vec<String> {
    let Some(stem) = file.path.strip_suffix(".rs") else { return Vec::new() };
    let dir = match stem.strip_suffix("mod").or_else(|| stem.strip_suffix("lib")) {
        Some(dir) if dir.ends_with('/') => dir.to_owned(),
        _ => format!("{stem}/"),
    };
    let modules = file.code.match_indices(TEST).filter_map(|(at, _)| {
        let item = file.code[at + TEST.len()..].trim_start().strip_prefix("mod ")?;
        let (name, _) = item.split_once(';').filter(|(name, _)| name.chars().all(is_word))?;
        Some(format!("{dir}{name}.rs"))
    });
    modules.collect()
}

/// Whether a file is that of a module, or of one inside it.
fn belongs_to(path: &str, module: &str) -> bool {
    let inside = module.strip_suffix(".rs").and_then(|stem| path.strip_prefix(stem));
    path == module || inside.is_some_and(|rest| rest.starts_with('/'))
}

/// Spaces, with the lines kept.
fn blank(code: &str) -> String {
    code.chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect()
}

/// The text with comments and the inside of literals blanked out.
fn strip(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let len = match first {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => comment(rest),
            '"' => literal(rest, 1, '"'),
            '\'' if is_char(rest) => literal(rest, 1, '\''),
            'r' if !out.ends_with(is_word) || out.ends_with('b') => raw_string(rest).unwrap_or(0),
            _ => 0,
        };
        if len == 0 {
            out.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            out.push_str(&blank(&rest[..len]));
            rest = &rest[len..];
        }
    }
    out
}

/// The length of a block comment; they nest.
fn comment(text: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(pair) = text.as_bytes().get(at..at + 2) {
        match pair {
            b"/*" => depth += 1,
            b"*/" if depth == 1 => return at + 2,
            b"*/" => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
    }
    text.len()
}

/// The length of a literal whose inside begins at `start`.
fn literal(text: &str, start: usize, close: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(start) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == close => return at + c.len_utf8(),
            _ => {}
        }
    }
    text.len()
}

/// Whether a quote begins a character, and not a lifetime.
fn is_char(text: &str) -> bool {
    let mut inside = text.chars().skip(1);
    inside.next() == Some('\\') || inside.next() == Some('\'')
}

/// The length of a raw string, if this is one.
fn raw_string(text: &str) -> Option<usize> {
    let hashes = text[1..].bytes().take_while(|byte| *byte == b'#').count();
    let inside = text[1 + hashes..].strip_prefix('"')?;
    let close = format!("\"{}", "#".repeat(hashes));
    Some(inside.find(&close).map_or(text.len(), |at| 2 + hashes + at + close.len()))
}

// The checks, checked.

fn source(path: &str, text: &str) -> Source {
    Source::new(path, text)
}

#[test]
fn a_room_that_looks_up_is_found() {
    let exported = root_names("pub use store::{Log, Store};\npub use types::Position;\n");
    let looks_up = [
        "use crate::partition::Env;",
        "use crate::{Error, partition::{read::Cursor}};",
        "use crate::{\n    types::Pos,\n    partition,\n};",
        "fn f() { crate::store::open(); }",
        "use super::super::group::Member;",
        "use crate::{Position, Log};",
    ];
    for text in looks_up {
        assert_eq!(rooms(&source("src/segment/index.rs", text), &exported).len(), 1, "{text}");
    }
    let fine = [
        "use crate::storage::File; use super::Segment; use crate::{Position, types::Pos};",
        "// use crate::store::Log;\n/// [`Log`](crate::store::Log)\nfn f() -> &str { \"crate::store::Log\" }",
        "#[cfg(test)]\nmod tests { use crate::store::Log; }",
    ];
    for text in fine {
        assert_eq!(rooms(&source("src/segment/index.rs", text), &exported), [""; 0], "{text}");
    }
    assert_eq!(rooms(&source("src/cellar.rs", ""), &exported).len(), 1, "a module without a floor");
    assert_eq!(rooms(&source("src/store/core.rs", "use crate::consumer::Batch;"), &exported).len(), 1);
    assert_eq!(rooms(&source("src/store/core.rs", "use crate::group::Registry;"), &exported).len(), 0);
}

#[test]
fn what_reaches_outside_is_found() {
    let reaching = [
        "use std::fs;",
        "use std::{fs, io};",
        "let file = File::open(path);",
        "thread::spawn(f);",
        "std::thread::sleep(d);",
        "use std::time::Instant;",
        "SystemTime::now()",
        "rustix::fs::fsync(f)",
    ];
    for text in reaching {
        assert_ne!(outside(&source("src/partition/roll.rs", text)), [""; 0], "{text}");
        assert_eq!(outside(&source("src/storage/disk.rs", text)), [""; 0], "{text}");
    }
    let fine = "use std::time::SystemTime; fn offs() {} /* Instant */ let file: Box<dyn File>; /// std::fs\n";
    assert_eq!(outside(&source("src/partition/roll.rs", fine)), [""; 0]);
}

#[test]
fn unsafe_code_elsewhere_is_found() {
    assert_eq!(unsafe_code(&source("src/segment/mod.rs", "let x = unsafe { *p };")).len(), 1);
    assert_eq!(unsafe_code(&source("src/storage/map.rs", "let x = unsafe { *p };")).len(), 0);
    assert_eq!(unsafe_code(&source("src/lib.rs", "#![deny(unsafe_code)] // unsafe\n")).len(), 0);
}

#[test]
fn long_files_and_functions_are_found() {
    let long = "let x = '{'; // {\nlet y = \"}\";\n".repeat(35);
    let function = |body: &str| format!("trait T {{\n fn none(a: [u8; 2]);\n}}\nfn f<'a>() -> [u8; 4] {{\n{body}}}\n");
    assert_eq!(lengths(&source("src/a.rs", &function(&long))).len(), 1);
    assert_eq!(lengths(&source("src/a.rs", &function(&long[..long.len() / 2]))), [""; 0]);
    assert_eq!(lengths(&source("src/a.rs", &"\n".repeat(601))).len(), 1);
    assert_eq!(lengths(&source("src/a.rs", &"\n".repeat(600))).len(), 0);
}

#[test]
fn an_allow_is_found() {
    assert_eq!(bare_allow(&source("tests/a.rs", "#[allow(dead_code)] fn f() {}")).len(), 1);
    assert_eq!(bare_allow(&source("src/lib.rs", "#![allow(clippy::all, reason = \"\")]")).len(), 1);
    assert_eq!(bare_allow(&source("src/lib.rs", "#[expect(dead_code, reason = \"#[allow\")]")).len(), 0);
}

#[test]
fn an_unwrap_is_found() {
    assert_eq!(unwraps(&source("src/a.rs", "x.unwrap(); y.expect(\"why\");")).len(), 2);
    let fine = "x.unwrap_or(0);\n#[cfg(test)]\nmod tests { fn f() { x.unwrap(); } }\n/// x.unwrap()\nfn g() {}";
    assert_eq!(unwraps(&source("src/a.rs", fine)), [""; 0]);
    assert_eq!(unwraps(&source("src/a.rs", "#[cfg(test)]\nuse a::b;\nfn f() { x.unwrap(); }")).len(), 1);
    assert_eq!(test_modules(&source("src/a/mod.rs", "#[cfg(test)]\nmod tests;\nmod other;")), ["src/a/tests.rs"]);
    assert!(belongs_to("src/a/tests.rs", "src/a/tests.rs") && belongs_to("src/a/tests/b.rs", "src/a/tests.rs"));
    assert!(!belongs_to("src/a/tests_of.rs", "src/a/tests.rs") && !belongs_to("src/b/tests/b.rs", "src/a/tests.rs"));
}

#[test]
fn a_name_that_says_nothing_is_found() {
    assert_eq!(names(&source("src/store/utils.rs", "")).len(), 1);
    assert_eq!(names(&source("src/manager/mod.rs", "")).len(), 1);
    assert_eq!(names(&source("src/store/core.rs", "")).len(), 0);
}

#[test]
fn literals_and_comments_are_blanked_out() {
    for text in ["\"a\\\"b\"", "r#\"a\"b\"#", "br\"ab\"", "'\\''", "'{'", "/* a /* b */ c */", "// a"] {
        let stripped = strip(&format!("x {text}\ny"));
        assert!(!stripped.contains(['a', '{', 'c', '"', '\'']), "{text}: {stripped}");
        assert!(stripped.starts_with("x ") && stripped.ends_with("\ny"), "{text}: {stripped}");
    }
    assert_eq!(strip("fn f<'a>(x: &'a str) {}"), "fn f<'a>(x: &'a str) {}");
}
