//! `docs/results.schema.json` describes what programs read.

use serde_json::{Map, Value};

use super::*;

/// Where a value is not as a schema says, and why. It knows the keywords that our schema uses, and takes any other for an
/// error. Beyond the specification, a key that the schema does not name is wrong too, so that the schema stays complete.
fn wrong(schema: &Value, root: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
    let Some(rules) = schema.as_object() else { return assert_eq!(schema, &Value::Bool(true), "{at}") };
    for (rule, asked) in rules {
        let mut is_wrong = |why: String| found.push(format!("{at}: {why}"));
        match rule.as_str() {
            "$schema" | "title" | "description" | "$defs" | "required" | "additionalProperties" => {}
            "$ref" => {
                let path = asked.as_str().unwrap().strip_prefix('#').unwrap();
                let target = root.pointer(path).unwrap_or_else(|| panic!("{at}: no {path}"));
                wrong(target, root, value, at, found);
            }
            "anyOf" => {
                let ways = asked.as_array().unwrap().iter().map(|way| {
                    let mut inner = Vec::new();
                    wrong(way, root, value, at, &mut inner);
                    inner
                });
                let ways: Vec<_> = ways.collect();
                if !ways.iter().any(Vec::is_empty) {
                    found.extend(ways.into_iter().flatten());
                }
            }
            "type" => {
                let types = asked.as_array().cloned().unwrap_or_else(|| vec![asked.clone()]);
                if !types.iter().any(|one| is_of_type(value, one.as_str().unwrap())) {
                    is_wrong(format!("{value} is no {asked}"));
                }
            }
            "enum" if !asked.as_array().unwrap().contains(value) => is_wrong(format!("{value} is not in {asked}")),
            "const" if asked != value => is_wrong(format!("{value} is not {asked}")),
            "minimum" if value.as_f64() < asked.as_f64() => is_wrong(format!("{value} is less than {asked}")),
            "enum" | "const" | "minimum" => {}
            "items" => {
                for (item, number) in value.as_array().into_iter().flatten().zip(0..) {
                    wrong(asked, root, item, &format!("{at}[{number}]"), found);
                }
            }
            "propertyNames" => {
                for key in value.as_object().into_iter().flat_map(Map::keys) {
                    wrong(asked, root, &Value::String(key.clone()), at, found);
                }
            }
            "properties" => members(rules, root, value, at, found),
            other => panic!("the checker does not know {other}"),
        }
    }
    if !rules.contains_key("properties") && rules.contains_key("additionalProperties") {
        members(rules, root, value, at, found);
    }
}

fn members(rules: &Map<String, Value>, root: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
    let Some(object) = value.as_object() else { return };
    for (key, inner) in object {
        let at = format!("{at}.{key}");
        match rules.get("properties").and_then(|known| known.get(key)).or(rules.get("additionalProperties")) {
            Some(schema) => wrong(schema, root, inner, &at, found),
            None => found.push(format!("{at}: the schema does not have it")),
        }
    }
    let required = rules.get("required").and_then(Value::as_array).into_iter().flatten();
    for key in required.filter_map(Value::as_str).filter(|key| !object.contains_key(*key)) {
        found.push(format!("{at}: {key} is missing"));
    }
}

fn is_of_type(value: &Value, name: &str) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        other => panic!("no type {other}"),
    }
}

fn check(results: &Value) -> Vec<String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/results.schema.json");
    let schema: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let mut found = Vec::new();
    wrong(&schema, &schema, results, "results", &mut found);
    found
}

#[test]
fn results_are_as_the_schema_says() {
    for cells in [good(), bad(), own(), Vec::new()] {
        let (_out, report) = run(&cells, &[id(OWNER, None, "stock", 1)]);
        assert_eq!(check(&report.results()), Vec::<String>::new());
    }
}

/// The whole catalogue uses keys of bugs that the small runs do not have.
#[test]
fn every_bug_of_the_catalogue_is_as_the_schema_says() {
    let (_out, mut report) = run(&good(), &[]);
    report.run.info.bugs = kernels::Manifest::of_project().unwrap().bugs;
    assert_eq!(check(&report.results()), Vec::<String>::new());
}

#[test]
fn the_check_finds_what_is_wrong() {
    let (_out, report) = run(&good(), &[]);
    let spoilt = |spoil: &dyn Fn(&mut Value)| {
        let mut results = report.results();
        spoil(&mut results);
        check(&results).len()
    };
    assert_eq!(spoilt(&|_| {}), 0);
    assert_eq!(spoilt(&|results| results["cells"][0]["outcome"] = "passed".into()), 1);
    assert_eq!(spoilt(&|results| results["cells"][0]["seconds"] = "1".into()), 1);
    assert_eq!(spoilt(&|results| results["run"]["new"] = 1.into()), 1);
    assert_eq!(spoilt(&|results| drop(results["summary"].as_object_mut().unwrap().remove("pass"))), 1);
    assert_eq!(spoilt(&|results| results["cells"][0]["failure"]["kind"] = "hang".into()), 2, "no null, and no failure");
}
