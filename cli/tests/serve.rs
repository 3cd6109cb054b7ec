//! `onebit serve` as clients see it, well-behaved ones and others.
#![cfg(feature = "serve")]

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

const STORIES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/stories-mcu/stories-mcu.1bit");

/// A server that ends with the test.
struct Server {
    process: Child,
    port: u16,
    agent: ureq::Agent,
}

impl Server {
    fn start(options: &[&str]) -> Self {
        Self::start_with(options, None)
    }

    fn start_with(options: &[&str], key: Option<&str>) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_onebit"));
        command
            .args(["serve", "--model", STORIES, "--port", "0", "--threads", "2"])
            .args(options)
            .env_remove("ONEBIT_API_KEY")
            .stderr(Stdio::piped())
            .stdout(Stdio::null());
        if let Some(key) = key {
            command.env("ONEBIT_API_KEY", key);
        }
        let mut process = command.spawn().unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let port = loop {
            let line = lines.next().expect("the server says where it listens").unwrap();
            if let Some(at) = line.strip_prefix("listening on http://127.0.0.1:") {
                break at.parse().unwrap();
            }
        };
        // The rest is read, so that the server never waits for a reader.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        let config = ureq::Agent::config_builder().http_status_as_error(false).build();
        Self {
            process,
            port,
            agent: config.into(),
        }
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    fn get(&self, path: &str) -> (u16, String) {
        let mut response = self.agent.get(self.url(path)).call().unwrap();
        (
            response.status().as_u16(),
            response.body_mut().read_to_string().unwrap(),
        )
    }

