//! What the comparison with `transformers` does not reach: names of errors and details of scopes.

use super::*;

fn render(text: &str) -> Result<String> {
    let messages = [Message::new(super::super::Role::User, "hi")];
    let now = chrono::DateTime::UNIX_EPOCH.naive_utc();
    let given = Given {
        messages: &messages,
        add_generation_prompt: false,
        bos_token: "<s>",
        eos_token: "",
        now,
    };
    super::render(text, &given)
}

fn ok(text: &str) -> String {
    render(text).unwrap_or_else(|fault| panic!("{text}: {fault:?}"))
}

fn refused(text: &str) -> String {
    match render(text) {
        Err(Fault::Wrong(message)) => message,
        other => panic!("{text}: {other:?}"),
    }
}

#[test]
fn names_live_in_their_scopes() {
    assert_eq!(
        ok("{% set x = 1 %}{% for i in [1, 2] %}{{ x }}{% set x = 9 %}{{ x }}{% endfor %}{{ x }}"),
        "19191"
    );
    assert_eq!(ok("{% if true %}{% set x = 2 %}{% endif %}{{ x }}"), "2");
    assert_eq!(ok("{% with x = 3 %}{{ x }}{% endwith %}{{ x is defined }}"), "3False");
    assert_eq!(
        ok(
            "{% macro f(a, b=a ~ '!') %}{{ a }}{{ b }}{{ c }}{% endmacro %}{% set c = 'C' %}{% for a in [7] %}{{ f(1) }}{{ f(b=2, a=3) }}{% endfor %}"
        ),
        "11!C32C"
    );
    assert_eq!(
        ok("{% for i in [1, 2, 3] if i != 2 %}{{ i }}{{ loop.last }}{% endfor %}"),
        "1False3True"
    );
}

#[test]
fn generation_marks_print_nothing_and_trim_as_blocks_do() {
    assert_eq!(ok("a{% generation %}\nb{%- endgeneration %} c"), "ab c");
    assert_eq!(ok("a {%- generation -%} b {%- endgeneration -%} c"), "abc");
    assert_eq!(
        ok(
            "{% for i in [1, 2] %}{% generation %}{{ i }}{% if i == 1 %}{% continue %}{% endif %}{% endgeneration %};{% endfor %}"
        ),
        "12;"
    );
    assert_eq!(
        ok("{{ '{% generation %}' }}{# {% generation %} #}{% raw %}{% generation %}{% endraw %}"),
        "{% generation %}{% generation %}"
    );
    assert!(refused("{% generation %}").contains("unexpected end"));
}

#[test]
fn faults_name_what_is_wrong() {
    for (text, expected) in [
        ("{{ 1 + 'a' }}", "`+` cannot be applied to an integer and a string"),
        ("{{ x + 'a' }}", "`x` is not defined"),
        ("{{ 'a'|nothing }}", "there is no filter `nothing`"),
        ("{{ 'a' is nothing }}", "there is no test `nothing`"),
        ("{{ nothing() }}", "there is no function `nothing`"),
        ("{{ 'a'.nothing() }}", "a string has no method `nothing`"),
        ("{{ 'a'|trim(1) }}", "`trim`: `chars` is an integer, expected a string"),
        ("{{ 'a'|trim('a', 'b') }}", "`trim` takes 1 arguments at most"),
        ("{{ 'a'|trim(what='a') }}", "`trim` has no argument `what`"),
        ("{{ 'a'|replace('a') }}", "`replace` needs the argument `new`"),
        (
            "{% macro f(a) %}{% endmacro %}{{ f(1, 2) }}",
            "the macro `f` takes 1 arguments",
        ),
        ("{% macro f(a) %}{% endmacro %}{{ f(1, a=2) }}", "no argument `a` left"),
        ("{{ messages.append(1) }}", "a template may not change values"),
        ("{% set a, b = [1] %}", "1 values cannot be given to 2 names"),
        ("{{ [3, 'a']|sort }}", "can be sorted"),
        ("{{ ['nan'|float, 1, 'x']|sort }}", "can be sorted"),
        ("{{ 1 < 'a' }}", "have no order"),
        ("\n\n{{ raise_exception('no\nway') }}", "no way (line 3)"),
    ] {
        let message = refused(text);
        assert!(message.contains(expected), "{text}: {message}");
    }
}

#[test]
fn numbers_that_are_none_have_an_order_too() {
    assert_eq!(ok("{{ ['nan'|float, 2, 1.5]|sort }}"), "[1.5, 2, nan]");
    assert_eq!(ok("{{ [2, 'inf'|float, -1]|sort(reverse=true) }}"), "[inf, 2, -1]");
}

