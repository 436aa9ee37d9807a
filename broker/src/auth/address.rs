//! Which addresses an outgoing request may go to. An address that somebody else chose must not lead into the network that
//! this machine stands in.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Where requests may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// The public internet only.
    Public,
    /// Every single host, also of this machine and its network.
    Anywhere,
}

impl Reach {
    pub fn allows(self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        match self {
            Self::Public => is_public(address),
            Self::Anywhere => {
                !address.is_unspecified()
                    && !address.is_multicast()
                    && address != IpAddr::V4(Ipv4Addr::BROADCAST)
            }
        }
    }
}

/// By the special-purpose registries of IANA (RFC 6890 and its updates).
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

fn is_public_v4(v4: Ipv4Addr) -> bool {
    let [a, b, c, _] = v4.octets();
    !(a == 0
        || a >= 224
        || v4.is_private()
        || v4.is_loopback()
        || v4.is_link_local()
        || v4.is_documentation()
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 192 && b == 88 && c == 99)
        || (a == 198 && (18..20).contains(&b)))
}

fn is_public_v6(v6: Ipv6Addr) -> bool {
    let s = v6.segments();
    let low_v4 = Ipv4Addr::from_bits(v6.to_bits() as u32);
    match s {
        // NAT64 leads to the IPv4 address inside.
        [0x64, 0xff9b, 0, 0, 0, 0, _, _] => is_public_v4(low_v4),
        // 6to4 too.
        [0x2002, ..] => is_public_v4(Ipv4Addr::from_bits((u32::from(s[1]) << 16) | u32::from(s[2]))),
        // Teredo, benchmarking, ORCHID and the rest of 2001::/23; documentation.
        [0x2001, 0..0x200, ..] | [0x2001, 0xdb8, ..] | [0x3fff, 0..0x1000, ..] => false,
        // Global unicast is 2000::/3; all else is local, multicast or not given out.
        _ => s[0] & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_public_internet_is_public() {
        for public in [
            "1.1.1.1",
            "93.184.216.34",
            "2606:4700::1111",
            "::ffff:1.1.1.1",
            "64:ff9b::101:101",
            "2002:101:101::1",
        ] {
            assert!(Reach::Public.allows(public.parse().unwrap()), "{public}");
        }
        for private in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "2002:a00:1::1",
            "3fff::1",
            "5f00::1",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!Reach::Public.allows(private.parse().unwrap()), "{private}");
        }
    }

    #[test]
    fn anywhere_still_means_one_host() {
        for host in ["127.0.0.1", "10.0.0.1", "::1", "1.1.1.1"] {
            assert!(Reach::Anywhere.allows(host.parse().unwrap()), "{host}");
        }
        for bad in [
            "0.0.0.0",
            "::",
            "224.0.0.1",
            "ff02::1",
            "255.255.255.255",
            "::ffff:0.0.0.0",
            "::ffff:224.0.0.1",
        ] {
            assert!(!Reach::Anywhere.allows(bad.parse().unwrap()), "{bad}");
        }
    }
}