    /// The status and the body of a request for an answer.
    fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let request = self.agent.post(self.url(path)).content_type("application/json");
        let mut response = request.send(body.to_string()).unwrap();
        let text = response.body_mut().read_to_string().unwrap();
        (response.status().as_u16(), serde_json::from_str(&text).unwrap())
    }

    /// The events of a stream.
    fn stream(&self, path: &str, body: &Value) -> Vec<Value> {
        let mut body = body.clone();
        body["stream"] = true.into();
        let request = self.agent.post(self.url(path)).content_type("application/json");
        let response = request.send(body.to_string()).unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        events(response.into_body().into_reader())
    }

    /// Waits until a figure of `/metrics` is `value`.
    fn wait_for(&self, name: &str, value: f64) {
        let start = Instant::now();
        loop {
            let (_, text) = self.get("/metrics");
            let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
            if line.unwrap().parse::<f64>().unwrap() == value {
                return;
            }
            assert!(start.elapsed() < Duration::from_secs(60), "{name}: {line:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn events(reader: impl Read) -> Vec<Value> {
    let mut all = Vec::new();
    for line in BufReader::new(reader).lines() {
        match line.unwrap().strip_prefix("data: ") {
            Some("[DONE]") => return all,
            Some(data) => all.push(serde_json::from_str(data).unwrap()),
            None => {}
        }
    }
    panic!("a stream without an end: {all:?}")
}

fn chat(text: &str) -> Value {
    json!({"messages": [{"role": "user", "content": text}], "max_tokens": 30, "seed": 7})
}

fn error(answer: &(u16, Value)) -> (u16, &str) {
    (answer.0, answer.1["error"]["message"].as_str().unwrap())
}

#[test]
fn a_stream_an_answer_and_generate_say_the_same() {
    let server = Server::start(&[]);
    assert_eq!(server.get("/health"), (200, r#"{"status":"ok"}"#.into()));
    let models: Value = serde_json::from_str(&server.get("/v1/models").1).unwrap();
    assert_eq!(models["data"][0]["id"], "stories-mcu");
    assert_eq!(server.get("/v1/models/stories-mcu").0, 200);
    assert_eq!(server.get("/v1/models/another").0, 404);

    let asked = json!({"model": "stories-mcu", "prompt": "The", "max_tokens": 40, "seed": 5, "temperature": 0.9});
    let (status, whole) = server.post("/v1/completions", &asked);
    assert_eq!(status, 200, "{whole}");
    let text = whole["choices"][0]["text"].as_str().unwrap();
    let arguments = [
        "generate",
        "--model",
        STORIES,
        "--prompt",
        "The",
        "--max-tokens",
        "40",
        "--seed",
        "5",
        "--kv-type",
        "f16",
    ];
    let made = common::onebit(&[&arguments[..], &["--temperature", "0.9", "--json"]].concat()).json();
    assert_eq!(made["text"], text);
    assert_eq!(whole["usage"]["completion_tokens"], made["tokens"]);
    let pieces = server.stream("/v1/completions", &asked);
    let joined: String = pieces
        .iter()
        .filter_map(|event| event["choices"][0]["text"].as_str())
        .collect();
    assert_eq!(joined, text);
    assert!(pieces.len() > 10, "{}", pieces.len());

    let mut asked = chat("Tell of a cow.");
    asked["stream_options"] = json!({"include_usage": true});
    let (_, whole) = server.post("/v1/chat/completions", &asked);
    let content = whole["choices"][0]["message"]["content"].as_str().unwrap();
    let events = server.stream("/v1/chat/completions", &asked);
    assert_eq!(events[0]["choices"][0]["delta"]["role"], "assistant");
    let joined: String = (events.iter())
        .filter_map(|event| event["choices"][0]["delta"]["content"].as_str())
        .collect();
    assert_eq!(joined.trim_end(), content);
    let last = events.last().unwrap();
    assert_eq!(last["usage"]["completion_tokens"], whole["usage"]["completion_tokens"]);
    assert_eq!(last["choices"], json!([]));
    let ended = &events[events.len() - 2]["choices"][0]["finish_reason"];
    assert_eq!(ended, &whole["choices"][0]["finish_reason"]);
}

#[test]
fn options_do_what_they_say() {
    let server = Server::start(&["--name", "tales"]);
    let mut asked = chat("Tell of a cow.");
    asked["n"] = 3.into();
    asked["logprobs"] = true.into();
    asked["top_logprobs"] = 2.into();
    let (_, answer) = server.post("/v1/chat/completions", &asked);
    let choices = answer["choices"].as_array().unwrap();
    assert_eq!(choices.len(), 3);
    assert_ne!(choices[0]["message"], choices[1]["message"]);
    for choice in choices {
        let tokens = choice["logprobs"]["content"].as_array().unwrap();
        assert!(!tokens.is_empty());
        for token in tokens {
            assert!(token["logprob"].as_f64().unwrap() <= 0.0 && token["bytes"].is_array());
            assert_eq!(token["top_logprobs"].as_array().unwrap().len(), 2);
        }
    }
    // Each answer alone is the same.
    let (_, again) = server.post("/v1/chat/completions", &chat("Tell of a cow."));
    assert_eq!(again["choices"][0]["message"], choices[0]["message"]);
    // A prompt counts once.
    assert_eq!(answer["usage"]["prompt_tokens"], again["usage"]["prompt_tokens"]);
    assert!(answer["usage"]["completion_tokens"].as_u64() > again["usage"]["completion_tokens"].as_u64());
    // A stop string ends an answer before it.
    let text = again["choices"][0]["message"]["content"].as_str().unwrap();
    let word = text.split(' ').nth(3).unwrap();
    let mut stopped = chat("Tell of a cow.");
    stopped["stop"] = json!([word]);
    let (_, answer) = server.post("/v1/chat/completions", &stopped);
    let choice = &answer["choices"][0];
    assert_eq!(choice["finish_reason"], "stop");
    assert!(text.starts_with(choice["message"]["content"].as_str().unwrap()));
    assert!(!choice["message"]["content"].as_str().unwrap().contains(word));
    // Parts of a message are its text.
    let mut parts = chat("");
    parts["messages"][0]["content"] = json!([{"type": "text", "text": "Tell of "}, {"type": "text", "text": "a cow."}]);
    let (_, answer) = server.post("/v1/chat/completions", &parts);
    assert_eq!(answer["choices"][0]["message"], again["choices"][0]["message"]);
    // Several prompts, as texts and as tokens, with what they begin with.
    let asked = json!({"prompt": ["The cow", "A hen"], "max_tokens": 3, "echo": true, "logprobs": 1});
    let (_, answer) = server.post("/v1/completions", &asked);
    let texts: Vec<&str> = (answer["choices"].as_array().unwrap().iter())
        .map(|choice| choice["text"].as_str().unwrap())
        .collect();
    assert!(
        texts[0].starts_with("The cow") && texts[1].starts_with("A hen"),
        "{texts:?}"
    );
    assert_eq!(answer["choices"][1]["logprobs"]["tokens"].as_array().unwrap().len(), 3);
    let (status, answer) = server.post("/v1/completions", &json!({"prompt": [[5, 6], [7]], "max_tokens": 1}));
    assert_eq!((status, answer["choices"].as_array().unwrap().len()), (200, 2));
}

#[test]
fn a_second_message_costs_its_own_tokens() {
    let server = Server::start(&[]);
    let first = chat("Tell of a cow and of a hen.");
    let (_, answer) = server.post("/v1/chat/completions", &first);
    let mut second = first.clone();
    let messages = second["messages"].as_array_mut().unwrap();
    messages.push(answer["choices"][0]["message"].clone());
    messages.push(json!({"role": "user", "content": "Go on."}));
    let (_, more) = server.post("/v1/chat/completions", &second);
    let (before, usage) = (&answer["usage"], &more["usage"]);
    let read =
        usage["prompt_tokens"].as_u64().unwrap() - usage["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap();
    let said = before["total_tokens"].as_u64().unwrap();
    let own = usage["prompt_tokens"].as_u64().unwrap() - said;
    // The line between the turns, and the last token of the answer, may be read with it.
    assert!(read <= own + 4, "{read} of {usage}, {own} of them new");
}

#[test]
fn what_makes_no_sense_is_refused_by_name_and_harms_nobody() {
    let server = Server::start(&["--max-body-kb", "8", "--context", "64"]);
    let post = |body: &Value| server.post("/v1/chat/completions", body);
    let with = |name: &str, value: Value| {
        let mut body = chat("Tell of a cow.");
        body[name] = value;
        body
    };
    for (name, value) in [
        ("temperature", json!(-1)),
        ("top_p", json!(2)),
        ("n", json!(0)),
        ("n", json!(1000)),
        ("max_tokens", json!(0)),
        ("stop", json!([""])),
        ("top_logprobs", json!(3)),
        ("tools", json!([{"type": "function"}])),
        ("response_format", json!({"type": "json_object"})),
        ("frequency_penalty", json!(0.5)),
        ("messages", json!([])),
        ("messages", json!([{"role": "wizard", "content": "x"}])),
        (
            "messages",
            json!([{"role": "user", "content": [{"type": "image_url"}]}]),
        ),
        ("messages", json!("x")),
    ] {
        let answer = post(&with(name, value.clone()));
        assert_eq!(error(&answer).0, 400, "{name} {value}: {answer:?}");
    }
    // What asks for nothing is no error.
    assert_eq!(post(&with("frequency_penalty", json!(0))).0, 200);
    assert_eq!(post(&with("tools", json!([]))).0, 200);
    assert_eq!(post(&with("user", json!("somebody"))).0, 200);
    assert_eq!(error(&post(&with("model", json!("gpt")))).0, 404);
    let long = chat(&"a cow and a hen ".repeat(100));
    let answer = post(&long);
    assert_eq!(
        (answer.0, &answer.1["error"]["code"]),
        (400, &json!("context_length_exceeded"))
    );
    assert_eq!(error(&post(&chat(&"x".repeat(10_000)))).0, 413);
    let send = |kind: &str, body: &[u8]| {
        let request = server.agent.post(server.url("/v1/completions")).content_type(kind);
        request.send(body).unwrap().status().as_u16()
    };
    assert_eq!(send("application/json", b"{\"prompt\": \xff}"), 400);
    assert_eq!(send("application/json", &[b'['; 5000]), 400);
    // What a page of somebody else's can send without asking.
    assert_eq!(send("text/plain", b"{\"prompt\": \"x\"}"), 415);
    let strange = server
        .agent
        .get(server.url("/v1/models"))
        .header("Host", "evil.example")
        .call();
    assert_eq!(strange.unwrap().status(), 403);
    assert_eq!(server.get("/nothing").0, 404);
    assert_eq!(server.get("/v1/completions").0, 405);
    assert_eq!(server.post("/v1/embeddings", &json!({"input": "x"})).0, 404);
    // No HTTP at all.
    let mut raw = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
    raw.write_all(&[0x16, 0x03, 0x01, 0, 0xff, b'\r', b'\n', b'\r', b'\n'])
        .unwrap();
    let _ = raw.read(&mut [0; 100]);
    assert_eq!(server.get("/health").0, 200);
}

#[test]
fn a_key_is_asked_for_where_there_is_one() {
    let server = Server::start_with(&[], Some("open sesame"));
    assert_eq!(server.get("/health").0, 200);
    assert_eq!(server.get("/").0, 200);
    for given in [
        None,
        Some("Bearer open"),
        Some("Bearer open sesamf"),
        Some("open sesame"),
    ] {
        let mut request = server.agent.get(server.url("/v1/models"));
        if let Some(given) = given {
            request = request.header("Authorization", given);
        }
        assert_eq!(request.call().unwrap().status(), 401, "{given:?}");
    }
    let request = server.agent.get(server.url("/v1/models"));
    assert_eq!(
        request
            .header("Authorization", "Bearer open sesame")
            .call()
            .unwrap()
            .status(),
        200
    );
}

/// A request for a stream that is long in coming, and its connection.
fn begin(server: &Server, tokens: u32) -> BufReader<TcpStream> {
    let mut socket = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
    let body =
        json!({"prompt": "The", "max_tokens": tokens, "stream": true, "temperature": 1.5, "top_k": 0}).to_string();
    let head = format!(
        "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    socket.write_all(head.as_bytes()).unwrap();
    socket.write_all(body.as_bytes()).unwrap();
    let mut reader = BufReader::new(socket);
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    assert!(
        line.starts_with("HTTP/1.1 200") || line.starts_with("HTTP/1.1 429"),
        "{line}"
    );
    reader
}

#[test]
fn who_is_slow_or_goes_away_makes_room_for_others() {
    let server = Server::start(&["--parallel", "2", "--queue", "0"]);
    // Heads and bodies that never end.
    let mut slow: Vec<TcpStream> = (0..20)
        .map(|_| TcpStream::connect(("127.0.0.1", server.port)).unwrap())
        .collect();
    for (number, socket) in slow.iter_mut().enumerate() {
        let text: &[u8] = match number % 2 {
            0 => b"POST /v1/compl",
            _ => b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{",
        };
        socket.write_all(text).unwrap();
    }
    assert_eq!(server.post("/v1/chat/completions", &chat("Tell.")).0, 200);
    // More answers at once than there are places, in one request.
    let mut many = chat("Tell.");
    many["n"] = 2.into();
    assert_eq!(server.post("/v1/chat/completions", &many).0, 200);
    let asked = json!({"prompt": ["a", "b"], "n": 2, "max_tokens": 2});
    assert_eq!(server.post("/v1/completions", &asked).0, 429);
    // Clients that read a line and leave.
    for _ in 0..50 {
        drop(begin(&server, 100_000));
    }
    server.wait_for("onebit_answers_active", 0.0);
    server.wait_for("onebit_answers_waiting", 0.0);
    let start = Instant::now();
    while server.post("/v1/chat/completions", &chat("Tell.")).0 != 200 {
        assert!(start.elapsed() < Duration::from_secs(60), "no room came");
    }
}

#[cfg(unix)]
#[test]
fn a_stop_finishes_what_was_begun() {
    let mut server = Server::start(&[]);
    let reader = begin(&server, 60);
    let pid = server.process.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    let told = events(reader);
    let finish = &told.last().unwrap()["choices"][0]["finish_reason"];
    assert!(finish == "length" || finish == "stop", "{told:?}");
    assert!(server.process.wait().unwrap().success());
    assert!(TcpStream::connect(("127.0.0.1", server.port)).is_err());
}
