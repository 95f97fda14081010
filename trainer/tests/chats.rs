//! Chat templates of the kinds that people bring, the files they come in, and hostile ones.

use std::path::Path;
use std::time::Instant;

use rebel_trainer::models::chat::{ChatTemplate, Message};
use serde_json::{Value, json};

/// A folder with a template in `tokenizer_config.json`, and what renders it.
fn template(source: &str) -> ChatTemplate {
    let folder = tempfile::tempdir().unwrap();
    let config = json!({
        "bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": false}, "pad_token": null, "chat_template": source
    });
    write(folder.path(), "tokenizer_config.json", &config);
    ChatTemplate::load(folder.path()).unwrap().unwrap()
}

fn write(folder: &Path, name: &str, value: &Value) {
    std::fs::write(folder.join(name), value.to_string()).unwrap();
}

/// `[("user", "Hi"), ...]` as messages.
fn chat(turns: &[(&str, &str)]) -> Vec<Message> {
    turns.iter().map(|&(role, content)| Message::new(role, content)).collect()
}

fn rendered(source: &str, turns: &[(&str, &str)], prompt: bool) -> String {
    template(source).render(&chat(turns), prompt).unwrap()
}

/// What `source` makes of two turns, or what it reports, without the folder's path.
fn outcome(source: &str) -> Result<String, String> {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "tokenizer_config.json", &json!({"chat_template": source}));
    let turns = chat(&[("user", "Hi"), ("assistant", "Hello")]);
    let rendered = ChatTemplate::load(folder.path()).and_then(|template| template.unwrap().render(&turns, true));
    rendered.map_err(|error| error.to_string().strip_prefix(folder.path().to_str().unwrap()).unwrap().to_owned())
}

const TURNS: [(&str, &str); 3] = [("system", "Be kind."), ("user", " Hi \n"), ("assistant", "Hello!")];

#[test]
fn llama_3_headers_and_trimmed_contents() {
    let source = "{{- bos_token }}\n\
        {%- for message in messages %}\n    \
            {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim + '<|eot_id|>' }}\n\
        {%- endfor %}\n\
        {%- if add_generation_prompt %}\n    \
            {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}\n\
        {%- endif %}\n";
    let turn = |role: &str, text: &str| format!("<|start_header_id|>{role}<|end_header_id|>\n\n{text}");
    let whole = ["<s>".to_owned(), turn("system", "Be kind.<|eot_id|>"), turn("user", "Hi<|eot_id|>")].concat();
    assert_eq!(rendered(source, &TURNS[..2], true), whole.clone() + &turn("assistant", ""));
    assert_eq!(rendered(source, &TURNS, false), whole + &turn("assistant", "Hello!<|eot_id|>"));
}

#[test]
fn openchat_titles_roles_and_ends_turns() {
    let source = "{{ bos_token }}{% for message in messages %}\
        {{ 'GPT4 Correct ' + message['role'].title() + ': ' + message['content'] + '<|end_of_turn|>'}}{% endfor %}\
        {% if add_generation_prompt %}{{ 'GPT4 Correct Assistant:' }}{% endif %}";
    let text = "<s>GPT4 Correct User: Hi<|end_of_turn|>GPT4 Correct Assistant:";
    assert_eq!(rendered(source, &[("user", "Hi")], true), text);
}

#[test]
fn llama_2_and_mistral_fold_the_system_turn_in_and_demand_alternation() {
    let source = "{% if messages[0]['role'] == 'system' %}\
            {% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'].strip() %}\
        {% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}\
        {% for message in loop_messages %}\
            {% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}\
                {{ raise_exception('Roles must alternate user/assistant/user/assistant/...') }}{% endif %}\
            {% if loop.index0 == 0 and system_message != false %}\
                {% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}\
            {% else %}{% set content = message['content'] %}{% endif %}\
            {% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}\
            {% elif message['role'] == 'assistant' %}{{ ' ' + content.strip() + ' ' + eos_token }}\
            {% else %}{{ raise_exception('Only user and assistant roles are supported, got ' ~ message.role) }}{% endif %}\
        {% endfor %}";
    let text = "<s>[INST] <<SYS>>\nBe kind.\n<</SYS>>\n\n Hi [/INST] Hello! </s>";
    assert_eq!(rendered(source, &TURNS, true), text);
    let wrong = template(source).render(&chat(&[("assistant", "Hello")]), true).unwrap_err().to_string();
    let told = "tokenizer_config.json: chat_template: Roles must alternate user/assistant/user/assistant/... (line 1 of \
        the template)";
    assert!(wrong.ends_with(told), "{wrong}");
}

