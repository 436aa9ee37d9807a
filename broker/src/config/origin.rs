//! Which web pages may connect. A browser tells the page's origin in every WebSocket handshake and lets nobody forge it, so
//! a page that is not on the list cannot use a visitor's reach to this broker (RFC 6455 §10.2).

use std::net::{Ipv4Addr, Ipv6Addr};

/// An allow-list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origins {
    any: bool,
    loopback: bool,
    exact: Box<[Box<str>]>,
}

impl Origins {
    /// # Errors
    /// With the words for people, if an entry is neither `*`, `loopback` nor an origin as browsers write it.
    pub fn new(list: &[impl AsRef<str>]) -> Result<Self, String> {
        let (mut any, mut loopback, mut exact) = (false, false, Vec::new());
        for entry in list.iter().map(AsRef::as_ref) {
            match entry {
                "*" => any = true,
                "loopback" => loopback = true,
                _ if is_origin(entry) => exact.push(entry.into()),
                _ => {
                    return Err(format!(
                        r#""{entry}" is not an origin: write "https://app.example.com" in small letters, without a path and without the default port"#
                    ));
                }
            }
        }
        Ok(Self {
            any,
            loopback,
            exact: exact.into(),
        })
    }

    /// Whether a handshake with this `Origin` header may go on; `None` if it has none, as outside browsers.
    pub fn allows(&self, origin: Option<&str>) -> bool {
        let Some(origin) = origin else { return true };
        self.any || self.exact.iter().any(|o| **o == *origin) || (self.loopback && is_loopback(origin))
    }

    /// Whether every page may connect.
    pub fn is_any(&self) -> bool {
        self.any
    }
}

/// `scheme://host` or `scheme://host:port`, as browsers write it.
fn is_origin(text: &str) -> bool {
    let Some((scheme, authority)) = text.split_once("://") else {
        return false;
    };
    let scheme_ok = !scheme.is_empty()
        && scheme
            .bytes()
            .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'+' | b'-' | b'.'));
    let default_port = match scheme {
        "http" => ":80",
        "https" => ":443",
        _ => "\0",
    };
    let (host, port) = split_port(authority);
    let host_ok = !host.is_empty()
        && (host
            .bytes()
            .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_'))
            || v6(host).is_some());
    scheme_ok
        && host_ok
        && port.is_none_or(|p| p.parse::<u16>().is_ok())
        && !authority.ends_with(default_port)
}

fn is_loopback(origin: &str) -> bool {
    let Some(authority) = origin
        .strip_prefix("http://")
        .or_else(|| origin.strip_prefix("https://"))
    else {
        return false;
    };
    let (host, port) = split_port(authority);
    port.is_none_or(|p| p.parse::<u16>().is_ok())
        && (host == "localhost"
            || host.parse::<Ipv4Addr>().is_ok_and(|ip| ip.is_loopback())
            || v6(host).is_some_and(|ip| ip.is_loopback()))
}

fn v6(host: &str) -> Option<Ipv6Addr> {
    host.strip_prefix('[')?.strip_suffix(']')?.parse().ok()
}

fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listed_pages_connect_and_programs_always() {
        let origins = Origins::new(&[
            "https://app.example.com",
            "http://[::1]:3000",
            "capacitor://localhost",
        ])
        .unwrap();
        assert!(origins.allows(None));
        for good in [
            "https://app.example.com",
            "http://[::1]:3000",
            "capacitor://localhost",
        ] {
            assert!(origins.allows(Some(good)), "{good}");
        }
        for bad in [
            "",
            "null",
            "http://app.example.com",
            "https://app.example.com:444",
            "https://app.example.com.evil.net",
            "https://evil.net/https://app.example.com",
            "HTTPS://APP.EXAMPLE.COM",
            "http://localhost",
        ] {
            assert!(!origins.allows(Some(bad)), "{bad}");
        }
    }

    #[test]
    fn loopback_means_this_machine_on_any_port() {
        let origins = Origins::new(&["loopback"]).unwrap();
        for good in [
            "http://localhost",
            "http://localhost:3000",
            "https://127.0.0.1:8443",
            "http://[::1]:80",
        ] {
            assert!(origins.allows(Some(good)), "{good}");
        }
        for bad in [
            "null",
            "http://localhost.evil.net",
            "http://127.0.0.1.evil.net",
            "http://evil.net:127",
            "http://localhost:evil",
            "http://localhost@evil.net",
            "ftp://localhost",
        ] {
            assert!(!origins.allows(Some(bad)), "{bad}");
        }
    }

    #[test]
    fn a_star_must_be_written() {
        assert!(!Origins::new(&[""; 0]).unwrap().allows(Some("https://a.example")));
        let any = Origins::new(&["*"]).unwrap();
        assert!(any.is_any() && any.allows(Some("null")));
    }

    #[test]
    fn entries_that_no_browser_would_send_are_refused() {
        for bad in [
            "",
            "app.example.com",
            "https://",
            "https://a/",
            "https://a:443",
            "http://a:80",
            "https://A",
            "https://a b",
            "https://*.a",
            "https://a:99999",
            "https://a:",
            "null",
        ] {
            assert!(Origins::new(&[bad]).is_err(), "{bad}");
        }
    }
}
