//! Where the Hub is and who asks.

use super::*;

fn from(pairs: &[(&str, &str)]) -> Result<HubOptions, HubError> {
    HubOptions::from_variables(&|name| {
        let found = pairs.iter().find(|(key, _)| *key == name);
        found.map(|(_, value)| value.to_string())
    })
}

#[test]
fn the_environment_is_read_as_others_read_it() {
    let options = from(&[]).unwrap();
    assert_eq!(
        (options.endpoint.as_str(), &options.token),
        ("https://huggingface.co", &None)
    );
    assert!(!options.plain_http);
    let options = from(&[("HF_ENDPOINT", " http://mirror.example "), ("HF_TOKEN", "hf_a\n")]).unwrap();
    assert_eq!(options.endpoint, "http://mirror.example");
    assert_eq!(options.token.as_deref(), Some("hf_a"));
    assert!(options.plain_http);
    assert!(!format!("{options:?}").contains("hf_a"));

    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().to_str().unwrap();
    let token = |pairs: &[(&str, &str)]| from(pairs).unwrap().token;
    assert_eq!(token(&[("HF_HOME", home)]), None);
    std::fs::write(dir.path().join("token"), "hf_file\n").unwrap();
    assert_eq!(token(&[("HF_HOME", home)]).as_deref(), Some("hf_file"));
    assert_eq!(
        token(&[("HF_HOME", home), ("HF_TOKEN", "hf_b")]).as_deref(),
        Some("hf_b")
    );
    assert_eq!(token(&[("HF_HOME", home), ("HF_TOKEN", "")]), None);
    let path = dir.path().join("token");
    assert_eq!(
        token(&[("HF_TOKEN_PATH", path.to_str().unwrap())]).as_deref(),
        Some("hf_file")
    );
    for folder in [".cache/huggingface", "huggingface"] {
        std::fs::create_dir_all(dir.path().join(folder)).unwrap();
        std::fs::write(dir.path().join(folder).join("token"), folder).unwrap();
    }
    assert_eq!(token(&[("HOME", home)]).as_deref(), Some(".cache/huggingface"));
    assert_eq!(
        token(&[("HOME", "/none"), ("XDG_CACHE_HOME", home)]).as_deref(),
        Some("huggingface")
    );
    assert!(matches!(from(&[("HF_TOKEN_PATH", home)]), Err(HubError::Io { .. })));
}

#[test]
fn settings_that_cannot_be_used_are_refused() {
    let made = |endpoint: &str, plain_http, token: Option<&str>| {
        Hub::new(HubOptions {
            endpoint: endpoint.into(),
            plain_http,
            token: token.map(str::to_string),
            ..HubOptions::default()
        })
        .map_err(own)
    };
    for good in [
        "https://hub.example",
        "https://hub.example/prefix/",
        "http://localhost:1",
        "http://[::1]:1",
    ] {
        made(good, false, Some("hf_x")).unwrap();
    }
    made("http://hub.example", true, None).unwrap();
    for bad in [
        "http://hub.example",
        "hub.example",
        "",
        "https://u:p@hub.example",
        "https://hub.example?x",
    ] {
        let error = made(bad, false, None).unwrap_err().to_string();
        assert!(error.contains("HF_ENDPOINT"), "{error}");
    }
    for bad in ["", "a b", "a\nb", "ü"] {
        let error = made("https://hub.example", false, Some(bad)).unwrap_err().to_string();
        assert!(error.contains("HF_TOKEN") && !error.contains("a b"), "{error}");
    }
    let nobody = Hub::new(HubOptions {
        endpoint: "http://127.0.0.1:1".into(),
        retries: 1,
        backoff: Duration::ZERO,
        ..HubOptions::default()
    });
    let error = nobody.unwrap().dataset(DATASET, "main").map_err(own).unwrap_err();
    assert!(matches!(error, HubError::Unreachable { attempts: 2, .. }), "{error}");
}

/// What stands between may speak plainly where an encrypted answer is due: that is said at once.
#[test]
fn no_secure_connection_is_an_error_and_no_retry() {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = std::thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        let mut hello = [0; 5];
        stream.read_exact(&mut hello).unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
        // The rest of the greeting, so that the connection is not reset.
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let _ = stream.read_to_end(&mut Vec::new());
        hello
    });
    let options = HubOptions {
        endpoint: format!("https://127.0.0.1:{port}"),
        token: Some("hf_secret".into()),
        ..HubOptions::default()
    };
    let error = Hub::new(options)
        .unwrap()
        .dataset(DATASET, "main")
        .map_err(own)
        .unwrap_err();
    assert!(matches!(error, HubError::Secure { .. }), "{error}");
    // A handshake (22) of TLS (3): nothing was said in the clear.
    assert_eq!(server.join().unwrap()[..2], [22, 3]);
}
