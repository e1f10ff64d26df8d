//! Holds `docs/requirements.md` against the tests of the workspace: every requirement is either tested by a test that
//! bears its ID, or listed there with the reason why not.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// Every family of requirements, and how many it has. They are numbered from 1.
const FAMILIES: &[(&str, u32)] = &[
    ("X", 8),
    ("BR", 15),
    ("AR", 7),
    ("IP", 12),
    ("NU", 12),
    ("NT", 10),
    ("NI", 6),
    ("LM", 4),
    ("DH", 12),
    ("V6", 9),
    ("DN", 7),
    ("TR", 13),
    ("VX", 4),
    ("BM", 6),
    ("AT", 25),
];

/// A requirement's ID: `BR-3`, or `X3` for a decision.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Id {
    family: &'static str,
    number: u32,
}

impl Id {
    fn all() -> impl Iterator<Item = Id> {
        FAMILIES.iter().flat_map(|&(family, count)| (1..=count).map(move |number| Id { family, number }))
    }

    /// How a test's name spells it.
    fn snake(self) -> String {
        match self.family {
            "X" => format!("x{}", self.number),
            family => format!("{}_{}", family.to_lowercase(), self.number),
        }
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dash = if self.family == "X" { "" } else { "-" };
        write!(f, "{}{dash}{}", self.family, self.number)
    }
}

/// How the document says that a requirement stands.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Status {
    Tested,
    Partly,
    Later,
    Exception,
}

#[test]
fn every_requirement_is_tested_or_says_why_not() {
    let document = fs::read_to_string(root().join("docs/requirements.md")).expect("docs/requirements.md is readable");
    let complaints = compare(&parse_document(&document), &test_names(&root()));
    assert!(complaints.is_empty(), "docs/requirements.md and the tests disagree:\n  {}", complaints.join("\n  "));
}

#[test]
fn a_disagreement_is_named() {
    let id = |family, number| Id { family, number };
    let mut document: BTreeMap<String, Result<Status, String>> =
        Id::all().map(|id| (id.to_string(), Ok(Status::Later))).collect();
    assert_eq!(compare(&document, &[]), [] as [String; 0]);

    document.insert("BR-3".into(), Ok(Status::Tested));
    let names = vec!["br_30_is_another_one".into(), "a_station_moves_br_3".into(), "dh_11_leases_survive".into()];
    let complaints = compare(&document, &names);
    assert_eq!(complaints.len(), 1, "{complaints:?}");
    assert!(complaints[0].starts_with("DH-11: `dh_11_leases_survive` tests it"), "{complaints:?}");

    document.insert("X2".into(), Ok(Status::Partly));
    document.insert("AT-9".into(), Err("soon".into()));
    document.insert("BR-99".into(), Ok(Status::Later));
    document.remove(&id("V6", 4).to_string());
    let text = compare(&document, &names).join("\n");
    for expected in ["X2: called tested", "AT-9: its status is `soon`", "BR-99: no such", "V6-4: the document lacks it"]
    {
        assert!(text.contains(expected), "{expected:?} is missing in:\n{text}");
    }
}

/// What is wrong, one line each, and what to do about it.
fn compare(document: &BTreeMap<String, Result<Status, String>>, names: &[String]) -> Vec<String> {
    let mut complaints = Vec::new();
    for id in Id::all() {
        let by = names.iter().find(|name| names_id(name, id));
        match (document.get(&id.to_string()), by) {
            (None, _) => complaints.push(format!("{id}: the document lacks it; add a row with its status")),
            (Some(Err(status)), _) => complaints
                .push(format!("{id}: its status is `{status}`; write `tested`, `partly: WHAT IS OPEN`, `later: TOPIC` or `exception: REASON`")),
            (Some(Ok(Status::Tested | Status::Partly)), None) => complaints.push(format!(
                "{id}: called tested, but no test names it; put `{}_` into the name of the test that would fail \
                 without it, or call it later",
                id.snake()
            )),
            (Some(Ok(Status::Later)), Some(name)) => {
                complaints.push(format!("{id}: `{name}` tests it, but the document calls it later; call it tested or partly"));
            }
            (Some(Ok(_)), _) => {}
        }
    }
    let known: BTreeSet<String> = Id::all().map(|id| id.to_string()).collect();
    for id in document.keys().filter(|id| !known.contains(*id)) {
        complaints.push(format!("{id}: no such requirement; add it to FAMILIES in this test, or remove the row"));
    }
    complaints
}

/// Whether the words of a test's name contain the ID.
fn names_id(name: &str, id: Id) -> bool {
    let snake = id.snake();
    let wanted: Vec<&str> = snake.split('_').collect();
    let words: Vec<&str> = name.split('_').collect();
    words.windows(wanted.len()).any(|window| window == wanted)
}

/// The table rows of the document, by ID. A row whose status is none is an error that holds it.
fn parse_document(text: &str) -> BTreeMap<String, Result<Status, String>> {
    let mut rows = BTreeMap::new();
    for line in text.lines().filter(|line| line.starts_with('|')) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [id, requirement, status] = cells[..] else { panic!("not a row of three cells: {line}") };
        if id == "ID" || id.starts_with("---") {
            continue;
        }
        assert!(!requirement.is_empty(), "{id}: say what is required");
        let status = match status.split_once(": ") {
            None if status == "tested" => Ok(Status::Tested),
            Some(("partly", open)) if !open.is_empty() => Ok(Status::Partly),
            Some(("later", topic)) if !topic.is_empty() => Ok(Status::Later),
            Some(("exception", reason)) if !reason.is_empty() => Ok(Status::Exception),
            _ => Err(status.to_owned()),
        };
        assert!(rows.insert(id.to_owned(), status).is_none(), "{id} has two rows");
    }
    rows
}

/// The names of all functions under a `#[test]` in the workspace, those inside `proptest!` included.
fn test_names(root: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for crate_dir in ["switch", "nat", "dhcp", "cli", "benches", "tests"] {
        collect(&root.join(crate_dir), &mut names);
    }
    assert!(!names.is_empty(), "no tests below {}", root.display());
    names
}

fn collect(dir: &Path, names: &mut Vec<String>) {
    let entries = fs::read_dir(dir).unwrap_or_else(|e| panic!("cannot read {}: {e}", dir.display()));
    for path in entries.map(|entry| entry.expect("a directory entry").path()) {
        if path.is_dir() {
            if path.file_name().is_some_and(|name| name != "target" && name != "corpus") {
                collect(&path, names);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("cannot read {}: {e}", path.display()));
            names_in(&text, names);
        }
    }
}

fn names_in(text: &str, names: &mut Vec<String>) {
    let mut under_test = false;
    for line in text.lines().map(str::trim) {
        under_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
        let function = line.split_once("fn ").filter(|(before, _)| matches!(before.trim(), "" | "async" | "#[test]"));
        if let (true, Some((_, rest))) = (under_test, function) {
            names.push(rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
            under_test = false;
        }
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
