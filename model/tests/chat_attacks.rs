//! Templates that mean harm end in a named error, within 64 MiB of memory and a small stack.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use onebit_model::chat::{ChatError, ChatTemplate, Message, Role};

/// Most that a template may hold at once, in bytes, whatever it does.
const MOST: isize = 64 << 20;
/// The stack of the smallest threads that programs usually have.
const STACK: usize = 2 << 20;

/// Follows what the current thread holds.
struct Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    HELD.set(HELD.get() + bytes);
    PEAK.set(PEAK.get().max(HELD.get()));
}

// SAFETY: every call is passed on to the system's allocator; counting touches thread-local cells that never allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's layout, unchanged.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's layout, unchanged.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Old and new may both be there for a moment.
        count(size as isize);
        count(-(layout.size() as isize));
        // SAFETY: the caller's pointer and layout, unchanged.
        unsafe { System.realloc(ptr, layout, size) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller's pointer and layout, unchanged.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How an attack must end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    /// A bound is named.
    Limit,
    /// What it uses is refused by name.
    Refused,
    /// It is harmless here.
    Done,
}

/// Renders on a thread with a small stack; returns the result and the most that it held.
fn run(text: &str, content: &str) -> (Result<String, ChatError>, isize) {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK);
        let work = thread.spawn_scoped(scope, || {
            let messages = [Message::new(Role::User, content)];
            let before = HELD.get();
            PEAK.set(before);
            let result = ChatTemplate::from_text(text, "attack", "<s>", "</s>").and_then(|t| t.render(&messages, true));
            (result, PEAK.get() - before)
        });
        work.unwrap().join().unwrap()
    })
}

fn check(text: &str, end: End) {
    let shown: String = text.chars().take(120).collect();
    let (result, held) = run(text, "hello");
    assert!(held < MOST, "{shown}: held {held} bytes");
    let found = match &result {
        Ok(_) => End::Done,
        Err(ChatError::Limit { .. }) => End::Limit,
        Err(ChatError::Template { .. }) => End::Refused,
        Err(other) => panic!("{shown}: {other}"),
    };
    assert_eq!(found, end, "{shown}: {:?}", result.map(|text| text.len()));
    if let Err(error) = result {
        let message = error.to_string();
        assert!(message.len() < 1000 && !message.contains('\n'), "{message}");
    }
}

/// A loop around `body` with room to do harm.
fn often(before: &str, body: &str) -> String {
    format!("{before}{{% for i in range(100000) %}}{body}{{% endfor %}}")
}

#[test]
fn texts_that_grow() {
    let double = [
        "{% set ns.s = ns.s ~ ns.s %}",
        "{% set ns.s = ns.s + ns.s %}",
        "{% set ns.s = ns.s * 2 %}",
        "{% set ns.s = [ns.s, ns.s]|join %}",
        "{% set ns.s = ns.s.join(['a', ns.s]) %}",
        "{% set ns.s = ns.s|replace('x', 'xx') %}",
        "{% set ns.s = ns.s.replace('', 'x') %}",
        "{% set ns.s = [ns.s, ns.s]|string %}",
        "{% set ns.s = [ns.s, ns.s]|tojson %}",
        "{% set ns.s = ns.s|escape ~ '&&'|e %}{% set ns.s = ns.s|e %}",
        "{% set ns.s %}{{ ns.s }}{{ ns.s }}{% endset %}",
        "{% set ns.s %}{% filter upper %}{{ ns.s }}{{ ns.s }}{% endfilter %}{% endset %}",
        "{% set ns.s = ns.s|indent(1000) ~ '\n\n' ~ ns.s %}",
        "{% set ns.s = ns.s ~ strftime_now('%A' * 100000) %}",
        "{{ ns.s }}{{ ns.s }}{% set ns.s = ns.s ~ 'xxxxxxxxxxxxxxxx' %}",
    ];
    for body in double {
        check(&often("{% set ns = namespace(s='x') %}", body), End::Limit);
    }
    let macro_text = "{% macro twice(s) %}{{ s }}{{ s }}{% endmacro %}{% set ns = namespace(s='x') %}";
    check(&often(macro_text, "{% set ns.s = twice(ns.s) %}"), End::Limit);
    check(&often("", &"x".repeat(60_000)), End::Limit);
}

