//! Name servers: what networkd learned, written where every service reads it.
//!
//! Nobody else writes `resolv.conf`: the image's `/etc/resolv.conf` is a link to
//! `/run/bascule/etc/resolv.conf`. networkd's own state file, `/run/systemd/netif/state`, holds
//! `KEY=value` lines of which `DNS=` and `DOMAINS=` are used.

use std::fmt::Write as _;

/// The resolver library reads no more than this many servers.
const SERVERS_MAX: usize = 3;

/// networkd's own state file.
pub const NETWORKD: &str = "/run/systemd/netif/state";

/// What a networkd state file says of the whole network, such as `routable`.
pub fn operational(state: &str) -> Option<&str> {
    state.lines().find_map(|line| line.strip_prefix("OPER_STATE="))
}

/// The `resolv.conf` for a networkd state file; lines that are not understood are passed over.
pub fn from_networkd(state: &str) -> String {
    let mut out = String::from("# Written from what networkd learned.\n");
    let values = |key: &str| {
        state
            .lines()
            .filter_map(move |line| line.strip_prefix(key)?.strip_prefix('='))
            .flat_map(str::split_whitespace)
            .map(str::to_string)
            .collect::<Vec<_>>()
    };
    let domains: Vec<String> = values("DOMAINS").into_iter().filter(|d| is_domain(d)).collect();
    if !domains.is_empty() {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "search {}", domains.join(" "));
    }
    let servers = values("DNS").into_iter().filter(|server| {
        let address = server.split('%').next().unwrap_or(server);
        address.parse::<std::net::IpAddr>().is_ok()
    });
    for server in servers.take(SERVERS_MAX) {
        let _ = writeln!(out, "nameserver {server}");
    }
    out
}

fn is_domain(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 253
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.' || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::from_networkd;

    #[test]
    fn servers_and_domains_are_taken_and_nothing_else() {
        let state = "# private\nOPER_STATE=routable\nDNS=10.0.2.3 fe80::1%2 not-an-address\n\
                     DOMAINS=example.org bad;domain\nNTP=10.0.2.4\n";
        assert_eq!(
            from_networkd(state),
            "# Written from what networkd learned.\nsearch example.org\n\
             nameserver 10.0.2.3\nnameserver fe80::1%2\n"
        );
        assert_eq!(from_networkd(""), "# Written from what networkd learned.\n");
        assert_eq!(from_networkd("DNS=1.1.1.1 1.1.1.2 1.1.1.3 1.1.1.4").matches("name").count(), 3);
    }
}