#[test]
fn qwen_3_walks_backwards_through_a_namespace_and_drops_old_thoughts() {
    let source = "{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}\n\
        {%- for message in messages[::-1] %}\n    \
            {%- set index = (messages|length - 1) - loop.index0 %}\n    \
            {%- if ns.multi_step_tool and message.role == \"user\" and message.content is string \
                and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}\n        \
                {%- set ns.multi_step_tool = false %}\n        {%- set ns.last_query_index = index %}\n    \
            {%- endif %}\n\
        {%- endfor %}\n\
        {%- for message in messages %}\n    \
            {%- set content = message.content if message.content is string else '' %}\n    \
            {%- if message.role == \"assistant\" %}\n        \
                {%- set reasoning = '' %}\n        \
                {%- if message.reasoning_content is string %}\n            \
                    {%- set reasoning = message.reasoning_content %}\n        \
                {%- elif '</think>' in content %}\n            \
                    {%- set reasoning = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}\n            \
                    {%- set content = content.split('</think>')[-1].lstrip('\\n') %}\n        \
                {%- endif %}\n        \
                {%- if loop.index0 > ns.last_query_index and (loop.last or reasoning) %}\n            \
                    {{- '<|im_start|>' + message.role + '\\n<think>\\n' + reasoning.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}\n        \
                {%- else %}\n            \
                    {{- '<|im_start|>' + message.role + '\\n' + content }}\n        \
                {%- endif %}\n        \
                {{- '<|im_end|>\\n' }}\n    \
            {%- elif message.role in [\"user\", \"system\"] %}\n        \
                {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}\n    \
            {%- endif %}\n\
        {%- endfor %}\n\
        {%- if add_generation_prompt %}\n    {{- '<|im_start|>assistant\\n' }}\n    \
            {%- if enable_thinking is defined and enable_thinking is false %}\n        \
                {{- '<think>\\n\\n</think>\\n\\n' }}\n    {%- endif %}\n{%- endif %}";
    let thought = "<think>\nold\n</think>\n\n4";
    let turns =
        [("user", "2+2?"), ("assistant", thought), ("user", "3+3?"), ("assistant", "<think>\nnew\n</think>\n\n6")];
    let before =
        "<|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\n4<|im_end|>\n<|im_start|>user\n3+3?<|im_end|>\n";
    assert_eq!(rendered(source, &turns[..3], true), format!("{before}<|im_start|>assistant\n"));
    let after = "<|im_start|>assistant\n<think>\nnew\n</think>\n\n6<|im_end|>\n";
    assert_eq!(rendered(source, &turns, false), format!("{before}{after}"));
}

#[test]
fn qwen_2_5_and_chatml_put_a_default_system_turn_and_tools_are_none() {
    let source = "{%- if tools %}\n    {{- 'tools: ' + (tools | tojson) }}\n{%- else %}\n    \
            {%- if messages[0]['role'] == 'system' %}\n        \
                {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}\n    \
            {%- else %}\n        {{- '<|im_start|>system\\nYou help.<|im_end|>\\n' }}\n    {%- endif %}\n{%- endif %}\n\
        {%- for message in messages %}\n    \
            {%- if (message.role == \"user\") or (message.role == \"system\" and not loop.first) or \
                (message.role == \"assistant\" and not message.tool_calls) %}\n        \
                {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}\n    \
            {%- endif %}\n\
        {%- endfor %}\n\
        {%- if add_generation_prompt %}\n    {{- '<|im_start|>assistant\\n' }}\n{%- endif %}\n";
    let user = "<|im_start|>user\n Hi \n<|im_end|>\n";
    let with = format!("<|im_start|>system\nBe kind.<|im_end|>\n{user}<|im_start|>assistant\n");
    assert_eq!(rendered(source, &TURNS[..2], true), with);
    let without = format!("<|im_start|>system\nYou help.<|im_end|>\n{user}");
    assert_eq!(rendered(source, &TURNS[1..2], false), without);
}