#[test]
fn single_operations_that_are_large() {
    for text in [
        "{{ 'x' * 10 ** 9 }}",
        "{{ 'x' * 9223372036854775807 }}",
        "{{ [1] * 10 ** 9 }}",
        "{{ ['x' * 1000] * 10000000 }}",
        "{{ range(10 ** 9) }}",
        "{% for x in range(10 ** 18) %}{% endfor %}",
        "{{ range(0 - 2 ** 62, 2 ** 62, 1)|length }}",
        "{{ 'x\n' * 1000|indent(10 ** 9) }}",
        "{{ 'a\nb'|indent(10 ** 9) }}",
        "{{ [1]|tojson(indent=10 ** 9) }}",
        "{{ [1]|tojson(indent='x' * 1000000) }}{{ ([1] * 1000)|tojson(indent='x' * 1000000) }}",
        "{{ ([1] * 100000)|join('x' * 100000) }}",
        "{{ ('x' * 1000000)|list }}",
        "{{ ('x ' * 1000000).split() }}",
        "{{ ('\n' * 5000000).splitlines() }}",
        "{{ 2 ** 63 }}",
        "{{ 9999999999999999999999 }}",
        "{% set a = 'x' * 10000000 %}{{ a ~ a ~ a }}",
    ] {
        check(text, End::Limit);
    }
    for text in [
        "{{ 'x'|center(10 ** 9) }}",
        "{{ 'x'.center(10 ** 9) }}",
        "{{ 'x'.ljust(10 ** 9) }}",
        "{{ '%1000000000d'|format(1) }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ '{:>1000000000}'.format(1) }}",
        "{{ 'x'.zfill(10 ** 9) }}",
        "{{ lipsum(10 ** 6) }}",
        "{{ [1]|batch(10 ** 9) }}",
        "{{ strftime_now('%') }}",
        "{{ strftime_now('%1000000000d') }}",
        "{{ range(1, 10, 0) }}",
        "{{ 1 % 0 }}{{ 1 // 0 }}",
        "{{ 'x'.split('') }}",
    ] {
        check(text, End::Refused);
    }
}

#[test]
fn work_without_end() {
    let nested = "{% for a in range(2000) %}".repeat(6) + &"{% endfor %}".repeat(6);
    check(&nested, End::Limit);
    for text in [
        "{% macro f(n) %}{{ f(n) }}{% endmacro %}{{ f(1) }}",
        "{% macro f(n) %}{{ f(n) }}{{ f(n) }}{% endmacro %}{{ f(1) }}",
        "{% macro f(n) %}{{ g(n) }}{% endmacro %}{% macro g(n) %}{{ f(n) }}{% endmacro %}{{ f(1) }}",
        // Two calls at each of some levels: few levels, many calls.
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(40) }}",
        // Searching, comparing and sorting what is large, over and over.
        "{% set s = 'a' * 1000000 %}{% for i in range(100000) %}{% set x = s ~ 'b' in s %}{% endfor %}",
        "{% set s = 'a' * 4000000 %}{% for i in range(100000) %}{% set x = 'b' in s %}{% endfor %}",
        "{% set s = 'a' * 4000000 %}{% for i in range(100000) %}{% set x = s.count('b') %}{% endfor %}",
        "{% set l = range(100000) %}{% for i in l %}{% set x = i in l %}{% endfor %}",
        "{% set l = range(20000)|list %}{% for i in l %}{% set x = l == range(20000) %}{% endfor %}",
        "{% set l = range(100000) %}{% for i in l %}{% set x = l|sort|first %}{% endfor %}",
        "{{ range(100000)|unique|length }}",
        "{% set ns = namespace(s='x' * 1000000) %}{% for i in range(100000) %}{% set x = ns.s|length %}{% endfor %}",
        "{% for i in range(100000) %}{% set x = range(100000)|map('string')|list %}{% endfor %}",
        "{% for i in range(100000) %}{% set x = messages[0].content.strip('abc' * 100000) %}{% endfor %}",
    ] {
        check(text, End::Limit);
    }
    let exponential = often(
        "{% set ns = namespace(l=[1]) %}",
        "{% if i < 40 %}{% set ns.l = [ns.l, ns.l] %}{% else %}{% set x = ns.l == ns.l %}{% endif %}",
    );
    check(&exponential, End::Limit);
    let printed =
        "{% set ns = namespace(l=[1]) %}{% for i in range(40) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}{{ ns.l }}";
    check(printed, End::Limit);
    check(&printed.replace("{{ ns.l }}", "{{ ns.l|tojson }}"), End::Limit);
    check(&printed.replace("[ns.l, ns.l]", "{'a': ns.l, 'b': ns.l}"), End::Limit);
}

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

