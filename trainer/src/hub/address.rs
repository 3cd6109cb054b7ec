//! Addresses: their origin, which decides where a token goes, and the place that a redirect or a link names.

use std::net::IpAddr;

use ureq::http::Uri;

/// An absolute `http` or `https` address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    text: String,
    origin: Origin,
}

/// Who answers: what must be equal for two addresses to share a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    secure: bool,
    host: String,
    port: u16,
}

impl Address {
    /// Reads an address; the error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let uri: Uri = text
            .parse()
            .map_err(|e| format!("{:?} is no address ({e})", without_query(text)))?;
        let secure = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => {
                return Err(format!(
                    "{:?} is no address, expected https://HOST or http://HOST",
                    without_query(text)
                ));
            }
        };
        let (Some(host), Some(authority)) = (uri.host(), uri.authority()) else {
            return Err(format!("{:?} names no host", without_query(text)));
        };
        if authority.as_str().contains('@') {
            return Err("it holds a name or password, which is not allowed".into());
        }
        let origin = Origin {
            secure,
            host: host.to_ascii_lowercase(),
            port: uri.port_u16().unwrap_or(if secure { 443 } else { 80 }),
        };
        Ok(Self {
            text: text.to_string(),
            origin,
        })
    }

    /// The address that `reference`, absolute or not, means in an answer from this one (RFC 3986 §5.2, without `..`).
    pub fn join(&self, reference: &str) -> Result<Self, String> {
        if reference.contains("://") && !reference.starts_with('/') {
            return Self::parse(reference);
        }
        let scheme = if self.origin.secure { "https" } else { "http" };
        if let Some(rest) = reference.strip_prefix("//") {
            return Self::parse(&format!("{scheme}://{rest}"));
        }
        let plain = without_query(&self.text);
        let path = plain[scheme.len() + 3..].find('/').map(|at| at + scheme.len() + 3);
        let root = &plain[..path.unwrap_or(plain.len())];
        if reference.starts_with('/') {
            return Self::parse(&format!("{root}{reference}"));
        }
        if reference.starts_with('?') {
            return Self::parse(&format!("{plain}{reference}"));
        }
        let folder = path.and_then(|_| plain.rfind('/')).map_or(root, |at| &plain[..at]);
        Self::parse(&format!("{folder}/{reference}"))
    }

    /// The whole address.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The address as people see it: without its query, which may be a signature.
    pub fn shown(&self) -> String {
        without_query(&self.text).to_string()
    }

    /// Who answers there.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }
}

impl Origin {
    /// Whether what is sent there is encrypted.
    pub fn is_secure(&self) -> bool {
        self.secure
    }

    /// Whether it is this machine.
    pub fn is_loopback(&self) -> bool {
        let bare = self.host.trim_start_matches('[').trim_end_matches(']');
        bare == "localhost" || bare.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
    }
}

fn without_query(text: &str) -> &str {
    text.split(['?', '#']).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_scheme_host_and_port() {
        let origin = |text: &str| Address::parse(text).unwrap().origin;
        assert_eq!(origin("https://HUB.example/a?b"), origin("https://hub.example:443"));
        for other in [
            "http://hub.example",
            "http://hub.example:443/",
            "https://hub.example:444/",
            "https://hub.example.evil/",
            "https://sub.hub.example/",
        ] {
            assert_ne!(origin("https://hub.example"), origin(other), "{other}");
        }
        for local in [
            "http://localhost:1",
            "http://127.0.0.1:1",
            "http://[::1]:1",
            "http://127.9.9.9",
        ] {
            assert!(origin(local).is_loopback(), "{local}");
        }
        for not in ["http://localhost.evil", "http://127.0.0.1.evil", "http://10.0.0.1"] {
            assert!(!origin(not).is_loopback(), "{not}");
        }
        for no in [
            "",
            "hub",
            "ftp://hub/",
            "https://",
            "/a",
            "https://a b/",
            "https://hub.example@evil/x",
            "https://u:p@hub/",
        ] {
            assert!(Address::parse(no).is_err(), "{no}");
        }
    }

    #[test]
    fn references_are_resolved() {
        let at = Address::parse("https://hub.example/a/b?c=d/e").unwrap();
        for (reference, expected) in [
            ("https://cdn.example/x?y", "https://cdn.example/x?y"),
            ("//cdn.example/x", "https://cdn.example/x"),
            ("/x/y", "https://hub.example/x/y"),
            ("x", "https://hub.example/a/x"),
            ("?x=1", "https://hub.example/a/b?x=1"),
            ("/x?u=http://y", "https://hub.example/x?u=http://y"),
        ] {
            assert_eq!(at.join(reference).unwrap().as_str(), expected, "{reference}");
        }
        let root = Address::parse("http://hub.example").unwrap();
        assert_eq!(root.join("x").unwrap().as_str(), "http://hub.example/x");
        assert_eq!(root.join("/x").unwrap().as_str(), "http://hub.example/x");
        assert!(at.join("ftp://x/").is_err());
        assert_eq!(at.shown(), "https://hub.example/a/b");
    }
}
