//! Looking up host names, without the answers that lead to this machine's own surroundings.
//!
//! A name is as good a way to a cloud's metadata service as its address: any domain may answer
//! with a link-local one, and the system also reads `2852039166` as 169.254.169.254.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use tower::Service;

/// The system's resolver for one registry and the places that it may send us to.
#[derive(Clone)]
pub struct Names {
    /// The registry's own host, as written.
    home: String,
    system: GaiResolver,
}

type Lookup = Pin<Box<dyn Future<Output = io::Result<std::vec::IntoIter<SocketAddr>>> + Send>>;

impl Names {
    /// A resolver for the registry at `authority` (`host:port`). That host alone may be a
    /// neighbour with a link-local address: it was named by an operator.
    #[must_use]
    pub fn new(authority: &str) -> Names {
        let parsed = authority.parse::<hyper::http::uri::Authority>();
        let home = parsed.map_or_else(|_| authority.to_owned(), |parsed| parsed.host().to_owned());
        Names { home, system: GaiResolver::new() }
    }
}

impl Service<Name> for Names {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Lookup;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.system.poll_ready(context)
    }

    fn call(&mut self, name: Name) -> Lookup {
        let is_home = name.as_str().eq_ignore_ascii_case(&self.home);
        let asked = name.as_str().to_owned();
        let lookup = self.system.call(name);
        Box::pin(async move {
            let found: Vec<SocketAddr> = lookup.await?.collect();
            if is_home {
                return Ok(found.into_iter());
            }
            usable(&asked, found).map(Vec::into_iter)
        })
    }
}

/// The addresses of `name` that may be connected to.
fn usable(name: &str, mut found: Vec<SocketAddr>) -> io::Result<Vec<SocketAddr>> {
    let all = found.len();
    found.retain(|address| !is_link_local(address.ip()));
    if found.is_empty() && all > 0 {
        return Err(io::Error::other(format!(
            "{name} leads to a link-local address, not followed"
        )));
    }
    Ok(found)
}

/// Addresses that only mean something to this machine's surroundings, such as a cloud's metadata.
pub(crate) fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => {
            let mapped = address.to_ipv4_mapped().is_some_and(|v4| v4.is_link_local());
            address.is_unicast_link_local() || mapped
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_local_answers_are_left_out() {
        let check = |found: &[&str], expected: Option<&[&str]>| {
            let parse = |texts: &[&str]| -> Vec<SocketAddr> {
                texts.iter().map(|text| text.parse().unwrap()).collect()
            };
            let kept = usable("storage.example", parse(found)).ok();
            assert_eq!(kept, expected.map(parse), "{found:?}");
        };
        check(&["192.0.2.1:443"], Some(&["192.0.2.1:443"]));
        check(&["169.254.169.254:80", "192.0.2.1:80"], Some(&["192.0.2.1:80"]));
        check(&["169.254.169.254:80"], None);
        check(&["[fe80::1]:80", "[::ffff:169.254.0.1]:80"], None);
        check(&["[2001:db8::1]:80"], Some(&["[2001:db8::1]:80"]));
        check(&[], Some(&[]));
    }

    #[tokio::test]
    async fn a_number_is_a_name_of_an_address_too() {
        let ask = async |authority: &str, name: &str| {
            let found = Names::new(authority).call(name.parse().unwrap()).await;
            found.map(Iterator::collect::<Vec<_>>).map_err(|error| error.to_string())
        };
        let refused = ask("registry.example:5000", "2852039166").await.unwrap_err();
        assert!(refused.contains("link-local"), "{refused}");
        let home = ask("2852039166:5000", "2852039166").await.unwrap();
        assert!(home.iter().all(|address| is_link_local(address.ip())) && !home.is_empty());
        let loopback = ask("registry.example:5000", "2130706433").await.unwrap();
        assert!(loopback.iter().all(|address| address.ip().is_loopback()));
    }
}