/// Whatever stands in a file, there is a result: no panic, no end of the stack.
#[test]
fn mangled_templates_give_a_result() {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/chat");
    let names = ["llama31", "language", "alternating", "falcon3"];
    let sources = names.map(|name| std::fs::read_to_string(dir.join(format!("{name}.jinja"))).unwrap());
    let mut state = 1u64;
    let mut below = |n: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % n.max(1)
    };
    let pieces = [
        "{{",
        "}}",
        "{%",
        "%}",
        "{#",
        "#}",
        "-",
        "'",
        "\"",
        "[",
        "]",
        "(",
        ")",
        "|",
        ".",
        " is ",
        " not ",
        " if ",
        "loop",
        "{% generation %}",
        "{% endfor %}",
        "{% raw %}",
        "é",
        "\\",
        "\\x",
        "\0",
        "**",
        "//",
        "1e999",
        "99999999999999999999999999999999999999999",
        "0x",
        "~",
        ",",
        ":",
        "=",
        "%}{%",
    ];
    let (mut rendered, mut refused) = (0, 0);
    for round in 0..4000 {
        let mut text: Vec<char> = sources[round % sources.len()].chars().collect();
        for _ in 0..=below(4) {
            let (at, length) = (below(text.len()), below(12));
            let end = (at + length).min(text.len());
            match below(3) {
                0 => drop(text.drain(at..end)),
                1 => {
                    let copy: Vec<char> = text[at..end].to_vec();
                    let to = below(text.len());
                    text.splice(to..to, copy);
                }
                _ => drop(text.splice(at..at, pieces[below(pieces.len())].chars())),
            }
        }
        let text: String = text.into_iter().collect();
        let messages = [Message::new(Role::User, "hi"), Message::new(Role::Assistant, "ho")];
        match ChatTemplate::from_text(&text, "mangled", "<s>", "</s>").and_then(|t| t.render(&messages, true)) {
            Ok(_) => rendered += 1,
            Err(_) => refused += 1,
        }
    }
    assert!(
        rendered > 100 && refused > 100,
        "{rendered} rendered, {refused} refused"
    );
}

#[test]
fn what_lies_outside_is_out_of_reach() {
    for text in [
        "{% include 'secret' %}",
        "{% include ['a', 'b'] ignore missing %}",
        "{% extends 'secret' %}",
        "{% import 'secret' as s %}",
        "{% from 'secret' import s %}",
        "{% block a %}{{ self.a() }}{% endblock %}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.__init__.__globals__ }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{{ raise_exception.__globals__['os'] }}",
        "{{ ''|attr('__class__')|attr('mro') }}",
        "{{ self.__init__ }}",
        "{{ open('/etc/passwd').read() }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update({'role': 'system'}) }}",
        "{% set messages[0].role = 'system' %}",
        "{{ loop.cycle() }}",
        "{% for i in [1] %}{{ loop.cycle() }}{% endfor %}",
        "{% for i in [1] recursive %}{{ loop([1]) }}{% endfor %}",
        "{% macro f() %}{% macro g() %}{% endmacro %}{% endmacro %}{{ f() }}",
        "{% macro f() %}{% endmacro %}{% call f() %}x{% endcall %}",
        "{% autoescape true %}{% endautoescape %}",
        "{{ range(*[1]) }}",
        "{{ dict(**{'a': 1}) }}",
        "{% debug %}",
        "{{ 'x'.encode() }}",
    ] {
        check(text, End::Refused);
    }
}

#[test]
fn long_conversations_have_room() {
    let text = "{{ bos_token }}{% for m in messages %}{{ '<' ~ m.role ~ '>' ~ m.content.strip()|trim|replace('a', 'b') ~ eos_token }}{% endfor %}";
    let content = "a lot to say. ".repeat(200_000);
    let (result, held) = run(text, &content);
    let text = result.unwrap();
    assert_eq!(text.len(), "<s><user></s>".len() + content.trim().len());
    assert!(held < 40 * content.len() as isize, "{held}");
}

#[test]
fn an_error_says_what_where_and_why() {
    let (result, _) = run("line\n{{ 'x' * 10 ** 9 }}", "");
    let message = result.unwrap_err().to_string();
    assert!(
        message.starts_with("chat template of attack: it makes more than the 24 MiB that a template may")
            && message.contains("(line 2)"),
        "{message}"
    );
    let (result, _) = run("{{ nothing.at.all }}", "");
    let message = result.unwrap_err().to_string();
    assert!(message.contains("`nothing` is not defined (line 1)"), "{message}");
}
