//! The HTTP clients: one for this machine, one for everywhere else, each made at its first use.

use std::error::Error as _;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use reqwest::{Client, ClientBuilder, NoProxy, Proxy, Url, redirect};

/// Reads one environment variable; blank ones count as unset.
pub type Vars = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// Time limits of one exchange, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Until a connection stands.
    pub connect_ms: u64,
    /// From sending to the first byte of the reply.
    pub first_byte_ms: u64,
    /// Between two pieces of a reply.
    pub idle_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connect_ms: 10_000, first_byte_ms: 120_000, idle_ms: 120_000 }
    }
}

/// Makes connections. Redirects are never followed; proxies of the environment are honoured, but
/// never for this machine (decision 1).
pub(crate) struct Http {
    vars: Vars,
    connect_ms: u64,
    near: OnceLock<Result<Client, String>>,
    far: OnceLock<Result<Client, String>>,
}

impl Http {
    pub(crate) fn new(vars: Vars, connect_ms: u64) -> Self {
        Self { vars, connect_ms, near: OnceLock::new(), far: OnceLock::new() }
    }

    /// Returns the client for an address; fails with a sentence if a proxy variable or the
    /// certificate roots are unusable.
    pub(crate) fn client(&self, url: &Url) -> Result<&Client, String> {
        let near = url.scheme() == "http" && is_loopback(url);
        let client = if near {
            self.near.get_or_init(|| self.make_near())
        } else {
            self.far.get_or_init(|| self.make_far())
        };
        client.as_ref().map_err(Clone::clone)
    }

    /// Plain HTTP to this machine needs no certificate roots; not reading them saves the time that
    /// a short command would notice.
    fn make_near(&self) -> Result<Client, String> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        self.common().no_proxy().tls_backend_preconfigured(config).build().map_err(|e| explain(&e))
    }

    fn make_far(&self) -> Result<Client, String> {
        // Whoever installed one first wins; there is only one in this build.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = self.common().no_proxy();
        for (name, make) in [
            ("https_proxy", Proxy::https as fn(String) -> reqwest::Result<Proxy>),
            ("all_proxy", Proxy::all),
        ] {
            let Some(address) = self.either_case(name) else { continue };
            let proxy = make(address)
                .map_err(|_| format!("{} is not an address of a proxy", name.to_uppercase()))?;
            builder = builder.proxy(proxy.no_proxy(NoProxy::from_string(&self.unproxied())));
        }
        builder.build().map_err(|error| explain(&error))
    }

    fn common(&self) -> ClientBuilder {
        Client::builder()
            .redirect(redirect::Policy::none())
            .retry(reqwest::retry::never())
            .connect_timeout(Duration::from_millis(self.connect_ms))
            .tcp_nodelay(true)
    }

    fn unproxied(&self) -> String {
        let listed = self.either_case("no_proxy").unwrap_or_default();
        format!("localhost,127.0.0.0/8,::1,{listed}")
    }

    fn either_case(&self, name: &str) -> Option<String> {
        (self.vars)(name).or_else(|| (self.vars)(&name.to_uppercase()))
    }
}

/// Says what went wrong with a request, without its address and with the innermost cause.
pub(crate) fn explain(error: &reqwest::Error) -> String {
    let mut text = match () {
        () if error.is_connect() => "no connection".to_string(),
        () if error.is_timeout() => "timed out".to_string(),
        () if error.is_body() || error.is_decode() => "the reply broke off".to_string(),
        () => "the request failed".to_string(),
    };
    let mut cause = error.source();
    let mut innermost = None;
    while let Some(error) = cause {
        innermost = Some(error.to_string());
        cause = error.source();
    }
    if let Some(innermost) = innermost {
        text = format!("{text}: {innermost}");
    }
    text
}

/// Tells whether an address is this machine.
pub(crate) fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Reads an address that may be asked at all: HTTPS, or HTTP to this machine, and nobody's name or
/// password in it. Fails with a sentence.
pub(crate) fn safe_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|_| "it is not an absolute address".to_string())?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("it holds a user name or password".into());
    }
    match url.scheme() {
        "https" if url.host_str().is_some() => Ok(url),
        "http" if is_loopback(&url) => Ok(url),
        "http" => Err("plain HTTP is only used to this machine".into()),
        _ => Err("it is neither HTTPS nor HTTP".into()),
    }
}

/// Returns scheme, host and port in one canonical form, the usual port left out.
pub(crate) fn origin(url: &Url) -> String {
    url.origin().ascii_serialization()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_https_and_loopback_are_safe() {
        for good in [
            "https://api.example.com/v1",
            "http://127.0.0.1:1/",
            "http://[::1]:9",
            "http://localhost/x",
        ] {
            assert!(safe_url(good).is_ok(), "{good}");
        }
        for bad in [
            "http://example.com",
            "http://127.0.0.1.example.com",
            "http://localhost.example.com",
            "ftp://127.0.0.1",
            "https://user:pw@example.com",
            "file:///etc/passwd",
            "/v1/messages",
            "",
        ] {
            assert!(safe_url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn origins_are_compared_in_one_form() {
        let of = |text: &str| origin(&Url::parse(text).unwrap());
        assert_eq!(of("https://API.example.com:443/x"), of("https://api.example.com"));
        assert_ne!(of("https://api.example.com:444"), of("https://api.example.com"));
        assert_ne!(of("https://api.example.com.evil.net"), of("https://api.example.com"));
    }

    #[test]
    fn an_unusable_proxy_is_named() {
        let vars: Vars = Arc::new(|name| (name == "HTTPS_PROXY").then(|| "::not a proxy::".into()));
        let http = Http::new(vars, 1_000);
        let error = http.client(&Url::parse("https://example.com").unwrap()).unwrap_err();
        assert!(error.contains("HTTPS_PROXY"), "{error}");
        assert!(http.client(&Url::parse("http://127.0.0.1:1").unwrap()).is_ok());
    }
}