#[test]
fn gemma_renames_roles_and_refuses_a_system_turn() {
    let source = "{{ bos_token }}{% if messages[0]['role'] == 'system' %}\
        {{ raise_exception('System role not supported') }}{% endif %}\
        {% for message in messages %}{% if (message['role'] == 'assistant') %}{% set role = 'model' %}\
        {% else %}{% set role = message['role'] %}{% endif %}\
        {{ '<start_of_turn>' + role + '\\n' + message['content'] | trim + '<end_of_turn>\\n' }}{% endfor %}\
        {% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}";
    let text = "<s><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\nHello!<end_of_turn>\n";
    assert_eq!(rendered(source, &TURNS[1..], false), text);
    let refused = template(source).render(&chat(&TURNS), true).unwrap_err().to_string();
    assert!(refused.contains("chat_template: System role not supported"), "{refused}");
}

#[test]
fn zephyr_keeps_its_newlines_where_transformers_does() {
    // trim_blocks takes the newline after `%}`, not the one after `}}`; lstrip_blocks the spaces before `{%`
    let source = "{% for message in messages %}\n  {% if message['role'] == 'user' %}\n\
        {{ '<|user|>\\n' + message['content'] + eos_token }}\n{% elif message['role'] == 'assistant' %}\n\
        {{ '<|assistant|>\\n'  + message['content'] + eos_token }}\n{% endif %}\n\
        {% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}";
    assert_eq!(rendered(source, &[("user", "Hi")], true), "<|user|>\nHi</s>\n<|assistant|>\n");
}

#[test]
fn python_s_ways_hold_in_templates() {
    for (source, text) in [
        ("{{ {'a': 'é<&>', 'b': [1, 2.5, none, true]} | tojson }}", r#"{"a": "é<&>", "b": [1, 2.5, null, true]}"#),
        ("{{ {'b': 1, 'a': []} | tojson(indent=2, sort_keys=true) }}", "{\n  \"a\": [],\n  \"b\": 1\n}"),
        ("{{ 'é' | tojson(ensure_ascii=true) }}", "\"\\u00e9\""),
        ("{{ 'tool_response'.title() }}", "Tool_Response"),
        ("{{ 'a,b'.split(',')[-1] }}{{ ' x '.strip() }}{{ 'xxa'.lstrip('x') }}", "bxa"),
        ("{{ messages[0].get('nothing', 'else') }}{{ messages[0].items() | list | length }}", "else2"),
        ("{{ messages[-1].content }}{{ messages | map(attribute='role') | join('+') }}", "Hellouser+assistant"),
        ("{{ messages | selectattr('role', 'equalto', 'user') | list | length }}", "1"),
        ("{% for i in range(3) %}{% if i == 1 %}{% continue %}{% endif %}{{ i * 2 }}{% endfor %}", "04"),
        ("{{ '-' * 4 }}{{ ('ab' ~ 1) | upper }}{{ [1] + [2] }}", "----AB1[1, 2]"),
        ("{% macro m(x, y=2) %}<{{ x }}{{ y }}>{% endmacro %}{{ m(1) }}{{ m(1, y=3) }}", "<12><13>"),
        ("{% set text %}a{{ messages|length }}{% endset %}{{ text }}{{ nothing }}{{ true }}{{ none }}", "a2TrueNone"),
        ("{% for m in messages %}{%- generation -%} {{ m.content }} {%- endgeneration -%}{% endfor %}", "HiHello"),
        ("{%- generation %}\n  x\n{% endgeneration %}\n", "  x\n"),
        ("{{ 'x' if strftime_now('%Y') | int > 2023 else 'y' }}", "x"),
        ("{{ 'a' | replace('a', 'bb') | indent(2, true) }}", "  bb"),
        ("{# a note #}{{ documents is none and tools is none and bos_token == '<s>' }}", "True"),
        ("{{ 'a\nb\n' | indent(width=1) }}{{ ' x\x1c' | trim }}{{ 'a b'.split() | length }}", "a\n b\nx2"),
        ("{{ pad_token is defined }}", "False"),
    ] {
        assert_eq!(rendered(source, &[("user", "Hi"), ("assistant", "Hello")], false), text, "{source}");
    }
}

#[test]
fn templates_are_found_in_every_file_that_holds_them() {
    let load = |files: &[(&str, String)]| {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let rendered = ChatTemplate::load(folder.path())
            .and_then(|template| template.map(|t| t.render(&chat(&[("user", "Hi")]), true)).transpose());
        rendered.map_err(|e| e.to_string().replace(folder.path().to_str().unwrap(), ""))
    };
    let config = |template: Value| ("tokenizer_config.json", json!({"chat_template": template}).to_string());
    let named =
        |name: &str| json!([{"name": "tool_use", "template": "t"}, {"name": name, "template": "n{{ eos_token }}"}]);
    let map = ("special_tokens_map.json", json!({"eos_token": "E"}).to_string());
    assert_eq!(load(&[]), Ok(None));
    assert_eq!(load(&[config(Value::Null)]), Ok(None));
    assert_eq!(load(&[config("c".into())]), Ok(Some("c".into())));
    assert_eq!(load(&[config(named("default")), map.clone()]), Ok(Some("nE".into())));
    assert_eq!(load(&[config(json!({"default": "d"}))]), Ok(Some("d".into())));
    assert_eq!(load(&[config("c".into()), ("chat_template.jinja", "j\n".into())]), Ok(Some("j".into())));
    let legacy = ("chat_template.json", json!({"chat_template": "l"}).to_string());
    assert_eq!(load(std::slice::from_ref(&legacy)), Ok(Some("l".into())));
    assert_eq!(load(&[legacy, config("c".into())]), Ok(Some("c".into())));
    for (files, what) in [
        (vec![config(named("other"))], "chat_template: none is called default (there are: tool_use, other)"),
        (vec![config(3.into())], "chat_template: not a template"),
        (vec![config(json!([{"name": "default"}]))], "chat_template: not a template"),
        (vec![config("{% if %}".into())], "chat_template: "),
        (vec![config(json!({"default": "{{ a"}))], "chat_template.default: "),
        (vec![config("{% include 'other' %}".into())], "chat_template: blocks and other templates"),
        (vec![("chat_template.jinja", "{% for %}".into())], "/chat_template.jinja: template: "),
        (vec![("special_tokens_map.json", json!({"eos_token": 3}).to_string())], "eos_token: not a token"),
    ] {
        let error = load(&files).unwrap_err();
        assert!(error.contains(what) && !error.contains('\n'), "{error}");
    }
}

/// Peak memory of this process, bytes.
#[cfg(target_os = "linux")]
fn peak() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() << 10
}

