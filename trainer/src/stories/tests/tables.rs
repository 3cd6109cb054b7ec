//! What a table of rules must not be.

use super::*;

const AB: &[List<'static>] = &[List {
    name: "x",
    forms: &["s"],
    groups: &[Group {
        forms: &["as"],
        words: "a b",
    }],
}];

#[test]
fn unusable_tables_are_refused() {
    let rules = |rules: &[Rule<'_>]| Grammar::new(rules, AB).map(|_| ());
    let template = |rule: &str, what: &str| {
        Err(GrammarError::Template {
            rule: rule.to_owned(),
            what: what.to_owned(),
        })
    };
    assert_eq!(rules(&[("r", &["{x} and {x.s}", "no [x]"])]), Ok(()));
    let ambiguous = |first, second| {
        Err(GrammarError::Ambiguous {
            rule: "r".to_owned(),
            first,
            second,
        })
    };
    assert_eq!(rules(&[("r", &["c", "{x} one", "[x] one"])]), ambiguous(1, 2));
    assert_eq!(rules(&[("r", &["one", "one more"])]), ambiguous(0, 1));
    assert_eq!(rules(&[("r", &["", "one"])]), ambiguous(0, 1));
    assert_eq!(
        rules(&[("r", &["<s>b", "aab"]), ("s", &["a", "[x]"])])
            .unwrap_err()
            .to_string(),
        "rule `s`: alternatives 0 and 1 are not told apart by their first 32 bytes"
    );
    assert_eq!(
        rules(&[("r", &["{x.s} {x}"])]),
        template("r", "a form of `x` comes before the word itself")
    );
    assert_eq!(rules(&[("r", &["{x.t}"])]), template("r", "list `x` has no form `t`"));
    assert_eq!(
        rules(&[("r", &["[y]"])]),
        template("r", "`y` is not the name of a list")
    );
    assert_eq!(
        rules(&[("r", &["<q>"])]),
        template("r", "`q` is not the name of a rule")
    );
    assert_eq!(
        rules(&[("r", &["<r>"])]),
        template("r", "`r` must come after the rules that use it")
    );
    assert_eq!(rules(&[("r", &["[x"])]), template("r", "`[x` is not closed by `]`"));
    assert_eq!(rules(&[("r", &[])]), template("r", "has no alternative"));
    let lists = |words, forms: &[&str]| {
        let groups = &[Group { forms, words }];
        Grammar::new(
            &[("r", &["one"])],
            &[List {
                name: "x",
                forms: &[],
                groups,
            }],
        )
        .map(|_| ())
        .unwrap_err()
        .to_string()
    };
    assert_eq!(lists("", &[]), "list `x`: has no word");
    assert_eq!(lists("cat dog catfish", &[]), "list `x`: `cat` begins `catfish`");
    assert_eq!(
        lists("cat", &["cats"]),
        "list `x`: 0 forms expected in each group, found 1"
    );
    assert!(Grammar::new(&[], AB).is_err());
}
