use std::fs;

use super::*;

fn conversation() -> Vec<Message> {
    vec![
        Message::new(Role::System, "Be brief."),
        Message::new(Role::User, "Hello"),
        Message::new(Role::Assistant, "Hi."),
        Message::new(Role::User, "Who are you?"),
    ]
}

#[test]
fn the_default_writes_a_line_a_turn() {
    let template = ChatTemplate::fallback();
    let text = template.render(&conversation(), true).unwrap();
    assert_eq!(
        text,
        "Be brief.\nUser: Hello\nAssistant: Hi.\nUser: Who are you?\nAssistant:"
    );
    assert_eq!(template.render(&conversation()[1..2], false).unwrap(), "User: Hello\n");
    assert_eq!(template.stop_strings(), ["\nUser:"]);
}

/// In the style of Llama 3: trimmed contents, special tokens, `loop.first`, a conditional prefix.
const HEADERS: &str = "{% set loop_messages = messages %}{% for message in loop_messages %}
    {% set content = '<|start|>' + message['role'] + '<|end|>\n' + message['content'] | trim + '<|eot|>' %}
    {% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}
    {{- content }}
{%- endfor %}
{% if add_generation_prompt %}{{ '<|start|>assistant<|end|>\n' }}{% endif %}";

#[test]
fn blocks_are_trimmed_as_transformers_does() {
    let template = ChatTemplate::from_text(HEADERS, "test", "<s>", "</s>").unwrap();
    let text = template.render(&[Message::new(Role::User, "  hi ")], true).unwrap();
    assert_eq!(text, "<s><|start|>user<|end|>\nhi<|eot|><|start|>assistant<|end|>\n");
}

#[test]
fn python_methods_and_functions_are_there() {
    let text = "{{ messages[0]['content'].strip().split(' ')[-1].upper() }} {{ messages[0]|tojson }}";
    let template = ChatTemplate::from_text(text, "test", "", "").unwrap();
    let text = template.render(&[Message::new(Role::User, " a <b ")], false).unwrap();
    assert_eq!(text, "<B {\"role\": \"user\", \"content\": \" a <b \"}");
}

#[test]
fn a_template_can_refuse_a_conversation() {
    let text = "{% if messages[0].role != 'user' %}\n{{ raise_exception('begin with a user') }}{% endif %}ok";
    let template = ChatTemplate::from_text(text, "model/chat_template.jinja", "", "").unwrap();
    let message = template.render(&conversation(), true).unwrap_err().to_string();
    assert!(
        message.starts_with("chat template of model/chat_template.jinja: begin with a user (line 2)"),
        "{message}"
    );
}

#[test]
fn a_broken_template_is_refused_when_it_is_read() {
    for text in ["{% for %}", "{{ unclosed", "{% if x %}"] {
        let message = ChatTemplate::from_text(text, "here", "", "").unwrap_err().to_string();
        assert!(
            message.starts_with("chat template of here: ") && !message.contains('\n'),
            "{message}"
        );
    }
}

#[test]
fn the_directory_is_searched_in_the_order_of_transformers() {
    let dir = tempfile::tempdir().unwrap();
    let render = || ChatTemplate::from_dir(dir.path()).map(|t| t.render(&[], true).unwrap());
    assert!(ChatTemplate::from_dir(dir.path()).unwrap().is_default());
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
    write(
        "tokenizer_config.json",
        r#"{"bos_token": {"content": "<s>"}, "eos_token": "</s>", "chat_template": "A{{bos_token}}{{eos_token}}"}"#,
    );
    assert_eq!(render().unwrap(), "A<s></s>");
    write(
        "chat_template.json",
        r#"{"chat_template": [{"name": "tools", "template": "x"}, {"name": "default", "template": "B"}]}"#,
    );
    assert_eq!(render().unwrap(), "B");
    write("chat_template.jinja", "C{{ bos_token }}");
    assert_eq!(render().unwrap(), "C<s>");
    assert!(ChatTemplate::from_dir(dir.path()).unwrap().stop_strings().is_empty());
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let refused = |text: &str| {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("tokenizer_config.json"), text).unwrap();
        ChatTemplate::from_dir(dir.path()).unwrap_err().to_string()
    };
    for text in ["{", r#"{"chat_template": 3}"#, r#"{"chat_template": []}"#] {
        let message = refused(text);
        assert!(message.contains("tokenizer_config.json: "), "{message}");
    }
}

#[test]
fn runaway_recursion_ends() {
    let text = "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}";
    let template = ChatTemplate::from_text(text, "test", "", "").unwrap();
    assert!(template.render(&[], false).is_err());
}