#[test]
fn hostile_templates_end_in_one_line_soon_and_without_memory() {
    let start = Instant::now();
    for (source, what) in [
        ("{{ raise_exception('no\\nway') }}", r"no\nway"),
        ("{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}", "does not end"),
        ("{% for i in range(10**9) %}{% endfor %}", "range"),
        ("{{ range(10**18) | list }}", "range"),
        ("{{ 'x' * 10**9 }}", "too much"),
        ("{{ 'x' * 99999999 }}", "too much"),
        ("{{ 100000000 * 'x' }}", "too much"),
        ("{{ ('x',) * 100000000 }}", "too much"),
        ("{{ ['x'] * 100000000 }}", "too much"),
        ("{% set ns = namespace(s='x') %}{% for i in range(60) %}{% set ns.s = ns.s + ns.s %}{% endfor %}", "too much"),
        ("{% set ns = namespace(s='x') %}{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}", "too much"),
        (
            "{% set ns = namespace(s=['x']) %}{% for i in range(60) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
            "too much",
        ),
        ("{% set ns = namespace(s=['x']) %}{% for i in range(60) %}{% set ns.s = [ns.s, ns.s] %}{% endfor %}", ""),
        (
            "{% set ns = namespace(s=[]) %}{% for i in range(9000) %}{% set ns.s = [ns.s] %}{% endfor %}",
            "nested deeper",
        ),
        ("{% set ns = namespace() %}{% set ns.self = ns %}{{ ns }}", "nested deeper"),
        ("{% set ns = namespace() %}{% set ns.self = ns %}{{ ns == ns }}{{ {ns: 1} }}", "nested deeper"),
        (
            "{% set ns = namespace(s='x') %}{% for i in range(60) %}{% set ns.s = ns.s|replace('x', 'xx') %}{% endfor %}",
            "too much",
        ),
        (
            "{% set ns = namespace(s='x') %}{% for i in range(60) %}{% set ns.s = ns.s.replace('x', 'xx') %}{% endfor %}",
            "too much",
        ),
        ("{% set s = 'x' * 100000 %}{{ s.replace('x', s) }}", "too much"),
        ("{% set s = 'x' * 100000 %}{{ s | replace('', s) }}", "too much"),
        ("{% set s = 'x' * 100000 %}{{ s.join(range(100000)) }}", "too much"),
        ("{% set s = 'x' * 100000 %}{{ range(100000) | join(s) }}", "too much"),
        ("{% set s = 'x' * 100000 %}{{ [s] * 30 | map('replace', 'x', s) | list }}", ""),
        ("{{ 'a\nb' | indent(1000000000) }}{{ 'a\nb' | indent(width=1000000000) }}", "too much"),
        ("{{ '{:>1000000000}'.format('x') }}", "format"),
        ("{{ '%1000000000d' | format(1) }}", "format"),
        ("{{ [1] | batch(1000000000, 'x') | list }}", "batch"),
        ("{{ [1] | tojson(indent=1000000000) }}", "indent"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "recursion"),
        ("{% macro m(x) %}{{ x }}{{ m(x ~ x) }}{% endmacro %}{{ m('x') }}", ""),
        ("{% for x in [[]] recursive %}{{ loop([x]) }}{% endfor %}", ""),
        (
            "{% set ns = namespace(t='x') %}{% for i in range(60) %}{% set t %}{{ ns.t }}{{ ns.t }}{% endset %}{% set ns.t = t %}{% endfor %}",
            "too much",
        ),
        (
            "{% for i in range(100000) %}{% for j in range(1000) %}some words again and again{% endfor %}{% endfor %}",
            "",
        ),
        ("{{ m(*[1, 2]) }}", "not supported"),
        ("{{ messages | nothing }}", "nothing"),
        ("{{ messages.nothing.more }}", "undefined"),
        ("{{ nothing() }}", "nothing"),
        ("{{ messages[0].append(1) }}", "append"),
        ("{{ 1 / 0 }}", ""),
        ("{{ 9223372036854775807 * 9223372036854775807 * 9223372036854775807 }}", ""),
        ("{{ (-9223372036854775807 - 1) // -1 }}{{ raise_exception('x') }}", ""),
    ] {
        let told = outcome(source).unwrap_err();
        let place = "/tokenizer_config.json: chat_template";
        assert!(told.starts_with(place) && told.contains(what) && !told.contains('\n'), "{source}: {told}");
    }
    for (source, text) in [
        (
            "{% set ns = namespace(s=[]) %}{% for i in range(60) %}{% set ns.s = ns.s + ns.s %}{% endfor %}{{ ns.s }}",
            "[]",
        ),
        (
            "{% set ns = namespace(s=[1]) %}{% for i in range(9000) %}{% set ns.s = ns.s[0:] %}{% endfor %}{{ ns.s }}",
            "[1]",
        ),
        (
            "{% set ns = namespace(s=[1]) %}{% for i in range(9001) %}{% set ns.s = ns.s | reverse %}{% endfor %}{{ ns.s | list }}",
            "[1]",
        ),
    ] {
        assert_eq!(outcome(source).as_deref(), Ok(text), "{source}");
    }
    let nested = format!("{}1{}", "(".repeat(100_000), ")".repeat(100_000));
    assert!(outcome(&format!("{{{{ {nested} }}}}")).is_err());
    assert!(outcome(&"{% if true %}".repeat(50_000)).is_err());
    assert!(outcome(&"x".repeat(2 << 20)).unwrap_err().contains("bytes (expected at most"));
    assert!(start.elapsed().as_secs() < 60, "{:?}", start.elapsed());
    #[cfg(target_os = "linux")]
    assert!(peak() < 512 << 20, "{}", peak());
}

#[test]
fn long_chats_are_rendered_whole() {
    let turns: Vec<Message> =
        (0..600).map(|i| Message::new(["user", "assistant"][i % 2], "many words ".repeat(2000))).collect();
    let source = "{% for m in messages %}{{ m.role + ': ' + m.content.strip() | trim }}\n{% endfor %}";
    let text = template(source).render(&turns, true).unwrap();
    assert!(text.len() > 12_000_000, "{}", text.len());
}
