//! Depth, in values and in the source: the parser, the machine and whoever frees a tree go down it. And sources as large as they may be.

use crate::{End, MOST, check, often, run};

#[test]
fn nesting() {
    // In values: freeing or printing one goes down its levels.
    check(
        &often("{% set ns = namespace(l=[]) %}", "{% set ns.l = [ns.l] %}"),
        End::Limit,
    );
    check(
        &often("{% set ns = namespace(l={}) %}", "{% set ns.l = {'a': ns.l} %}"),
        End::Limit,
    );
    check(
        &often("{% set ns = namespace(l={}) %}", "{% set ns.l = dict(a=ns.l) %}"),
        End::Limit,
    );
    // A value that holds itself would never be freed.
    for text in [
        "{% set ns = namespace() %}{% set ns.me = ns %}{{ ns }}",
        "{% set ns = namespace() %}{% set ns.me = [ns] %}",
        "{% set ns = namespace() %}{% set ns.me = {'a': ns} %}",
        "{% set a = namespace() %}{% set b = namespace(a=a) %}",
        "{% for i in [1] %}{% set x = [loop] %}{% endfor %}",
        "{{ namespace() }}",
    ] {
        check(text, End::Refused);
    }
    // In the source: the parser and whoever frees its tree go down it.
    let deep = 100_000;
    let many = 20_000;
    for text in [
        format!("{{{{ {}1{} }}}}", "(".repeat(deep), ")".repeat(deep)),
        format!("{{{{ {}1{} }}}}", "[".repeat(deep), "]".repeat(deep)),
        "{% if x %}".repeat(deep),
        "x".repeat(1_000_000),
        "\n".repeat(1_000_000),
        format!("{{{{ 1{} }}}}", "+1".repeat(many)),
        format!("{{{{ x{} }}}}", ".a".repeat(many)),
        format!("{{{{ x{} }}}}", "|e".repeat(many)),
        format!("{{{{ x{} }}}}", "[0]".repeat(many)),
        format!("{{{{ x{} }}}}", "()".repeat(many)),
        format!("{{{{ {}x }}}}", "not ".repeat(10_000)),
        format!("{{{{ {}1 }}}}", "- ".repeat(many)),
        format!("{{{{ {}1 }}}}", "1 ~ ".repeat(10_000)),
        format!("{{{{ {}1 }}}}", "1 if 1 else ".repeat(5_000)),
        format!("{{{{ {}1 }}}}", "1 < ".repeat(10_000)),
        format!("{{{{ {}1 }}}}", "1 and ".repeat(10_000)),
        format!("{{% if x %}}{}{{% endif %}}", "{% elif x %}".repeat(5_000)),
    ] {
        check(&text, End::Limit);
    }
    // Below the bounds of the tokens: the parser's and the machine's own. None of them may take the stack.
    let shallow = [
        format!("{{{{ {}1{} }}}}", "(".repeat(400), ")".repeat(400)),
        format!("{{{{ {}1{} }}}}", "[".repeat(400), "]".repeat(400)),
        format!("{{{{ 1{} }}}}", "+1".repeat(450)),
        format!("{{{{ x{} }}}}", "|e".repeat(450)),
        format!("{{{{ {}x }}}}", "not ".repeat(900)),
        format!("{{{{ {}1 }}}}", "- ".repeat(900)),
        format!("{{{{ {}1 }}}}", "0 or ".repeat(450)),
        format!("{{% set s = {}x %}}", "1 if 0 else ".repeat(240)),
        format!("{}{}", "{% if true %}".repeat(400), "{% endif %}".repeat(400)),
        format!("{}{}", "{% for a in [1] %}".repeat(400), "{% endfor %}".repeat(400)),
    ];
    for text in shallow {
        let (result, held) = run(&text, "hello");
        assert!(held < MOST && result.is_err(), "{}", &text[..60]);
    }
    // As deep as both allow, with a macro that calls itself at the bottom.
    let levels = 40;
    let inner = format!(
        "{{% macro f() %}}{}{{{{ {}f(){} }}}}{}{{% endmacro %}}{{{{ f() }}}}",
        "{% if true %}".repeat(levels),
        "[".repeat(levels),
        "]".repeat(levels),
        "{% endif %}".repeat(levels)
    );
    check(&inner, End::Limit);
    let elifs = format!(
        "{{% if false %}}{}{{% else %}}x{{% endif %}}",
        "{% elif false %}".repeat(249)
    );
    check(&elifs, End::Done);
}

#[test]
fn sources_as_large_as_they_may_be() {
    for piece in [
        "{{ 1 }}",
        "{% if 1 %}{% endif %}",
        "{{[[[[1]]]]}}",
        "{% set a = 1 %}",
        "{# #}",
        "{{{}}}",
        "\n",
    ] {
        check(&piece.repeat(64_900 / piece.len()), End::Done);
    }
    let long = "a".repeat(30_000);
    check(&format!("{{% set {long} = 1 %}}{{{{ {long} }}}}"), End::Done);
    check(&format!("{{{{ '{}' }}}}", "\\u00e9".repeat(10_000)), End::Done);
    check(&format!("{{{{ {long}.x }}}}"), End::Refused);
}