/// As Jinja2 answers all of them.
#[test]
fn values_are_equal_and_in_order_as_in_python() {
    let check = |cases: &[&str], expected: &str| {
        for case in cases {
            assert_eq!(ok(&format!("{{{{ {case} }}}}")), expected, "{case}");
        }
    };
    check(
        &[
            "1 == 1.0",
            "1 == true",
            "0 == false",
            "1.5 == 1.5",
            "'a' == 'a'",
            "none == none",
            "x == y",
            "[1, 'a'] == [1.0, 'a']",
            "[[1], [2]] == [[1], [2]]",
            "[] == []",
            "{'a': 1, 'b': 2} == {'b': 2.0, 'a': 1}",
            "{'a': [1]} == {'a': [1]}",
            "{} == {}",
            "range == range",
        ],
        "True",
    );
    check(
        &[
            "2 == true",
            "1 == 2",
            "1 == 1.5",
            "'nan'|float == 'nan'|float",
            "'a' == 'b'",
            "'a' == 'ab'",
            "'1' == 1",
            "none == false",
            "x == none",
            "[1] == [1, 2]",
            "[1, 2] == [1]",
            "[1, 2] == [1, 3]",
            "[1, 2] == [3, 2]",
            "[] == {}",
            "{'a': 1} == {'a': 2}",
            "{'a': 1} == {'b': 1}",
            "{'a': 1} == {'a': 1, 'b': 2}",
            "{'a': 1, 'b': 2} == {'a': 1}",
            "namespace() == namespace()",
            "range == namespace",
            "9007199254740993 == 9007199254740992",
        ],
        "False",
    );
    let names = "{% set a = namespace() %}{% set b = a %}{% macro f() %}{% endmacro %}{% macro g() %}{% endmacro %}{% set h = f %}";
    assert_eq!(
        ok(&format!(
            "{names}{{{{ a == b }}}}{{{{ a == namespace() }}}}{{{{ f == h }}}}{{{{ f == g }}}}"
        )),
        "TrueFalseTrueFalse"
    );
    check(
        &[
            "1 < 2",
            "1 <= 1",
            "1 >= 1",
            "2 > 1.5",
            "1 < 1.5",
            "false < true",
            "'a' < 'b'",
            "'a' < 'aa'",
            "'B' < 'a'",
            "[1, 2] < [1, 3]",
            "[1] < [1, 0]",
            "[] < [0]",
            "[1, 2] <= [1, 2]",
            "['a', 1] < ['b', 0]",
            "[[1], 2] < [[1], 3]",
        ],
        "True",
    );
    check(
        &[
            "2 < 1",
            "1 < 1",
            "1 > 1",
            "'nan'|float < 1",
            "'nan'|float >= 1",
            "'b' < 'a'",
            "[1, 3] < [1, 2]",
            "[1, 0] < [1]",
            "[2] < [1, 5]",
            "[1, 2] < [1, 2]",
        ],
        "False",
    );
    check(
        &[
            "3 not in [1]",
            "1 < 2 not in [3]",
            "1 in [1, 2]",
            "1.0 in [1]",
            "'b' in 'abc'",
            "'a' in {'a': 1}",
            "'a' not in x",
            "'' in ''",
        ],
        "True",
    );
    check(
        &[
            "1 not in [1]",
            "1 < 2 not in [2]",
            "3 in [1]",
            "'d' in 'abc'",
            "1 in {'a': 1}",
            "'a' in x",
        ],
        "False",
    );
    assert!(refused("{{ 1 in 1 }}").contains("an integer cannot be in an integer"));
    // What it costs to look for a long text in a longer one is their sum.
    assert_eq!(ok("{{ ('b' * 10000) in 'a' * 100000 }}"), "False");
    for (value, expected) in [
        ("0", "no"),
        ("1", "yes"),
        ("0.0", "no"),
        ("0.5", "yes"),
        ("''", "no"),
        ("'a'", "yes"),
        ("[]", "no"),
        ("[0]", "yes"),
        ("{}", "no"),
        ("{'a': 0}", "yes"),
        ("none", "no"),
        ("x", "no"),
        ("true", "yes"),
        ("false", "no"),
        ("namespace()", "yes"),
    ] {
        assert_eq!(
            ok(&format!("{{{{ 'yes' if {value} else 'no' }}}}")),
            expected,
            "{value}"
        );
    }
}

/// What is compared is read, and levels that are too many to go down cannot be made.
#[test]
fn comparing_costs_what_it_reads_and_goes_down_few_levels() {
    let limit = |text: &str| matches!(render(text), Err(Fault::Limit(_)));
    let compared = |b: &str| {
        format!(
            "{{% set a = 'a' * 1000000 %}}{{% set b = {b} %}}{{% for i in range(100) %}}{{{{ a == b }}}}{{% endfor %}}"
        )
    };
    assert!(limit(&compared("'a' * 1000000")));
    // Texts of two lengths need not be read.
    assert_eq!(ok(&compared("'a' * 999999")), "False".repeat(100));
    let nested = |levels| {
        format!(
            "{{% set n = namespace(x=[]) %}}{{% for i in range({}) %}}{{% set n.x = [n.x] %}}{{% endfor %}}{{{{ n.x == n.x }}}}",
            levels - 1
        )
    };
    assert_eq!(ok(&nested(50)), "True");
    assert!(limit(&nested(51)));
}
