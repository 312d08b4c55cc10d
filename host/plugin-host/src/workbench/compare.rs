//! How an answer differs from what a case expects.

use serde_json::Value;

/// What is expected and not so, one line each. An object names only what the case is about; a
/// list must be the same from end to end; `null` stands for absent; a text that ends in `*` is
/// a beginning.
pub fn differences(expected: &Value, actual: &Value) -> Vec<String> {
    let mut found = Vec::new();
    compare("answer", expected, actual, &mut found);
    found
}

pub(super) fn compare(path: &str, expected: &Value, actual: &Value, found: &mut Vec<String>) {
    match (expected, actual) {
        (Value::Object(expected), Value::Object(actual)) => {
            for (key, value) in expected {
                let got = actual.get(key).unwrap_or(&Value::Null);
                compare(&format!("{path}.{key}"), value, got, found);
            }
        }
        (Value::Array(expected), Value::Array(actual)) if expected.len() == actual.len() => {
            for (index, (expected, actual)) in expected.iter().zip(actual).enumerate() {
                compare(&format!("{path}[{index}]"), expected, actual, found);
            }
        }
        (Value::String(expected), Value::String(actual)) if begins(expected, actual) => {}
        _ if expected == actual => {}
        _ => found.push(format!("`{path}` is {actual}, expected {expected}")),
    }
}

fn begins(expected: &str, actual: &str) -> bool {
    expected
        .strip_suffix('*')
        .is_some_and(|beginning| actual.starts_with(beginning))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::differences;

    #[test]
    fn an_object_names_only_what_the_case_is_about() {
        let actual = json!({"verdict": "allow", "max_seconds": 60, "carry": {}});
        assert!(differences(&json!({"verdict": "allow"}), &actual).is_empty());
        assert!(differences(&json!({"max_bytes": null}), &actual).is_empty());
        let found = differences(&json!({"verdict": "deny", "max_seconds": 60}), &actual);
        assert_eq!(found, [r#"`answer.verdict` is "allow", expected "deny""#]);
    }

    #[test]
    fn lists_are_the_same_from_end_to_end() {
        let actual = json!({"accepted": ["a", "b"]});
        assert!(differences(&json!({"accepted": ["a", "b"]}), &actual).is_empty());
        for other in [json!(["a"]), json!(["b", "a"]), json!([])] {
            assert_eq!(differences(&json!({"accepted": other}), &actual).len(), {
                if other == json!(["b", "a"]) { 2 } else { 1 }
            });
        }
    }

    #[test]
    fn a_text_may_be_a_beginning() {
        let actual = json!("hash:0123");
        assert!(differences(&json!("hash:*"), &actual).is_empty());
        assert_eq!(differences(&json!("hash"), &actual).len(), 1);
        assert_eq!(differences(&json!("other:*"), &actual).len(), 1);
    }
}
